"""Stored records in an order, serialised: from a place on, so many as fit into one request.

How large records are is known only when they are read. So they are read portion by portion: few at first, then as many
as what was read says will fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, func, or_, select

from ..storage import Reader
from .blocks import Blocks, Records
from .columns import Chosen, numbers

# So many are read at first, where nothing is known, and where the last request says something; then so many times as
# many as were read.
_FIRST_RECORDS = 32
_RECORDS_UNSEEN_MAX = 1024
_GROWTH = 32
_SHRINKING = 8
# Asked for the first of more than 5,000 rows, the engine sorts all that there are.
_FOUND_MAX = 4096
_LIMIT = bindparam("records_max", type_=BigInteger, required=False)

# What the columns of an order say of one record: numbers and ids of runs.
Place = tuple[Any, ...]


class Portion(NamedTuple):
    """A serialised request with so many records; `last` is the place of the last of them, and `is_all` says that there
    are none behind it."""

    request: bytes
    records: int
    last: Place
    is_all: bool


class Feed:
    """The records that meet `condition`, in the `order` of these columns: the second is a time, and nothing else is at
    a record's place. `messages` serialises rows of `columns`, given the condition that they meet and values for it.
    With `keeps_together`, a request has records in the order of the first column too, whatever blocks they are in.

    It is made once and read often: its statements are compiled once, and `read` notes how large records were, which the
    next ones may resemble, and whether it failed.
    """

    def __init__(
        self,
        *,
        order: Sequence[ColumnElement[Any]],
        condition: ColumnElement[bool],
        columns: Sequence[ColumnElement[Any]],
        messages: Callable[[Reader, pa.Table, Chosen], pa.Array],
        keeps_together: bool = False,
    ) -> None:
        first, started_at, *_ = order
        # What is said of the first column and of times alone says nothing new, but prunes the scan.
        behind = and_(first >= _bound("after", 0, first), _beyond(order, "after"), condition)
        starts = started_at.between(_bound("earliest", 1, started_at), _bound("latest", 1, started_at))
        self._count = select(func.count()).where(behind)
        self._places = select(*order).where(behind).order_by(*order).limit(_LIMIT)
        self._chosen = and_(first <= _bound("until", 0, first), starts, behind, ~_beyond(order, "until"))
        self._records = select(*columns).where(self._chosen).order_by(*order)
        self._messages = messages
        self._keeps_together = keeps_together
        self._record_bytes: int | None = None
        self._most: int | None = None

    def count(self, reader: Reader, after: Place, values: Mapping[str, Any] | None = None) -> int:
        """How many records are behind `after`. `values` are those of the condition. Raises QueryTimeout."""
        [[count]] = reader.arrow(self._count, {**(values or {}), **_values("after", after)}).to_pydict().values()
        return int(count)

    def read(
        self, reader: Reader, after: Place, records_max: int, bytes_max: int, values: Mapping[str, Any] | None = None
    ) -> Portion | None:
        """The next records behind `after`, None where there are none: `records_max` at most, and no more than fit into
        `bytes_max`, but one that is larger alone goes alone. Raises QueryTimeout, and StorageError where a part of a
        history is missing; what is read next then is little, and less each time that fails, in case it was too large
        to be read together."""
        try:
            found = self._read(reader, after, min(records_max, self._most or records_max), bytes_max, values or {})
        except Exception:
            self._most = _FIRST_RECORDS if self._most is None else max(1, self._most // _SHRINKING)
            raise
        self._most = None
        return found

    def _read(
        self, reader: Reader, after: Place, records_max: int, bytes_max: int, values: Mapping[str, Any]
    ) -> Portion | None:
        pieces = list(self._pieces(reader, after, records_max, bytes_max, values))
        if not pieces:
            return None
        places, records = pa.concat_tables(piece.places for piece in pieces), Records.joined(p.records for p in pieces)
        self._record_bytes = max(1, records.size // len(records.messages))
        blocks = Blocks(reader, records, bytes_max)
        is_all = pieces[-1].is_last and blocks.count == len(records.messages)
        return Portion(blocks.request(), blocks.count, _place(places, blocks.count - 1), is_all)

    def _pieces(
        self, reader: Reader, after: Place, records_max: int, bytes_max: int, values: Mapping[str, Any]
    ) -> Iterator[_Piece]:
        """The records behind `after`, until they are enough."""
        count = size = 0
        wanted = _FIRST_RECORDS
        if self._record_bytes is not None:
            wanted = min(_RECORDS_UNSEEN_MAX, bytes_max // self._record_bytes + 1)
        while count < records_max and size < bytes_max:
            limit = min(wanted, records_max - count, _FOUND_MAX)
            behind = {**values, **_values("after", after)}
            places = reader.arrow(self._places, {**behind, "records_max": limit})
            if not places.num_rows:
                return
            after = _place(places, -1)
            records = self._serialised(reader, places, {**behind, **_values("until", after), **_bounds(places)})
            yield _Piece(places, records, places.num_rows < limit)
            if places.num_rows < limit:
                return
            count, size = count + places.num_rows, size + max(1, records.size)
            wanted = max(1, min(count * _GROWTH, (bytes_max - size) * count // size + 1))

    def _serialised(self, reader: Reader, places: pa.Table, values: dict[str, Any]) -> Records:
        rows = reader.arrow(self._records, values).combine_chunks()
        messages = self._messages(reader, rows, Chosen(self._chosen, values))
        together = places.column(0).to_numpy() if self._keeps_together else np.zeros(rows.num_rows, np.int64)
        return Records(messages, numbers(rows, "resource_id"), numbers(rows, "scope_id"), together)


class _Piece(NamedTuple):
    places: pa.Table
    records: Records
    is_last: bool


def _beyond(order: Sequence[ColumnElement[Any]], place: str, number: int = 0) -> ColumnElement[bool]:
    """Column by column: comparing tuples, the engine builds one for every row that it looks at."""
    column = order[number]
    later = column > _bound(place, number, column)
    if number == len(order) - 1:
        return later
    return or_(later, and_(column == _bound(place, number, column), _beyond(order, place, number + 1)))


def _bound(place: str, number: int, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return bindparam(f"{place}_{number}", type_=column.type, required=False)


def _values(name: str, place: Place) -> dict[str, Any]:
    return {f"{name}_{number}": value for number, value in enumerate(place)}


def _bounds(places: pa.Table) -> dict[str, Any]:
    starts = pc.min_max(places.column(1)).as_py()
    return {"earliest_1": starts["min"], "latest_1": starts["max"]}


def _place(places: pa.Table, row: int) -> Place:
    said = (column[row].as_py() for column in places.columns)
    return tuple(UUID(value) if isinstance(value, str) else value for value in said)
