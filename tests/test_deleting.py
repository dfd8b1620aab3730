"""Deleting: what goes with a row, what stays, and all of it or nothing."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError

from clew.storage import (
    AgentRun,
    ApprovalRequest,
    Base,
    Branch,
    Checkpoint,
    CostRecord,
    DAGEdge,
    DAGNode,
    DatabaseSession,
    EventLink,
    EventLog,
    ExecutionEvent,
    File,
    Message,
    Project,
    Session,
    Task,
    WorkflowMetric,
    WorkflowRepository,
    WorkflowRun,
    WorkflowStep,
)

MINE, OTHER = "0" * 31 + "1", "0" * 31 + "2"
EVENT, CHILD = "00000000000000aa", "00000000000000bb"


@pytest.fixture
def filled(db_session: DatabaseSession) -> DatabaseSession:
    """Two runs of a session, each with a row in every table that can hold one of a run's; a project, a task."""
    db_session.add_all([Session(id="s"), Project(id="0" * 31 + "9", session_id="s", name="p")])
    db_session.add(Task(id="t", session_id="s", input_prompt="x"))
    for run_id in (MINE, OTHER):
        db_session.add_all(_rows_of(run_id))
    db_session.commit()
    return db_session


def _rows_of(run_id: str) -> list[Base]:
    of_event: dict[str, Any] = {"run_id": run_id, "event_id": EVENT}
    of_all: dict[str, Any] = {**of_event, "step_id": "s", "node_id": "n"}
    return [
        WorkflowRun(id=run_id, session_id="s", project_id="0" * 31 + "9", task_id="t"),
        WorkflowStep(run_id=run_id, id="s"),
        DAGNode(run_id=run_id, id="n"),
        DAGNode(run_id=run_id, id="m"),
        DAGEdge(run_id=run_id, from_node_id="n", to_node_id="m"),
        ExecutionEvent(run_id=run_id, id=EVENT, event_type="info", node_id="n", step_id="s"),
        ExecutionEvent(run_id=run_id, id=CHILD, event_type="info", parent_event_id=EVENT, node_id="m"),
        EventLog(**of_event, log_index=0, task_id="t"),
        EventLink(**of_event, link_index=0, event_started_at_unix_nano=0),
        File(**of_all, file_path="/a"),
        Message(**of_all, content="x"),
        CostRecord(**of_event, step_id="s"),
        Checkpoint(**of_event, step_id="s"),
        ApprovalRequest(**of_event, id="a", step_id="s"),
        AgentRun(**of_event, agent_name="a", task_id="t"),
        WorkflowMetric(**of_event, metric_name="x", step_id="s"),
        Branch(parent_run_id=run_id, child_run_id=OTHER if run_id == MINE else MINE),
    ]


def _counts(db_session: DatabaseSession, run_id: str) -> dict[str, int]:
    """How many rows of the run each table holds."""
    owners = {"workflow_runs": "id", "branches": "parent_run_id"}
    counts = {}
    for name, table in Base.metadata.tables.items():
        owner = table.c.get(owners.get(name, "run_id"))
        if owner is not None:
            counts[name] = len(db_session.execute(select(owner).where(owner == run_id)).all())
    return counts


def test_a_run_takes_everything_of_it_along(filled: DatabaseSession) -> None:
    """Every table that can hold rows of a run held some, and holds none after; the other run's are all there."""
    before = _counts(filled, OTHER)
    assert _counts(filled, MINE) == before
    assert min(before.values()) > 0, "a table that can hold rows of a run has none in this test"
    assert WorkflowRepository(filled, "s").delete_run(MINE)
    assert set(_counts(filled, MINE).values()) == {0}
    assert _counts(filled, OTHER) == before
    assert filled.query(Branch).one().child_run_id is None
    assert (filled.query(Task).count(), filled.query(Project).count()) == (1, 1)


def test_a_session_takes_everything_along(filled: DatabaseSession) -> None:
    """Its projects, tasks and runs with all of theirs; resources and scopes are everybody's."""
    filled.delete(filled.get_one(Session, "s"))
    filled.commit()
    for name, table in Base.metadata.tables.items():
        found = filled.execute(select(table.primary_key.columns[0])).all()
        assert bool(found) == (name in {"resources", "scopes"}), name


def test_an_event_leaves_its_children_files_and_messages(filled: DatabaseSession) -> None:
    """Its logs and links go; what it led to stays with the run, and names it no more."""
    filled.delete(filled.get_one(ExecutionEvent, (MINE, EVENT)))
    filled.commit()
    for model in (EventLog, EventLink):
        assert filled.query(model).filter_by(run_id=MINE).count() == 0
    for model in (File, Message, CostRecord, Checkpoint, ApprovalRequest, AgentRun, WorkflowMetric):
        [row] = filled.query(model).filter_by(run_id=MINE).all()
        assert row.event_id is None, model
        [others] = filled.query(model).filter_by(run_id=OTHER).all()
        assert others.event_id == EVENT, model
    assert filled.get_one(ExecutionEvent, (MINE, CHILD)).parent_event_id is None
    assert filled.get_one(ExecutionEvent, (OTHER, CHILD)).parent_event_id == EVENT
    run = filled.get_one(WorkflowRun, MINE)
    assert (run.event_count, run.root_event_id) == (1, CHILD)


def test_a_node_takes_its_events_files_and_messages_along(filled: DatabaseSession) -> None:
    """And its edges; events of other nodes stay, and the run counts what is left."""
    filled.delete(filled.get_one(DAGNode, (MINE, "n")))
    filled.commit()
    for model in (DAGEdge, File, Message):
        assert filled.query(model).filter_by(run_id=MINE).count() == 0, model
    assert [event.id for event in filled.query(ExecutionEvent).filter_by(run_id=MINE)] == [CHILD]
    assert filled.get_one(WorkflowRun, MINE).event_count == 1
    assert filled.query(CostRecord).filter_by(run_id=MINE).one().event_id is None


def test_a_step_is_forgotten_by_what_it_held(filled: DatabaseSession) -> None:
    """Nothing goes with a step."""
    before = _counts(filled, MINE)
    filled.delete(filled.get_one(WorkflowStep, (MINE, "s")))
    filled.commit()
    assert _counts(filled, MINE) == before | {"workflow_steps": 0}
    for model in (ExecutionEvent, File, Message, CostRecord, Checkpoint, ApprovalRequest, WorkflowMetric):
        assert {row.step_id for row in filled.query(model).filter_by(run_id=MINE)} == {None}, model


def test_a_task_takes_its_log_and_agents_along(filled: DatabaseSession) -> None:
    """Runs that worked on it stay."""
    filled.delete(filled.get_one(Task, "t"))
    filled.commit()
    assert (filled.query(EventLog).count(), filled.query(AgentRun).count()) == (0, 0)
    assert [run.task_id for run in filled.query(WorkflowRun)] == [None, None]


def test_an_entry_without_run_or_event_is_deleted(db_session: DatabaseSession) -> None:
    """A task's log has no event to be found by, and goes alone."""
    db_session.add(Task(id="t", input_prompt="x"))
    first, second = EventLog(task_id="t", content="first"), EventLog(task_id="t", content="second")
    db_session.add_all([first, second])
    db_session.commit()
    db_session.delete(first)
    db_session.commit()
    assert db_session.query(EventLog).all() == [second]


def test_a_rollback_brings_everything_back(filled: DatabaseSession) -> None:
    """Deleting is one transaction: all of it, or nothing."""
    before = _counts(filled, MINE)
    run = filled.get_one(WorkflowRun, MINE)
    filled.delete(run)
    filled.flush()
    assert _counts(filled, MINE)["workflow_runs"] == 0
    filled.rollback()
    assert _counts(filled, MINE) == before
    assert len(run.execution_events) == 2


def test_a_deletion_that_fails_deletes_nothing(filled: DatabaseSession) -> None:
    """Where a statement among the many is refused, the others are taken back."""
    before = _counts(filled, MINE)
    filled.execute(text("ALTER TABLE workflow_metrics RENAME TO elsewhere"))
    filled.commit()
    with pytest.raises(DBAPIError, match="workflow_metrics"):
        WorkflowRepository(filled, "s").delete_run(MINE)
    filled.execute(text("ALTER TABLE elsewhere RENAME TO workflow_metrics"))
    filled.commit()
    assert _counts(filled, MINE) == before


def test_parent_and_child_are_deleted_together(filled: DatabaseSession) -> None:
    """What was to go anyway may go with what takes it along."""
    run, event = filled.get_one(WorkflowRun, MINE), filled.get_one(ExecutionEvent, (MINE, EVENT))
    for row in (filled.query(File).filter_by(run_id=MINE).one(), run, event):
        filled.delete(row)
    filled.commit()
    assert set(_counts(filled, MINE).values()) == {0}
