"""Stored events as serialised OTLP spans, by columns: as `rows.spans_of` says them, many times as fast.

What the columns cannot say exactly stands in `otlp_residue`, in fields of the same message. Where a value has a type
that no attribute has when it comes (somebody else wrote it), `spans_of` says the span.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, select, tuple_

from ..storage import EventLink, EventLog, ExecutionEvent, Histories, Reader, run_id_text
from .columns import Chosen, column, event_ids, numbers, present, residue, run_ids, said_columns
from .rows import is_readable, key_values, spans_of
from .variant_attributes import attributes_column
from .wire import BYTES, Bools, Head, delimited, delimited_column, empty, grouped, joined

_EVENTS: Any = ExecutionEvent.__table__
_LOGS: Any = EventLog.__table__
_LINKS: Any = EventLink.__table__

# Fields of a Span.
_TRACE_STATE, _NAME, _ATTRIBUTES, _SPAN_EVENTS, _SPAN_LINKS, _STATUS = 3, 5, 9, 11, 13, 15

SPAN_COLUMNS = said_columns(
    _EVENTS,
    *("id", "otel_span_id", "parent_event_id", "name", "kind", "status_code", "status_message", "trace_state", "flags"),
    *("started_at_unix_nano", "completed_at_unix_nano"),
    *("dropped_attributes_count", "dropped_events_count", "dropped_links_count", "history_id", "otlp_residue"),
    *("resource_id", "scope_id"),
)


def span_messages(reader: Reader, rows: pa.Table, chosen: Chosen) -> pa.Array:
    """Events as serialised spans, one each. `rows` has SPAN_COLUMNS of the chosen events."""
    residues, has_none = residue(rows)
    attributes, is_exact = attributes_column(column(rows, "attributes"), _ATTRIBUTES, has_none)
    logs, logs_are_exact = _parts_fields(reader, rows, chosen, _LOGS, _log_fields)
    links, links_are_exact = _parts_fields(reader, rows, chosen, _LINKS, _link_fields)
    messages = joined(
        _heads(rows, has_none),
        delimited_column(_TRACE_STATE, column(rows, "trace_state")),
        delimited_column(_NAME, column(rows, "name")),
        _statuses(rows),
        attributes,
        _histories(reader, rows, has_none),
        logs,
        links,
        residues,
    )
    inexact = ~(is_exact & logs_are_exact & links_are_exact)
    return _corrected(reader, rows, messages, inexact) if inexact.any() else messages


def readable_span_messages(reader: Reader, rows: pa.Table, chosen: Chosen) -> pa.Array:
    """`span_messages`, but what nests deeper than protobuf's own parsers go is said as far as columns can."""
    messages = span_messages(reader, rows, chosen)
    if is_readable(Span, b"".join(messages.to_pylist())):
        return messages
    unreadable = np.array([not is_readable(Span, message) for message in messages.to_pylist()])
    return _corrected(reader, rows, messages, unreadable)


def _heads(rows: pa.Table, is_exact: Bools) -> pa.Array:
    """What is short in a span."""
    span_ids = pc.coalesce(column(rows, "otel_span_id"), column(rows, "id")).to_numpy()
    head = Head(rows.num_rows).id_field(1, run_ids(rows)).id_field(2, event_ids(span_ids))
    head.id_field(4, event_ids(numbers(rows, "parent_event_id")), present(rows, "parent_event_id") & is_exact)
    head.varint_field(6, numbers(rows, "kind"))
    head.fixed_field(7, numbers(rows, "started_at_unix_nano") * is_exact)
    head.fixed_field(8, numbers(rows, "completed_at_unix_nano") * is_exact)
    head.varint_field(10, numbers(rows, "dropped_attributes_count"))
    head.varint_field(12, numbers(rows, "dropped_events_count"))
    head.varint_field(14, numbers(rows, "dropped_links_count"))
    return head.fixed_field(16, numbers(rows, "flags").astype(np.uint32)).column()


def _statuses(rows: pa.Table) -> pa.Array:
    """A span has a status where it has a message, be it empty."""
    said = column(rows, "status_message")
    codes = Head(rows.num_rows).varint_field(3, numbers(rows, "status_code")).column()
    statuses = joined(delimited_column(2, said), codes)
    return delimited_column(_STATUS, pc.if_else(said.is_valid(), statuses, pa.scalar(None, BYTES)))


def _histories(reader: Reader, rows: pa.Table, wanted: Bools) -> pa.Array:
    """The attributes that repeat a conversation."""
    wanted = wanted & present(rows, "history_id")
    if not wanted.any():
        return empty(rows.num_rows)
    kept = pc.if_else(pa.array(wanted), column(rows, "history_id"), None).to_pylist()
    ids = [None if history_id is None else run_id_text(UUID(history_id)) for history_id in kept]
    histories = Histories(reader.rows, ids)
    return pa.array([_attributes(histories.text(history_id)) if history_id else b"" for history_id in ids], BYTES)


def _attributes(history: str) -> bytes:
    pairs = key_values(json.loads(history))
    return b"".join(delimited(_ATTRIBUTES, pair.SerializeToString()) for pair in pairs)


def _parts_fields(
    reader: Reader, rows: pa.Table, chosen: Chosen, table: Any, fields: Callable[[pa.Table], tuple[pa.Array, Bools]]
) -> tuple[pa.Array, Bools]:
    """Of each row the fields that its logs or links are, one after another, and whether all of these are exact."""
    starts = numbers(rows, "started_at_unix_nano")
    bounds = {"first_start": int(starts.min()), "last_start": int(starts.max())}
    # Looking whether there are any costs little; asking whose they are does not.
    if not reader.arrow(_ANY[table], bounds).num_rows:
        return empty(rows.num_rows), np.ones(rows.num_rows, bool)
    parts = reader.arrow(_parts_of(table, chosen.condition), {**chosen.values, **bounds})
    said, is_exact = fields(parts)
    keys = _keys(rows, "id")
    by_key = np.argsort(keys)
    owners = by_key[np.searchsorted(keys, _keys(parts, "event_id"), sorter=by_key)]
    order = np.argsort(owners, kind="stable")
    are_exact = np.ones(rows.num_rows, bool)
    are_exact[owners[~is_exact]] = False
    ends = np.searchsorted(owners[order], np.arange(rows.num_rows + 1))
    return grouped(said.take(pa.array(order)), ends), are_exact


@lru_cache(maxsize=64)
def _parts_of(table: Any, condition: ColumnElement[bool]) -> Select[Any]:
    """The parts of the events that meet the condition, those of an event in their order."""
    owners = select(_EVENTS.c.run_id, _EVENTS.c.id).where(condition)
    return _PARTS[table].where(_in_bounds(table), tuple_(table.c.run_id, table.c.event_id).in_(owners))


def _in_bounds(table: Any) -> ColumnElement[bool]:
    """Whether an event may be one of those that start between two times, which prunes the scan."""
    bounds = [bindparam(name, type_=BigInteger, required=False) for name in ("first_start", "last_start")]
    return and_(table.c.event_started_at_unix_nano.between(*bounds), *_OF_EVENTS.get(table, ()))


def _log_fields(logs: pa.Table) -> tuple[pa.Array, Bools]:
    """Logs as a span's events, and whether they are exact."""
    residues, has_none = residue(logs)
    attributes, is_exact = attributes_column(column(logs, "attributes"), 3, has_none)
    messages = joined(
        Head(logs.num_rows)
        .fixed_field(1, numbers(logs, "time_unix_nano") * has_none)
        .varint_field(4, numbers(logs, "dropped_attributes_count"))
        .column(),
        delimited_column(2, column(logs, "name")),
        attributes,
        residues,
    )
    return delimited_column(_SPAN_EVENTS, messages), is_exact


def _link_fields(links: pa.Table) -> tuple[pa.Array, Bools]:
    """Links as a span's, and whether they are exact."""
    residues, has_none = residue(links)
    attributes, is_exact = attributes_column(column(links, "attributes"), 4, has_none)
    messages = joined(
        Head(links.num_rows)
        .id_field(1, run_ids(links, "linked_run_id"), present(links, "linked_run_id") & has_none)
        .id_field(2, event_ids(numbers(links, "linked_event_id")), present(links, "linked_event_id") & has_none)
        .varint_field(5, numbers(links, "dropped_attributes_count"))
        .fixed_field(6, numbers(links, "flags").astype(np.uint32))
        .column(),
        delimited_column(3, column(links, "trace_state")),
        attributes,
        residues,
    )
    return delimited_column(_SPAN_LINKS, messages), is_exact


def _keys(rows: pa.Table, event_id: str) -> npt.NDArray[np.bytes_]:
    """The events' keys in a form that can be sorted; the zeros at their end are not shown, but count."""
    octets = np.concatenate((run_ids(rows), event_ids(numbers(rows, event_id))), axis=1)
    return octets.view(f"S{octets.shape[1]}")[:, 0]


def _corrected(reader: Reader, rows: pa.Table, messages: pa.Array, inexact: Bools) -> pa.Array:
    """The messages, those of inexact rows as `spans_of` says them."""
    keys = [key.ljust(24, b"\0").hex() for key in _keys(rows.filter(pa.array(inexact)), "id").tolist()]
    starts = numbers(rows, "started_at_unix_nano")[inexact]
    statement = select(_EVENTS).where(
        _EVENTS.c.run_id.in_({key[:32] for key in keys}),
        _EVENTS.c.id.in_({key[32:] for key in keys}),
        _EVENTS.c.started_at_unix_nano.between(int(starts.min()), int(starts.max())),
    )
    events = {event["run_id"] + event["id"]: event for event in reader.rows(statement)}
    spans = spans_of(reader, [events[key] for key in keys])
    said = pa.array([span.SerializeToString() for span in spans], BYTES)
    return pc.replace_with_mask(messages, pa.array(inexact), said)


# Log records lie among the logs.
_OF_EVENTS = {_LOGS: (_LOGS.c.log_index >= 0,)}
_ANY = {table: select(table.c.event_id).where(_in_bounds(table)).limit(1) for table in (_LOGS, _LINKS)}
_PARTS = {
    _LOGS: select(
        *said_columns(_LOGS, "event_id", "time_unix_nano", "name", "dropped_attributes_count", "otlp_residue")
    ).order_by(_LOGS.c.log_index),
    _LINKS: select(
        *said_columns(
            _LINKS,
            *("event_id", "linked_event_id", "trace_state", "flags", "dropped_attributes_count", "otlp_residue"),
        )
    ).order_by(_LINKS.c.link_index),
}
