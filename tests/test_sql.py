"""SQL over HTTP: what it answers, in which forms, and what is told of the schema."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pyarrow as pa
import pytest

from clew.query.sql_answers import SqlQuestion, SqlRows, SqlSchema
from clew.query.sql_api import _JSON_FORM, SqlDesk
from clew.storage import (
    AgentRun,
    Base,
    CostRecord,
    File,
    SqlLimits,
    Store,
    WorkflowRun,
    column_sentence,
    table_sentence,
)
from clew.storage.schema import VIEWS

CSV = {"accept": "text/csv"}
ARROW = {"accept": "application/vnd.apache.arrow.stream"}
DOCS = Path(__file__).parent.parent / "docs" / "sql.md"
RUN, OTHER = "a" * 32, "b" * 32


def _ask(client: httpx.Client, query: str, **more: Any) -> Any:
    response = client.post("/api/sql", json={"query": query, **more})
    assert response.status_code == 200, response.text
    SqlRows.model_validate_json(response.content)
    return response.json()


def _dicts(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    answer = _ask(client, query)
    names = [column["name"] for column in answer["columns"]]
    return [dict(zip(names, row, strict=True)) for row in answer["rows"]]


VALUES = {
    "9007199254740992": 9007199254740992,
    "9007199254740993": "9007199254740993",
    "170141183460469231731687303715884105727::HUGEINT": "170141183460469231731687303715884105727",
    "340282366920938463463374607431768211455::UHUGEINT": "340282366920938463463374607431768211455",
    "0.0354::DECIMAL(18, 12)": 0.0354,
    "2::DECIMAL(18, 12)": 2,
    "[0.0354::DECIMAL(18, 12), 0.12345678901234567890123::DECIMAL(30, 25)]": [0.0354, "0.1234567890123456789012300"],
    "[1.2345678901234567e19, 1e22, 1.5e300, -0.1]": [1.2345678901234567e19, 1e22, 1.5e300, -0.1],
    "[0.1::FLOAT, 123456789::FLOAT]": [pytest.approx(0.1), 123456792],
    "'[0.5, 1e400]'::JSON": [0.5, "1e400"],
    "1234567890123456.123456789012::DECIMAL(38, 12)": "1234567890123456.123456789012",
    "0.1::DOUBLE": 0.1,
    "'nan'::DOUBLE": "NaN",
    "'-inf'::DOUBLE": "-Infinity",
    "true": True,
    "NULL": None,
    "'text'": "text",
    "'{RUN}'::UUID": RUN,
    "'a\\x00'::BLOB": "YQA=",
    "TIMESTAMP '2026-01-02 03:04:05.678'": "2026-01-02 03:04:05.678",
    "make_timestamp_ns(1)": "1970-01-01 00:00:00.000000001",
    "DATE '2026-01-02'": "2026-01-02",
    "TIME '03:04:05'": "03:04:05",
    "INTERVAL 90 MINUTE": "01:30:00",
    "'a'::ENUM('a', 'b')": "a",
    "[1, 9007199254740993, NULL]": [1, "9007199254740993", None],
    "{'a': 'nan'::DOUBLE, 'b': [1.5]}": {"a": "NaN", "b": [1.5]},
    "MAP {'a': 1}": {"a": 1},
    "'{\"a\": 1}'::JSON": {"a": 1},
    "'infinity'::TIMESTAMP": "infinity",
}


@pytest.mark.parametrize("depth", [10, 200, 255, 600, 2_000])
def test_deep_json_is_json_or_text(api_client: httpx.Client, depth: int) -> None:
    """However deep it is, it is answered."""
    deep = "[" * depth + "]" * depth
    response = api_client.post("/api/sql", json={"query": "SELECT ?::JSON", "parameters": [deep]})
    assert response.status_code == 200, response.text
    assert response.json()["rows"] == [[json.loads(deep) if depth < 250 else deep]]


def _select(written: str) -> str:
    return f"SELECT {written.replace('{RUN}', RUN)} AS v"


def test_every_type_has_its_form_in_json(api_client: httpx.Client) -> None:
    """A number where JSON holds it exactly, else its text; ids without dashes; nested values as JSON's own."""
    assert {written: _ask(api_client, _select(written))["rows"][0][0] for written in VALUES} == VALUES


def test_every_type_has_its_form_in_csv_and_arrow(api_client: httpx.Client) -> None:
    """Every value that JSON can tell, CSV and Arrow can."""
    for written in VALUES:
        query = {"query": _select(written)}
        assert api_client.post("/api/sql", json=query, headers=CSV).text.startswith('"v"\n'), written
        body = api_client.post("/api/sql", json=query, headers=ARROW).content
        assert pa.ipc.open_stream(body).read_all().column_names == ["v"], written


def test_columns_have_names_and_types(api_client: httpx.Client) -> None:
    """In order, also where a name occurs twice."""
    answer = _ask(api_client, "SELECT 1 AS a, 'x' AS a, 2::BIGINT AS b")
    assert answer["columns"] == [
        {"name": "a", "type": "INTEGER"},
        {"name": "a", "type": "VARCHAR"},
        {"name": "b", "type": "BIGINT"},
    ]
    assert answer["rows"] == [[1, "x", 2]]


def test_parameters_by_place_and_by_name(api_client: httpx.Client) -> None:
    """A list for ? and $1, an object for $name; what is missing is told."""
    assert _ask(api_client, "SELECT ? || ?", parameters=["a", "b"])["rows"] == [["ab"]]
    assert _ask(api_client, "SELECT $2 - $1", parameters=[1, 3])["rows"] == [[2]]
    assert _ask(api_client, "SELECT $x::INTEGER + 1", parameters={"x": 1})["rows"] == [[2]]
    assert _ask(api_client, "SELECT list_contains(?, 2)", parameters=[[1, 2]])["rows"] == [[True]]
    error = api_client.post("/api/sql", json={"query": "SELECT ?"}).json()["error"]
    assert "parameters" in error["message"]


def test_sql_in_a_parameter_is_a_value(api_client: httpx.Client) -> None:
    """Nothing that a parameter holds is read as SQL."""
    injected = "x'; DELETE FROM sessions; --"
    assert _ask(api_client, "SELECT ? AS t", parameters=[injected])["rows"] == [[injected]]


def test_rows_are_cut_and_that_is_told(api_client: httpx.Client) -> None:
    """In JSON's `truncated`, in the header of every form, and in Arrow's schema."""
    cut = {"query": "FROM range(5)", "limit": 3}
    assert _ask(api_client, **cut) == {
        "columns": [{"name": "range", "type": "BIGINT"}],
        "rows": [[0], [1], [2]],
        "truncated": True,
    }
    csv = api_client.post("/api/sql", json=cut, headers=CSV)
    assert (csv.text, csv.headers["clew-truncated"]) == ('"range"\n0\n1\n2\n', "true")
    arrow = api_client.post("/api/sql", json=cut, headers=ARROW)
    table = pa.ipc.open_stream(arrow.content).read_all()
    assert (table.to_pydict(), table.schema.metadata) == ({"range": [0, 1, 2]}, {b"truncated": b"true"})
    assert not _ask(api_client, "FROM range(5)", limit=5)["truncated"]


def test_the_server_s_limit_of_rows_holds(api_client: httpx.Client) -> None:
    """Whatever is asked for: 10,000 rows unless the server is told otherwise."""
    answer = _ask(api_client, "FROM range(100000)", limit=50_000)
    assert (len(answer["rows"]), answer["truncated"]) == (10_000, True)


def test_a_question_that_is_none(api_client: httpx.Client) -> None:
    """400, and the field to blame."""
    for question, parameter in (
        ({"query": 1}, "query"),
        ({}, "query"),
        ({"query": "SELECT 1", "limit": 0}, "limit"),
        ({"query": "SELECT 1", "parameters": "x"}, "parameters"),
        ({"query": "SELECT 1", "format": "csv"}, "format"),
        ([], "body"),
    ):
        response = api_client.post("/api/sql", json=question)
        assert (response.status_code, response.json()["error"]["parameter"]) == (400, parameter)


def test_the_engine_s_words_reach_the_reader(api_client: httpx.Client) -> None:
    """A column that is not there: its name, and those that are alike."""
    error = api_client.post("/api/sql", json={"query": "SELECT trace FROM spans"}).json()["error"]
    assert error["code"] == "sql_refused"
    assert "trace_id" in error["message"]


def test_a_mistake_after_the_first_rows_is_told_like_any_other(api_client: httpx.Client) -> None:
    query = "SELECT CASE WHEN range = 9000 THEN ('a' || range)::INTEGER END FROM range(10000)"
    error = api_client.post("/api/sql", json={"query": query}).json()["error"]
    assert error["code"] == "sql_refused"
    assert "'a9000'" in error["message"]


WRONG_LATE = """-- what fails while it is answered
SELECT 1,
  {}CAST(name AS INTEGER)
FROM (VALUES ('a')) t(name)"""


@pytest.mark.parametrize("lines_before", [0, 8])
def test_a_mistake_is_in_the_line_where_it_was_written(api_client: httpx.Client, lines_before: int) -> None:
    """Also where it is found late, in a statement that is longer by then; what is marked stays marked."""
    asked = {"query": WRONG_LATE.format("0,\n  " * lines_before)}
    message = api_client.post("/api/sql", json=asked).json()["error"]["message"]
    _, line, marked = message.rstrip("\n").rsplit("\n", 2)
    assert line == f"LINE {3 + lines_before}:   CAST(name AS INTEGER)"
    assert line[marked.index("^") : marked.rindex("^") + 1] == "CAST(name AS INTEGER)"


def test_ways_to_write_a_select(api_client: httpx.Client, rows: Any) -> None:
    """FROM first, VALUES, WITH, recursion, PIVOT, windows, lambdas, QUALIFY, unnest, attributes of VARIANT."""
    rows.run(RUN)
    rows.event(RUN, 1, attributes={"gen_ai.tool.name": "search"})
    written = {
        "FROM spans SELECT name": [["step 1"]],
        "VALUES (1), (2)": [[1], [2]],
        "WITH a AS (SELECT 1 AS x), b AS (SELECT x + 1 AS y FROM a) FROM b": [[2]],
        "WITH RECURSIVE n AS (SELECT 1 AS x UNION ALL SELECT x + 1 FROM n WHERE x < 3) SELECT sum(x) FROM n": [[6]],
        "FROM (VALUES ('a', 1)) t(k, v) PIVOT (sum(v) FOR k IN ('a'))": [[1]],
        "SELECT row_number() OVER (ORDER BY range DESC) FROM range(2) ORDER BY 1": [[1], [2]],
        "SELECT list_transform([1, 2], lambda x: x * 2)": [[[2, 4]]],
        "SELECT range FROM range(3) QUALIFY row_number() OVER (ORDER BY range) = 2": [[1]],
        "SELECT unnest([1, 2])": [[1], [2]],
        'SELECT attributes."gen_ai.tool.name"::text FROM spans': [["search"]],
        "SELECT run_id_text(run_id), event_id_text(id) FROM execution_events": [[RUN, "0000000000000001"]],
        f"SELECT count(*) FROM execution_events WHERE run_id = '{RUN}'": [[1]],
        "SELECT count(*) FROM clew.main.spans s JOIN workflow_runs r ON s.trace_id = run_id_text(r.id)": [[1]],
        "SELECT format('{:.2f}', 1.0), lpad('7', 3, '0')": [["1.00", "007"]],
        "SELECT now() > TIMESTAMP '2020-01-01'": [[True]],
        "SELECT list_aggregate([1, 2], 'sum'), list_avg([1, 2])": [[3, 1.5]],
        "SELECT ';ü'; -- and more; or less": [[";ü"]],
        "/* one */ SELECT 1 ;; -- two\n -- three": [[1]],
    }
    assert {query: _ask(api_client, query)["rows"] for query in written} == written


def test_the_schema_is_described(api_client: httpx.Client) -> None:
    """Every table and view that may be asked, each with a sentence, and so each column."""
    response = api_client.get("/api/sql/schema")
    SqlSchema.model_validate_json(response.content, strict=True)
    tables = {table["name"]: table for table in response.json()["tables"]}
    assert set(tables) == {*Base.metadata.tables, *VIEWS}
    for table in tables.values():
        sentences = [table["description"], *(column["description"] for column in table["columns"])]
        assert [said for said in sentences if not said.endswith((".", "::text."))] == []


def test_no_column_goes_undescribed() -> None:
    """A column that is added to the schema needs its sentence."""
    for table in Base.metadata.tables.values():
        assert table_sentence(table.name)
        assert all(column_sentence(table.name, column.name) for column in table.columns)


def test_slowest_agents(api_client: httpx.Client, rows: Any) -> None:
    """Finished turns by agent, the slowest on average first; the longest turn can be found."""
    rows.run(RUN)
    for number, (agent, lasts, status) in enumerate(
        [("quick", 5, "COMPLETED"), ("slow", 10, "COMPLETED"), ("slow", 30, "FAILED"), ("slow", None, "RUNNING")], 1
    ):
        event = rows.event(RUN, number)
        ended = None if lasts is None else rows.START + lasts
        turn = {"agent_name": agent, "status": status, "started_at_unix_nano": rows.START}
        rows.add(AgentRun(run_id=RUN, event_id=event, finished_at_unix_nano=ended, **turn))
    slow, quick = _dicts(api_client, "FROM slowest_agents")
    assert (slow["agent_name"], slow["turns"], slow["failed_turns"]) == ("slow", 2, 1)
    assert (slow["average_duration_ns"], slow["longest_duration_ns"], slow["total_duration_ns"]) == (20, 30, 40)
    assert (slow["longest_run_id"], slow["longest_event_id"]) == (RUN, "0000000000000003")
    assert (quick["agent_name"], quick["turns"]) == ("quick", 1)


def test_cost_is_counted_once(api_client: httpx.Client, rows: Any) -> None:
    """An agent's record that repeats the calls below it is left out; so is every one of a ring of parents."""
    rows.run(RUN)
    rows.event(RUN, 1)
    rows.event(RUN, 2, parent=1)
    rows.event(RUN, 3, parent=2)
    rows.event(RUN, 4, parent=4)
    rows.event(RUN, 5, parent=6)
    rows.event(RUN, 6, parent=5)
    for event, cost, source in ((1, 7, "reported"), (3, 2, "reported"), (4, 1, "estimated"), (5, 9, "reported")):
        tokens = {"prompt_tokens": 10 * cost, "completion_tokens": cost}
        said = {"model": "m", "source": source, "time_unix_nano": rows.START, "cost_usd": cost}
        rows.add(CostRecord(run_id=RUN, event_id=f"{event:016x}", **said, **tokens))
    rows.add(CostRecord(run_id=RUN, model="m", time_unix_nano=rows.START, cost_usd=4))
    [day] = _dicts(api_client, "FROM cost_by_day_and_model")
    assert (day["day"], day["model"], day["calls"]) == ("2025-06-15", "m", 3)
    assert (day["cost_usd"], day["estimated_usd"]) == (7, 1)
    assert (day["input_tokens"], day["output_tokens"]) == (30, 3)


def test_failing_tools(api_client: httpx.Client, rows: Any) -> None:
    """Tools with a failure, by the name they go by; what failed last is told."""
    rows.run(RUN)
    search = {"event_type": "tool_call", "attributes": {"gen_ai.tool.name": "search"}}
    rows.event(RUN, 1, **search)
    rows.event(RUN, 2, at=5, **search | {"status": "failed", "status_message": "first"})
    rows.event(RUN, 3, at=9, **search | {"status": "failed", "status_message": "last"})
    rows.event(RUN, 4, event_type="tool_call", name="unnamed", status="failed")
    rows.event(RUN, 5, event_type="tool_call", name="never fails")
    first, second = _dicts(api_client, "FROM failing_tools")
    assert (first["tool"], first["calls"], first["failures"]) == ("search", 3, 2)
    assert math.isclose(first["failed_share"], 2 / 3)
    assert (first["last_message"], first["last_event_id"], first["last_run_id"]) == ("last", "0000000000000003", RUN)
    assert first["last_failed_at"] == "2025-06-15 15:06:40.000000009"
    assert (second["tool"], second["failures"]) == ("unnamed", 1)


def test_files_by_agent(api_client: httpx.Client, rows: Any) -> None:
    """Each agent's files, written and read apart, as told last."""
    rows.run(RUN)
    event = rows.event(RUN, 1, agent_name="writer")
    for size, at in ((10, 1), (20, 2)):
        written = {"file_path": "a.md", "role": "output", "file_type": "data", "size_bytes": size}
        rows.add(File(run_id=RUN, event_id=event, created_at_unix_nano=rows.START + at, **written))
    rows.add(File(run_id=RUN, file_path="b.md", role="input", created_at_unix_nano=rows.START))
    first, second = _dicts(api_client, "FROM files_by_agent")
    assert (first["agent_name"], first["file_path"], first["role"]) == ("writer", "a.md", "output")
    assert (first["times"], first["size_bytes"], first["last_event_id"]) == (2, 20, event)
    assert (second["agent_name"], second["file_path"]) == (None, "b.md")


def test_stuck_runs(api_client: httpx.Client, rows: Any) -> None:
    """Runs that go on and say nothing for ten minutes, with what they were at; not those that live or have ended."""
    rows.run(RUN, status="running")
    rows.event(RUN, 1, status="running", name="chat", agent_name="planner")
    rows.run(OTHER, status="completed")
    rows.add(WorkflowRun(id="c" * 32, session_id="default", status="running", started_at_unix_nano=time.time_ns()))
    [stuck] = _dicts(api_client, "FROM stuck_runs")
    assert (stuck["run_id"], stuck["status"]) == (RUN, "running")
    assert (stuck["open_event"], stuck["open_agent"]) == ("chat", "planner")
    assert stuck["last_heard_at"].startswith("2025-06-15 15:06:40")
    assert int(stuck["silent_ns"]) > 600 * 10**9


def test_a_span_that_is_open_has_no_end(api_client: httpx.Client, rows: Any) -> None:
    """Nor a duration, which would count as none in averages."""
    rows.run(RUN)
    rows.event(RUN, 1, status="running", completed_at_unix_nano=0, duration_ns=0)
    rows.event(RUN, 2)
    assert _ask(api_client, "SELECT end_time, duration_ns FROM spans WHERE name = 'step 1'")["rows"] == [[None, None]]
    assert _ask(api_client, "SELECT avg(duration_ns) FROM spans")["rows"] == [[10.0]]


@pytest.mark.parametrize("now", ["now()::TIMESTAMP", "now() AT TIME ZONE 'UTC'"])
def test_times_are_compared_with_now(api_client: httpx.Client, rows: Any, now: str) -> None:
    """In UTC; whoever forgets to say so is told how."""
    rows.run(RUN)
    rows.event(RUN, 1, at=time.time_ns() - rows.START)
    recent = "SELECT count(*) FROM spans WHERE abs(epoch_ns(start_time) - epoch_ns({})) < 600000000000"
    assert _ask(api_client, recent.format(now))["rows"] == [[1]]
    refused = api_client.post("/api/sql", json={"query": "FROM spans WHERE start_time > now()"}).json()["error"]
    assert "now()::TIMESTAMP" in refused["message"]


def test_a_time_beyond_all_calendars_spoils_no_view(api_client: httpx.Client, rows: Any) -> None:
    """One event with an absurd time leaves the others' answers alone."""
    rows.run(RUN, status="running")
    rows.event(RUN, 1, event_type="tool_call", status="failed", at=(1 << 63) - 1 - rows.START - 10)
    for view in sorted(VIEWS):
        assert _ask(api_client, f"FROM {view}")["rows"] is not None


def _examples() -> list[tuple[str, str]]:
    """The queries in the documentation, each with the result that follows it."""
    parts = DOCS.read_text().split("```sql\n")[1:]
    return [
        (part.split("```")[0].strip(), part.split("```text\n")[1].split("```")[0])
        for part in parts
        if "```text" in part
    ]


@pytest.mark.parametrize(("query", "result"), _examples())
def test_the_documentation_s_examples(demo_server: Any, query: str, result: str) -> None:
    """Every query of docs/sql.md runs on the demo, and has the columns and as many rows as are shown."""
    response = httpx.post(f"{demo_server.http_url}/api/sql", json={"query": query})
    assert response.status_code == 200, response.text
    answer = json.loads(response.text)
    header, *shown = result.strip().splitlines()
    assert header.split() == [column["name"] for column in answer["columns"]]
    assert shown[-1] == f"{len(answer['rows'])} row" + "s" * (len(answer["rows"]) != 1)
    assert [line.split()[0] for line in shown[:-1]] == [str(row[0]).split()[0] for row in answer["rows"]]


def test_what_nobody_waits_for_is_stopped(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """Queries that would go on for minutes, whose askers hang up, leave their places to others."""
    server = start_server("--db", str(tmp_path / "clew.duckdb"), "--sql-seconds-max", "600")
    url = f"{server.http_url}/api/sql"
    for _ in range(4):
        with pytest.raises(httpx.TimeoutException):
            httpx.post(
                url, json={"query": "SELECT count(*) FROM range(1000000000000) WHERE sin(range) > 2"}, timeout=0.5
            )
    assert httpx.post(url, json={"query": "SELECT 1 AS one"}, timeout=60).json()["rows"] == [[1]]


def test_whoever_leaves_before_a_thread_came_gives_the_turn_back(store: Store) -> None:
    """Else two such would keep SQL from everybody until the server is started again."""
    desk = SqlDesk(store, SqlLimits())
    take = desk._take

    async def leave_with_a_turn() -> bool:
        with anyio.CancelScope() as asking:

            async def take_and_leave(turn: object) -> None:
                await take(turn)
                asking.cancel()

            desk._take = take_and_leave  # type: ignore[method-assign]
            await desk.answer(SqlQuestion(query="SELECT 1"), _JSON_FORM, threading.Event())
        return asking.cancelled_caught

    assert anyio.run(leave_with_a_turn)
    assert desk._turns.borrowed_tokens == 0
