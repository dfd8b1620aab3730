"""The API over HTTP: a real server on a free port, spans sent to it over OTLP, answers read by a real client."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from prometheus_client import CollectorRegistry
from pydantic import BaseModel

from clew.collector.http_server import otlp_routes
from clew.collector.intake import Intake
from clew.query import answers
from clew.query.app import build_app
from clew.storage import Store

from .conftest import listening

START = 1_700_000_000_000_000_000


@dataclass
class Api:
    """A server and a client of it."""

    client: httpx.Client

    def get(self, path: str, model: type[BaseModel] | None = None, **parameters: str | int) -> Any:
        """The JSON that `path` answers, which is as `model` describes it."""
        response = self.client.get(path, params=parameters)
        assert response.status_code == 200, response.text
        if model is not None:
            model.model_validate_json(response.content, strict=True)
        return response.json()

    def send(self, *spans: Span, session: str = "") -> None:
        """Exports the spans over OTLP/HTTP."""
        request = ExportTraceServiceRequest()
        resource_spans = request.resource_spans.add(schema_url="https://opentelemetry.io/schemas/1.40.0")
        resource_spans.resource.attributes.add(key="service.name").value.string_value = "workshop"
        if session:
            resource_spans.resource.attributes.add(key="session.id").value.string_value = session
        scope_spans = resource_spans.scope_spans.add()
        scope_spans.scope.name, scope_spans.scope.version = "tests", "1"
        scope_spans.spans.extend(spans)
        self.export(request.SerializeToString())

    def export(self, request: bytes) -> None:
        """Sends a serialised ExportTraceServiceRequest over OTLP/HTTP."""
        response = self.client.post("/v1/traces", content=request, headers={"content-type": "application/x-protobuf"})
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    store = Store.open(str(tmp_path_factory.mktemp("api") / "clew.duckdb"))
    registry = CollectorRegistry()
    intake = Intake(store, registry=registry)
    app = build_app(store, registry=registry, routes=otlp_routes(intake))
    with listening(app) as url, httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield Api(client)
    intake.close()
    store.close()


def span(run: UUID, number: int, parent: int | None = None, *, at: int = 0, lasts: int = 10, **words: str) -> Span:
    """A span whose id is `number`, starting `at` ns after START; words are attributes, with _ for dots."""
    made = Span(trace_id=run.bytes, span_id=number.to_bytes(8), name=f"step {number}", kind=Span.SPAN_KIND_INTERNAL)
    made.start_time_unix_nano, made.end_time_unix_nano = START + at, START + at + lasts
    made.parent_span_id = b"" if parent is None else parent.to_bytes(8)
    for name, value in words.items():
        made.attributes.add(key=name.replace("_", ".")).value.string_value = value
    return made


def field(number: int, content: bytes) -> bytes:
    """A protobuf field of bytes, for messages that protobuf's own writers do not go deep enough for."""
    length, rest = bytearray(), len(content)
    while rest >= 0x80:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([number << 3 | 2, *length, rest]) + content


def hex16(number: int) -> str:
    return f"{number:016x}"


def numbers(events: list[dict[str, Any]]) -> list[int]:
    """The numbers that the events' ids stand for."""
    return [int(event["id"], 16) for event in events]


# Runs.


def test_run_is_found_however_its_id_is_written(api: Api) -> None:
    """A run answers to its id in either case, with and without dashes, with its figures."""
    run = uuid4()
    failed = span(run, 2, 1, at=5, lasts=50)
    failed.status.code = Status.STATUS_CODE_ERROR
    api.send(span(run, 1, at=3, agent_name="planner"), failed)

    told = api.get(f"/api/runs/{run.hex}", answers.Run)

    assert told == api.get(f"/api/runs/{str(run).upper()}")
    assert told == {
        "id": run.hex,
        "session_id": "default",
        "project_id": None,
        "task_id": None,
        "name": "step 1",
        "mode": None,
        "agent": "planner",
        "model": None,
        "service_name": "workshop",
        "status": "completed",
        "task_description": None,
        "root_event_id": hex16(1),
        "started_at_unix_nano": str(START + 3),
        "last_started_at_unix_nano": str(START + 5),
        "completed_at_unix_nano": str(START + 55),
        "duration_ns": 52,
        "event_count": 2,
        "error_count": 1,
    }


def test_pages_hold_every_run_once_newest_first(api: Api) -> None:
    """Following the cursor meets every run once, by start, then id, both falling; also where starts are equal."""
    session, runs = uuid4().hex, [uuid4() for _ in range(11)]
    for number, run in enumerate(runs):
        api.send(span(run, 1, at=number // 3), session=session)
    expected = [run.hex for _, run in sorted(((number // 3, run) for number, run in enumerate(runs)), reverse=True)]

    page = api.get("/api/runs", answers.RunPage, session_id=session, limit=4)
    met = page["runs"]
    while page["next_cursor"]:
        page = api.get("/api/runs", answers.RunPage, session_id=session, limit=4, cursor=page["next_cursor"])
        met += page["runs"]

    assert [run["id"] for run in met] == expected


def test_filters_narrow_runs(api: Api) -> None:
    """Each filter of runs keeps what it says, and filters add up."""
    session, day = uuid4().hex, 86_400 * 10**9
    done, going, failing = uuid4(), uuid4(), uuid4()
    failed = span(failing, 1, at=day)
    failed.status.code = Status.STATUS_CODE_ERROR
    running = span(going, 1, at=-day)
    running.end_time_unix_nano = 0
    api.send(span(done, 1, agent_name="planner"), span(done, 2, 1, agent_name="engineer"), session=session)
    api.send(running, failed, session=session)

    def found(**filters: str | int) -> set[UUID]:
        return {UUID(run["id"]) for run in api.get("/api/runs", session_id=session, **filters)["runs"]}

    assert found() == {done, going, failing}
    assert found(status="running") == {going}
    assert found(status="failed") == {failing}
    assert found(agent="engineer") == {done}
    assert found(agent="engineer", since=str(START)) == {done}
    assert found(agent="engineer", status="failed") == set()
    assert found(since=str(START)) == {done, failing}
    assert found(until="2023-11-14T22:13:20Z") == {going}
    assert found(since="2023-11-14T22:13:20Z", until=str(START + 1)) == {done}
    assert found(since="-1h") == set()
    assert found(id_prefix=str(done)[:10].upper()) == {done}


# Trees.


def test_tree_draws_from_top_to_bottom(api: Api) -> None:
    """The tree lists events depth first, siblings by start and then id, each with its place and its own time."""
    run = uuid4()
    api.send(
        span(run, 5, 1, at=40, lasts=20),
        span(run, 2**63 + 3, 1, at=20, lasts=30),
        span(run, 4, 2, at=12),
        span(run, 2, 1, at=20, lasts=10),
        span(run, 1, at=0, lasts=100),
    )
    tree = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer)
    shown = ("id", "parent_event_id", "depth", "execution_order", "child_count", "duration_ns", "self_time_ns")

    assert [tuple(event[name] for name in shown) for event in tree["events"]] == [
        (hex16(1), None, 0, 0, 3, 100, 60),
        (hex16(2), hex16(1), 1, 1, 1, 10, 8),
        (hex16(4), hex16(2), 2, 2, 0, 10, 10),
        (hex16(2**63 + 3), hex16(1), 1, 3, 0, 30, 30),
        (hex16(5), hex16(1), 1, 4, 0, 20, 20),
    ]
    assert {name: tree[name] for name in ("event_count", "roots", "orphans", "cycles")} == {
        "event_count": 5,
        "roots": 1,
        "orphans": 0,
        "cycles": 0,
    }
    assert tree["run"] == api.get(f"/api/runs/{run}")


def test_tree_hides_nothing_that_does_not_fit(api: Api) -> None:
    """Orphans, an event that is its own parent, and a ring are shown at the top after the roots, marked and counted."""
    run = uuid4()
    api.send(
        span(run, 1, at=9),
        span(run, 2, 77, at=1),
        span(run, 3, 3, at=2),
        span(run, 4, 5, at=3),
        span(run, 5, 4, at=4),
        span(run, 6, 5, at=5),
    )
    tree = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer)

    assert [
        (number, event["depth"]) for number, event in zip(numbers(tree["events"]), tree["events"], strict=True)
    ] == [
        (1, 0),
        (2, 0),
        (3, 0),
        (4, 0),
        (5, 1),
        (6, 2),
    ]
    assert numbers([event for event in tree["events"] if event.get("orphan")]) == [2]
    assert numbers([event for event in tree["events"] if event.get("cycle")]) == [3, 4, 5]
    assert (tree["roots"], tree["orphans"], tree["cycles"]) == (1, 1, 3)


def test_late_parent_takes_its_children(api: Api) -> None:
    """An orphan is one only until its parent comes."""
    run = uuid4()
    api.send(span(run, 2, 1, at=5))
    before = api.get(f"/api/runs/{run}/tree")
    api.send(span(run, 1, at=0, lasts=20))
    after = api.get(f"/api/runs/{run}/tree")

    assert (before["roots"], before["orphans"], numbers(before["events"])) == (0, 1, [2])
    assert (after["roots"], after["orphans"], numbers(after["events"])) == (1, 0, [1, 2])


def test_root_gives_the_part_below_it(api: Api) -> None:
    """`root` gives one event and all below it, as they stand in the whole tree."""
    run = uuid4()
    api.send(*(span(run, number, number // 2 or None, at=number) for number in range(1, 12)))
    whole = api.get(f"/api/runs/{run}/tree")
    part = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer, root=hex16(2))

    assert numbers(part["events"]) == [2, 4, 8, 9, 5, 10, 11]
    assert part["events"] == [event for event in whole["events"] if event in part["events"]]
    assert (part["event_count"], part["roots"]) == (7, 1)


def test_limit_gives_the_first_of_them_and_says_how_many_more_there_are(api: Api) -> None:
    """`limit` cuts the depth-first order, of the whole tree and of a part alike; what is told stays as it was."""
    run = uuid4()
    api.send(*(span(run, number, number // 2 or None, at=number) for number in range(1, 12)))
    whole = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer)
    first = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer, limit=3)
    part = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer, root=hex16(2), limit=5, shape="nested")

    assert (first["events"], first["event_count"], first["left_out"]) == (whole["events"][:3], 3, 8)
    assert (part["event_count"], part["left_out"]) == (5, 2)
    assert numbers(part["events"][0]["children"]) == [4, 5]
    assert whole["left_out"] == 0
    assert api.get(f"/api/runs/{run}/tree", limit=11)["left_out"] == 0


def test_nested_shape_holds_the_same_events(api: Api) -> None:
    """Nested, each event has its children within; written out depth first they are the flat list."""
    run = uuid4()
    api.send(*(span(run, number, number // 3 or None, at=number) for number in range(1, 40)))
    flat = api.get(f"/api/runs/{run}/tree")
    nested = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer, shape="nested")

    def flattened(events: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for event in events:
            children = event.pop("children")
            yield event
            yield from flattened(children)

    assert list(flattened(nested["events"])) == flat["events"]


def test_chain_of_a_hundred_thousand_in_both_shapes(api: Api) -> None:
    """A chain 100,000 deep comes back whole, flat and nested, and brackets close as often as they open."""
    run = uuid4()
    for first in range(1, 100_001, 10_000):
        api.send(*(span(run, number, number - 1 or None, at=number) for number in range(first, first + 10_000)))
    flat = api.get(f"/api/runs/{run}/tree")
    nested = api.client.get(f"/api/runs/{run}/tree", params={"shape": "nested"}).text

    assert numbers(flat["events"]) == list(range(1, 100_001))
    assert flat["events"][-1]["depth"] == 99_999
    assert nested.count('"children":[') == 100_000
    assert nested.endswith("]}" * 100_001)
    innermost = nested.rindex('{"id":')
    assert json.loads(nested[innermost : -2 * 100_000])["execution_order"] == 99_999


# Events.


def test_pages_hold_every_event_once_by_start_then_id(api: Api) -> None:
    """Following the cursor meets every event once, by start, then id as hex, with its place in the whole tree."""
    run, ids = uuid4(), [1, 2, 3, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
    api.send(*(span(run, number, at=at) for at, number in enumerate([50, 60, 70])))
    api.send(*(span(run, number, 50, at=10) for number in ids))
    met: list[dict[str, Any]] = []
    page: dict[str, Any] = {"next_cursor": None}
    while not met or page["next_cursor"]:
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else {}
        page = api.get(f"/api/runs/{run}/events", answers.EventPage, limit=3, **cursor)
        met += page["events"]

    assert numbers(met) == [50, 60, 70, *ids]
    in_tree = {event["id"]: event for event in api.get(f"/api/runs/{run}/tree")["events"]}
    assert met == [in_tree[event["id"]] for event in met]


def test_filters_narrow_events(api: Api) -> None:
    """Events can be narrowed by type and by agent, and what is not there is an empty page."""
    run = uuid4()
    agents = {1: ("agent_call", "planner"), 2: ("tool_call", "planner"), 3: ("tool_call", "engineer")}
    for number, (event_type, agent) in agents.items():
        made = span(run, number, at=number, agent_name=agent)
        made.attributes.add(key="clew.event.type").value.string_value = event_type
        api.send(made)

    def found(**filters: str) -> list[int]:
        return numbers(api.get(f"/api/runs/{run}/events", answers.EventPage, **filters)["events"])

    assert found(event_type="tool_call") == [2, 3]
    assert found(agent_name="planner") == [1, 2]
    assert found(event_type="tool_call", agent_name="planner") == [2]
    assert found(event_type="handoff") == []


def test_event_shows_everything(api: Api) -> None:
    """One event shows what OTLP said: every kind of value, origins, logs, links, state, flags, what was dropped."""
    run, other = uuid4(), uuid4()
    made = Span(
        trace_id=run.bytes,
        span_id=(2**64 - 2).to_bytes(8),
        parent_span_id=(7).to_bytes(8),
        name='quote " and \\ and \n and é',
        kind=Span.SPAN_KIND_CLIENT,
        start_time_unix_nano=START,
        end_time_unix_nano=START + 5,
        trace_state="a=b",
        flags=0x301,
        dropped_attributes_count=1,
        dropped_events_count=2,
        dropped_links_count=3,
    )
    made.status.code, made.status.message = Status.STATUS_CODE_ERROR, "no luck"
    values = {
        key: made.attributes.add(key=key).value for key in ("text", "yes", "int", "real", "nan", "bytes", "map", "none")
    }
    values["text"].string_value, values["yes"].bool_value, values["int"].int_value = "é", True, 2**63 - 1
    values["real"].double_value, values["nan"].double_value, values["bytes"].bytes_value = 0.1, math.nan, b"\0\xff"
    items = values["map"].kvlist_value.values.add(key="list").value.array_value.values
    items.add().double_value = -math.inf
    items.add().int_value = 1
    log = made.events.add(name="retry", time_unix_nano=START + 1, dropped_attributes_count=4)
    log.attributes.add(key="left").value.double_value = math.inf
    link = made.links.add(trace_id=other.bytes, span_id=(9).to_bytes(8), trace_state="c=d", flags=1)
    link.attributes.add(key="why").value.string_value = "retry of"
    api.send(made)

    event = api.get(f"/api/runs/{run}/events/{2**64 - 2:016X}", answers.EventDetail)
    [in_tree] = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer)["events"]

    assert {name: event[name] for name in in_tree} == in_tree
    assert {name: value for name, value in event.items() if name not in in_tree} == {
        "run_id": run.hex,
        "status_code": "ERROR",
        "trace_state": "a=b",
        "flags": 0x301,
        "dropped_attributes_count": 1,
        "dropped_events_count": 2,
        "dropped_links_count": 3,
        "resource": {
            "service_name": "workshop",
            "schema_url": "https://opentelemetry.io/schemas/1.40.0",
            "dropped_attributes_count": 0,
            "attributes": {"service.name": "workshop"},
        },
        "scope": {
            "name": "tests",
            "version": "1",
            "schema_url": None,
            "dropped_attributes_count": 0,
            "attributes": {},
        },
        "logs": [
            {
                "log_index": 0,
                "time_unix_nano": str(START + 1),
                "name": "retry",
                "event_type": None,
                "agent_role": None,
                "severity_number": None,
                "severity_text": None,
                "content": None,
                "observed_time_unix_nano": None,
                "dropped_attributes_count": 4,
                "attributes": {"left": "Infinity"},
            }
        ],
        "links": [
            {
                "link_index": 0,
                "linked_run_id": other.hex,
                "linked_event_id": hex16(9),
                "trace_state": "c=d",
                "flags": 1,
                "dropped_attributes_count": 0,
                "attributes": {"why": "retry of"},
            }
        ],
    }
    assert event["attributes"] == {
        "text": "é",
        "yes": True,
        "int": 2**63 - 1,
        "real": 0.1,
        "nan": "NaN",
        "bytes": "AP8=",
        "map": {"list": ["-Infinity", 1]},
        "none": None,
    }
    assert (event["name"], event["kind"], event["orphan"]) == (made.name, "CLIENT", True)
    assert (event["status"], event["status_message"]) == ("failed", "no luck")
    assert (event["log_count"], event["link_count"], event["service_name"]) == (1, 1, "workshop")


@pytest.mark.parametrize("levels", [10, 45, 46, 50, 70, 300])
def test_deeply_nested_attributes_stay_json(api: Api, levels: int) -> None:
    """An attribute nested deeper than protobuf's own readers go spoils neither the answer nor the attributes beside."""
    run = uuid4()
    made = span(run, 1, user_id="u")
    made.attributes.add(key="nan").value.double_value = math.nan
    value = AnyValue(double_value=math.inf).SerializeToString()
    for _ in range(levels):
        value = field(5, field(1, value))
    deep = field(9, field(1, b"deep") + field(2, value))
    api.export(field(1, field(2, field(2, made.SerializeToString() + deep))))

    attributes = api.get(f"/api/runs/{run}/events/{hex16(1)}", answers.EventDetail)["attributes"]

    assert (attributes["user.id"], attributes["nan"]) == ("u", "NaN")
    assert "deep" in attributes


def test_spans_that_share_an_id_tell_it(api: Api) -> None:
    """Where distinct spans share a span id, the later shows that id beside its own."""
    run = uuid4()
    server = span(run, 1, at=1)
    server.kind = Span.SPAN_KIND_SERVER
    api.send(span(run, 1), server)
    first, second = api.get(f"/api/runs/{run}/tree", answers.TreeAnswer)["events"]

    assert (first["id"], "otel_span_id" in first) == (hex16(1), False)
    assert second["id"] != hex16(1)
    assert second["otel_span_id"] == hex16(1)


def test_statistics_of_a_run(api: Api) -> None:
    """The statistics answer as they are described; the sums are tested apart."""
    run = uuid4()
    api.send(span(run, 1, lasts=2_000_000, agent_name="planner"))
    told = api.get(f"/api/runs/{run}/statistics", answers.Statistics)

    assert (told["total_events"], told["total_duration_ms"], told["agents_involved"]) == (1, 2.0, ["planner"])


def test_event_that_is_not_there(api: Api) -> None:
    """A run without that event says so, for the event itself and for the root of a tree."""
    run = uuid4()
    api.send(span(run, 1))
    for path, parameter in ((f"events/{hex16(5)}", "event_id"), (f"tree?root={hex16(5)}", "root")):
        response = api.client.get(f"/api/runs/{run}/{path}")

        assert response.status_code == 404
        assert response.json()["error"]["parameter"] == parameter
