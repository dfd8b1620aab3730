"""Events written and read by hand: the same as recorded ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from sqlalchemy import text

from clew.exporter.otlp import run_as_otlp
from clew.storage import (
    AlreadyStored,
    DAGRepository,
    DatabaseSession,
    EventRepository,
    ExecutionEvent,
    File,
    Message,
    Resource,
    Scope,
    StorageError,
    Store,
    UnknownReference,
    WorkflowRepository,
    WorkflowRun,
    close_database,
    get_db_session,
    parse_run_id,
)

MINE, THEIRS = "mine", "theirs"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOBODY = "ab" * 16
AGENTS, EVENTS_EACH = ("a", "b", "c", "d"), 20


@pytest.fixture
def workflows(db_session: DatabaseSession) -> WorkflowRepository:
    return WorkflowRepository(db_session, MINE)


@pytest.fixture
def events(db_session: DatabaseSession) -> EventRepository:
    return EventRepository(db_session, MINE)


@pytest.fixture
def run(workflows: WorkflowRepository) -> WorkflowRun:
    return workflows.create_run(task_description="Find the way out", mode="one_shot", agent="engineer", model="m-1")


def test_an_event_has_what_it_was_given(events: EventRepository, run: WorkflowRun) -> None:
    """An event reads back as it was written, and is settled where nothing was said."""
    event = events.create_event(
        run_id=run.id,
        event_type="agent_call",
        event_subtype="start",
        agent_name="engineer",
        execution_order=0,
        started_at=NOON,
        inputs={"message": "test"},
        outputs=["done", 1.5, None],
        meta={"model": "m-1", "nested": {"a": [1, True]}},
        duration_ms=1500,
    )
    assert len(bytes.fromhex(event.id)) == 8
    assert (event.run_id, event.session_id, event.event_type, event.agent_name) == (
        *(run.id, MINE, "agent_call", "engineer"),
    )
    assert (event.execution_order, event.depth, event.status, event.error_message) == (0, 0, "completed", None)
    assert (event.inputs, event.outputs) == ({"message": "test"}, ["done", 1.5, None])
    assert event.meta == {"model": "m-1", "nested": {"a": [1, True]}}
    assert (event.timestamp, event.started_at, event.duration_ms) == (NOON, NOON, 1500)
    assert event.completed_at == NOON + timedelta(milliseconds=1500)


def test_nested_events_hang_together(events: EventRepository, run: WorkflowRun) -> None:
    """Children come by their order, one deeper than their parent."""
    parent = events.create_event(run.id, "agent_call", execution_order=0)
    second = events.create_event(run.id, "code_exec", execution_order=2, parent_event_id=parent.id)
    first = events.create_event(run.id, "tool_call", execution_order=1, parent_event_id=parent.id)
    assert list(events.get_child_events(parent.id)) == [first, second]
    assert (parent.depth, first.depth) == (0, 1)


def test_a_tree_comes_by_depth_then_order(events: EventRepository, run: WorkflowRun) -> None:
    """The event asked for and everything below it, nothing beside it."""
    root = events.create_event(run.id, "agent_call", 0)
    child = events.create_event(run.id, "tool_call", 3, parent_event_id=root.id)
    other = events.create_event(run.id, "tool_call", 1, parent_event_id=root.id)
    grandchild = events.create_event(run.id, "file_gen", 2, parent_event_id=child.id)
    events.create_event(run.id, "info", 4)
    assert list(events.get_event_tree(root.id)) == [root, other, child, grandchild]
    assert list(events.get_event_tree(child.id)) == [child, grandchild]


def test_a_ring_of_events_ends(events: EventRepository, run: WorkflowRun) -> None:
    """Events that are their own ancestors are each told once."""
    first = events.create_event(run.id, "info", 0)
    second = events.create_event(run.id, "info", 1, parent_event_id=first.id)
    events.update_event(first.id, parent_event_id=second.id)
    assert {event.id for event in events.get_event_tree(first.id)} == {first.id, second.id}


def test_files_and_messages_name_their_event(
    db_session: DatabaseSession, events: EventRepository, run: WorkflowRun
) -> None:
    """A file and a message are found by the event that made them."""
    event = events.create_event(run.id, "file_gen", 0)
    file = File(run_id=run.id, event_id=event.id, file_path="/out.png", file_type="plot", size_bytes=1024)
    message = Message(run_id=run.id, event_id=event.id, sender="planner", recipient="engineer", content="Go")
    db_session.add_all([file, message])
    db_session.commit()
    assert db_session.query(File).filter(File.event_id == event.id).all() == [file]
    assert db_session.query(Message).filter(Message.event_id == event.id).all() == [message]


def test_statistics_are_of_the_whole_run(events: EventRepository, run: WorkflowRun) -> None:
    """Counts by type and agent, durations of the events that lasted."""
    events.create_event(run.id, "agent_call", 0, agent_name="engineer", duration_ms=1000)
    events.create_event(run.id, "code_exec", 1, agent_name="engineer", duration_ms=2000)
    events.create_event(run.id, "file_gen", 2, duration_ms=500)
    events.create_event(run.id, "info", 3)
    assert events.get_event_statistics(run.id) == {
        "total_events": 4,
        "event_types": {"agent_call": 1, "code_exec": 1, "file_gen": 1, "info": 1},
        "agents_involved": ["engineer"],
        "agent_call_counts": {"engineer": 2},
        "avg_duration_ms": pytest.approx(3500 / 3),
        "total_duration_ms": 3500,
    }


def test_events_are_listed_by_what_is_asked(events: EventRepository, run: WorkflowRun) -> None:
    """By type, by agent, by both, and no more than the limit; by order whenever they were written."""
    made = [
        events.create_event(run.id, kind, order, agent_name=agent)
        for order, kind, agent in [(2, "tool_call", "b"), (0, "agent_call", "a"), (1, "agent_call", "b")]
    ]
    in_order = [made[1], made[2], made[0]]
    assert list(events.list_events_for_run(run.id)) == in_order
    assert list(events.list_events_for_run(run.id, event_type="agent_call")) == in_order[:2]
    assert list(events.list_events_for_run(run.id, agent_name="b")) == in_order[1:]
    assert list(events.list_events_for_run(run.id, event_type="agent_call", agent_name="b")) == [made[2]]
    assert list(events.list_events_for_run(run.id, limit=1)) == [made[1]]


def test_a_node_means_that_of_the_latest_run(
    db_session: DatabaseSession, workflows: WorkflowRepository, events: EventRepository
) -> None:
    """Node names recur: without a run it is the latest one's, with a run that one's."""
    of_run = {}
    for hour in (2, 1):
        run = workflows.create_run(started_at=NOON + timedelta(hours=hour))
        DAGRepository(db_session, MINE).create_node(run.id, "step_1")
        of_run[hour] = events.create_event(run.id, "info", node_id="step_1")
    assert list(events.list_events_for_node("step_1")) == [of_run[2]]
    assert list(events.list_events_for_node("step_1", run_id=of_run[1].run_id)) == [of_run[1]]
    assert list(events.list_events_for_node("step_1", event_type="error")) == []


def test_a_run_stays_true_to_its_events(events: EventRepository, workflows: WorkflowRepository) -> None:
    """Bounds, counts, root and end follow what is written, changed and deleted."""
    run = workflows.create_run(started_at=NOON)
    root = events.create_event(run.id, "agent_call", agent_name="a", started_at=NOON - timedelta(hours=1))
    late = events.create_event(
        run.id, "tool_call", parent_event_id=root.id, started_at=NOON + timedelta(hours=1), duration_ms=60_000
    )
    assert (run.started_at, run.completed_at) == (NOON - timedelta(hours=1), NOON + timedelta(hours=1, minutes=1))
    assert run.last_started_at_unix_nano == late.started_at_unix_nano
    assert (run.event_count, run.error_count, run.root_event_id, run.name) == (2, 0, root.id, "agent_call a")
    events.update_event(late.id, status="failed", error_message="no way")
    assert run.error_count == 1
    events.delete_event(root.id)
    assert (run.event_count, run.root_event_id, late.parent_event_id) == (1, late.id, None)


def test_an_event_that_changes_its_run_is_counted_there(
    db_session: DatabaseSession, workflows: WorkflowRepository, events: EventRepository, run: WorkflowRun
) -> None:
    """And no more where it was."""
    other = workflows.create_run(task_description="Find another way out")
    event = events.create_event(run_id=run.id, event_type="agent_call", status="failed")
    event.run = other
    db_session.commit()
    assert [(run.event_count, run.error_count), (other.event_count, other.error_count)] == [(0, 0), (1, 1)]


def test_a_running_event_ends(events: EventRepository, run: WorkflowRun) -> None:
    """An event has no end until it has ended; then end and duration agree, and a failure is OTel's error."""
    event = events.create_event(run.id, "tool_call", status="running", started_at=NOON)
    assert (event.completed_at, event.duration_ms) == (None, None)
    events.update_event(event.id, status="failed", error_message="lost", completed_at=NOON + timedelta(seconds=2))
    assert (event.duration_ms, event.status_code, event.error_message) == (2000, 2, "lost")
    events.update_event(event.id, duration_ms=500)
    assert event.completed_at == NOON + timedelta(milliseconds=500)


@pytest.mark.parametrize(
    ("name", "known"),
    [("event_type", "handoff"), ("event_subtype", "rejected"), ("agent_role", "validator"), ("status", "skipped")],
)
def test_an_unknown_word_is_refused(events: EventRepository, run: WorkflowRun, name: str, known: str) -> None:
    """A ValueError that lists the known ones, when written and when changed; nothing is stored."""
    with pytest.raises(ValueError, match=f"'nonsense'.*{known}"):
        events.create_event(**{"run_id": run.id, "event_type": "info", name: "nonsense"})
    assert events.list_events_for_run(run.id) == []
    event = events.create_event(run.id, "info")
    with pytest.raises(ValueError, match=f"'nonsense'.*{known}"):
        events.update_event(event.id, **{name: "nonsense"})
    assert events.get_event(event.id).event_type == "info"


@pytest.mark.parametrize("run_id", [NOBODY, "no id at all"])
def test_an_event_of_an_unknown_run_is_refused(events: EventRepository, run: WorkflowRun, run_id: str) -> None:
    """The error names the run, and the repository works on."""
    with pytest.raises(StorageError, match=run_id):
        events.create_event(run_id, "info")
    assert events.create_event(run.id, "info").run is run


def test_agents_write_at_the_same_time(database: str, run: WorkflowRun) -> None:
    """Threads with a session each write events of one run: every event is there, and counted."""
    run_id, failures = run.id, []

    def write(agent: str) -> None:
        try:
            with get_db_session(database) as session:
                for order in range(EVENTS_EACH):
                    EventRepository(session, MINE).create_event(run_id, "info", order, agent_name=agent)
        except Exception as failure:  # noqa: BLE001 shown below
            failures.append(failure)

    threads = [threading.Thread(target=write, args=(agent,)) for agent in AGENTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with get_db_session(database) as session:
        assert WorkflowRepository(session, MINE).get_run(run_id).event_count == len(AGENTS) * EVENTS_EACH
        counts = EventRepository(session, MINE).get_event_statistics(run_id)["agent_call_counts"]
    assert counts == dict.fromkeys(AGENTS, EVENTS_EACH)


def test_events_are_added_in_bulk(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Events that are added to the session are counted as those of the repository are."""
    parent = ExecutionEvent(run_id=run.id, id="00000000000000aa", event_type="agent_call", started_at=NOON)
    children = [ExecutionEvent(run_id=run.id, parent_event_id=parent.id, event_type="info") for _ in range(1000)]
    files = [File(run_id=run.id, event=event, file_path="/a") for event in children]
    db_session.add_all([parent, *children, *files])
    db_session.commit()
    assert (run.event_count, run.root_event_id, run.started_at) == (1001, parent.id, NOON)
    assert len(parent.child_events) == len(run.files) == 1000


@pytest.mark.parametrize("key", ["node_id", "step_id"])
def test_an_event_of_an_unknown_node_or_step_is_refused(events: EventRepository, run: WorkflowRun, key: str) -> None:
    """The error names what is missing, and the run."""
    with pytest.raises(UnknownReference, match=f"'nowhere' in run {run.id}"):
        events.create_event(run.id, "info", **{key: "nowhere"})
    assert events.get_event_statistics(run.id)["total_events"] == 0


def test_an_event_id_is_taken_once_in_a_run(events: EventRepository, run: WorkflowRun) -> None:
    """A second event with the id of the first is refused."""
    events.create_event(run.id, "info", id="00000000000000aa")
    with pytest.raises(AlreadyStored, match=r"(?i)00000000000000aa"):
        events.create_event(run.id, "info", id="00000000000000AA")


@pytest.mark.parametrize("name", ["session_id", "id", "no_column"])
def test_what_a_row_is_cannot_be_changed(events: EventRepository, run: WorkflowRun, name: str) -> None:
    """A row stays the one it is, whose it is; an unknown name is a mistake."""
    event = events.create_event(run.id, "info")
    with pytest.raises(TypeError, match=name):
        events.update_event(event.id, **{name: "x"})


def test_events_by_hand_have_one_origin(db_session: DatabaseSession, events: EventRepository, run: WorkflowRun) -> None:
    """One resource and one scope `clew.repository`, as OTLP would have brought them."""
    for _ in range(2):
        events.create_event(run.id, "info")
    [resource], [scope] = db_session.query(Resource).all(), db_session.query(Scope).all()
    assert (resource.service_name, scope.name) == ("clew.repository", "clew.repository")
    [pair] = OtlpResource.FromString(resource.otlp).attributes
    assert (pair.key, pair.value.string_value) == ("service.name", "clew.repository")
    assert InstrumentationScope.FromString(scope.otlp) == InstrumentationScope(name="clew.repository")


def test_the_events_of_a_run_are_found_by_its_bounds(
    db_session: DatabaseSession, events: EventRepository, run: WorkflowRun
) -> None:
    """The plan reads the table once, with run and time bounds pushed down into the scan."""
    for hour in range(2):
        other = WorkflowRepository(db_session, MINE).create_run(started_at=NOON + timedelta(hours=hour))
        events.create_event(other.id, "info", started_at=NOON + timedelta(hours=hour))
    events.create_event(run.id, "info")
    statement = events._within(run.id).compile(db_session.get_bind(), compile_kwargs={"literal_binds": True})
    plan = "\n".join(row[1] for row in db_session.execute(text(f"EXPLAIN {statement}")))
    assert plan.count("execution_events") == 1
    assert re.search(r"Filters:[^╰]*run_id\s*=", plan), plan
    assert re.search(r"Filters:[^╰]*started_at_unix_nano\s*>=", plan), plan


def test_a_run_by_hand_reads_like_a_recorded_one(
    database: str, start_server: Callable[..., Any], db_session: DatabaseSession
) -> None:
    """Written through repositories, read through the HTTP API: tree, statistics, events and their data agree."""
    run = WorkflowRepository(db_session, MINE).create_run(started_at=NOON, name="by hand")
    events = EventRepository(db_session, MINE)
    root = events.create_event(
        run.id, "agent_call", agent_name="engineer", started_at=NOON, duration_ms=2000, inputs={"q": 1}
    )
    child = events.create_event(
        run.id, "tool_call", parent_event_id=root.id, started_at=NOON + timedelta(seconds=1), meta={"k": [1, "two"]}
    )
    expected = {"run": run.id, "root": root.id, "child": child.id}
    statistics = events.get_event_statistics(run.id)
    db_session.close()
    close_database(database)
    server = start_server("--db", database)
    api = f"{server.http_url}/api/runs/{expected['run']}"
    tree = httpx.get(f"{api}/tree").raise_for_status().json()
    assert [(event["id"], event["depth"]) for event in tree["events"]] == [
        (expected["root"], 0),
        (expected["child"], 1),
    ]
    asked = httpx.get(f"{api}/statistics").raise_for_status().json()
    assert {name: asked[name] for name in statistics} == statistics
    page = httpx.get(f"{api}/events").raise_for_status().json()["events"]
    assert [event["service_name"] for event in page] == ["clew.repository"] * 2
    assert page[0]["attributes"]["clew.inputs"] == '{"q": 1}'
    assert page[1]["attributes"]["k"] == [1, "two"]
    detail = httpx.get(f"{api}/events/{expected['root']}").raise_for_status().json()
    assert detail["scope"]["name"] == "clew.repository"


def test_a_run_by_hand_is_sent_on_as_otlp(database: str, db_session: DatabaseSession) -> None:
    """What columns say, the attributes say too: a collector that gets the spans reads the same events."""
    run = WorkflowRepository(db_session, MINE).create_run()
    events = EventRepository(db_session, MINE)
    events.create_event(run.id, "file_gen", 7, event_subtype="error", status="failed", error_message="full")
    run_id = parse_run_id(run.id)
    db_session.close()
    close_database(database)
    store = Store.open(database)
    try:
        traces = TracesData.FromString(run_as_otlp(store, run_id))
    finally:
        store.close()
    [span] = traces.resource_spans[0].scope_spans[0].spans
    attributes = {pair.key: pair.value for pair in span.attributes}
    assert attributes["clew.event.type"].string_value == "file_gen"
    assert attributes["clew.event.order"].int_value == 7
    assert (span.status.code, span.status.message) == (2, "full")


def test_a_run_without_events_is_shown(
    database: str, start_server: Callable[..., Any], db_session: DatabaseSession
) -> None:
    """A run that was only planned so far is listed, and its tree is empty."""
    run_id = WorkflowRepository(db_session, MINE).create_run(status="planning").id
    db_session.close()
    close_database(database)
    api = f"{start_server('--db', database).http_url}/api/runs"
    [run] = httpx.get(api).raise_for_status().json()["runs"]
    assert (run["id"], run["status"], run["event_count"], run["duration_ns"]) == (run_id, "planning", 0, 0)
    assert httpx.get(f"{api}/{run_id}/tree").raise_for_status().json()["events"] == []
    assert httpx.get(f"{api}/{run_id}/statistics").raise_for_status().json()["total_events"] == 0
