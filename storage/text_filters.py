"""Which texts the attributes of compacted events are, noted when there is nothing else to do.

A search for a text that few events have reads that attribute of all events, to find it nowhere or in a handful of
portions. A `bloom` filter for each key of a portion tells in which: some two bytes an event, and an answer in a few
milliseconds however much is stored. `attribute_places` asks them.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import BigInteger, Text, and_, bindparam, case, cast, func, literal, select

from .bloom import TEXT_BYTES_MAX, bloom_filter
from .compacting import PORTION_ROWS
from .reading import Reader
from .schema import CompactedPortion, ExecutionEvent, TextFilter

VALUES_AT_ONCE = 64 * PORTION_ROWS

_AT = CompactedPortion.compacted_at_unix_nano
_KEYS = CompactedPortion.attribute_keys
_HAS_NONE = and_(func.len(_KEYS) > 0, _AT.not_in(select(TextFilter.compacted_at_unix_nano)))

UNNOTED = select(func.count(_AT)).where(_HAS_NONE)

# Summed, not counted: for a count, the engine looks through what it knows of every column of each row group first.
_EVENTS = select(func.coalesce(func.sum(literal(1)), 0).label("events")).where(
    ExecutionEvent.compacted_at_unix_nano == bindparam("compacted_at", type_=BigInteger)
)
_NEWEST = select(_AT.label("compacted_at"), _KEYS).where(_HAS_NONE).order_by(_AT.desc()).limit(1)


def filters_of_portion(reader: Reader) -> pa.Table | None:
    """The rows of `text_filters` for the newest portion of known keys that has none, one for each key; None where there
    is no such portion. Raises QueryTimeout."""
    newest = reader.arrow(_NEWEST).to_pylist()
    if not newest:
        return None
    at, keys = newest[0]["compacted_at"], newest[0]["attribute_keys"]
    step = _keys_at_once(reader, at)
    filters = [one for first in range(0, len(keys), step) for one in _filters(reader, at, keys[first : first + step])]
    columns = {"compacted_at_unix_nano": np.full(len(keys), at), "attribute_key": keys, "text_filter": filters}
    return pa.table(columns)


def _keys_at_once(reader: Reader, compacted_at: int) -> int:
    """What arrived compacted may be many events, with few texts each."""
    [row] = reader.rows(_EVENTS, {"compacted_at": compacted_at})
    return max(1, VALUES_AT_ONCE // max(1, int(row["events"])))


def _filters(reader: Reader, compacted_at: int, keys: list[str]) -> list[bytes]:
    """Long texts are left in the engine: a portion of them may be more than there is memory."""
    attributes = ExecutionEvent.stored_attributes
    values = (cast(func.variant_extract(attributes, literal(key, Text)), Text) for key in keys)
    named = [value.label(f"text_{number}") for number, value in enumerate(values)]
    texts = select(*named).where(ExecutionEvent.compacted_at_unix_nano == compacted_at).subquery("texts")
    short = [case((func.strlen(column) <= TEXT_BYTES_MAX, column)).label(column.name) for column in texts.c]
    return [bloom_filter(pc.unique(column).drop_null()) for column in reader.arrow(select(*short)).columns]
