"""Stored events, log records and metric points back as OTLP, equal to what came in.

The columns say nearly all of a span or a log record; where they cannot, `otlp_residue` does, and its fields take the
place of theirs. What OTLP gives no meaning to is not kept: the order of attributes, how records were divided into
blocks, blocks without records, which points of a metric came together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, MetricsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from sqlalchemy import RowMapping, Select, select

from ..storage import (
    EventLink,
    EventLog,
    ExecutionEvent,
    Reader,
    Resource,
    Scope,
    Store,
    WorkflowMetric,
    WorkflowRun,
    with_histories,
)

_EVENTS, _LOGS, _LINKS = ExecutionEvent.__table__, EventLog.__table__, EventLink.__table__
_METRICS = WorkflowMetric.__table__
_LAST = (1 << 63) - 1


def run_as_otlp(store: Store, run_id: UUID) -> bytes | None:
    """The run as a serialised OTLP `TracesData`, its spans by start time; None where there is no such run.

    Raises QueryTimeout.
    """
    with store.read() as reader:
        run = _first(reader, select(WorkflowRun.__table__).where(WorkflowRun.id == run_id))
        if run is None:
            return None
        events = _of_run(_EVENTS, run).order_by(_EVENTS.c.started_at_unix_nano, _EVENTS.c.id)
        return traces_of(reader, reader.rows(events)).SerializeToString()


def traces_of(reader: Reader, events: Sequence[RowMapping]) -> TracesData:
    """The events (whole rows of `execution_events`) with all that they have, in their order as far as blocks allow: a
    block holds spans of one run, one resource and one scope."""
    traces = TracesData()
    blocks = _Blocks(reader, events, traces.resource_spans, "scope_spans")
    for event, span in zip(events, spans_of(reader, events), strict=True):
        blocks.of(event, event["run_id"]).spans.append(span)
    return traces


def spans_of(reader: Reader, events: Sequence[RowMapping]) -> Iterator[Span]:
    """The events (whole rows of `execution_events`) with all that they have, one by one."""
    logs = _by_event(reader, _of_events(_LOGS, events).where(_LOGS.c.log_index >= 0).order_by(_LOGS.c.log_index))
    links = _by_event(reader, _of_events(_LINKS, events).order_by(_LINKS.c.link_index))
    for event in with_histories(reader.rows, events):
        span = Span()
        _fill_span(span, event)
        for log in logs.get((event["run_id"], event["id"]), ()):
            _fill_log(span.events.add(), log)
        for link in links.get((event["run_id"], event["id"]), ()):
            _fill_link(span.links.add(), link)
        yield span


def logs_as_otlp(store: Store, run_id: UUID | None) -> bytes | None:
    """The log records of the run (of no run, for None) as a serialised OTLP `LogsData`, by time; None where there is no
    such run. Raises QueryTimeout."""
    with store.read() as reader:
        if run_id is None:
            return _logs(reader, select(_LOGS).where(_LOGS.c.run_id.is_(None))).SerializeToString()
        run = _first(reader, select(WorkflowRun.__table__).where(WorkflowRun.id == run_id))
        return None if run is None else _logs(reader, _of_run(_LOGS, run)).SerializeToString()


def metrics_as_otlp(store: Store, *, since: int = 0, until: int = _LAST) -> bytes:
    """The metric points from `since` to `until` (nanoseconds since 1970, both included) as a serialised OTLP
    `MetricsData`, by time, each in a `Metric` of its own. Raises QueryTimeout."""
    points = select(_METRICS).where(_METRICS.c.time_unix_nano.between(since, until), _METRICS.c.otlp.is_not(None))
    metrics = MetricsData()
    with store.read() as reader:
        rows = reader.rows(points.order_by(_METRICS.c.time_unix_nano, _METRICS.c.id))
        blocks = _Blocks(reader, rows, metrics.resource_metrics, "scope_metrics")
        for row in rows:
            blocks.of(row).metrics.append(Metric.FromString(row["otlp"]))
    return metrics.SerializeToString()


def log_record_of(row: RowMapping) -> LogRecord:
    """A log record, a whole row that has a resource."""
    record = LogRecord()
    record.trace_id, record.span_id = bytes.fromhex(row["run_id"] or ""), bytes.fromhex(row["event_id"] or "")
    record.time_unix_nano, record.observed_time_unix_nano = row["time_unix_nano"], row["observed_time_unix_nano"] or 0
    record.severity_number, record.severity_text = row["severity_number"], row["severity_text"] or ""
    record.event_name, record.flags = row["name"], row["flags"]
    record.dropped_attributes_count = row["dropped_attributes_count"]
    if row["content"] is not None:
        record.body.string_value = row["content"]
    _fill_attributes(record, row, LogRecord)
    return record


def _logs(reader: Reader, of_run: Select[Any]) -> LogsData:
    logs = LogsData()
    records = of_run.where(_LOGS.c.log_index < 0, _LOGS.c.resource_id.is_not(None))
    rows = reader.rows(records.order_by(_LOGS.c.event_started_at_unix_nano, _LOGS.c.log_index))
    blocks = _Blocks(reader, rows, logs.resource_logs, "scope_logs")
    for row in rows:
        blocks.of(row).log_records.append(log_record_of(row))
    return logs


def _of_run(table: Any, run: RowMapping) -> Select[Any]:
    """The run's rows of an events table, within its time bounds."""
    started = table.c.started_at_unix_nano if table is _EVENTS else table.c.event_started_at_unix_nano
    return select(table).where(
        table.c.run_id == run["id"],
        started.between(run["started_at_unix_nano"], run["last_started_at_unix_nano"]),
    )


def _of_events(table: Any, events: Sequence[RowMapping]) -> Select[Any]:
    """The rows of a table of events' parts that may be of these events, within their time bounds."""
    starts = [event["started_at_unix_nano"] for event in events]
    return select(table).where(
        table.c.run_id.in_({event["run_id"] for event in events}),
        table.c.event_started_at_unix_nano.between(min(starts, default=0), max(starts, default=0)),
    )


def _by_event(reader: Reader, statement: Select[Any]) -> dict[tuple[str, str], list[RowMapping]]:
    rows: dict[tuple[str, str], list[RowMapping]] = {}
    for row in reader.rows(statement):
        rows.setdefault((row["run_id"], row["event_id"]), []).append(row)
    return rows


def _first(reader: Reader, statement: Select[Any]) -> RowMapping | None:
    return next(iter(reader.rows(statement)), None)


class _Blocks:
    """The blocks of `message_blocks` for what comes from the origins of `rows`, each added when its first record is."""

    def __init__(self, reader: Reader, rows: Sequence[RowMapping], message_blocks: Any, scope_blocks: str) -> None:
        self._resources = _origins(reader, Resource, {row["resource_id"] for row in rows})
        self._scopes = _origins(reader, Scope, {row["scope_id"] for row in rows})
        self._message_blocks, self._scope_blocks = message_blocks, scope_blocks
        self._blocks: dict[tuple[Any, ...], Any] = {}

    def of(self, row: RowMapping, *apart: str) -> Any:
        """The block of the row's resource and scope, and of what else is to be kept `apart`."""
        key = row["resource_id"], row["scope_id"], *apart
        if key not in self._blocks:
            self._blocks[key] = self._add(self._resources[row["resource_id"]], self._scopes[row["scope_id"]])
        return self._blocks[key]

    def _add(self, resource: RowMapping, scope: RowMapping) -> Any:
        of_resource = self._message_blocks.add(schema_url=resource["schema_url"] or "")
        of_scope = getattr(of_resource, self._scope_blocks).add(schema_url=scope["schema_url"] or "")
        if resource["otlp"] is not None:
            of_resource.resource.CopyFrom(_parsed(OtlpResource, resource["otlp"]) or OtlpResource())
        if scope["otlp"] is not None:
            of_scope.scope.CopyFrom(_parsed(InstrumentationScope, scope["otlp"]) or InstrumentationScope())
        return of_scope


def _origins(reader: Reader, table: type[Resource | Scope], ids: Collection[int]) -> dict[int, RowMapping]:
    return {row["id"]: row for row in reader.rows(select(table.__table__).where(table.id.in_(ids)))}


def _fill_span(span: Span, event: RowMapping) -> None:
    span_id = event["id"] if event["otel_span_id"] is None else event["otel_span_id"]
    span.trace_id, span.span_id = bytes.fromhex(event["run_id"]), bytes.fromhex(span_id)
    span.parent_span_id = bytes.fromhex(event["parent_event_id"] or "")
    span.name, span.kind, span.flags = event["name"], event["kind"], event["flags"]
    span.trace_state = event["trace_state"] or ""
    span.start_time_unix_nano = event["started_at_unix_nano"]
    span.end_time_unix_nano = event["completed_at_unix_nano"]
    span.dropped_attributes_count = event["dropped_attributes_count"]
    span.dropped_events_count = event["dropped_events_count"]
    span.dropped_links_count = event["dropped_links_count"]
    if event["status_message"] is not None:
        span.status.SetInParent()
        span.status.code, span.status.message = event["status_code"], event["status_message"]
    _fill_attributes(span, event, Span)


def _fill_log(log: Span.Event, row: RowMapping) -> None:
    log.time_unix_nano, log.name = row["time_unix_nano"], row["name"]
    log.dropped_attributes_count = row["dropped_attributes_count"]
    _fill_attributes(log, row, Span.Event)


def _fill_link(link: Span.Link, row: RowMapping) -> None:
    link.trace_id = bytes.fromhex(row["linked_run_id"] or "")
    link.span_id = bytes.fromhex(row["linked_event_id"] or "")
    link.trace_state, link.flags = row["trace_state"] or "", row["flags"]
    link.dropped_attributes_count = row["dropped_attributes_count"]
    _fill_attributes(link, row, Span.Link)


def _fill_attributes(message: Any, row: RowMapping, message_type: Any) -> None:
    """The attributes, or whatever the residue says instead of the columns."""
    residue = None if row["otlp_residue"] is None else _parsed(message_type, row["otlp_residue"])
    if residue is None:
        message.attributes.extend(key_values(row["attributes"]))
        return
    for field, value in residue.ListFields():
        if field.is_repeated:
            getattr(message, field.name).extend(value)
        elif field.message_type:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)


def _parsed(message_type: Any, message: bytes) -> Any:
    """None for what nests deeper than protobuf's own parser goes: then the columns say what can be said."""
    try:
        return message_type.FromString(message)
    except DecodeError:
        return None


def key_values(attributes: Mapping[str, Any]) -> Iterable[KeyValue]:
    """Python values, of the types that attributes have at rest or in JSON, as OTLP's."""
    return (KeyValue(key=key, value=any_value(value)) for key, value in attributes.items())


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP's; an integer beyond its 64 bits as the nearest double."""
    said = AnyValue()
    if isinstance(value, bool):
        said.bool_value = value
    elif isinstance(value, int) and -_LAST - 1 <= value <= _LAST:
        said.int_value = value
    elif isinstance(value, int | float):
        said.double_value = value
    elif isinstance(value, str):
        said.string_value = value
    elif isinstance(value, bytes):
        said.bytes_value = value
    elif isinstance(value, list):
        said.array_value.values.extend(map(any_value, value))
        said.array_value.SetInParent()
    elif isinstance(value, dict):
        said.kvlist_value.values.extend(key_values(value))
        said.kvlist_value.SetInParent()
    return said
