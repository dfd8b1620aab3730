"""What goes on to other backends: what was stored, in the order of commits, as OTLP requests.

The store is the queue. Every span, log record and metric point bears the stamp of the commit that stored it
(`storage.commits`), so a place in the order of commits is all that a worker has to keep: nothing is copied, nothing is
held between two portions, and whoever was away goes on where it stopped. A pending span that was replaced
bears its new commit's stamp and comes again: at least once, never less. Rows without a stamp were stored before stamps
were kept; they are history and not part of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, func, or_, select, true

from ..storage import EventLog, ExecutionEvent, Reader, WorkflowMetric, event_id_text
from .blocks import Blocks, Records
from .columns import Chosen, column, numbers
from .log_columns import LOG_COLUMNS, log_messages
from .span_columns import SPAN_COLUMNS, span_messages
from .wire import BYTES

_NO_RUN = "0" * 32
_LAST = (1 << 63) - 1
# How large records are is known only when they are read: so many are read at first, where nothing is known, and where
# the last portion says something; then so many times as many as were read.
_FIRST_RECORDS = 32
_RECORDS_UNSEEN_MAX = 1024
_GROWTH = 32
# Asked for the first of more than 5,000 rows, the engine sorts all that there are.
_FOUND_MAX = 4096
_LIMIT = bindparam("records_max", type_=BigInteger, required=False)
_PART_OF_POSITION = {
    "stored_at_unix_nano": "stamp",
    **dict.fromkeys(("started_at_unix_nano", "event_started_at_unix_nano", "time_unix_nano"), "started_at"),
    "run_id": "run_id",
    **dict.fromkeys(("id", "log_index"), "event_id"),
}
_TEXT = re.compile(r"(\d{1,19})\.(-?\d{1,19})\.([0-9a-f]{32})\.([0-9a-f]{16})", re.ASCII)

_EVENTS: Any = ExecutionEvent.__table__
_LOGS: Any = EventLog.__table__
_METRICS: Any = WorkflowMetric.__table__


@dataclass(frozen=True, order=True)
class Position:
    """A place in the order of commits: just behind one record. `stamp` is its commit's, `started_at` its time, both in
    nanoseconds since 1970; `run_id` (32 hex digits) and `event_id` (a signed integer) are the span's. A log record or a
    metric point has a number of its own for `event_id` and no run here. It stays true whatever becomes of rows."""

    stamp: int
    started_at: int
    run_id: str
    event_id: int

    def text(self) -> str:
        return f"{self.stamp}.{self.started_at}.{self.run_id}.{event_id_text(self.event_id)}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `text()` gave. Raises ValueError."""
        found = _TEXT.fullmatch(text)
        if found is None or max(int(found[1]), abs(int(found[2]))) > _LAST:
            raise ValueError(f"{text[:80]!r} is not a position in the order of commits; give one as it was told")
        return cls(int(found[1]), int(found[2]), found[3], _signed(found[4]))

    @classmethod
    def at(cls, stamp: int) -> Position:
        """Behind everything of this commit and of those before it."""
        return cls(stamp, _LAST, "f" * 32, _LAST)


class Signal(StrEnum):
    """What OTLP tells apart."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


@dataclass(frozen=True)
class Outgoing:
    """A serialised `Export…ServiceRequest` of the signal, with so many spans, log records or points; `position` is
    that of the last of them."""

    request: bytes
    records: int
    position: Position


def outgoing(  # noqa: PLR0913 two limits and a filter, by name
    reader: Reader,
    signal: Signal,
    after: Position,
    *,
    records_max: int = 8192,
    bytes_max: int = 4 << 20,
    where: ColumnElement[bool] | None = None,
) -> Outgoing | None:
    """The next records behind `after`, None where there are none yet: `records_max` at most, and no more than fit into
    `bytes_max`, but one that is larger alone goes alone. `where`: only spans that meet this condition on
    `execution_events`; for TRACES only, and the same object each time, as what is asked is compiled for it. Raises
    QueryTimeout, and StorageError where a part of a history is missing; what is asked next then has few records, in
    case they were too large to be read together."""
    feed = _feed(signal, where)
    if feed.has_failed:
        records_max = min(records_max, _FIRST_RECORDS)
    try:
        found = _read(reader, feed, after, records_max, bytes_max)
    except Exception:
        feed.has_failed = True
        raise
    feed.has_failed = False
    return found


def waiting(reader: Reader, signal: Signal, after: Position, *, where: ColumnElement[bool] | None = None) -> int:
    """How many records are behind `after`, of those that meet `where`. Raises QueryTimeout."""
    [[count]] = reader.arrow(_feed(signal, where).count, _values(after=after)).to_pydict().values()
    return int(count)


def _read(reader: Reader, feed: _Feed, after: Position, records_max: int, bytes_max: int) -> Outgoing | None:
    portions = list(_portions(reader, feed, after, records_max, bytes_max))
    if not portions:
        return None
    places, records = pa.concat_tables(places for places, _ in portions), Records.joined(said for _, said in portions)
    feed.record_bytes = max(1, records.size // len(records.messages))
    blocks = Blocks(reader, records, bytes_max)
    return Outgoing(blocks.request(), blocks.count, _position(places, blocks.count - 1))


@dataclass(frozen=True)
class _Form:
    """Where a signal's records lie: those of `table` that meet `condition`, within a commit in the `order` of these
    columns, a time and then ids. `messages` serialises rows of `columns`, given the condition that they meet and values
    for it."""

    table: Any
    order: tuple[ColumnElement[Any], ...]
    condition: ColumnElement[bool]
    columns: tuple[ColumnElement[Any], ...]
    messages: Callable[[Reader, pa.Table, Chosen], pa.Array]


class _Feed:
    """What to ask for the records of a signal for which `where` holds, see `_values`: how many are behind a position,
    the first `places` there, and the `records` up to another position, in the order of commits. `record_bytes`: how
    large those of the last portion were, which the next ones may resemble. `has_failed`: whether the last portion could
    not be read."""

    def __init__(self, form: _Form, where: ColumnElement[bool]) -> None:
        order = (form.table.c.stored_at_unix_nano, *form.order)
        stamp, started_at, *_ = order
        # What is said of stamps and starts alone says nothing new, but prunes the scan.
        behind = and_(stamp >= _bound("after", stamp), _beyond(order, "after"), form.condition, where)
        starts = started_at.between(_bound("earliest", started_at), _bound("latest", started_at))
        self.count = select(func.count()).where(behind)
        self.places = select(*order).where(behind).order_by(*order).limit(_LIMIT)
        self.chosen = and_(stamp <= _bound("until", stamp), starts, behind, ~_beyond(order, "until"))
        self.records = select(*form.columns).where(self.chosen).order_by(*order)
        self.messages = form.messages
        self.record_bytes: int | None = None
        self.has_failed = False


@lru_cache(maxsize=64)
def _feed(signal: Signal, where: ColumnElement[bool] | None) -> _Feed:
    """Kept, so that its statements are compiled once."""
    return _Feed(_FORMS[signal], true() if where is None else where)


def _beyond(order: Sequence[ColumnElement[Any]], place: str) -> ColumnElement[bool]:
    """Column by column: comparing tuples, the engine builds one for every row that it looks at."""
    first, *others = order
    later = first > _bound(place, first)
    return or_(later, and_(first == _bound(place, first), _beyond(others, place))) if others else later


def _bound(place: str, column: ColumnElement[Any]) -> ColumnElement[Any]:
    return bindparam(f"{place}_{_PART_OF_POSITION[str(column.key)]}", type_=column.type, required=False)


def _values(**places: Position) -> dict[str, Any]:
    """What a feed's statements ask for."""
    values: dict[str, Any] = {}
    for name, place in places.items():
        values |= {f"{name}_{part}": said for part, said in asdict(place).items()}
        values[f"{name}_run_id"] = UUID(place.run_id)
    return values


def _portions(
    reader: Reader, feed: _Feed, after: Position, records_max: int, bytes_max: int
) -> Iterator[tuple[pa.Table, Records]]:
    """The records behind `after` and their places, portion by portion until they are enough."""
    count = size = 0
    wanted = _FIRST_RECORDS
    if feed.record_bytes is not None:
        wanted = min(_RECORDS_UNSEEN_MAX, bytes_max // feed.record_bytes + 1)
    while count < records_max and size < bytes_max:
        limit = min(wanted, records_max - count, _FOUND_MAX)
        places = reader.arrow(feed.places, _values(after=after) | {"records_max": limit})
        if not places.num_rows:
            return
        until = _position(places, -1)
        records = _records(reader, feed, _values(after=after, until=until) | _bounds(places))
        yield places, records
        if places.num_rows < limit:
            return
        count, after, size = count + places.num_rows, until, size + max(1, records.size)
        wanted = max(1, min(count * _GROWTH, (bytes_max - size) * count // size + 1))


def _records(reader: Reader, feed: _Feed, values: dict[str, Any]) -> Records:
    rows = reader.arrow(feed.records, values).combine_chunks()
    messages = feed.messages(reader, rows, Chosen(feed.chosen, values))
    return Records(messages, numbers(rows, "resource_id"), numbers(rows, "scope_id"))


def _bounds(places: pa.Table) -> dict[str, Any]:
    starts = pc.min_max(places.column(1)).as_py()
    return {"earliest_started_at": starts["min"], "latest_started_at": starts["max"]}


def _position(places: pa.Table, row: int) -> Position:
    stamp, started_at, *ids = (column[row].as_py() for column in places.columns)
    run_id = ids[0].replace("-", "") if len(ids) > 1 else _NO_RUN
    return Position(stamp, started_at, run_id, ids[-1])


def _signed(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "big", signed=True)


def _points(_reader: Reader, rows: pa.Table, _chosen: Chosen) -> pa.Array:
    return column(rows, "otlp").cast(BYTES)


_FORMS = {
    Signal.TRACES: _Form(
        _EVENTS,
        (_EVENTS.c.started_at_unix_nano, _EVENTS.c.run_id, _EVENTS.c.id),
        true(),
        SPAN_COLUMNS,
        span_messages,
    ),
    Signal.LOGS: _Form(
        _LOGS,
        (_LOGS.c.event_started_at_unix_nano, _LOGS.c.log_index),
        # What a repository wrote is no OTLP.
        and_(_LOGS.c.log_index < 0, _LOGS.c.resource_id.is_not(None)),
        LOG_COLUMNS,
        log_messages,
    ),
    Signal.METRICS: _Form(
        _METRICS,
        (_METRICS.c.time_unix_nano, _METRICS.c.id),
        _METRICS.c.otlp.is_not(None),
        (_METRICS.c.otlp, _METRICS.c.resource_id, _METRICS.c.scope_id),
        _points,
    ),
}
