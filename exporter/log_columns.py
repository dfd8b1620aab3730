"""Stored log records as serialised OTLP log records, by columns: as `otlp.log_record_of` says them.

Where the columns are not all there is to say (a residue, a value of a strange type), `log_record_of` says the record.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from ..storage import EventLog, Reader
from .columns import Chosen, column, event_ids, numbers, present, run_ids, said_columns
from .otlp import log_record_of
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
    attributes, is_exact = attributes_column(column(rows, "attributes"), 6)
    messages = joined(
        _heads(rows),
        delimited_column(3, column(rows, "severity_text")),
        _bodies(column(rows, "content")),
        attributes,
        delimited_column(12, column(rows, "name")),
    )
    inexact = ~is_exact | present(rows, "otlp_residue")
    return _corrected(reader, rows, messages, inexact, chosen) if inexact.any() else messages


def _heads(rows: pa.Table) -> pa.Array:
    """What is short in a record."""
    return (
        Head(rows.num_rows)
        .fixed_field(1, numbers(rows, "time_unix_nano"))
        .varint_field(2, numbers(rows, "severity_number"))
        .varint_field(7, numbers(rows, "dropped_attributes_count"))
        .fixed_field(8, numbers(rows, "flags").astype(np.uint32))
        .id_field(9, run_ids(rows), present(rows, "run_id"))
        .id_field(10, event_ids(numbers(rows, "event_id")), present(rows, "event_id"))
        .fixed_field(11, numbers(rows, "observed_time_unix_nano"))
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
