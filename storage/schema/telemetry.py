"""What happened: events with their logs, links and metrics, and what produced them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ForeignKey, ForeignKeyConstraint, Sequence
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base, EventId, HexInt64, HexUuid, RunId, Variant


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


EVENT_LOG_TYPES = ("LOG", "MESSAGE", "ERROR", "RESULT", "AGENT_START", "AGENT_COMPLETE", "SYSTEM")


class ExecutionEvent(Base):
    """One action of a run, one OTel span.

    `id` is the span id. Where distinct spans of a run share a span id, the later ones get an id derived from their
    content and keep the shared one in `otel_span_id`. `parent_event_id` is a soft link: parents come late or never.
    `otlp_residue` holds what the columns cannot say exactly, as a serialised OTLP `Span` with just those fields.
    `execution_order` and `depth` are the producer's, where it gave them; the tree's own are worked out when it is read.
    """

    __tablename__ = "execution_events"

    run_id: Mapped[RunId] = mapped_column(ForeignKey("workflow_runs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[EventId] = mapped_column(primary_key=True)
    otel_span_id: Mapped[str | None] = mapped_column(HexInt64)
    parent_event_id: Mapped[str | None] = mapped_column(HexInt64)
    node_id: Mapped[str | None]
    step_id: Mapped[str | None]
    execution_order: Mapped[int | None]
    depth: Mapped[int | None]
    name: Mapped[str]
    kind: Mapped[int] = mapped_column(BigInteger)
    event_type: Mapped[str]
    event_subtype: Mapped[str | None]
    agent_name: Mapped[str | None]
    agent_role: Mapped[str | None]
    model: Mapped[str | None]
    status: Mapped[str]
    status_code: Mapped[int] = mapped_column(BigInteger)
    status_message: Mapped[str | None]
    started_at_unix_nano: Mapped[int]
    completed_at_unix_nano: Mapped[int]
    duration_ns: Mapped[int]
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    resource_id: Mapped[int] = mapped_column(ForeignKey("resources.id"))
    scope_id: Mapped[int] = mapped_column(ForeignKey("scopes.id"))
    trace_state: Mapped[str | None]
    flags: Mapped[int]
    dropped_attributes_count: Mapped[int]
    dropped_events_count: Mapped[int]
    dropped_links_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp_residue: Mapped[bytes | None]


class EventLog(Base):
    """A moment inside an event (an OTel span event), an OTel log record, or an entry that a repository wrote.

    A span event has its place among those of its span as `log_index`; a log record a negative one, a hash of what was
    sent, so that it is stored once however often it comes. A log record with a trace id belongs to that run, with a
    span id to that event too, whichever of the two comes first. `event_started_at_unix_nano` lies within the run's
    time bounds, so that they prune this table as they prune `execution_events`: the event's start, or the record's
    time. `event_type` is one of EVENT_LOG_TYPES, NULL for span events; `content` a log record's body as text or JSON.
    """

    __tablename__ = "event_logs"

    run_id: Mapped[str | None] = mapped_column(
        HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"), primary_key=True
    )
    event_id: Mapped[str | None] = mapped_column(HexInt64, primary_key=True, autoincrement=False)
    log_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_started_at_unix_nano: Mapped[int]
    time_unix_nano: Mapped[int]
    observed_time_unix_nano: Mapped[int | None]
    name: Mapped[str]
    event_type: Mapped[str | None]
    task_id: Mapped[str | None] = mapped_column(ForeignKey("tasks.id", ondelete="CASCADE"))
    agent_role: Mapped[str | None]
    content: Mapped[str | None]
    severity_number: Mapped[int | None]
    severity_text: Mapped[str | None]
    resource_id: Mapped[int | None] = mapped_column(ForeignKey("resources.id"))
    scope_id: Mapped[int | None] = mapped_column(ForeignKey("scopes.id"))
    flags: Mapped[int | None]
    dropped_attributes_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp_residue: Mapped[bytes | None]


class EventLink(Base):
    """An event's link to an event of the same or another run (OTLP `Span.Link`). An id of wrong length is NULL here and
    kept in `otlp_residue`."""

    __tablename__ = "event_links"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run_id", "event_id"], ["execution_events.run_id", "execution_events.id"], ondelete="CASCADE"
        ),
    )

    run_id: Mapped[RunId] = mapped_column(primary_key=True)
    event_id: Mapped[EventId] = mapped_column(primary_key=True)
    link_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_started_at_unix_nano: Mapped[int]
    linked_run_id: Mapped[str | None] = mapped_column(HexUuid)
    linked_event_id: Mapped[str | None] = mapped_column(HexInt64)
    trace_state: Mapped[str | None]
    flags: Mapped[int]
    dropped_attributes_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp_residue: Mapped[bytes | None]


class WorkflowMetric(Base):
    """One OTel metric data point, or a figure that a repository wrote. `metric_type` is `gauge`, `sum`, `histogram`,
    `exponential_histogram` or `summary`; `metric_value` the point's value, or its sum where it has several; `otlp` the
    point as it came, in a serialised `Metric`. `point_id` is a hash of it: a point is stored once. An exemplar's trace
    and span id give `run_id` and `event_id`."""

    __tablename__ = "workflow_metrics"

    id: Mapped[int] = mapped_column(Sequence("workflow_metrics_id"), primary_key=True)
    point_id: Mapped[str | None] = mapped_column(HexInt64)
    run_id: Mapped[str | None] = mapped_column(HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"))
    event_id: Mapped[str | None] = mapped_column(HexInt64)
    step_id: Mapped[str | None]
    metric_name: Mapped[str]
    metric_type: Mapped[str]
    metric_value: Mapped[float | None]
    unit: Mapped[str | None]
    started_at_unix_nano: Mapped[int | None]
    time_unix_nano: Mapped[int]
    resource_id: Mapped[int | None] = mapped_column(ForeignKey("resources.id"))
    scope_id: Mapped[int | None] = mapped_column(ForeignKey("scopes.id"))
    attributes: Mapped[Any | None] = mapped_column(Variant)
    otlp: Mapped[bytes | None]
    meta: Mapped[dict[str, Any] | None]
