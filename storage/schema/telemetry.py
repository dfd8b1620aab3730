"""What happened: events with their logs, links and metrics, and what produced them."""

from __future__ import annotations

import secrets
import time
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, ForeignKey, func
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column, object_session, relationship, synonym
from sqlalchemy.orm.exc import DetachedInstanceError

from ..conventions import AGENT_ROLES, EVENT_STATUSES, EVENT_SUBTYPES, EVENT_TYPES
from . import event_values, origin
from .base import Base, EventId, HexInt64, HexUuid, OfRun, RunId, Variant, Word, new_id
from .history import with_histories
from .keys import counted, event_key, many, node_key, one, owned, run_key, step_key
from .moments import Moment

if TYPE_CHECKING:
    from .workflow import DAGNode, File, Message, Session, Task, WorkflowRun, WorkflowStep


class Resource(Base):
    """What produced the telemetry (OTLP `Resource`), stored once. `id` is a hash of the content; `otlp` holds the
    message as it came, NULL where it was absent."""

    __tablename__ = "resources"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    service_name: Mapped[str | None]
    schema_url: Mapped[str | None]
    dropped_attributes_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp: Mapped[bytes | None]


class Scope(Base):
    """The instrumentation library (OTLP `InstrumentationScope`), stored once, as `Resource` is."""

    __tablename__ = "scopes"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str | None]
    version: Mapped[str | None]
    schema_url: Mapped[str | None]
    dropped_attributes_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp: Mapped[bytes | None]


class EventType(StrEnum):
    """What an entry of the log is."""

    LOG = "LOG"
    MESSAGE = "MESSAGE"
    ERROR = "ERROR"
    RESULT = "RESULT"
    AGENT_START = "AGENT_START"
    AGENT_COMPLETE = "AGENT_COMPLETE"
    SYSTEM = "SYSTEM"


EVENT_LOG_TYPES = tuple(event_type.value for event_type in EventType)


class ExecutionEvent(OfRun, Base):
    """One action of a run, one OTel span.

    `id` is the span id. Where distinct spans of a run share a span id, the later ones get an id derived from their
    content and keep the shared one in `otel_span_id`. `parent_event_id` is a soft link: parents come late or never.
    `otlp_residue` holds what the columns cannot say exactly, as a serialised OTLP `Span` with just those fields.
    `execution_order` and `depth` are the producer's, where it gave them; the tree's own are worked out when it is read.
    `attributes` are whole here and in every answer; in SQL they lack those that repeat a conversation at length:
    `history_id` stands for them, see `storage.histories`.
    `stored_at_unix_nano` rises from commit to commit, see `storage.commits`; NULL for events stored before it was kept.
    `compacted_at_unix_nano` is NULL for events that lie as they arrived, see `storage.compacting`.
    `span_event_count` and `span_link_count` are of the logs and links that came within the span; see `parts_counted` of
    its run.
    `usage_counts` and `usage_agent_name` are NULL until they are worked out, see `storage.counting`.
    """

    __tablename__ = "execution_events"
    __table_args__ = (event_key(column="parent_event_id", soft=True), node_key(), step_key())

    run_id: Mapped[RunId] = run_key(primary_key=True)
    id: Mapped[EventId] = mapped_column(primary_key=True, default=new_id(16))
    otel_span_id: Mapped[str | None] = mapped_column(HexInt64)
    parent_event_id: Mapped[str | None] = mapped_column(HexInt64)
    node_id: Mapped[str | None]
    step_id: Mapped[str | None]
    execution_order: Mapped[int | None]
    depth: Mapped[int | None]
    name: Mapped[str] = mapped_column(default=event_values.event_name)
    kind: Mapped[int] = mapped_column(default=1)
    event_type: Mapped[str] = mapped_column(info={"words": EVENT_TYPES})
    event_subtype: Mapped[str | None] = mapped_column(info={"words": EVENT_SUBTYPES})
    agent_name: Mapped[str | None]
    agent_role: Mapped[str | None] = mapped_column(info={"words": AGENT_ROLES})
    model: Mapped[str | None]
    status: Mapped[str] = mapped_column(default="completed", info={"words": EVENT_STATUSES})
    status_code: Mapped[int] = mapped_column(default=event_values.status_code)
    status_message: Mapped[str | None] = mapped_column(default=event_values.status_message)
    started_at_unix_nano: Mapped[int] = mapped_column(default=time.time_ns)
    completed_at_unix_nano: Mapped[int] = mapped_column(default=event_values.completed_at)
    duration_ns: Mapped[int] = mapped_column(default=event_values.duration_ns)
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    resource_id: Mapped[int] = mapped_column(ForeignKey("resources.id"), default=origin.RESOURCE["id"])
    scope_id: Mapped[int] = mapped_column(ForeignKey("scopes.id"), default=origin.SCOPE["id"])
    trace_state: Mapped[str | None]
    flags: Mapped[int] = mapped_column(default=0)
    dropped_attributes_count: Mapped[int] = mapped_column(default=0)
    dropped_events_count: Mapped[int] = mapped_column(default=0)
    dropped_links_count: Mapped[int] = mapped_column(default=0)
    span_event_count: Mapped[int | None] = mapped_column(default=0)
    span_link_count: Mapped[int | None] = mapped_column(default=0)
    stored_attributes: Mapped[Any] = mapped_column("attributes", Variant, default=dict)
    history_id: Mapped[str | None] = mapped_column(HexUuid, ForeignKey("history_parts.id"))
    otlp_residue: Mapped[bytes | None]
    stored_at_unix_nano: Mapped[int | None] = mapped_column(default=time.time_ns, onupdate=time.time_ns)
    # Whoever changes an event may change its attributes.
    compacted_at_unix_nano: Mapped[int | None] = mapped_column(onupdate=lambda: None)
    usage_counts: Mapped[bool | None]
    usage_agent_name: Mapped[str | None]

    timestamp = Moment("started_at_unix_nano")
    started_at = Moment("started_at_unix_nano")
    completed_at = Moment("completed_at_unix_nano", absent=0)
    inputs = event_values.Data("clew.inputs")
    outputs = event_values.Data("clew.outputs")
    meta = event_values.Meta()
    error_message = synonym("status_message")

    run: Mapped[WorkflowRun] = owned("WorkflowRun", back="execution_events")
    node: Mapped[DAGNode | None] = one("ExecutionEvent", "node_id", "DAGNode", back="execution_events")
    step: Mapped[WorkflowStep | None] = one("ExecutionEvent", "step_id", "WorkflowStep", back="execution_events")
    session: Mapped[Session] = relationship(secondary="workflow_runs", viewonly=True, back_populates="execution_events")
    parent_event: Mapped[ExecutionEvent | None] = relationship(
        primaryjoin="and_(foreign(ExecutionEvent.parent_event_id) == remote(ExecutionEvent.id), "
        "ExecutionEvent.run_id == remote(ExecutionEvent.run_id))",
        back_populates="child_events",
    )
    child_events: Mapped[list[ExecutionEvent]] = relationship(
        primaryjoin="and_(remote(foreign(ExecutionEvent.parent_event_id)) == ExecutionEvent.id, "
        "remote(ExecutionEvent.run_id) == ExecutionEvent.run_id)",
        back_populates="parent_event",
        passive_deletes="all",
    )
    files: Mapped[list[File]] = many("File", "event_id", "ExecutionEvent", back="event")
    messages: Mapped[list[Message]] = many("Message", "event_id", "ExecutionEvent", back="event")
    logs: Mapped[list[EventLog]] = many("EventLog", "event_id", "ExecutionEvent", back="event")
    links: Mapped[list[EventLink]] = many("EventLink", "event_id", "ExecutionEvent", back="event")

    def _whole_attributes(self) -> Any:
        """Asks the database where there is a history; raises DetachedInstanceError without one to ask."""
        if self.history_id is None:
            return self.stored_attributes
        db_session = object_session(self)
        if db_session is None:
            raise DetachedInstanceError(f"the attributes of event {self.id} are not loaded; read them before closing")
        row = {"attributes": self.stored_attributes, "history_id": self.history_id}
        [whole] = with_histories(lambda parts: db_session.connection().execute(parts).mappings().all(), [row])
        return whole["attributes"]

    def _say_attributes(self, value: Any) -> None:
        self.stored_attributes, self.history_id = value, None

    @classmethod
    def _attributes_in_queries(cls) -> ColumnElement[Any]:
        return cls.stored_attributes.expression

    attributes = hybrid_property(_whole_attributes, _say_attributes, expr=_attributes_in_queries)

    def _duration_ms(self) -> float | None:
        """Milliseconds; None for a moment and for an event that has not ended."""
        return self.duration_ns / 1e6 if self.duration_ns else None

    def _last_ms(self, value: Any) -> None:
        self.duration_ns = round((value or 0) * 1_000_000)

    @classmethod
    def _duration_ms_in_queries(cls) -> ColumnElement[Any]:
        return func.nullif(cls.duration_ns, 0) / 1e6

    duration_ms = hybrid_property(_duration_ms, _last_ms, expr=_duration_ms_in_queries)


def _log_index() -> int:
    """Negative, as that of a log record, and random: an entry written here is nobody's repetition."""
    return -1 - secrets.randbits(63)


class EventLog(Base):
    """A moment inside an event (an OTel span event), an OTel log record, or an entry that a repository wrote.

    A span event has its place among those of its span as `log_index`; a log record a negative one, a hash of what was
    sent and of how many equals were before it in its request, so that it is stored once however often that comes. A
    log record with a trace id belongs to that run, with a span id to that event too, whichever of the two comes first.
    `event_started_at_unix_nano` lies within the run's time bounds, so that they prune this table as they prune
    `execution_events`: the event's start, or the record's time. A log record bears its commit's stamp as
    `stored_at_unix_nano`, see `storage.commits`; a span event has none, as it comes with its span. `event_type` is one
    of EVENT_LOG_TYPES, NULL for span events; `content` a log record's body as text or JSON. An entry without run or
    event (a task's) is written once and not changed.
    """

    __tablename__ = "event_logs"
    __table_args__ = (event_key(ondelete="CASCADE", soft=True),)

    run_id: Mapped[str | None] = run_key(primary_key=True)
    event_id: Mapped[str | None] = mapped_column(HexInt64, primary_key=True, autoincrement=False)
    log_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, default=_log_index)
    time_unix_nano: Mapped[int] = mapped_column(default=time.time_ns)
    event_started_at_unix_nano: Mapped[int] = mapped_column(default=event_values.time_of_log)
    observed_time_unix_nano: Mapped[int | None]
    name: Mapped[str] = mapped_column(default="")
    event_type: Mapped[EventType | None] = mapped_column(Word(EventType))
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    agent_role: Mapped[str | None]
    content: Mapped[str | None]
    severity_number: Mapped[int | None]
    severity_text: Mapped[str | None]
    resource_id: Mapped[int | None] = mapped_column(ForeignKey("resources.id"))
    scope_id: Mapped[int | None] = mapped_column(ForeignKey("scopes.id"))
    flags: Mapped[int | None]
    dropped_attributes_count: Mapped[int] = mapped_column(default=0)
    attributes: Mapped[Any] = mapped_column(Variant, default=dict)
    otlp_residue: Mapped[bytes | None]
    stored_at_unix_nano: Mapped[int | None]

    created_at = Moment("time_unix_nano")

    run: Mapped[WorkflowRun | None] = owned("WorkflowRun", back="event_logs")
    event: Mapped[ExecutionEvent | None] = one("EventLog", "event_id", "ExecutionEvent", back="logs")
    task: Mapped[Task | None] = owned("Task", back="event_logs")


class EventLink(Base):
    """An event's link to an event of the same or another run (OTLP `Span.Link`). An id of wrong length is NULL here and
    kept in `otlp_residue`."""

    __tablename__ = "event_links"
    __table_args__ = (event_key(ondelete="CASCADE"),)

    run_id: Mapped[RunId] = run_key(primary_key=True)
    event_id: Mapped[EventId] = mapped_column(primary_key=True)
    link_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_started_at_unix_nano: Mapped[int]
    linked_run_id: Mapped[str | None] = mapped_column(HexUuid)
    linked_event_id: Mapped[str | None] = mapped_column(HexInt64)
    trace_state: Mapped[str | None]
    flags: Mapped[int] = mapped_column(default=0)
    dropped_attributes_count: Mapped[int] = mapped_column(default=0)
    attributes: Mapped[Any] = mapped_column(Variant, default=dict)
    otlp_residue: Mapped[bytes | None]

    event: Mapped[ExecutionEvent] = one("EventLink", "event_id", "ExecutionEvent", back="links")


class WorkflowMetric(Base):
    """One OTel metric data point, or a figure that a repository wrote. `metric_type` is `gauge`, `sum`, `histogram`,
    `exponential_histogram` or `summary`; `metric_value` the point's value, or its sum where it has several; `otlp` the
    point as it came, in a serialised `Metric`. `point_id` is a hash of it: a point is stored once. An exemplar's trace
    and span id give `run_id` and `event_id`. `stored_at_unix_nano` is its commit's stamp, see `storage.commits`; NULL
    for figures that a repository wrote."""

    __tablename__ = "workflow_metrics"
    __table_args__ = (event_key(soft=True), step_key(soft=True))

    id: Mapped[int] = counted("workflow_metrics")
    point_id: Mapped[str | None] = mapped_column(HexInt64)
    run_id: Mapped[str | None] = run_key()
    event_id: Mapped[str | None] = mapped_column(HexInt64)
    step_id: Mapped[str | None]
    metric_name: Mapped[str]
    metric_type: Mapped[str] = mapped_column(default="gauge")
    metric_value: Mapped[float | None]
    unit: Mapped[str | None]
    started_at_unix_nano: Mapped[int | None]
    time_unix_nano: Mapped[int] = mapped_column(default=time.time_ns)
    resource_id: Mapped[int | None] = mapped_column(ForeignKey("resources.id"))
    scope_id: Mapped[int | None] = mapped_column(ForeignKey("scopes.id"))
    attributes: Mapped[Any | None] = mapped_column(Variant)
    otlp: Mapped[bytes | None]
    meta: Mapped[dict[str, Any] | None]
    stored_at_unix_nano: Mapped[int | None]

    timestamp = Moment("time_unix_nano")

    run: Mapped[WorkflowRun | None] = owned("WorkflowRun", back="metrics")
