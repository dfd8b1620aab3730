"""Relationships, both ways, and what rows say of themselves when little was said."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func

from clew.storage import (
    AgentRun,
    AgentRunStatus,
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
    EventType,
    ExecutionEvent,
    File,
    InvalidId,
    Message,
    Project,
    Session,
    Task,
    TaskStatus,
    UnknownReference,
    WorkflowMetric,
    WorkflowRun,
    WorkflowStep,
)

RUN, NOBODY = "0" * 31 + "7", "ab" * 16
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def run(db_session: DatabaseSession) -> WorkflowRun:
    """A run with a node and a step."""
    run = WorkflowRun(id=RUN, session_id="s", started_at=NOON)
    node, step = DAGNode(run_id=RUN, id="n"), WorkflowStep(run_id=RUN, id="s")
    db_session.add_all([Session(id="s"), run, node, step])
    db_session.commit()
    return run


def _committed(db_session: DatabaseSession, *rows: Base) -> None:
    """Stores the rows, and forgets them: what is read after that comes from the database."""
    db_session.add_all(rows)
    db_session.commit()


def test_what_belongs_to_a_run_is_reached_both_ways(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """The run knows its rows of every kind, and each of them its run."""
    rows: dict[str, Base] = {
        "execution_events": ExecutionEvent(run_id=RUN, event_type="info"),
        "messages": Message(run_id=RUN, content="Go"),
        "files": File(run_id=RUN, file_path="/a"),
        "cost_records": CostRecord(run_id=RUN, model="m"),
        "checkpoints": Checkpoint(run_id=RUN),
        "approval_requests": ApprovalRequest(run_id=RUN),
        "agent_runs": AgentRun(run_id=RUN, agent_name="a"),
        "event_logs": EventLog(run_id=RUN, content="x"),
        "metrics": WorkflowMetric(run_id=RUN, metric_name="x", metric_value=1.5),
        "edges": DAGEdge(run_id=RUN, from_node_id="n", to_node_id="n"),
    }
    _committed(db_session, *rows.values())
    for name, row in rows.items():
        assert getattr(run, name) == [row], name
        assert row.run is run, name
    assert [step.run for step in run.steps] == [run]
    assert [node.run for node in run.nodes] == [run]


def test_what_an_event_made_is_reached_both_ways(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Event, node and step know their files and messages, and the other way round."""
    event = ExecutionEvent(run_id=RUN, id="00000000000000aa", event_type="file_gen", node_id="n", step_id="s")
    of_event = {"run_id": RUN, "event_id": event.id, "node_id": "n", "step_id": "s"}
    file, message = File(**of_event, file_path="/a"), Message(**of_event, content="Go")
    log = EventLog(run_id=RUN, event_id=event.id, log_index=0, name="moment")
    link = EventLink(run_id=RUN, event_id=event.id, link_index=0, event_started_at_unix_nano=0, linked_run_id=NOBODY)
    _committed(db_session, event, file, message, log, link)
    [node], [step] = run.nodes, run.steps
    for owner in (event, node, step):
        assert (owner.files, owner.messages) == ([file], [message])
    assert (event.logs, event.links) == ([log], [link])
    assert (node.execution_events, step.execution_events) == ([event], [event])
    for made in (file, message):
        assert (made.event, made.node, made.step, made.session_id) == (event, node, step, "s")
    assert (event.node, event.step, log.event, link.event) == (node, step, event, event)


def test_events_know_parent_and_children(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Within their run: an event of another run with the same id is nobody's parent here."""
    other = WorkflowRun(session_id="s")
    parent = ExecutionEvent(run_id=RUN, id="00000000000000aa", event_type="info")
    child = ExecutionEvent(run_id=RUN, parent_event_id=parent.id, event_type="info")
    namesake = ExecutionEvent(run=other, id=parent.id, event_type="info")
    _committed(db_session, other, parent, child, namesake)
    assert (parent.child_events, child.parent_event) == ([child], parent)
    assert namesake.child_events == []


def test_rows_are_hung_on_objects(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """A row that is given its event as an object gets the ids from it, the run's too."""
    event = ExecutionEvent(run=run, event_type="file_gen")
    event.files.append(File(file_path="/a"))
    event.child_events.append(ExecutionEvent(event_type="info"))
    _committed(db_session, Message(event=event, content="Go"))
    assert [file.event_id for file in event.files] == [event.id]
    assert [message.run_id for message in event.messages] == [RUN]
    assert [child.run for child in event.child_events] == [run]


def test_a_file_let_go_of_stays_with_its_run(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Taking a file off an event clears the link, not the run."""
    event = ExecutionEvent(run=run, event_type="file_gen", files=[File(run_id=RUN, file_path="/a")])
    _committed(db_session, event)
    file = event.files.pop()
    db_session.commit()
    assert (file.event_id, file.run_id) == (None, RUN)


def test_a_session_knows_what_is_its(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Projects, tasks, runs, and the events of its runs."""
    project, task = Project(session_id="s", name="p"), Task(session_id="s", input_prompt="x")
    event = ExecutionEvent(run_id=RUN, event_type="info")
    _committed(db_session, project, task, event)
    run.project, run.task = project, task
    db_session.commit()
    session = db_session.get_one(Session, "s")
    assert (session.projects, session.tasks, session.runs) == ([project], [task], [run])
    assert (session.execution_events, event.session) == ([event], session)
    assert (project.runs, task.runs) == ([run], [run])


def test_a_branch_names_a_run_that_may_come_later(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """The parent has to be there, the child not yet."""
    branch = Branch(parent_run_id=RUN, child_run_id=NOBODY, branch_name="left")
    _committed(db_session, branch)
    assert (run.branches, branch.parent_run) == ([branch], run)


def test_a_task_knows_its_log_and_agents(db_session: DatabaseSession) -> None:
    """With the times and states that nobody had to say."""
    task = Task(id="t", title="App", input_prompt="Build it", status=TaskStatus.PENDING)
    _committed(db_session, task)
    log = EventLog(task_id="t", event_type=EventType.MESSAGE, agent_role="PM", content='{"message": "..."}')
    agent_run = AgentRun(task_id="t", agent_name="PM", status=AgentRunStatus.STARTED)
    _committed(db_session, log, agent_run)
    assert (task.event_logs, task.agent_runs) == ([log], [agent_run])
    assert (log.task, agent_run.task) == (task, task)
    assert task.status is TaskStatus.PENDING
    assert log.event_type is EventType.MESSAGE
    assert agent_run.status is AgentRunStatus.STARTED
    assert task.created_at == task.updated_at
    assert agent_run.started_at >= task.created_at.replace(microsecond=0)
    assert db_session.query(EventLog).filter(EventLog.task_id == "t").order_by(EventLog.created_at).all() == [log]


def test_a_change_is_dated(db_session: DatabaseSession) -> None:
    """updated_at moves with a change, created_at stays."""
    task = Task(input_prompt="x", created_at=NOON)
    _committed(db_session, task)
    assert (task.created_at, task.updated_at) == (NOON, NOON)
    task.status = TaskStatus.RUNNING
    db_session.commit()
    assert task.created_at == NOON
    assert task.updated_at > NOON


def test_the_database_may_say_the_time(db_session: DatabaseSession) -> None:
    """`func.now()` is a time like any other."""
    agent_run = AgentRun(agent_name="a", started_at=NOON)
    _committed(db_session, agent_run)
    agent_run.finished_at = func.now()
    db_session.commit()
    assert agent_run.finished_at > NOON


def test_an_unknown_state_is_refused(db_session: DatabaseSession) -> None:
    """A task's status is one of TaskStatus."""
    db_session.add(Task(input_prompt="x", status="ASLEEP"))
    with pytest.raises(Exception, match="ASLEEP"):
        db_session.commit()
    db_session.rollback()
    assert db_session.query(Task).count() == 0


def test_times_are_datetimes_over_nanoseconds(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """Set and asked for as datetimes, kept as nanoseconds; no time is None; without a zone it is UTC."""
    naive = NOON.replace(tzinfo=None)
    event = ExecutionEvent(run_id=RUN, event_type="info", timestamp=naive, completed_at=NOON + timedelta(seconds=1))
    running = ExecutionEvent(run_id=RUN, event_type="info", status="running", started_at=NOON - timedelta(days=1))
    _committed(db_session, event, running)
    assert event.started_at_unix_nano == int(NOON.timestamp()) * 1_000_000_000
    assert (event.timestamp, event.duration_ms, event.duration_ns) == (NOON, 1000, 1_000_000_000)
    assert (running.completed_at, running.duration_ms) == (None, None)
    found = db_session.query(ExecutionEvent)
    assert found.filter(ExecutionEvent.timestamp >= NOON).all() == [event]
    assert found.filter(ExecutionEvent.completed_at.is_(None)).all() == [running]
    assert found.filter(ExecutionEvent.duration_ms >= 1000).all() == [event]
    assert db_session.query(func.max(ExecutionEvent.started_at)).scalar() == NOON


def test_data_of_an_event_lives_in_its_attributes(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """inputs, outputs and meta are the attributes that telemetry would have brought, whichever is set first."""
    event = ExecutionEvent(run_id=RUN, event_type="info", meta={"a": 1, "b": {"c": [None, 1.5]}}, inputs={"q": "ü"})
    recorded = ExecutionEvent(
        run_id=RUN, event_type="info", attributes={"clew.inputs": "no JSON", "clew.outputs": "[1]", "x": True}
    )
    _committed(db_session, event, recorded)
    assert (event.inputs, event.outputs, event.meta) == ({"q": "ü"}, None, {"a": 1, "b": {"c": [None, 1.5]}})
    assert (recorded.inputs, recorded.outputs, recorded.meta) == ("no JSON", [1], {"x": True})
    event.meta, event.outputs = None, 0
    db_session.commit()
    assert (event.inputs, event.outputs, event.meta) == ({"q": "ü"}, 0, None)


def test_an_id_is_read_in_one_way(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """However it was written: with dashes, in capitals; what is no id is refused."""
    event = ExecutionEvent(run_id="00000000-0000-0000-0000-000000000007", id="00000000000000AA", event_type="info")
    _committed(db_session, event)
    assert (event.run_id, event.id) == (RUN, "00000000000000aa")
    assert run.execution_events == [event]
    db_session.add(File(run_id="seven", file_path="/a"))
    with pytest.raises(InvalidId, match="seven"):
        db_session.commit()


@pytest.mark.parametrize(
    ("row", "missing"),
    [
        (lambda: WorkflowRun(session_id="nobody"), "session 'nobody'"),
        (lambda: WorkflowRun(session_id="s", project_id=NOBODY), f"project '{NOBODY}'"),
        (lambda: WorkflowRun(session_id="s", task_id="no task"), "task 'no task'"),
        (lambda: File(run_id=NOBODY, file_path="/a"), f"run '{NOBODY}'"),
        (lambda: File(run_id=RUN, event_id="00000000000000bb", file_path="/a"), "event '00000000000000bb' in run"),
        (lambda: Message(run_id=RUN, node_id="m", content="x"), "node 'm' in run"),
        (lambda: CostRecord(run_id=RUN, step_id="t"), "step 't' in run"),
        (lambda: DAGEdge(run_id=RUN, from_node_id="n", to_node_id="m"), "node 'm' in run"),
        (lambda: EventLog(task_id="no task"), "task 'no task'"),
        (lambda: Branch(parent_run_id=NOBODY), f"run '{NOBODY}'"),
    ],
)
def test_what_a_row_names_has_to_be_there(
    db_session: DatabaseSession, run: WorkflowRun, row: type[Base], missing: str
) -> None:
    """Else the error names it and nothing of the transaction is stored."""
    made = row()
    db_session.add_all([made, Project(session_id="s", name="p")])
    with pytest.raises(UnknownReference, match=missing):
        db_session.commit()
    db_session.rollback()
    assert db_session.query(type(made)).count() == (1 if isinstance(made, WorkflowRun) else 0)
    assert db_session.query(Project).count() == 0


def test_a_changed_row_names_what_is_there(db_session: DatabaseSession, run: WorkflowRun) -> None:
    """A change is checked as a new row is."""
    file = File(run_id=RUN, file_path="/a")
    _committed(db_session, file)
    file.node_id = "nowhere"
    with pytest.raises(UnknownReference, match="nowhere"):
        db_session.commit()
    db_session.rollback()
    assert file.node_id is None
