"""The client in Python: over HTTP and on a file, with the same answers."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

import clew
from clew import connection
from clew.connection import Connection
from clew.in_process import InProcess
from clew.storage import Store

RUN = "0000000000000000000000000000000a"
OTHER = "0000000000000000000000000000000b"


@pytest.fixture
def file(rows: Any, store: Store, tmp_path: Path) -> Path:
    """A copy of the store's file, with two runs in it; nobody holds it."""
    for number, run_id in enumerate((RUN, OTHER)):
        rows.run(run_id, at=number * 1_000, agent=f"agent {number}")
        top = rows.event(run_id, 1, at=number * 1_000, event_type="agent_call", agent_name=f"agent {number}")
        rows.event(run_id, 2, int(top, 16), at=number * 1_000 + 5, model="gpt-5", input_tokens=7)
    with store.engine.begin() as database:
        database.exec_driver_sql("CHECKPOINT")
    return Path(shutil.copy(store.path, tmp_path / "copy.duckdb"))


@pytest.fixture
def faces(file: Path, api_client: httpx.Client) -> Iterator[tuple[Connection, Connection]]:
    """Both ways to ask the same rows: a server, and the file."""
    with clew.connect(str(api_client.base_url)) as server, clew.open(file) as opened:
        yield server, opened


QUESTIONS: dict[str, Callable[[Connection], Any]] = {
    "runs": lambda asked: list(asked.runs()),
    "runs of an agent": lambda asked: list(asked.runs(agent="agent 1")),
    "run": lambda asked: asked.run(RUN),
    "tree": lambda asked: asked.tree(RUN),
    "tree of the latest run": lambda asked: asked.tree(),
    "tree below an event": lambda asked: asked.tree(RUN, root="0000000000000002"),
    "events": lambda asked: list(asked.events(RUN)),
    "statistics of a run": lambda asked: asked.statistics(RUN),
    "statistics": lambda asked: asked.statistics(group_by="agent", filter="input_tokens exists"),
    "search": lambda asked: list(asked.search('model = "gpt-5"')),
    "sql": lambda asked: asked.sql("SELECT name, duration_ns FROM execution_events WHERE id = ?", [2]).arrow(),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_a_file_answers_as_a_server_does(
    faces: tuple[Connection, Connection], question: Callable[[Connection], Any]
) -> None:
    """Every method, and there is something in the answer."""
    by_server, by_file = map(question, faces)
    assert by_server == by_file
    assert by_server


def test_rows_are_asked_for_page_by_page(faces: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them come, in order, however many pages that takes; and again when gone through again."""
    monkeypatch.setattr(connection, "PAGE_ROWS", 1)
    for asked in faces:
        runs, found = asked.runs(), asked.search()
        assert [run["id"] for run in runs] == [run["id"] for run in runs] == [OTHER, RUN]
        assert [(event["run"]["id"], event["id"][-1]) for event in found] == [
            (OTHER, "2"),
            (OTHER, "1"),
            (RUN, "2"),
            (RUN, "1"),
        ]


def test_a_run_is_named_by_the_start_of_its_id(faces: tuple[Connection, Connection]) -> None:
    """As on the command line; what names several is refused with their ids."""
    for asked in faces:
        assert asked.run(RUN[:-1] + "a")["id"] == RUN
        with pytest.raises(clew.ClientError, match=f"(?s){OTHER}.*{RUN}"):
            asked.run("0000")


def test_mistakes_come_as_the_server_says_them(faces: tuple[Connection, Connection]) -> None:
    """One exception, by whatever way."""
    for asked in faces:
        for question, message in (
            (lambda asked: asked.tree("f" * 32), "there is no run"),
            (lambda asked: list(asked.search("name =")), "a value should be here"),
            (lambda asked: list(asked.runs(since="yesterday")), "'yesterday' is not a time"),
            (lambda asked: asked.sql("DELETE FROM sessions"), "SELECT"),
        ):
            with pytest.raises(clew.ClientError, match=message):
                question(asked)


@pytest.mark.parametrize("parameter", [datetime(2026, 1, 31, tzinfo=UTC), b"bytes", float("nan")])
def test_parameters_that_json_has_no_form_for_are_told(faces: tuple[Connection, Connection], parameter: object) -> None:
    """With what to give instead."""
    for face in faces:
        with pytest.raises(clew.ClientError, match=r"a parameter cannot be sent: .*as text"):
            face.sql("SELECT ?", [parameter])


def test_sql_gives_arrow(faces: tuple[Connection, Connection]) -> None:
    """A table, and whatever takes Arrow takes the result; more rows than wanted are told of."""
    for asked in faces:
        result = asked.sql("SELECT id FROM workflow_runs ORDER BY id", limit=1)
        assert pa.table(result) == result.arrow()
        assert result.arrow().num_rows == 1
        assert list(result) == [{"id": RUN}]
        assert result.is_truncated
        assert not asked.sql("SELECT 1 WHERE $there", {"there": True}).is_truncated


def test_without_pandas_and_polars_a_frame_is_refused(
    faces: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With what to install; neither is needed for anything else."""
    monkeypatch.setattr(connection, "find_spec", lambda _name: None)
    for frame in (faces[0].runs().df, faces[1].sql("SELECT 1").df):
        with pytest.raises(ImportError, match="pandas or polars"):
            frame()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_rows_become_a_frame(
    faces: tuple[Connection, Connection], monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """Of whichever library is installed."""
    pytest.importorskip(library)
    monkeypatch.setattr(connection, "find_spec", lambda name: name if name == library else None)
    for asked in faces:
        assert asked.runs().df().shape[0] == 2
        assert list(asked.sql("SELECT 7 AS seven").df()["seven"]) == [7]


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """A typing error leaves no empty database behind."""
    with pytest.raises(clew.ClientError, match="there is no file"):
        clew.open(tmp_path / "none.duckdb")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_named_as_servers_are_told_it(file: Path) -> None:
    """Also by a database's URL; other databases are refused."""
    with clew.open(f"duckdb:///{file}") as opened:
        assert opened.run(RUN)["id"] == RUN
    with pytest.raises(clew.ClientError, match="sqlite is not supported"):
        clew.open("sqlite:///some.db")


def test_a_run_is_named_by_text(file: Path) -> None:
    """Anything else is told, and what to give instead."""
    with clew.open(file) as opened, pytest.raises(clew.ClientError, match="a run is named by text"):
        opened.tree(5)  # type: ignore[arg-type]


def test_a_file_that_a_server_holds_is_refused(server: Any) -> None:
    """With the process to blame; the server is the one to ask."""
    with pytest.raises(clew.ClientError, match=f"in use by process {server.process.pid}.*ask the server.*connect"):
        clew.open(server.db)


def test_a_file_that_is_open_here_is_refused(file: Path) -> None:
    """It is not somebody else who has to be looked for."""
    with clew.open(file), pytest.raises(clew.ClientError, match="open in this process already"):
        clew.open(file)


def test_what_is_under_way_is_answered_before_a_file_is_closed(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked on another thread."""
    begun, answer = threading.Event(), InProcess._answer

    async def answered(self: InProcess, request: httpx.Request) -> httpx.Response:
        begun.set()
        return await answer(self, request)

    monkeypatch.setattr(InProcess, "_answer", answered)
    opened = clew.open(file)
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(opened.sql, "SELECT count(*) FROM range(300000000) WHERE hash(range) % 7 = 3")
        assert begun.wait(60)
        opened.close()
        assert asked.result(timeout=60).arrow().num_rows == 1


@pytest.mark.parametrize("ends_by", ["", "1 / 0"], ids=["its end", "an error"])
def test_a_script_ends_that_closes_nothing(file: Path, ends_by: str) -> None:
    """And the file is closed in order: nothing is left beside it."""
    script = f"import clew; print(clew.open({str(file)!r}).run({RUN!r})['id']); {ends_by}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.returncode) == (f"{RUN}\n", 1 if ends_by else 0)
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(file.name)] == [file.name]


def test_one_run_takes_no_other_words(faces: tuple[Connection, Connection]) -> None:
    """They would be passed over."""
    for asked in faces:
        with pytest.raises(clew.ClientError, match="name it in `filter` instead"):
            asked.statistics(RUN, group_by="agent")


def test_fields_to_group_by_may_be_a_list(faces: tuple[Connection, Connection]) -> None:
    """It is as if they were written with commas."""
    for asked in faces:
        listed, written = asked.statistics(group_by=["agent", "model"]), asked.statistics(group_by="agent,model")
        assert listed["groups"] == written["groups"] != []


def test_rows_left_out_are_told(faces: tuple[Connection, Connection]) -> None:
    """Unless fewer were asked for."""
    for asked in faces:
        with pytest.warns(UserWarning, match="more rows than are answered at once"):
            assert len(asked.sql("FROM range(10001)").df()) == 10_000
        with warnings.catch_warnings(action="error"):
            assert len(asked.sql("FROM range(10001)", limit=10).df()) == 10


def test_a_closed_connection_says_so(file: Path) -> None:
    """Whatever it is asked."""
    with clew.open(file) as opened:
        pass
    for ask in (opened.run, lambda: list(opened.runs()), lambda: opened.sql("SELECT 1")):
        with pytest.raises(clew.ClientError, match="is closed"):
            ask()


def test_a_closed_file_is_anybodys(file: Path) -> None:
    """It can be opened again, and by others."""
    for _ in range(2):
        with clew.open(file) as opened:
            assert opened.run(RUN)["id"] == RUN
    Store.open(str(file)).close()


def test_no_server_is_told(tmp_path: Path) -> None:
    """With the first question, and with what to do."""
    with clew.connect("http://127.0.0.1:9") as nobody, pytest.raises(clew.ClientError, match="clew serve"):
        list(nobody.runs())


def test_the_server_is_the_one_that_the_commands_ask(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none is named."""
    monkeypatch.setenv("CLEW_URL", server.http_url)
    with clew.connect() as asked:
        assert list(asked.runs()) == []


def test_importing_clew_imports_nothing_heavy() -> None:
    """Neither an SDK nor a client nor a database: they come with their first use."""
    heavy = ("httpx", "pyarrow", "duckdb", "fastapi", "opentelemetry.sdk")
    script = f"import sys, clew; clew.__version__; sys.exit(sum(name in sys.modules for name in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
