"""Repositories: one session's rows, written and read by hand, the same as recorded ones."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from sqlalchemy import text

from clew.exporter.otlp import run_as_otlp
from clew.storage import (
    AlreadyStored,
    CheckpointRepository,
    CostRepository,
    DAGRepository,
    DatabaseSession,
    EventRepository,
    ExecutionEvent,
    File,
    Message,
    Resource,
    Scope,
    SelfDependency,
    Session,
    SessionRepository,
    StorageError,
    Store,
    UnknownReference,
    WorkflowRepository,
    WorkflowRun,
    close_database,
    get_db_session,
    init_database,
    parse_run_id,
)

MINE, THEIRS = "mine", "theirs"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOBODY = "ab" * 16


@pytest.fixture
def workflows(db_session: DatabaseSession) -> WorkflowRepository:
    return WorkflowRepository(db_session, MINE)


@pytest.fixture
def events(db_session: DatabaseSession) -> EventRepository:
    return EventRepository(db_session, MINE)


@pytest.fixture
def run(workflows: WorkflowRepository) -> WorkflowRun:
    return workflows.create_run(task_description="Find the way out", mode="one_shot", agent="engineer", model="m-1")


def test_a_database_is_opened_once_in_a_process(database: str) -> None:
    """The same file gives the same engine, however often it is asked for; closed, it is opened anew."""
    engine = init_database(database)
    assert init_database(f"duckdb:///{database}") is engine
    with get_db_session(database) as session:
        assert session.get_bind() is engine
    close_database(database)
    assert init_database(database) is not engine


def test_the_database_is_the_one_that_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CLEW_DB counts where no URL is given; without it the file is in the user's data folder."""
    monkeypatch.setenv("CLEW_DB", str(tmp_path / "named.duckdb"))
    init_database()
    close_database()
    assert (tmp_path / "named.duckdb").exists()
    monkeypatch.delenv("CLEW_DB")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path))
    init_database()
    close_database()
    assert [path.name for path in tmp_path.rglob("clew.duckdb")] == ["clew.duckdb"]


def test_a_run_creates_its_session(workflows: WorkflowRepository, db_session: DatabaseSession) -> None:
    """The first run of a session that nobody declared brings the session with it."""
    run = workflows.create_run(mode="one_shot")
    assert (run.session_id, run.status, run.completed_at) == (MINE, "draft", None)
    assert db_session.get(Session, MINE) is run.session


def test_a_run_is_found_and_changed(workflows: WorkflowRepository, run: WorkflowRun) -> None:
    """By id, in lists by status with the latest first, and changed by name."""
    later = workflows.create_run(status="planning", started_at=datetime.now(UTC) + timedelta(hours=1))
    assert workflows.get_run(run.id) is run
    assert list(workflows.list_runs()) == [later, run]
    assert list(workflows.list_runs(status="planning")) == [later]
    assert list(workflows.list_runs(limit=1)) == [later]
    assert workflows.update_run(run.id, status="completed", completed_at=NOON) is run
    assert (run.status, run.completed_at) == ("completed", NOON)


def test_steps_are_kept_by_number(workflows: WorkflowRepository, run: WorkflowRun) -> None:
    """A step is created, found, listed by number and status, and changed."""
    second = workflows.create_step(run.id, id="b", step_number=2, inputs={"x": [1]})
    first = workflows.create_step(run.id, id="a", step_number=1)
    assert list(workflows.list_steps(run.id)) == [first, second]
    assert workflows.update_step(run.id, "b", status="completed", progress_percentage=100) is second
    assert list(workflows.list_steps(run.id, status="completed")) == [second]
    assert workflows.get_step(run.id, "b").inputs == {"x": [1]}
    assert workflows.get_step(run.id, "c") is None


def test_a_run_joins_a_project_of_its_session_only(db_session: DatabaseSession) -> None:
    """A project of another session is as good as none."""
    project = SessionRepository(db_session, MINE).create_project("labyrinth")
    assert WorkflowRepository(db_session, MINE).create_run(project_id=project.id).project is project
    with pytest.raises(UnknownReference, match=project.id):
        WorkflowRepository(db_session, THEIRS).create_run(project_id=project.id)


def test_a_session_is_created_once_and_changed(db_session: DatabaseSession) -> None:
    """A repository knows its own session; a second creation is refused, and the message says what to do."""
    sessions = SessionRepository(db_session, MINE)
    assert sessions.list_sessions() == []
    session = sessions.create_session(name="Ariadne", meta={"thread": "red"})
    assert (session.status, session.meta) == ("active", {"thread": "red"})
    with pytest.raises(AlreadyStored, match="update_session"):
        sessions.create_session()
    sessions.update_session(status="archived")
    assert sessions.list_sessions(status="archived") == [session]
    assert sessions.list_sessions(status="active") == []


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


def test_another_session_sees_nothing(db_session: DatabaseSession, run: WorkflowRun, events: EventRepository) -> None:
    """Whatever is asked for of another session's run: nothing found, nothing changed, nothing deleted."""
    event = events.create_event(run.id, "info")
    workflows, dag = WorkflowRepository(db_session, MINE), DAGRepository(db_session, MINE)
    workflows.create_step(run.id, id="s")
    dag.create_node(run.id, "n")
    project = SessionRepository(db_session, MINE).create_project("p")
    cost = CostRepository(db_session, MINE).create_cost_record(run.id, model="m", cost_usd=Decimal(1))
    checkpoint = CheckpointRepository(db_session, MINE).create_checkpoint(run.id)
    their_events, their_dag = EventRepository(db_session, THEIRS), DAGRepository(db_session, THEIRS)
    their_runs, their_sessions = WorkflowRepository(db_session, THEIRS), SessionRepository(db_session, THEIRS)
    their_costs, their_checkpoints = CostRepository(db_session, THEIRS), CheckpointRepository(db_session, THEIRS)
    found = [
        their_runs.get_run(run.id),
        their_runs.update_run(run.id, status="failed"),
        their_runs.get_step(run.id, "s"),
        their_runs.update_step(run.id, "s", status="failed"),
        their_events.get_event(event.id),
        their_events.get_event(event.id, run.id),
        their_events.update_event(event.id, status="failed"),
        their_dag.get_node(run.id, "n"),
        their_dag.update_node(run.id, "n", status="failed"),
        their_sessions.get_session(MINE),
        their_sessions.get_project(project.id),
        their_sessions.update_project(project.id, name="x"),
        their_costs.get_cost_record(cost.id),
        their_costs.update_cost_record(cost.id, cost_usd=Decimal(2)),
        their_checkpoints.get_checkpoint(checkpoint.id),
        their_checkpoints.update_checkpoint(checkpoint.id, checkpoint_type="error"),
    ]
    assert found == [None] * len(found)
    listed = [
        their_runs.list_runs(),
        their_runs.list_steps(run.id),
        their_events.list_events_for_run(run.id),
        their_events.get_child_events(event.id),
        their_events.get_event_tree(event.id),
        their_events.list_events_for_node("n"),
        their_events.list_events_for_node("n", run_id=run.id),
        their_dag.list_nodes(run.id),
        their_dag.list_edges(run.id),
        their_sessions.list_sessions(),
        their_sessions.list_projects(),
        their_costs.list_cost_records(),
        their_costs.list_cost_records(run.id),
        their_checkpoints.list_checkpoints(run.id),
    ]
    assert [list(rows) for rows in listed] == [[]] * len(listed)
    assert their_events.get_event_statistics(run.id)["total_events"] == 0
    assert their_costs.get_run_cost(run.id)["cost_usd"] == 0
    deleted = [
        their_runs.delete_run(run.id),
        their_events.delete_event(event.id),
        their_dag.delete_node(run.id, "n"),
        their_sessions.delete_session(),
    ]
    assert not any(deleted)
    assert (run.status, event.status, run.event_count) == ("draft", "completed", 1)


def test_another_session_adds_nothing(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """A run of another session is as good as none: the error names it."""
    for write in (
        lambda: EventRepository(db_session, THEIRS).create_event(run.id, "info"),
        lambda: WorkflowRepository(db_session, THEIRS).create_step(run.id),
        lambda: DAGRepository(db_session, THEIRS).create_node(run.id, "n"),
        lambda: DAGRepository(db_session, THEIRS).create_edge(run.id, "n", "m"),
        lambda: CostRepository(db_session, THEIRS).create_cost_record(run.id),
        lambda: CheckpointRepository(db_session, THEIRS).create_checkpoint(run.id),
    ):
        with pytest.raises(UnknownReference, match=run.id):
            write()


def test_an_event_cannot_claim_another_session(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """The session is said by the run; an event that says another one is refused."""
    db_session.add(ExecutionEvent(run_id=run.id, session_id=THEIRS, event_type="info"))
    with pytest.raises(UnknownReference, match=f"{MINE}.*{THEIRS}"):
        db_session.commit()
    db_session.rollback()
    db_session.add(ExecutionEvent(run_id=run.id, session_id=MINE, event_type="info"))
    db_session.commit()
    assert db_session.query(ExecutionEvent).filter(ExecutionEvent.session_id == MINE).count() == 1


def test_a_graph_is_kept(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Nodes by order with what they wait for; edges by hand besides."""
    dag = DAGRepository(db_session, MINE)
    plan = dag.create_node(run.id, "plan", node_type="planning", order_index=0)
    work = dag.create_node(run.id, "work", order_index=1, depends_on=["plan"])
    end = dag.create_node(run.id, "end", node_type="terminator", order_index=2)
    dag.create_edge(run.id, "work", "end", dependency_type="conditional", condition="ok")
    assert list(dag.list_nodes(run.id)) == [plan, work, end]
    edges = [(edge.from_node_id, edge.to_node_id, edge.dependency_type) for edge in dag.list_edges(run.id)]
    assert edges == [("plan", "work", "sequential"), ("work", "end", "conditional")]
    dag.update_node(run.id, "plan", status="completed")
    assert list(dag.list_nodes(run.id, status="completed")) == [plan]


def test_a_node_waits_for_nodes_that_are_there(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Neither for itself nor for an unknown one: the error names it, and nothing is stored."""
    dag = DAGRepository(db_session, MINE)
    dag.create_node(run.id, "a")
    with pytest.raises(SelfDependency, match="'b'"):
        dag.create_node(run.id, "b", depends_on=["a", "b"])
    with pytest.raises(UnknownReference, match="'nowhere'"):
        dag.create_node(run.id, "b", depends_on=["a", "nowhere"])
    with pytest.raises(UnknownReference, match="'nowhere'"):
        dag.create_edge(run.id, "a", "nowhere")
    with pytest.raises(SelfDependency, match="'a'"):
        dag.create_edge(run.id, "a", "a")
    assert dag.get_node(run.id, "b") is None
    assert list(dag.list_edges(run.id)) == []


def test_costs_are_summed_up(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Records by run, step and model; the sum is exact."""
    costs = CostRepository(db_session, MINE)
    first = costs.create_cost_record(
        run.id, model="m-1", prompt_tokens=10, completion_tokens=5, cost_usd=Decimal("0.1")
    )
    second = costs.create_cost_record(run.id, model="m-2", prompt_tokens=1, cost_usd=Decimal("0.2"))
    assert first.total_tokens == 15
    assert list(costs.list_cost_records(run.id)) == [first, second]
    assert list(costs.list_cost_records(model="m-2")) == [second]
    costs.update_cost_record(second.id, cost_usd=Decimal("0.3"))
    assert costs.get_run_cost(run.id) == {
        "prompt_tokens": 11,
        "completion_tokens": 5,
        "total_tokens": 16,
        "cost_usd": Decimal("0.4"),
    }


def test_checkpoints_are_kept(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """By run and type, oldest first."""
    checkpoints = CheckpointRepository(db_session, MINE)
    later = checkpoints.create_checkpoint(run.id, created_at=NOON, checkpoint_type="timed")
    first = checkpoints.create_checkpoint(run.id, created_at=NOON - timedelta(1), context_snapshot={"a": [None]})
    assert list(checkpoints.list_checkpoints(run.id)) == [first, later]
    assert list(checkpoints.list_checkpoints(run.id, "timed")) == [later]
    assert checkpoints.get_checkpoint(first.id).context_snapshot == {"a": [None]}
    assert checkpoints.get_checkpoint("nonsense") is None


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
    database: str, start_server: Callable[..., object], db_session: DatabaseSession
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
