"""The commands. Each imports what it needs when it runs, so that `clew --help` is there at once.

A user's mistake ends in one line on stderr and exit code 1, never in a traceback.
"""

import inspect
import json
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import __version__, terminal
from .settings import Settings

if TYPE_CHECKING:
    from .client import Client
    from .server import Addresses

TREE_DEPTH = 12
TREE_LINES = 200

app = typer.Typer(
    name="clew",
    help="A tracing backend for workflows of agents, over OpenTelemetry.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
migrate_app = typer.Typer(help="The revision of a database's schema.", no_args_is_help=True)
app.add_typer(migrate_app, name="migrate")

RunId = Annotated[str | None, typer.Argument(metavar="RUN", help="A run's id or the start of it; else the latest run.")]
Url = Annotated[str, typer.Option(envvar="CLEW_URL", help="The server to ask.")]
Limit = Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the API's answer as it came.")]
Database = Annotated[str | None, typer.Option(envvar="CLEW_DB", metavar="PATH", help="The database; as for `serve`.")]
Revision = Annotated[str, typer.Argument(help="A revision, as `clew migrate history` lists them.")]
LOCAL_URL = "http://127.0.0.1:4318"


def main() -> None:
    """The command `clew`."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without some sign shows "?" instead of failing
    app(prog_name="clew")


def _version(asked: bool) -> None:
    if asked:
        print(f"clew {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None: ...


@app.command()
def serve(**options: Any) -> None:
    """Take spans in over OTLP and answer questions about them, until Ctrl-C."""
    settings = Settings(**options)
    stop = _stop_on_signals()
    if not _is_loopback(settings.host):
        _warn(f"{settings.host} is open to other machines, and clew has no authentication yet")

    from .server import CannotServe, serving
    from .storage import StorageError

    with _mistakes_told(CannotServe, StorageError), serving(settings, on_end=stop.set) as addresses:
        _announce(addresses)
        if settings.demo and not stop.is_set():
            _show_demo(addresses)
        if sys.stdin.isatty():
            _say("press Ctrl-C to stop")
        stop.wait()


# Typer reads a command's options from its signature: the fields of the settings are the options.
vars(serve)["__signature__"] = inspect.signature(Settings)


@app.command()
def runs(
    session: Annotated[str | None, typer.Option(help="Only runs of this session.")] = None,
    status: Annotated[str | None, typer.Option(help="Only running, completed or failed runs.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    since: Annotated[str | None, typer.Option(help="Only runs that began after this: -1h, -7d, or RFC 3339.")] = None,
    limit: Limit = 20,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    filters = {"session_id": session, "status": status, "agent": agent, "since": since, "limit": limit}
    with _asking(url) as client:
        answer = client.get("/api/runs", **filters)
    if as_json:
        _say(answer)
    else:
        terminal.draw_runs(terminal.console(), json.loads(answer))


@app.command()
def tree(
    run: RunId = None,
    root: Annotated[str | None, typer.Option(metavar="EVENT", help="Draw this event and what is below it.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="How many levels below the top to draw.")] = TREE_DEPTH,
    limit: Annotated[int, typer.Option(min=1, help="How many lines to draw at most.")] = TREE_LINES,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Draw a run as a tree of its events."""
    with _asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/tree", root=root)
    if as_json:
        _say(answer)
    else:
        terminal.draw_tree(terminal.console(), json.loads(answer), depth_max=depth, lines_max=limit)


@app.command()
def stats(run: RunId = None, url: Url = LOCAL_URL, as_json: AsJson = False) -> None:
    """Sum a run up: durations, errors, tokens and cost, by agent, type and model."""
    with _asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/statistics")
    if as_json:
        _say(answer)
    else:
        terminal.draw_statistics(terminal.console(), json.loads(answer))


@app.command()
def files(
    run: RunId = None,
    role: Annotated[str | None, typer.Option(help="Only output (written) or input (read) files.")] = None,
    file_type: Annotated[str | None, typer.Option("--type", help="Only files of this type.")] = None,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List the files of a run and who wrote or read them, in order of time."""
    filters = {"role": role, "file_type": file_type, "limit": limit}
    with _asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/files", **filters)
    if as_json:
        _say(answer)
    else:
        terminal.draw_files(terminal.console(), json.loads(answer))


@app.command()
def messages(
    run: RunId = None,
    sender: Annotated[str | None, typer.Option(help="Only messages from this sender.")] = None,
    recipient: Annotated[str | None, typer.Option(help="Only messages to this recipient.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only messages of this agent's events.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Show contents whole, not one line each.")] = False,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List the messages of a run: who said what to whom, in order of time."""
    filters = {"sender": sender, "recipient": recipient, "agent_name": agent, "full": full or None, "limit": limit}
    with _asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/messages", **filters)
    if as_json:
        _say(answer)
    else:
        terminal.draw_messages(terminal.console(), json.loads(answer), full=full)


@app.command()
def graph(run: RunId = None, url: Url = LOCAL_URL, as_json: AsJson = False) -> None:
    """Draw the graph of a run: its nodes in working order, each with what it waits for."""
    with _asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/graph")
    if as_json:
        _say(answer)
    else:
        terminal.draw_graph(terminal.console(), json.loads(answer))


@migrate_app.command()
def upgrade(revision: Revision = "head", db: Database = None) -> None:
    """Bring a database up to a revision; the newest unless told."""
    with _database(db) as (migrate, engine):
        migrate.upgrade(engine, revision)
        _say(migrate.current(engine) or "base")


@migrate_app.command()
def downgrade(revision: Revision, db: Database = None) -> None:
    """Take a database down to a revision; `base` empties it."""
    with _database(db, must_exist=True) as (migrate, engine):
        migrate.downgrade(engine, revision)
        _say(migrate.current(engine) or "base")


@migrate_app.command()
def current(db: Database = None) -> None:
    """Print a database's revision."""
    with _database(db, must_exist=True) as (migrate, engine):
        _say(migrate.current(engine) or "base")


@migrate_app.command()
def history() -> None:
    """List every revision, oldest first."""
    from .storage import migrate

    for revision, _, message in migrate.history():
        _say(f"{revision}  {message}")


@contextmanager
def _database(db: str | None, *, must_exist: bool = False) -> Iterator[tuple[Any, Any]]:
    """The migrations and an engine on the database they work on."""
    from .storage import StorageError, migrate
    from .storage.engine import database_path, open_engine

    with _mistakes_told(StorageError):
        path = database_path(Settings(db=db).database)
        if must_exist and not path.exists():
            raise StorageError(f"there is no {path}; name a database with --db")
        engine = open_engine(path)
        try:
            yield migrate, engine
        finally:
            engine.dispose()


@contextmanager
def _asking(url: str) -> "Iterator[Client]":
    from .client import Client, ClientError

    with _mistakes_told(ClientError):
        yield Client(url)


@contextmanager
def _mistakes_told(*mistakes: type[Exception]) -> Iterator[None]:
    try:
        yield
    except mistakes as mistake:
        print(f"clew: {mistake}", file=sys.stderr)
        raise typer.Exit(1) from mistake


def _stop_on_signals() -> threading.Event:
    """An event that SIGTERM and Ctrl-C set. A second Ctrl-C ends the process at once: what is committed is safe."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    return stop


def _announce(addresses: "Addresses") -> None:
    _say(f"OTLP/gRPC  {addresses.otlp_grpc}")
    _say(f"OTLP/HTTP  {addresses.http}/v1/traces")
    _say(f"API        {addresses.http}/api/runs")
    _say(f"data       {addresses.data}")


def _show_demo(addresses: "Addresses") -> None:
    from .exporter.demo import NotRecorded, record

    with _mistakes_told(NotRecorded), _asking(addresses.http) as client:
        run_id = record(addresses.otlp_grpc)
        answer = client.get(f"/api/runs/{run_id}/tree")
    _say("")
    terminal.draw_tree(terminal.console(), json.loads(answer), depth_max=TREE_DEPTH, lines_max=TREE_LINES)
    asked = run_id[: terminal.SHORT_ID_DIGITS] + ("" if addresses.http == LOCAL_URL else f" --url {addresses.http}")
    _say("\nlook at it from another terminal")
    for command in ("tree", "stats", "files", "messages", "graph"):
        _say(f"  {_own_name()} {command} {asked}")
    _say(f"  {addresses.http}/api/runs/{run_id}/tree\n")


def _own_name() -> str:
    """What this command is called by in the shell it was started from, which may not have its folder on PATH."""
    if shutil.which("clew"):
        return "clew"
    return "python -m clew" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _say(line: str) -> None:
    print(line, flush=True)


def _warn(text: str) -> None:
    print(f"clew: warning: {text}", file=sys.stderr, flush=True)
