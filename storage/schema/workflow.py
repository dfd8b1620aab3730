"""Who works on what: sessions, projects, tasks, runs and what belongs to a run."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint
from sqlalchemy.engine.default import DefaultExecutionContext
from sqlalchemy.orm import Mapped, mapped_column, relationship

from ..conventions import RUN_STATUSES
from .base import Base, Cost, EventId, HexInt64, HexUuid, OfRun, OwnId, RunId, Word, Written, new_id
from .keys import SOFT, counted, event_key, many, node_key, one, owned, run_key, step_key
from .moments import Moment

if TYPE_CHECKING:
    from .telemetry import EventLog, ExecutionEvent, WorkflowMetric

SESSION_STATUSES = ("active", "archived", "deleted")
STEP_STATUSES = ("pending", "running", "paused", "waiting_approval", "completed", "failed", "skipped")
NODE_TYPES = ("planning", "control", "agent", "approval", "parallel_group", "terminator")
NODE_STATUSES = ("pending", "running", "completed", "failed", "skipped")
DEPENDENCY_TYPES = ("sequential", "parallel", "conditional")
CHECKPOINT_TYPES = ("step_complete", "timed", "manual", "error", "emergency")
APPROVAL_STATUSES = ("pending", "approved", "rejected", "modified")
FILE_TYPES = ("code", "data", "plot", "log", "other")


class TaskStatus(StrEnum):
    """How far a task has come."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class AgentRunStatus(StrEnum):
    """How far an agent has come."""

    STARTED = "STARTED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Session(Base):
    """Whose runs they are: the unit of isolation. `default` where the telemetry names none."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at_unix_nano: Mapped[Written]
    user_id: Mapped[str | None]
    name: Mapped[str | None]
    last_active_at_unix_nano: Mapped[int | None]
    status: Mapped[str | None] = mapped_column(default="active", info={"words": SESSION_STATUSES})
    meta: Mapped[dict[str, Any] | None]
    resource_limits: Mapped[dict[str, Any] | None]

    created_at = Moment("created_at_unix_nano")
    last_active_at = Moment("last_active_at_unix_nano")

    projects: Mapped[list[Project]] = owned("Project", back="session")
    tasks: Mapped[list[Task]] = owned("Task", back="session")
    runs: Mapped[list[WorkflowRun]] = owned("WorkflowRun", back="session")
    execution_events: Mapped[list[ExecutionEvent]] = relationship(
        secondary="workflow_runs", viewonly=True, back_populates="session"
    )


class Project(Base):
    """Runs of a session that belong together."""

    __tablename__ = "projects"

    id: Mapped[OwnId]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    name: Mapped[str]
    description: Mapped[str | None]
    created_at_unix_nano: Mapped[Written]
    meta: Mapped[dict[str, Any] | None]

    created_at = Moment("created_at_unix_nano")

    session: Mapped[Session] = owned("Session", back="projects")
    runs: Mapped[list[WorkflowRun]] = owned("WorkflowRun", back="project")


def _created_at(context: DefaultExecutionContext) -> int:
    return int(context.get_current_parameters()["created_at_unix_nano"])  # type: ignore[no-untyped-call]


class Task(Base):
    """What somebody asked for; runs and agents work on it."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id(32))
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    title: Mapped[str | None]
    input_prompt: Mapped[str]
    status: Mapped[TaskStatus] = mapped_column(Word(TaskStatus), default=TaskStatus.PENDING)
    result_summary: Mapped[str | None]
    created_at_unix_nano: Mapped[Written]
    updated_at_unix_nano: Mapped[int] = mapped_column(default=_created_at, onupdate=time.time_ns)

    created_at = Moment("created_at_unix_nano")
    updated_at = Moment("updated_at_unix_nano")

    session: Mapped[Session | None] = owned("Session", back="tasks")
    runs: Mapped[list[WorkflowRun]] = owned("WorkflowRun", back="task")
    event_logs: Mapped[list[EventLog]] = owned("EventLog", back="task")
    agent_runs: Mapped[list[AgentRun]] = owned("AgentRun", back="task")


def _started_at(context: DefaultExecutionContext) -> int:
    return int(context.get_current_parameters()["started_at_unix_nano"])  # type: ignore[no-untyped-call]


class WorkflowRun(Base):
    """One workflow execution, one OTel trace; also the index by which its events are found (`started_at_unix_nano` and
    `last_started_at_unix_nano` bound the start times of every event of the run).

    `status` is one of RUN_STATUSES; by telemetry `running` until a root event ends, then `completed` or `failed`.
    `name`, `agent` and `service_name` are the root event's; until it comes, those of the first event that has one.
    Where no root has come, an event whose parent is another process's, by OTLP's `SpanFlags`, counts as one.
    `parts_counted`: its events have no logs and links but those that came within their spans, so `span_event_count` and
    `span_link_count` tell of all; false once a log record of one came, or a row was written by itself; NULL for runs
    stored before it was kept.
    `revision` rises whenever events of the run are written; for `usage_revision` see `storage.counting`.
    """

    __tablename__ = "workflow_runs"

    id: Mapped[OwnId]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    project_id: Mapped[str | None] = mapped_column(HexUuid, ForeignKey("projects.id", ondelete="SET NULL"))
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    name: Mapped[str | None]
    mode: Mapped[str | None]
    agent: Mapped[str | None]
    model: Mapped[str | None]
    service_name: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="draft", info={"words": RUN_STATUSES})
    task_description: Mapped[str | None]
    root_event_id: Mapped[str | None] = mapped_column(HexInt64)
    started_at_unix_nano: Mapped[Written]
    last_started_at_unix_nano: Mapped[int] = mapped_column(default=_started_at)
    completed_at_unix_nano: Mapped[int] = mapped_column(default=0)
    last_heartbeat_at_unix_nano: Mapped[int | None]
    checkpoint_frequency_minutes: Mapped[int | None] = mapped_column(default=10)
    event_count: Mapped[int] = mapped_column(default=0)
    error_count: Mapped[int] = mapped_column(default=0)
    parts_counted: Mapped[bool | None] = mapped_column(default=False)
    revision: Mapped[int | None] = mapped_column(default=0, server_default="0")
    usage_revision: Mapped[int | None]
    meta: Mapped[dict[str, Any] | None]

    started_at = Moment("started_at_unix_nano")
    completed_at = Moment("completed_at_unix_nano", absent=0)
    last_heartbeat_at = Moment("last_heartbeat_at_unix_nano")

    session: Mapped[Session] = owned("Session", back="runs")
    project: Mapped[Project | None] = owned("Project", back="runs")
    task: Mapped[Task | None] = owned("Task", back="runs")
    steps: Mapped[list[WorkflowStep]] = owned("WorkflowStep", back="run")
    nodes: Mapped[list[DAGNode]] = owned("DAGNode", back="run")
    edges: Mapped[list[DAGEdge]] = owned("DAGEdge", back="run")
    execution_events: Mapped[list[ExecutionEvent]] = owned("ExecutionEvent", back="run")
    event_logs: Mapped[list[EventLog]] = owned("EventLog", back="run")
    agent_runs: Mapped[list[AgentRun]] = owned("AgentRun", back="run")
    messages: Mapped[list[Message]] = owned("Message", back="run")
    files: Mapped[list[File]] = owned("File", back="run")
    cost_records: Mapped[list[CostRecord]] = owned("CostRecord", back="run")
    checkpoints: Mapped[list[Checkpoint]] = owned("Checkpoint", back="run")
    approval_requests: Mapped[list[ApprovalRequest]] = owned("ApprovalRequest", back="run")
    metrics: Mapped[list[WorkflowMetric]] = owned("WorkflowMetric", back="run")
    branches: Mapped[list[Branch]] = relationship(
        foreign_keys="Branch.parent_run_id", back_populates="parent_run", passive_deletes="all"
    )


class WorkflowStep(OfRun, Base):
    """A stretch of a run; `id` is unique within the run."""

    __tablename__ = "workflow_steps"

    run_id: Mapped[RunId] = run_key(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id(32))
    step_number: Mapped[int | None]
    agent: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="pending", info={"words": STEP_STATUSES})
    started_at_unix_nano: Mapped[int | None]
    completed_at_unix_nano: Mapped[int | None]
    progress_percentage: Mapped[int | None]
    inputs: Mapped[dict[str, Any] | None]
    outputs: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]

    started_at = Moment("started_at_unix_nano")
    completed_at = Moment("completed_at_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="steps")
    execution_events: Mapped[list[ExecutionEvent]] = many("ExecutionEvent", "step_id", "WorkflowStep", back="step")
    files: Mapped[list[File]] = many("File", "step_id", "WorkflowStep", back="step")
    messages: Mapped[list[Message]] = many("Message", "step_id", "WorkflowStep", back="step")
    cost_records: Mapped[list[CostRecord]] = many("CostRecord", "step_id", "WorkflowStep", back="step")
    checkpoints: Mapped[list[Checkpoint]] = many("Checkpoint", "step_id", "WorkflowStep", back="step")
    approval_requests: Mapped[list[ApprovalRequest]] = many("ApprovalRequest", "step_id", "WorkflowStep", back="step")


class DAGNode(OfRun, Base):
    """A node of the run's graph; names recur across runs, so the key is (run_id, id)."""

    __tablename__ = "dag_nodes"

    run_id: Mapped[RunId] = run_key(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id(32))
    node_type: Mapped[str] = mapped_column(default="agent", info={"words": NODE_TYPES})
    agent: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="pending", info={"words": NODE_STATUSES})
    order_index: Mapped[int | None]
    started_at_unix_nano: Mapped[int | None]
    completed_at_unix_nano: Mapped[int | None]
    meta: Mapped[dict[str, Any] | None]

    started_at = Moment("started_at_unix_nano")
    completed_at = Moment("completed_at_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="nodes")
    execution_events: Mapped[list[ExecutionEvent]] = many("ExecutionEvent", "node_id", "DAGNode", back="node")
    files: Mapped[list[File]] = many("File", "node_id", "DAGNode", back="node")
    messages: Mapped[list[Message]] = many("Message", "node_id", "DAGNode", back="node")


class DAGEdge(OfRun, Base):
    """`to_node_id` waits for `from_node_id`. `source` tells where the edge comes from: `declared` (by a node's
    depends_on), `workflow` (by the framework's own graph), `handoff`, `link`, or `manual` (by a repository)."""

    __tablename__ = "dag_edges"
    __table_args__ = (node_key(column="from_node_id"), node_key(column="to_node_id"))

    id: Mapped[int] = counted("dag_edges")
    run_id: Mapped[RunId] = run_key()
    from_node_id: Mapped[str]
    to_node_id: Mapped[str]
    dependency_type: Mapped[str] = mapped_column(default="sequential", info={"words": DEPENDENCY_TYPES})
    condition: Mapped[str | None]
    source: Mapped[str] = mapped_column(default="manual")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="edges")


class AgentRun(Base):
    """An agent at work: one invocation."""

    __tablename__ = "agent_runs"
    __table_args__ = (event_key(),)

    id: Mapped[int] = counted("agent_runs")
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    run_id: Mapped[str | None] = run_key()
    event_id: Mapped[EventId | None]
    agent_name: Mapped[str]
    status: Mapped[AgentRunStatus] = mapped_column(Word(AgentRunStatus), default=AgentRunStatus.STARTED)
    started_at_unix_nano: Mapped[Written]
    finished_at_unix_nano: Mapped[int | None]
    output_summary: Mapped[str | None]

    started_at = Moment("started_at_unix_nano")
    finished_at = Moment("finished_at_unix_nano")

    task: Mapped[Task | None] = owned("Task", back="agent_runs")
    run: Mapped[WorkflowRun | None] = owned("WorkflowRun", back="agent_runs")


def _total_tokens(context: DefaultExecutionContext) -> int | None:
    said = context.get_current_parameters()  # type: ignore[no-untyped-call]
    counts = [said[name] for name in ("prompt_tokens", "completion_tokens") if said.get(name) is not None]
    return sum(counts) if counts else None


class CostRecord(OfRun, Base):
    """What a model call cost. `source`: `reported` by the producer, or `estimated` from its tokens. Cached and
    reasoning tokens are parts of prompt and completion tokens, not additions."""

    __tablename__ = "cost_records"
    __table_args__ = (event_key(), step_key())

    id: Mapped[int] = counted("cost_records")
    run_id: Mapped[RunId] = run_key()
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    agent_name: Mapped[str | None]
    model: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    total_tokens: Mapped[int | None] = mapped_column(default=_total_tokens)
    cached_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    cost_usd: Mapped[Cost | None]
    source: Mapped[str] = mapped_column(default="reported")
    time_unix_nano: Mapped[Written]

    timestamp = Moment("time_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="cost_records")
    step: Mapped[WorkflowStep | None] = one("CostRecord", "step_id", "WorkflowStep", back="cost_records")


class Checkpoint(OfRun, Base):
    """A run's context at a moment. `pickle_digest` proves that the file at `pickle_file_path` was written here;
    `log_index`: see Message."""

    __tablename__ = "checkpoints"
    __table_args__ = (event_key(), step_key())

    id: Mapped[OwnId]
    run_id: Mapped[RunId] = run_key()
    event_id: Mapped[EventId | None]
    log_index: Mapped[int | None]
    step_id: Mapped[str | None]
    checkpoint_type: Mapped[str] = mapped_column(default="manual", info={"words": CHECKPOINT_TYPES})
    created_at_unix_nano: Mapped[Written]
    context_snapshot: Mapped[dict[str, Any] | None]
    pickle_file_path: Mapped[str | None]
    pickle_digest: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]

    created_at = Moment("created_at_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="checkpoints")
    step: Mapped[WorkflowStep | None] = one("Checkpoint", "step_id", "WorkflowStep", back="checkpoints")


class Message(OfRun, Base):
    """Something said, once: a message that is repeated as history in later calls of the same session is stored for the
    event that said it first. `content_hash` is of session, sender, role and content. `log_index` is that of the log
    record that told it, null where the event itself did."""

    __tablename__ = "messages"
    __table_args__ = (event_key(), step_key(), node_key())

    id: Mapped[int] = counted("messages")
    run_id: Mapped[RunId] = run_key()
    event_id: Mapped[EventId | None]
    log_index: Mapped[int | None]
    step_id: Mapped[str | None]
    node_id: Mapped[str | None]
    sender: Mapped[str | None]
    recipient: Mapped[str | None]
    role: Mapped[str | None]
    content: Mapped[str]
    content_hash: Mapped[str | None] = mapped_column(HexUuid)
    tokens: Mapped[int | None]
    time_unix_nano: Mapped[Written]
    meta: Mapped[dict[str, Any] | None]

    timestamp = Moment("time_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="messages")
    event: Mapped[ExecutionEvent | None] = one("Message", "event_id", "ExecutionEvent", back="messages")
    step: Mapped[WorkflowStep | None] = one("Message", "step_id", "WorkflowStep", back="messages")
    node: Mapped[DAGNode | None] = one("Message", "node_id", "DAGNode", back="messages")


class File(OfRun, Base):
    """A file that an event wrote or read (`role`: `output` or `input`). `content_hash` is SHA-256 in hex; `log_index`:
    see Message."""

    __tablename__ = "files"
    __table_args__ = (event_key(), step_key(), node_key())

    id: Mapped[OwnId]
    run_id: Mapped[RunId] = run_key()
    event_id: Mapped[EventId | None]
    log_index: Mapped[int | None]
    step_id: Mapped[str | None]
    node_id: Mapped[str | None]
    file_path: Mapped[str]
    file_type: Mapped[str] = mapped_column(default="other", info={"words": FILE_TYPES})
    role: Mapped[str | None]
    size_bytes: Mapped[int | None]
    content_hash: Mapped[str | None]
    created_at_unix_nano: Mapped[Written]
    meta: Mapped[dict[str, Any] | None]

    created_at = Moment("created_at_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="files")
    event: Mapped[ExecutionEvent | None] = one("File", "event_id", "ExecutionEvent", back="files")
    step: Mapped[WorkflowStep | None] = one("File", "step_id", "WorkflowStep", back="files")
    node: Mapped[DAGNode | None] = one("File", "node_id", "DAGNode", back="files")


class ApprovalRequest(OfRun, Base):
    """A question to a human; `id` is unique within the run."""

    __tablename__ = "approval_requests"
    __table_args__ = (event_key(), step_key())

    run_id: Mapped[RunId] = run_key(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id(32))
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="pending", info={"words": APPROVAL_STATUSES})
    requested_at_unix_nano: Mapped[Written]
    resolved_at_unix_nano: Mapped[int | None]
    context_snapshot: Mapped[dict[str, Any] | None]
    user_feedback: Mapped[str | None]
    resolution: Mapped[str | None]

    requested_at = Moment("requested_at_unix_nano")
    resolved_at = Moment("resolved_at_unix_nano")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="approval_requests")
    step: Mapped[WorkflowStep | None] = one("ApprovalRequest", "step_id", "WorkflowStep", back="approval_requests")


class Branch(Base):
    """A run that tries another way from a point of its parent run. The child may come later, so it is a soft link."""

    __tablename__ = "branches"
    __table_args__ = (ForeignKeyConstraint(["child_run_id"], ["workflow_runs.id"], ondelete="SET NULL", info=SOFT),)

    id: Mapped[OwnId]
    parent_run_id: Mapped[str] = mapped_column(HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"))
    parent_step_id: Mapped[str | None]
    parent_event_id: Mapped[str | None] = mapped_column(HexInt64)
    child_run_id: Mapped[str | None] = mapped_column(HexUuid)
    branch_name: Mapped[str | None]
    created_at_unix_nano: Mapped[Written]
    hypothesis: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]

    created_at = Moment("created_at_unix_nano")

    parent_run: Mapped[WorkflowRun] = relationship(foreign_keys=parent_run_id, back_populates="branches")
