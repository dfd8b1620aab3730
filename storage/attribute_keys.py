"""What is known of attributes by their key before events are looked at: where one may be found, as far as compaction
knows, and whether it may be bytes.

An attribute for which a row group has no typed column is looked for in all attributes of each of its events, put
together again: a hundred times as slow as reading a column, only to find nothing. So searches leave the portions out
whose events do not have the key.
"""

from __future__ import annotations

import numpy as np
from sqlalchemy import ColumnElement, Text, bindparam, false, func, or_, select, true

from .reading import Reader
from .schema import CompactedPortion, ExecutionEvent

# Where less is left out, looking each event's portion up costs more than it spares.
LEFT_OUT_SHARE_MIN = 0.1
RANGES_MAX = 16
RESIDUES_MAX = 4096

_AT = CompactedPortion.compacted_at_unix_nano
_KEYS = CompactedPortion.attribute_keys
_PORTIONS = select(
    _AT, func.coalesce(func.list_contains(_KEYS, bindparam("key", type_=Text)), true()).label("may_have")
).order_by(_AT)

# Bytes are among what the columns cannot say exactly, and few events have any such thing.
_INEXACT = (
    select(ExecutionEvent.stored_attributes.label("attributes"))
    .where(ExecutionEvent.otlp_residue.is_not(None))
    .limit(RESIDUES_MAX)
)
_OF_KEY = func.variant_extract(_INEXACT.subquery("inexact").c.attributes, bindparam("key", type_=Text))
_BYTES = select(
    (func.count() == RESIDUES_MAX).label("are_many"),
    func.coalesce(func.bool_or(func.variant_typeof(_OF_KEY) == "BLOB"), false()).label("are_bytes"),
)


def may_have_attribute(reader: Reader, key: str) -> ColumnElement[bool] | None:
    """A condition over execution_events, true for every event with an attribute of this key, and for as few others as
    can be told cheaply: those that are not compacted, and those compacted together with one that has it. None where
    too little would be left out."""
    portions = reader.arrow(_PORTIONS, {"key": key})
    stamps, may_have = portions[0].to_numpy(), portions[1].to_numpy()
    if not len(stamps) or may_have.mean() > 1 - LEFT_OUT_SHARE_MIN:
        return None
    edges = np.diff(may_have.astype(np.int8), prepend=0, append=0)
    first, last = stamps[np.flatnonzero(edges == 1)], stamps[np.flatnonzero(edges == -1) - 1]
    if len(first) > RANGES_MAX:
        first, last = first[:1], last[-1:]
    at = ExecutionEvent.compacted_at_unix_nano
    ranges = (at.between(*bounds) for bounds in zip(first.tolist(), last.tolist(), strict=True))
    return or_(at.is_(None), *ranges)


def may_have_bytes(reader: Reader, key: str) -> bool:
    """May an event have an attribute of this key that is bytes? Looks at RESIDUES_MAX events at most."""
    [row] = reader.rows(_BYTES, {"key": key})
    return bool(row["are_many"] or row["are_bytes"])
