"""Who works on what: sessions, projects, tasks, runs and what belongs to a run."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Sequence
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, Cost, EventId, HexInt64, HexUuid, OwnId, RunId, new_id

RUN_STATUSES = ("draft", "planning", "executing", "running", "paused", "waiting_approval", "completed", "failed")


def _number_of(table: str) -> Mapped[int]:
    """A key that the database counts up."""
    return mapped_column(Sequence(f"{table}_id"), primary_key=True)


def _of_event(*, ondelete: str = "SET NULL") -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["run_id", "event_id"], ["execution_events.run_id", "execution_events.id"], ondelete=ondelete
    )


def _of_step() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["run_id", "step_id"], ["workflow_steps.run_id", "workflow_steps.id"], ondelete="SET NULL"
    )


def _of_node() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["run_id", "node_id"], ["dag_nodes.run_id", "dag_nodes.id"], ondelete="CASCADE")


def _of_run(*, primary_key: bool = False) -> Mapped[Any]:
    return mapped_column(HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"), primary_key=primary_key)


class Session(Base):
    """Whose runs they are: the unit of isolation. `default` where the telemetry names none."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at_unix_nano: Mapped[int]
    user_id: Mapped[str | None]
    name: Mapped[str | None]
    last_active_at_unix_nano: Mapped[int | None]
    status: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]
    resource_limits: Mapped[dict[str, Any] | None]


class Project(Base):
    """Runs of a session that belong together."""

    __tablename__ = "projects"

    id: Mapped[OwnId]
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    name: Mapped[str]
    description: Mapped[str | None]
    created_at_unix_nano: Mapped[int]
    meta: Mapped[dict[str, Any] | None]


class Task(Base):
    """What somebody asked for; runs and agents work on it."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str | None] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    title: Mapped[str | None]
    input_prompt: Mapped[str]
    status: Mapped[str]
    result_summary: Mapped[str | None]
    created_at_unix_nano: Mapped[int]
    updated_at_unix_nano: Mapped[int]


class WorkflowRun(Base):
    """One workflow execution, one OTel trace; also the index by which its events are found (`started_at_unix_nano` and
    `last_started_at_unix_nano` bound the start times of every event of the run).

    `status` is one of RUN_STATUSES; by telemetry `running` until a root event ends, then `completed` or `failed`.
    `name`, `agent` and `service_name` are the root event's; until it comes, those of the first event that has one.
    """

    __tablename__ = "workflow_runs"

    id: Mapped[RunId] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    project_id: Mapped[str | None] = mapped_column(HexUuid, ForeignKey("projects.id", ondelete="SET NULL"))
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="SET NULL"))
    name: Mapped[str | None]
    mode: Mapped[str | None]
    agent: Mapped[str | None]
    model: Mapped[str | None]
    service_name: Mapped[str | None]
    status: Mapped[str]
    task_description: Mapped[str | None]
    root_event_id: Mapped[str | None] = mapped_column(HexInt64)
    started_at_unix_nano: Mapped[int]
    last_started_at_unix_nano: Mapped[int]
    completed_at_unix_nano: Mapped[int]
    last_heartbeat_at_unix_nano: Mapped[int | None]
    checkpoint_frequency_minutes: Mapped[int | None]
    event_count: Mapped[int]
    error_count: Mapped[int]
    meta: Mapped[dict[str, Any] | None]


class WorkflowStep(Base):
    """A stretch of a run; `id` is unique within the run."""

    __tablename__ = "workflow_steps"

    run_id: Mapped[RunId] = _of_run(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    step_number: Mapped[int | None]
    agent: Mapped[str | None]
    status: Mapped[str]
    started_at_unix_nano: Mapped[int | None]
    completed_at_unix_nano: Mapped[int | None]
    progress_percentage: Mapped[int | None]
    inputs: Mapped[dict[str, Any] | None]
    outputs: Mapped[dict[str, Any] | None]
    error_message: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]


class DAGNode(Base):
    """A node of the run's graph; names recur across runs, so the key is (run_id, id)."""

    __tablename__ = "dag_nodes"

    run_id: Mapped[RunId] = _of_run(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    node_type: Mapped[str]
    agent: Mapped[str | None]
    status: Mapped[str]
    order_index: Mapped[int | None]
    started_at_unix_nano: Mapped[int | None]
    completed_at_unix_nano: Mapped[int | None]
    meta: Mapped[dict[str, Any] | None]


class DAGEdge(Base):
    """`to_node_id` waits for `from_node_id`. `source` tells where the edge comes from: `declared` (by a node's
    depends_on), `workflow` (by the framework's own graph), `handoff`, `link`, or `manual` (by a repository)."""

    __tablename__ = "dag_edges"
    __table_args__ = (
        ForeignKeyConstraint(["run_id", "from_node_id"], ["dag_nodes.run_id", "dag_nodes.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["run_id", "to_node_id"], ["dag_nodes.run_id", "dag_nodes.id"], ondelete="CASCADE"),
    )

    id: Mapped[int] = _number_of("dag_edges")
    run_id: Mapped[RunId] = _of_run()
    from_node_id: Mapped[str]
    to_node_id: Mapped[str]
    dependency_type: Mapped[str]
    condition: Mapped[str | None]
    source: Mapped[str]


class AgentRun(Base):
    """An agent at work: one invocation."""

    __tablename__ = "agent_runs"
    __table_args__ = (_of_event(),)

    id: Mapped[int] = _number_of("agent_runs")
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    run_id: Mapped[str | None] = _of_run()
    event_id: Mapped[EventId | None]
    agent_name: Mapped[str]
    status: Mapped[str]
    started_at_unix_nano: Mapped[int]
    finished_at_unix_nano: Mapped[int | None]
    output_summary: Mapped[str | None]


class CostRecord(Base):
    """What a model call cost. `source`: `reported` by the producer, or `estimated` from its tokens. Cached and
    reasoning tokens are parts of prompt and completion tokens, not additions."""

    __tablename__ = "cost_records"
    __table_args__ = (_of_event(), _of_step())

    id: Mapped[int] = _number_of("cost_records")
    run_id: Mapped[RunId] = _of_run()
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    agent_name: Mapped[str | None]
    model: Mapped[str | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    total_tokens: Mapped[int | None]
    cached_tokens: Mapped[int | None]
    reasoning_tokens: Mapped[int | None]
    cost_usd: Mapped[Cost | None]
    source: Mapped[str]
    time_unix_nano: Mapped[int]


class Checkpoint(Base):
    """A run's context at a moment. `pickle_digest` proves that the file at `pickle_file_path` was written here."""

    __tablename__ = "checkpoints"
    __table_args__ = (_of_event(), _of_step())

    id: Mapped[OwnId]
    run_id: Mapped[RunId] = _of_run()
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    checkpoint_type: Mapped[str]
    created_at_unix_nano: Mapped[int]
    context_snapshot: Mapped[dict[str, Any] | None]
    pickle_file_path: Mapped[str | None]
    pickle_digest: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]


class Message(Base):
    """Something said, once: a message that is repeated as history in later calls of the same session is stored for the
    event that said it first. `content_hash` is of session, sender, role and content."""

    __tablename__ = "messages"
    __table_args__ = (_of_event(), _of_step(), _of_node())

    id: Mapped[int] = _number_of("messages")
    run_id: Mapped[RunId] = _of_run()
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    node_id: Mapped[str | None]
    sender: Mapped[str | None]
    recipient: Mapped[str | None]
    role: Mapped[str | None]
    content: Mapped[str]
    content_hash: Mapped[str | None] = mapped_column(HexUuid)
    tokens: Mapped[int | None]
    time_unix_nano: Mapped[int]
    meta: Mapped[dict[str, Any] | None]


class File(Base):
    """A file that an event wrote or read (`role`: `output` or `input`). `content_hash` is SHA-256 in hex."""

    __tablename__ = "files"
    __table_args__ = (_of_event(), _of_step(), _of_node())

    id: Mapped[OwnId]
    run_id: Mapped[RunId] = _of_run()
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    node_id: Mapped[str | None]
    file_path: Mapped[str]
    file_type: Mapped[str]
    role: Mapped[str | None]
    size_bytes: Mapped[int | None]
    content_hash: Mapped[str | None]
    created_at_unix_nano: Mapped[int]
    meta: Mapped[dict[str, Any] | None]


class ApprovalRequest(Base):
    """A question to a human; `id` is unique within the run."""

    __tablename__ = "approval_requests"
    __table_args__ = (_of_event(), _of_step())

    run_id: Mapped[RunId] = _of_run(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True, default=new_id(32))
    event_id: Mapped[EventId | None]
    step_id: Mapped[str | None]
    status: Mapped[str]
    requested_at_unix_nano: Mapped[int]
    resolved_at_unix_nano: Mapped[int | None]
    context_snapshot: Mapped[dict[str, Any] | None]
    user_feedback: Mapped[str | None]
    resolution: Mapped[str | None]


class Branch(Base):
    """A run that tries another way from a point of its parent run. The child may come later, so it is a soft link."""

    __tablename__ = "branches"

    id: Mapped[OwnId]
    parent_run_id: Mapped[str] = mapped_column(HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"))
    parent_step_id: Mapped[str | None]
    parent_event_id: Mapped[str | None] = mapped_column(HexInt64)
    child_run_id: Mapped[str | None] = mapped_column(HexUuid)
    branch_name: Mapped[str | None]
    created_at_unix_nano: Mapped[int]
    hypothesis: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None]
