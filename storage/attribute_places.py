"""What is known of attributes before events are looked at: where one may be found, by its key and its text, as far as
is known of compacted events, and whether it may be bytes.

An attribute for which a row group has no typed column is looked for in all attributes of each of its events, put
together again: a hundred times as slow as reading a column, only to find nothing. And where there is a column, it is
still read of millions of events to find a text in a few of them. So searches leave the portions out whose events do not
have the key, or not with that text.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from sqlalchemy import ColumnElement, Text, bindparam, false, func, or_, select, true

from .bloom import TEXT_BYTES_MAX, may_hold
from .reading import Reader
from .schema import CompactedPortion, ExecutionEvent, TextFilter

# Where less is left out, looking each event's portion up costs more than it spares.
LEFT_OUT_SHARE_MIN = 0.1
RANGES_MAX = 16
# A thousand places take as long to leave others out by as it takes to read the attribute of three million events.
PLACES_MAX = 1024
RESIDUES_MAX = 4096

_AT = CompactedPortion.compacted_at_unix_nano
_KEYS = CompactedPortion.attribute_keys
_PORTIONS = select(
    _AT, func.coalesce(func.list_contains(_KEYS, bindparam("key", type_=Text)), true()).label("may_have")
).order_by(_AT)

_FILTERS = select(TextFilter.compacted_at_unix_nano, TextFilter.text_filter).where(
    TextFilter.attribute_key == bindparam("key", type_=Text)
)

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


def may_have_attribute(reader: Reader, key: str, texts: Collection[str] | None = None) -> ColumnElement[bool] | None:
    """A condition over execution_events, true for every event with an attribute of this key, if `texts` are given one
    that reads like one of these; and for as few others as can be told cheaply: those that are not compacted, and those
    compacted together with one that has it. None where too little would be left out."""
    portions = reader.arrow(_PORTIONS, {"key": key})
    stamps, may_have = portions[0].to_numpy(), portions[1].to_numpy()
    if not len(stamps):
        return None
    if texts is not None and all(len(text.encode()) <= TEXT_BYTES_MAX for text in texts):
        may_have = may_have & ~np.isin(stamps, _without(reader, key, texts))
    return _among(stamps, may_have)


def texts_of(value: str | bool | float) -> set[str]:
    """How every attribute that equals the value reads as a text: Python and the engine write numbers alike."""
    if isinstance(value, bool):
        return {str(value).lower()}
    return {str(value), "-0.0"} if value == 0 and isinstance(value, float) else {str(value)}


def _without(reader: Reader, key: str, texts: Collection[str]) -> npt.NDArray[np.int64]:
    """The portions that are known to have none of the texts under the key."""
    stamps, filters = reader.arrow(_FILTERS, {"key": key}).columns
    may_be = np.zeros(len(filters), np.bool_)
    for text in texts:
        may_be |= may_hold(filters.combine_chunks(), text)
    without: npt.NDArray[np.int64] = stamps.to_numpy()[~may_be]
    return without


def _among(stamps: npt.NDArray[np.int64], may_have: npt.NDArray[np.bool_]) -> ColumnElement[bool] | None:
    """Is the event of a portion that may have it, or of none? Where they are many, it is asked more coarsely."""
    if may_have.mean() > 1 - LEFT_OUT_SHARE_MIN:
        return None
    at = ExecutionEvent.compacted_at_unix_nano
    edges = np.diff(may_have.astype(np.int8), prepend=0, append=0)
    first, last = stamps[np.flatnonzero(edges == 1)], stamps[np.flatnonzero(edges == -1) - 1]
    if len(first) > RANGES_MAX and may_have.sum() <= PLACES_MAX:
        return or_(at.is_(None), at.in_(stamps[may_have].tolist()))
    if len(first) > RANGES_MAX:
        first, last = first[:1], last[-1:]
    ranges = (at.between(*bounds) for bounds in zip(first.tolist(), last.tolist(), strict=True))
    return or_(at.is_(None), *ranges)


def may_have_bytes(reader: Reader, key: str) -> bool:
    """May an event have an attribute of this key that is bytes? Looks at RESIDUES_MAX events at most."""
    [row] = reader.rows(_BYTES, {"key": key})
    return bool(row["are_many"] or row["are_bytes"])
