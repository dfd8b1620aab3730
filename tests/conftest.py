"""Real servers for tests: a store on a fresh file, the command `clew`, and `clew serve` as a process of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy.orm import Session as OrmSession

from clew.query.app import build_app
from clew.storage import (
    Base,
    DatabaseSession,
    ExecutionEvent,
    Resource,
    Scope,
    Session,
    Store,
    WorkflowRun,
    WriteOutcome,
    close_database,
    get_db_session,
)
from clew.storage.hashed import Prepared

# The same examples everywhere, however busy the machine: a failure is the code's.
REPEATABLE = {"derandomize": True, "database": None, "deadline": None}
settings.register_profile("repeatable", **REPEATABLE, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# Commands that tests interrupt are to notice, also where a shell started the tests in the background, which ignores it.
signal.signal(signal.SIGINT, signal.default_int_handler)

STOP_S = 30
GATE_S = 60
FREE_PORTS = ("--grpc-port", "0", "--http-port", "0")
READY = ("OTLP/gRPC", "OTLP/HTTP", "API", "data")


@dataclass
class ServerProcess:
    """A `clew serve` that is ready. `announced` holds its readiness lines by their first word."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    folder: Path
    process: subprocess.Popen[str] = field(init=False)
    announced: dict[str, str] = field(init=False)
    rest: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.start()

    @property
    def grpc_target(self) -> str:
        """host:port of OTLP/gRPC."""
        return self.announced["OTLP/gRPC"]

    @property
    def http_url(self) -> str:
        """The root of everything on the HTTP port, without a slash at the end."""
        return self.announced["API"].removesuffix("/api/runs")

    @property
    def db(self) -> Path:
        return Path(self.announced["data"])

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def start(self) -> None:
        """Starts the process and waits until it has said that it is ready."""
        with (self.folder / "stderr").open("a") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "clew", "serve", *self.arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=self.folder,
                env=self.environment,
            )
        assert self.process.stdout
        lines = [self.process.stdout.readline().rstrip("\n") for _ in READY]
        assert all(lines), f"the server did not get ready: {lines}\n{self.stderr}"
        self.announced = {word: rest.strip() for word, _, rest in (line.partition(" ") for line in lines)}

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends the signal, waits for the end, returns the exit code. Does nothing to a process that has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(STOP_S)

    def read_until(self, end: str) -> None:
        """Reads on into `rest` until a line ends with `end`, or the process does."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.rest += line
            if line.rstrip("\n").endswith(end):
                break

    def close(self) -> None:
        """Ends the process, by force should it not end when told; that is an error all the same."""
        assert self.process.stdout
        try:
            self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self.process.stdout.close()

    def restart(self, number: int = signal.SIGTERM) -> None:
        """Ends the process by the signal and starts another with the same arguments, on the same file."""
        self.stop(number)
        self.start()


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if _is_a_setting(name)]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def new_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a new store, migrated once for all tests: that takes as long as many a test."""
    path = tmp_path_factory.mktemp("new") / "store.duckdb"
    Store.open(str(path)).close()
    return path


@pytest.fixture
def store(tmp_path: Path, new_file: Path) -> Iterator[Store]:
    """A new store on a file of its own."""
    opened = Store.open(shutil.copy(new_file, tmp_path))
    yield opened
    opened.close()


class Gate:
    """A store that a test can hold shut, or have refuse. `reached` once something is at the gate."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reached, self.open = threading.Event(), threading.Event()
        self.open.set()
        self.failure: Exception | None = None

    def write(self, batch: Prepared) -> WriteOutcome:
        self.reached.set()
        assert self.open.wait(GATE_S)
        if self.failure is not None:
            raise self.failure
        return self._store.write(batch)


@pytest.fixture
def gate(store: Store) -> Iterator[Gate]:
    """Stands open; what is behind it in the end comes through."""
    gate = Gate(store)
    yield gate
    gate.open.set()


@dataclass
class Rows:
    """Writes rows into `store` by themselves. Times are nanoseconds after START."""

    START = 1_750_000_000_000_000_000
    store: Store

    def add(self, *rows: Base) -> None:
        with OrmSession(self.store.engine) as session:
            session.add_all(rows)
            session.commit()

    def run(self, run_id: str, *, at: int = 0, lasts: int = 1_000, session_id: str = "default", **more: Any) -> str:
        """A run, whose session is there already unless it is `default`; gives its id."""
        with OrmSession(self.store.engine) as session:
            if session.get(Session, session_id) is None:
                session.add(Session(id=session_id, created_at_unix_nano=self.START))
                session.flush()
            bounds = {"started_at_unix_nano": self.START + at, "completed_at_unix_nano": self.START + at + lasts}
            figures = {"status": "completed", "event_count": 0, "error_count": 0, **more}
            last = {"last_started_at_unix_nano": self.START + at + lasts}
            session.add(WorkflowRun(id=run_id, session_id=session_id, **bounds, **last, **figures))
            session.commit()
        return run_id

    def event(self, run_id: str, number: int, parent: int | None = None, *, at: int = 0, **more: Any) -> str:
        """An event of a run that is there; gives its id, the number in hex."""
        with OrmSession(self.store.engine) as session:
            if session.get(Resource, 1) is None:
                session.add(Resource(id=1, service_name="workshop", dropped_attributes_count=0, attributes={}))
                session.add(Scope(id=1, name="tests", dropped_attributes_count=0, attributes={}))
                session.flush()
            started_at = self.START + at
            times = {"started_at_unix_nano": started_at, "completed_at_unix_nano": started_at + 10, "duration_ns": 10}
            said = {"name": f"step {number}", "event_type": "info", "status": "completed", "attributes": {}, **more}
            numbers = dict.fromkeys(("kind", "status_code", "flags"), 0)
            dropped = {f"dropped_{part}_count": 0 for part in ("attributes", "events", "links")}
            above = None if parent is None else f"{parent:016x}"
            keys = {"run_id": run_id, "id": f"{number:016x}", "parent_event_id": above, "resource_id": 1, "scope_id": 1}
            session.add(ExecutionEvent(**{**keys, **times, **numbers, **dropped, **said}))
            session.get_one(WorkflowRun, run_id).event_count += 1
            session.commit()
        return f"{number:016x}"


@pytest.fixture
def rows(store: Store) -> Rows:
    """Writes rows into `store`."""
    return Rows(store)


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """A server for `app` on a free port, while the `with` lasts; gives its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def api_client(store: Store) -> Iterator[httpx.Client]:
    """A client of the API over `store`, which a thread of this process serves."""
    app = build_app(store, registry=CollectorRegistry())
    with listening(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield client


@pytest.fixture
def database(tmp_path: Path) -> Iterator[str]:
    """A fresh file that the test opens itself, as an application does; closed at the end."""
    path = str(tmp_path / "application.duckdb")
    yield path
    close_database(path)


@pytest.fixture
def db_session(database: str) -> Iterator[DatabaseSession]:
    """A session on `database`."""
    with get_db_session(database) as session:
        yield session


@dataclass
class ApiReader:
    """Reads what the API answers, which is as the models describe it."""

    client: httpx.Client

    def get(self, path: str, model: type[BaseModel], /, **parameters: str | int | bool) -> Any:
        """The JSON that `path` answers."""
        response = self.client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        model.model_validate_json(response.content, strict=True)
        return response.json()

    def all_pages(self, path: str, model: type[BaseModel], listed: str, /, **parameters: str | int | bool) -> list[Any]:
        """What is listed on all pages, one after the other."""
        page = self.get(path, model, **parameters)
        met = page[listed]
        while page["next_cursor"]:
            page = self.get(path, model, **parameters, cursor=page["next_cursor"])
            met += page[listed]
        return list(met)


@pytest.fixture
def api_reader(api_client: httpx.Client) -> ApiReader:
    """Reads the API over `store`."""
    return ApiReader(api_client)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment for child processes: no settings of whoever runs the tests, a home of their own."""
    return _environment(tmp_path)


@pytest.fixture
def run_script(tmp_path: Path, environment: dict[str, str]) -> Callable[..., str]:
    """Runs a script of this folder, which has to end well within so many seconds; gives what it prints."""

    def run(name: str, *arguments: str, seconds_max: float) -> str:
        ended = subprocess.run(
            [sys.executable, str(Path(__file__).with_name(name)), *arguments],
            capture_output=True,
            text=True,
            timeout=seconds_max,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    return run


@pytest.fixture
def start_server(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., ServerProcess]]:
    """Starts `clew serve` on free ports with these arguments besides, and these environment variables."""
    started: list[ServerProcess] = []

    def start(*arguments: str, variables: Mapping[str, str] | None = None) -> ServerProcess:
        folder = tmp_path / f"server-{len(started)}"
        folder.mkdir()
        started.append(ServerProcess((*FREE_PORTS, *arguments), {**environment, **(variables or {})}, folder))
        return started[-1]

    yield start
    for server in started:
        server.close()


@pytest.fixture
def server(start_server: Callable[..., ServerProcess], tmp_path: Path) -> ServerProcess:
    """A `clew serve` on free ports and a fresh file."""
    return start_server("--db", str(tmp_path / "clew.duckdb"))


@pytest.fixture(scope="session")
def demo_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A `clew serve --demo` that all tests share: ask it, leave its data as it is. `rest` is what it has printed."""
    folder = tmp_path_factory.mktemp("demo")
    demo = ServerProcess((*FREE_PORTS, "--demo"), _environment(folder), folder)
    demo.read_until("/tree")
    yield demo
    demo.close()


@pytest.fixture
def clew(tmp_path: Path, environment: dict[str, str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command `clew` with these arguments to its end."""

    def run(*arguments: str, variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "clew", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            cwd=tmp_path,
            env={**environment, **(variables or {})},
            check=False,
        )

    return run


def _environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not _is_a_setting(name)}
    return {**kept, "HOME": str(home), "XDG_DATA_HOME": str(home / "data"), "COLUMNS": "80"}


def _is_a_setting(name: str) -> bool:
    return name.startswith(("CLEW_", "OTEL_")) or name.lower().endswith("_proxy")
