"""Stored log records as serialised OTLP log records, by columns: as `rows.log_record_of` says them.

What the columns cannot say exactly stands in `otlp_residue`, in fields of the same message. Where a value has a type
that no attribute has when it comes (somebody else wrote it), `log_record_of` says the record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from ..storage import EventLog, Reader
from .columns import Chosen, column, event_ids, numbers, present, residue, run_ids, said_columns
from .rows import log_record_of
from .variant_attributes import attributes_column
from .wire import BYTES, Bools, Head, delimited_column, joined

_LOGS: Any = EventLog.__table__

LOG_COLUMNS = said_columns(
    _LOGS,
    *("event_id", "log_index", "time_unix_nano", "observed_time_unix_nano", "name", "content", "severity_number"),
    *("severity_text", "flags", "dropped_attributes_count", "otlp_residue", "resource_id", "scope_id"),
)


def log_messages(reader: Reader, rows: pa.Table, chosen: Chosen) -> pa.Array:
    """Log records, serialised, one each. `rows` has LOG_COLUMNS of the chosen rows of `event_logs`."""
    residues, has_none = residue(rows)
    attributes, is_exact = attributes_column(column(rows, "attributes"), 6, has_none)
    messages = joined(
        _heads(rows, has_none),
        delimited_column(3, column(rows, "severity_text")),
        _bodies(pc.if_else(pa.array(has_none), column(rows, "content"), None)),
        attributes,
        delimited_column(12, column(rows, "name")),
        residues,
    )
    return messages if is_exact.all() else _corrected(reader, rows, messages, ~is_exact, chosen)


def _heads(rows: pa.Table, is_exact: Bools) -> pa.Array:
    """What is short in a record."""
    return (
        Head(rows.num_rows)
        .fixed_field(1, numbers(rows, "time_unix_nano") * is_exact)
        .varint_field(2, numbers(rows, "severity_number"))
        .varint_field(7, numbers(rows, "dropped_attributes_count"))
        .fixed_field(8, numbers(rows, "flags").astype(np.uint32))
        .id_field(9, run_ids(rows), present(rows, "run_id") & is_exact)
        .id_field(10, event_ids(numbers(rows, "event_id")), present(rows, "event_id") & is_exact)
        .fixed_field(11, numbers(rows, "observed_time_unix_nano") * is_exact)
        .column()
    )


def _bodies(texts: pa.Array) -> pa.Array:
    values = delimited_column(1, texts)
    return delimited_column(5, pc.if_else(texts.is_valid(), values, pa.scalar(None, BYTES)))


def _corrected(reader: Reader, rows: pa.Table, messages: pa.Array, inexact: Bools, chosen: Chosen) -> pa.Array:
    """The messages, those of inexact rows as `log_record_of` says them."""
    wanted = numbers(rows, "log_index")[inexact].tolist()
    statement = select(_LOGS).where(chosen.condition, _LOGS.c.log_index.in_(wanted))
    found = reader.rows(statement.params(chosen.values))
    records = {row["log_index"]: log_record_of(row).SerializeToString() for row in found}
    said = pa.array([records[number] for number in wanted], BYTES)
    return pc.replace_with_mask(messages, pa.array(inexact), said)
