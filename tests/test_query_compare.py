"""Two runs beside one another, over a real server."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from clew.collector.projection import read_requests
from clew.query.figures_answers import Comparison

from .conftest import ApiReader, Rows

A, B = "a1" * 16, "b2" * 16


@pytest.fixture
def two_runs(rows: Rows) -> Rows:
    """A run, and one that did nearly the same."""
    for run_id in (rows.run(A), rows.run(B)):
        rows.event(run_id, 1, name="work", agent_name="planner")
    said = {"name": "search", "event_type": "tool_call"}
    rows.event(A, 2, 1, at=1, **said, attributes={"q": "cats", "n": 3}, duration_ns=100)
    rows.event(A, 3, 1, at=2, **said, duration_ns=100)
    rows.event(A, 4, 1, at=3, name="write", duration_ns=100)
    rows.event(A, 5, 4, at=4, name="check", input_tokens=5)
    rows.event(B, 6, 1, at=1, **said, attributes={"q": "dogs", "n": 3}, duration_ns=110)
    rows.event(B, 7, 1, at=2, **said, duration_ns=111, status="failed", status_message="no answer")
    rows.event(B, 8, 1, at=3, **said, duration_ns=1)
    rows.event(B, 9, 8, at=4, name="fetch")
    return rows


def compare(api_reader: ApiReader, **parameters: object) -> dict:
    return api_reader.get("/api/runs/compare", Comparison, a=A, b=B, **parameters)


def test_differences_are_told(two_runs: Rows, api_reader: ApiReader) -> None:
    """Each change with its kinds, in the order of the first run's tree, what only the second has after its siblings."""
    told = compare(api_reader)
    assert [(change["name"], change["depth"], change["changes"]) for change in told["changes"]] == [
        ("search", 1, ["attributes"]),
        ("search", 1, ["slower", "status"]),
        ("write", 1, ["missing"]),
        ("check", 2, ["missing"]),
        ("search", 1, ["added"]),
        ("fetch", 2, ["added"]),
    ]
    counts = {"added": 2, "missing": 2, "slower": 1, "faster": 0, "status": 1, "attributes": 1}
    assert told["counts"] == {"pairs": 3, "unchanged": 1, **counts}
    assert (told["a"]["id"], told["b"]["id"]) == (A, B)
    assert told["usage_a"]["input_tokens"] == 5
    assert told["usage_b"]["input_tokens"] == 0


def test_what_changed_in_a_pair(two_runs: Rows, api_reader: ApiReader) -> None:
    """Both sides with their ids, statuses and durations; the attributes that differ, as JSON text."""
    by_query, failed = compare(api_reader, limit=2)["changes"]
    assert by_query["attributes"] == [{"key": "q", "a": '"cats"', "b": '"dogs"'}]
    assert (by_query["a"]["id"], by_query["b"]["id"]) == (f"{2:016x}", f"{6:016x}")
    assert failed["duration_change_ns"] == 11
    assert (failed["a"]["status"], failed["b"]["status"]) == ("completed", "failed")
    assert failed["b"]["status_message"] == "no answer"


def test_an_event_without_partner_has_one_side(two_runs: Rows, api_reader: ApiReader) -> None:
    """What is missing has no `b`, what was added no `a`; neither has a change of duration."""
    changes = compare(api_reader)["changes"]
    [missing, *_] = [change for change in changes if change["changes"] == ["missing"]]
    [added, *_] = [change for change in changes if change["changes"] == ["added"]]
    assert (missing["b"], added["a"]) == (None, None)
    assert (missing["duration_change_ns"], added["duration_change_ns"]) == (None, None)


def test_changes_can_be_chosen(two_runs: Rows, api_reader: ApiReader) -> None:
    """Only the kinds asked for; the counts stay those of all."""
    response = api_reader.client.get(f"/api/runs/compare?a={A}&b={B}&change=added&change=status")
    told = response.json()
    assert [change["changes"] for change in told["changes"]] == [["slower", "status"], ["added"], ["added"]]
    assert told["counts"]["missing"] == 2


def test_tolerance_decides_what_is_slower(two_runs: Rows, api_reader: ApiReader) -> None:
    """A longer duration is told where it exceeds the shorter by more than the share."""
    slower = [compare(api_reader, tolerance=tolerance)["counts"]["slower"] for tolerance in ("0.11", "0.1", "0")]
    assert slower == [0, 1, 2]


def test_pages_tell_every_change_once(two_runs: Rows, api_reader: ApiReader) -> None:
    """Page by page the same changes as at once."""
    paged = api_reader.all_pages("/api/runs/compare", Comparison, "changes", a=A, b=B, limit=4)
    assert paged == compare(api_reader)["changes"]


def test_a_run_does_not_differ_from_itself(two_runs: Rows, api_reader: ApiReader) -> None:
    """Every event is its own partner."""
    told = api_reader.get("/api/runs/compare", Comparison, a=A, b=A)
    assert told["changes"] == []
    assert told["counts"]["pairs"] == told["counts"]["unchanged"] == 5


def test_events_that_have_not_ended_are_not_slower(rows: Rows, api_reader: ApiReader) -> None:
    """A running event has no duration to compare."""
    rows.event(rows.run(A), 1, status="running", completed_at_unix_nano=0, duration_ns=0)
    rows.event(rows.run(B), 1)
    assert compare(api_reader)["changes"][0]["changes"] == ["status"]


def test_runs_without_events(rows: Rows, api_reader: ApiReader) -> None:
    """What is not there is missing, or added."""
    rows.run(A)
    rows.event(rows.run(B), 1)
    assert compare(api_reader)["counts"]["added"] == 1
    assert api_reader.get("/api/runs/compare", Comparison, a=B, b=A)["counts"]["missing"] == 1


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        (f"a={A}", 400, "b"),
        (f"a={A}&b=nonsense", 400, "b"),
        (f"a={A}&b={'c' * 32}", 404, "b"),
        (f"a={A}&b={B}&change=nothing", 400, "change"),
        (f"a={A}&b={B}&tolerance=-1", 400, "tolerance"),
        (f"a={A}&b={B}&tolerance=nan", 400, "tolerance"),
        (f"a={A}&b={B}&cursor=x", 400, "cursor"),
        (f"a={A}&b={B}&c=1", 400, "c"),
    ],
)
def test_mistakes_are_told(two_runs: Rows, api_client: httpx.Client, query: str, status: int, parameter: str) -> None:
    """The parameter to blame is named."""
    response = api_client.get(f"/api/runs/compare?{query}")
    assert (response.status_code, response.json()["error"]["parameter"]) == (status, parameter)


def test_long_values_are_shown_where_they_differ(rows: Rows, api_reader: ApiReader) -> None:
    """What is alike is cut but for its end, and marked."""
    for run_id, end in ((A, "cats"), (B, "dogs")):
        rows.event(rows.run(run_id), 1, attributes={"text": "x" * 5_000 + end})
    [attribute] = compare(api_reader)["changes"][0]["attributes"]
    assert (attribute["a"], attribute["b"]) == (f'…{"x" * 100}cats"', f'…{"x" * 100}dogs"')


def sent(server: Any, run_id: str, session: str, *values: Any) -> None:
    """Sends a run of one span for each value, which is an attribute of it."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, value in enumerate(values, start=1):
        span = spans.add(trace_id=bytes.fromhex(run_id), span_id=number.to_bytes(8), name=f"step {number}")
        span.start_time_unix_nano = span.end_time_unix_nano = Rows.START
        span.attributes.add(key="session.id").value.string_value = session
        of_type = {str: "string_value", float: "double_value", bytes: "bytes_value"}[type(value)]
        setattr(span.attributes.add(key="gen_ai.input.messages").value, of_type, value)
    headers = {"content-type": "application/x-protobuf"}
    answer = httpx.post(f"{server.http_url}/v1/traces", content=request.SerializeToString(), headers=headers)
    assert answer.status_code == 200


def test_attributes_are_compared_however_they_are_kept(server: Any) -> None:
    """Long histories, which are stored apart and once a session, and what JSON cannot say: equal ones are equal, and
    others are told."""
    history = '[{"role": "user", "parts": [{"type": "text", "content": "' + "cats and dogs, " * 500 + '"}]}]'
    sent(server, A, "mine", history, history, math.nan, b"\x00", b"\x01")
    sent(server, B, "another", history, history, math.nan, b"\x00", b"\x02")
    sent(server, "c3" * 16, "another", history, history[:-60] + '."}]}]', math.inf, b"\x00", b"\x02")

    def changed(a: str, b: str) -> list[tuple[str, list[str]]]:
        told = httpx.get(f"{server.http_url}/api/runs/compare?a={a}&b={b}&change=attributes").json()
        return [(change["name"], [one["key"] for one in change["attributes"]]) for change in told["changes"]]

    messages = "gen_ai.input.messages"
    by_session = [(f"step {number}", ["session.id"]) for number in (1, 2, 3, 4)]
    assert changed(A, B) == [*by_session, ("step 5", [messages, "session.id"])]
    assert changed(B, "c3" * 16) == [("step 2", [messages]), ("step 3", [messages])]


def test_the_order_of_attributes_is_no_difference(api_client: httpx.Client, rows: Rows) -> None:
    """However they are kept: in their column, apart as histories, or beside it since JSON cannot say one of them."""
    long = {"string_value": "cats and dogs, " * 200}
    kept = (
        {"a": {"int_value": 1}, "b": {"int_value": 2}},
        {"gen_ai.input.messages": long, "gen_ai.output.messages": long},
        {"a": {"int_value": 1}, "b": {"bytes_value": b"\0"}},
    )
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for run_id, in_order in ((A, list), (B, reversed)):
        for number, attributes in enumerate(kept, start=1):
            span = spans.add(trace_id=bytes.fromhex(run_id), span_id=number.to_bytes(8), name=f"step {number}")
            span.start_time_unix_nano = span.end_time_unix_nano = Rows.START
            for key, value in in_order(list(attributes.items())):
                span.attributes.add(key=key, value=AnyValue(**value))
    rows.store.write(read_requests([request.SerializeToString()]).batch)

    told = api_client.get(f"/api/runs/compare?a={A}&b={B}").json()
    assert (told["counts"]["unchanged"], told["changes"]) == (3, [])
