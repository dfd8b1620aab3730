"""The relational schema, one definition for every engine.

Names follow OpenTelemetry first and the workflow vocabulary second: a run is a trace, an event is a span. Times are
integer nanoseconds since the epoch. Ids are stored as numbers (`run_id` a UUID, an event's id a signed 64-bit integer)
and written as lower-case hex at every edge, see `ids`.

Foreign keys are declared here for readers, the ORM and engines that enforce them; DuckDB does not get them (it has no
CASCADE, and its checks would look up an index for every row), there the writer inserts parents first.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Double, ForeignKey, ForeignKeyConstraint, LargeBinary, Text, Uuid
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import UserDefinedType


class Variant(UserDefinedType[Any]):
    """A map of typed values: `VARIANT` in DuckDB, `JSONB` in PostgreSQL. Read natively it is a Python dict."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARIANT"


@compiles(Variant, "postgresql")
def _variant_in_postgresql(_type: Variant, _compiler: Any, **_: Any) -> str:
    return "JSONB"


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: Text, float: Double, bytes: LargeBinary, UUID: Uuid}  # noqa: RUF012


class Session(Base):
    """Whose runs they are: the unit of isolation. `default` where the telemetry names none."""

    __tablename__ = "sessions"

    id: Mapped[str] = mapped_column(primary_key=True)
    created_at_unix_nano: Mapped[int]


class WorkflowRun(Base):
    """One workflow execution, one OTel trace; also the index by which its events are found (`started_at_unix_nano` and
    `last_started_at_unix_nano` bound the start times of every event of the run).

    `status` is `running` until a root event ends, then `completed` or `failed`. `name`, `agent` and `service_name` are
    the root event's; until it comes, those of the first event that has one.
    """

    __tablename__ = "workflow_runs"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))
    name: Mapped[str | None]
    agent: Mapped[str | None]
    service_name: Mapped[str | None]
    status: Mapped[str]
    root_event_id: Mapped[int | None]
    started_at_unix_nano: Mapped[int]
    last_started_at_unix_nano: Mapped[int]
    completed_at_unix_nano: Mapped[int]
    event_count: Mapped[int]
    error_count: Mapped[int]


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


class ExecutionEvent(Base):
    """One action of a run, one OTel span.

    `id` is the span id. Where distinct spans of a run share a span id, the later ones get an id derived from their
    content and keep the shared one in `otel_span_id`. `parent_event_id` is a soft link: parents come late or never.
    `otlp_residue` holds what the columns cannot say exactly, as a serialised OTLP `Span` with just those fields.
    """

    __tablename__ = "execution_events"

    run_id: Mapped[UUID] = mapped_column(ForeignKey("workflow_runs.id", ondelete="CASCADE"), primary_key=True)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    otel_span_id: Mapped[int | None]
    parent_event_id: Mapped[int | None]
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
    """A moment inside an event: an OTel span event. `event_started_at_unix_nano` repeats the event's start, so that the
    run's time bounds prune this table as they prune `execution_events`."""

    __tablename__ = "event_logs"
    __table_args__ = (
        ForeignKeyConstraint(
            ["run_id", "event_id"], ["execution_events.run_id", "execution_events.id"], ondelete="CASCADE"
        ),
    )

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    log_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_started_at_unix_nano: Mapped[int]
    time_unix_nano: Mapped[int]
    name: Mapped[str]
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

    run_id: Mapped[UUID] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    link_index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    event_started_at_unix_nano: Mapped[int]
    linked_run_id: Mapped[UUID | None]
    linked_event_id: Mapped[int | None]
    trace_state: Mapped[str | None]
    flags: Mapped[int]
    dropped_attributes_count: Mapped[int]
    attributes: Mapped[Any] = mapped_column(Variant)
    otlp_residue: Mapped[bytes | None]
