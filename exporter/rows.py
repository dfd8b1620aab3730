"""Stored rows as OTLP messages, one by one: those few that columns cannot say.

The columns say nearly all of a span or a log record; where they cannot, `otlp_residue` does, and its fields take the
place of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from sqlalchemy import Select, select

from ..storage import EventLink, EventLog, Reader, Row, with_histories
from .wire import delimited

_LOGS, _LINKS = EventLog.__table__, EventLink.__table__
_INT64_MAX = (1 << 63) - 1
# In which fields messages stand within a whole one, the innermost first.
_WITHIN: dict[Any, tuple[Any, tuple[int, ...]]] = {
    Resource: (TracesData, (1, 1)),
    InstrumentationScope: (TracesData, (1, 2, 1)),
    Span: (TracesData, (2, 2, 1)),
    Span.Event: (TracesData, (11, 2, 2, 1)),
    Span.Link: (TracesData, (13, 2, 2, 1)),
    KeyValue: (TracesData, (3, 11, 2, 2, 1)),
    LogRecord: (LogsData, (2, 2, 1)),
}


def spans_of(reader: Reader, events: Sequence[Row]) -> Iterator[Span]:
    """The events (whole rows of `execution_events`) with all that they have, one by one. Attributes that nest deeper
    than protobuf's own parsers go have no value."""
    logs = _by_event(reader, _of_events(_LOGS, events).where(_LOGS.c.log_index >= 0).order_by(_LOGS.c.log_index))
    links = _by_event(reader, _of_events(_LINKS, events).order_by(_LINKS.c.link_index))
    for event in with_histories(reader.rows, events):
        span = Span()
        _fill_span(span, event)
        for log in logs.get((event["run_id"], event["id"]), ()):
            _fill_log(span.events.add(), log)
        for link in links.get((event["run_id"], event["id"]), ()):
            _fill_link(span.links.add(), link)
        if not is_readable(Span, span.SerializeToString()):
            _clear_deep_values(span)
        yield span


def _clear_deep_values(span: Span) -> None:
    for owner in (span, *span.events, *span.links):
        for pair in owner.attributes:
            if not is_readable(KeyValue, pair.SerializeToString()):
                pair.ClearField("value")


def log_record_of(row: Row) -> LogRecord:
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


def _of_events(table: Any, events: Sequence[Row]) -> Select[Any]:
    """The rows of a table of events' parts that may be of these events, within their time bounds."""
    starts = [event["started_at_unix_nano"] for event in events]
    return select(table).where(
        table.c.run_id.in_({event["run_id"] for event in events}),
        table.c.event_started_at_unix_nano.between(min(starts, default=0), max(starts, default=0)),
    )


def _by_event(reader: Reader, statement: Select[Any]) -> dict[tuple[str, str], list[Row]]:
    rows: dict[tuple[str, str], list[Row]] = {}
    for row in reader.rows(statement):
        rows.setdefault((row["run_id"], row["event_id"]), []).append(row)
    return rows


def _fill_span(span: Span, event: Row) -> None:
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


def _fill_log(log: Span.Event, row: Row) -> None:
    log.time_unix_nano, log.name = row["time_unix_nano"], row["name"]
    log.dropped_attributes_count = row["dropped_attributes_count"]
    _fill_attributes(log, row, Span.Event)


def _fill_link(link: Span.Link, row: Row) -> None:
    link.trace_id = bytes.fromhex(row["linked_run_id"] or "")
    link.span_id = bytes.fromhex(row["linked_event_id"] or "")
    link.trace_state, link.flags = row["trace_state"] or "", row["flags"]
    link.dropped_attributes_count = row["dropped_attributes_count"]
    _fill_attributes(link, row, Span.Link)


def _fill_attributes(message: Any, row: Row, message_type: Any) -> None:
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
    return message_type.FromString(message) if is_readable(message_type, message) else None


def is_readable(message_type: Any, message: bytes) -> bool:
    """Whether protobuf's own parser, which goes 100 levels down, reads the message where it stands in OTLP. Several
    messages one after another are read as one."""
    whole, fields = _WITHIN[message_type]
    for field in fields:
        message = delimited(field, message)
    try:
        whole.FromString(message)
    except DecodeError:
        return False
    return True


def key_values(attributes: Mapping[str, Any]) -> Iterable[KeyValue]:
    """Python values, of the types that attributes have at rest or in JSON, as OTLP's."""
    return (KeyValue(key=key, value=any_value(value)) for key, value in attributes.items())


def any_value(value: Any) -> AnyValue:
    """A Python value as OTLP's; an integer beyond its 64 bits as the nearest double."""
    said = AnyValue()
    if isinstance(value, str):  # as most are
        said.string_value = value
    elif isinstance(value, bool):
        said.bool_value = value
    elif isinstance(value, int) and -_INT64_MAX - 1 <= value <= _INT64_MAX:
        said.int_value = value
    elif isinstance(value, int | float):
        said.double_value = value
    elif isinstance(value, bytes):
        said.bytes_value = value
    elif isinstance(value, list):
        said.array_value.values.extend(map(any_value, value))
        said.array_value.SetInParent()
    elif isinstance(value, dict):
        said.kvlist_value.values.extend(key_values(value))
        said.kvlist_value.SetInParent()
    return said
