"""What the collector hands to the store: spans by columns, nothing of the wire left in them.

A SpanBatch is a set of Arrow tables whose columns bear the names of `schema`. Attributes travel flattened, as
`AttributeColumns`; how an engine stores them is its own affair.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa


class ValueType(IntEnum):
    """The type of one attribute value, and where in `AttributeColumns.values` it stands."""

    NULL = 0
    STRING = 1
    BOOL = 2
    INT = 3
    DOUBLE = 4
    BYTES = 5
    STRINGS = 6  # a list of strings
    JSON = 7  # anything else that nests, as JSON text


VALUE_ARROW_TYPES: dict[ValueType, pa.DataType] = {
    ValueType.STRING: pa.string(),
    ValueType.BOOL: pa.bool_(),
    ValueType.INT: pa.int64(),
    ValueType.DOUBLE: pa.float64(),
    ValueType.BYTES: pa.binary(),
    ValueType.STRINGS: pa.list_(pa.string()),
    ValueType.JSON: pa.string(),
}


@dataclass(frozen=True)
class AttributeColumns:
    """The attributes of n owners, one entry per (owner, key); an owner's keys are distinct.

    `offsets` (n + 1): owner i has entries offsets[i] to offsets[i + 1]. `keys`: dictionary-encoded. `types`: ValueType
    per entry. `values`: per ValueType that occurs, an array with one value per entry, of which those of other types
    are ignored.
    """

    offsets: npt.NDArray[np.int64]
    keys: pa.DictionaryArray
    types: npt.NDArray[np.uint8]
    values: dict[ValueType, pa.Array]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def of(self, owner: int, *, among: frozenset[int] | None = None) -> dict[str, Any]:
        """The attributes of one owner as Python values, of the keys with these codes if given; what nests is parsed."""
        start, stop = int(self.offsets[owner]), int(self.offsets[owner + 1])
        codes = self.keys.indices.slice(start, stop - start).to_pylist()
        return {
            self.keys.dictionary[code].as_py(): self._value(start + place)
            for place, code in enumerate(codes)
            if among is None or code in among
        }

    def codes(self, is_wanted: Callable[[str], bool]) -> frozenset[int]:
        """The codes of the keys that are wanted."""
        return frozenset(code for code, key in enumerate(self.keys.dictionary.to_pylist()) if is_wanted(key))

    def owners_of(self, codes: frozenset[int]) -> npt.NDArray[np.int64]:
        """The owners that have one of these keys."""
        if not codes:
            return np.empty(0, dtype=np.int64)
        entries = np.flatnonzero(np.isin(self.keys.indices.to_numpy(zero_copy_only=False), list(codes)))
        return np.unique(np.searchsorted(self.offsets, entries, side="right") - 1)

    def without(self, entries: npt.NDArray[np.int64]) -> AttributeColumns:
        """The attributes of the same owners but for these entries."""
        kept = np.ones(len(self.types), dtype=bool)
        kept[entries] = False
        offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(kept)))[self.offsets]
        at = pa.array(np.flatnonzero(kept))
        values = {value_type: column.take(at) for value_type, column in self.values.items()}
        return AttributeColumns(offsets, self.keys.take(at), self.types[kept], values)

    def _value(self, entry: int) -> Any:
        value_type = ValueType(int(self.types[entry]))
        if value_type is ValueType.NULL:
            return None
        value = self.values[value_type][entry].as_py()
        return json.loads(value) if value_type is ValueType.JSON else value


@dataclass(frozen=True, eq=False)
class Origins:
    """Resources or scopes: a table with the columns of `schema.Resource` or `schema.Scope` but `attributes`, without
    repetition, and their attributes."""

    table: pa.Table
    attributes: AttributeColumns


@dataclass(frozen=True)
class EventParts:
    """Logs or links of the batch's events: a table with the columns of `schema.EventLog` or `schema.EventLink` but the
    event's own (`run_id`, `event_id`, `event_started_at_unix_nano`) and `attributes`; `event_row` (int32) is the row of
    the event in `SpanBatch.events`."""

    table: pa.Table
    attributes: AttributeColumns


# Which other events say a message that one said first, in order, and what differs then.
_SAYING = {
    "event_row": pa.int32(),
    "log_index": pa.int64(),
    "step_id": pa.string(),
    "node_id": pa.string(),
    "recipient": pa.string(),
    "tokens": pa.int64(),
    "time_unix_nano": pa.int64(),
}
SAID_AGAIN = pa.field("said_again", pa.list_(pa.struct(list(_SAYING.items()))))


@dataclass(frozen=True)
class SpanBatch:
    """Spans that are stored together or not at all.

    `events` has the columns of `schema.ExecutionEvent` but `otel_span_id` and `attributes` (`run_id` and
    `linked_run_id` as 16 bytes), and besides `session_id` (text or null) and `service_name` for their runs. `id` is
    the OTel span id; the store decides what becomes of spans that share one. `logs` and `links`: None for none.
    `records`: what the events bring along for other tables, see `records`; tables with `event_row`, ids as 16 bytes.
    Messages are those that were not said before in the batch, with SAID_AGAIN.
    """

    events: pa.Table
    attributes: AttributeColumns
    logs: EventParts | None
    links: EventParts | None
    resources: Origins
    scopes: Origins
    records: dict[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True)
class WriteOutcome:
    """What became of a batch: `stored` events are new, `repeated` ones were there before, `replaced` took the place of
    a pending copy (they count as stored)."""

    stored: int
    repeated: int
    replaced: int
