"""Repositories: one session's rows, and nobody else's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path

import pytest

from clew import storage
from clew.storage import (
    AlreadyStored,
    CheckpointRepository,
    CostRepository,
    DAGRepository,
    DatabaseSession,
    EventRepository,
    ExecutionEvent,
    SelfDependency,
    Session,
    SessionRepository,
    Store,
    Task,
    UnknownReference,
    WorkflowRepository,
    WorkflowRun,
    close_database,
    get_db_session,
    init_database,
)

MINE, THEIRS = "mine", "theirs"
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
# What the seeds of the project call for, by these names.
NAMES = """
    ExecutionEvent File Message EventRepository Session Project WorkflowRun WorkflowStep DAGNode DAGEdge Checkpoint
    CostRecord ApprovalRequest Branch WorkflowMetric SessionRepository WorkflowRepository DAGRepository CostRepository
    CheckpointRepository init_database get_db_session DualPersistenceManager Task TaskStatus EventLog EventType AgentRun
    AgentRunStatus
"""


@pytest.fixture
def workflows(db_session: DatabaseSession) -> WorkflowRepository:
    return WorkflowRepository(db_session, MINE)


@pytest.fixture
def events(db_session: DatabaseSession) -> EventRepository:
    return EventRepository(db_session, MINE)


@pytest.fixture
def run(workflows: WorkflowRepository) -> WorkflowRun:
    return workflows.create_run(task_description="Find the way out", mode="one_shot", agent="engineer", model="m-1")


@pytest.mark.parametrize("name", NAMES.split())
def test_storage_exports_the_name(name: str) -> None:
    """What applications work with is `clew.storage`'s own."""
    assert name in storage.__all__
    assert hasattr(storage, name)


def test_a_database_is_opened_once_in_a_process(database: str) -> None:
    """The same file gives the same engine, however often it is asked for; closed, it is opened anew."""
    engine = init_database(database)
    assert init_database(f"duckdb:///{database}") is engine
    with get_db_session(database) as session:
        assert session.get_bind() is engine
    close_database(database)
    assert init_database(database) is not engine


def test_a_session_is_on_the_database_asked_for_last(tmp_path: Path) -> None:
    """`get_db_session()` after `init_database(url)` means that one."""
    first, second = (str(tmp_path / name) for name in ("first.duckdb", "second.duckdb"))
    for url in (first, second, first):
        engine = init_database(url)
        with get_db_session() as session:
            assert session.get_bind() is engine
    close_database()
    Store.open(second).close()


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


def test_a_run_joins_what_is_of_its_session_only(db_session: DatabaseSession) -> None:
    """A project or a task of another session is as good as none."""
    project = SessionRepository(db_session, MINE).create_project("labyrinth")
    assert WorkflowRepository(db_session, MINE).create_run(project_id=project.id).project is project
    task = Task(session_id=MINE, input_prompt="x")
    db_session.add(task)
    db_session.commit()
    theirs = WorkflowRepository(db_session, THEIRS)
    run = theirs.create_run()
    for owner in ({"project_id": project.id}, {"task_id": task.id}):
        for write in (theirs.create_run, partial(theirs.update_run, run.id)):
            with pytest.raises(UnknownReference, match=next(iter(owner.values()))):
                write(**owner)
    assert (run.project_id, run.task_id, len(theirs.list_runs())) == (None, None, 1)


def test_a_state_is_one_of_the_known(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Whatever has a vocabulary: a ValueError lists it, and nothing is stored."""
    workflows, dag = WorkflowRepository(db_session, MINE), DAGRepository(db_session, MINE)
    checkpoints, sessions = CheckpointRepository(db_session, MINE), SessionRepository(db_session, MINE)
    for write, known in (
        (lambda: workflows.create_run(status="x"), "waiting_approval"),
        (lambda: workflows.update_run(run.id, status="x"), "waiting_approval"),
        (lambda: workflows.create_step(run.id, status="x"), "skipped"),
        (lambda: dag.create_node(run.id, "n", node_type="x"), "parallel_group"),
        (lambda: dag.create_node(run.id, "n", status="x"), "skipped"),
        (lambda: checkpoints.create_checkpoint(run.id, checkpoint_type="x"), "emergency"),
        (lambda: sessions.update_session(status="x"), "archived"),
    ):
        with pytest.raises(ValueError, match=f"'x'.*{known}"):
            write()
    assert (run.status, len(workflows.list_runs()), list(dag.list_nodes(run.id))) == ("draft", 1, [])


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
