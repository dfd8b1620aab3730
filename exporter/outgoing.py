"""What goes on to other backends: what was stored, in the order of commits, as OTLP requests.

The store is the queue. Every span, log record and metric point bears the stamp of the commit that stored it
(`storage.commits`), so a place in the order of commits is all that a worker has to keep: nothing is copied, nothing is
held between two portions, and whoever was away goes on where it stopped. A pending span that was replaced
bears its new commit's stamp and comes again: at least once, never less. Rows without a stamp were stored before stamps
were kept; they are history and not part of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, RowMapping, Select, and_, func, literal, or_, select, true, tuple_

from ..storage import EventLog, ExecutionEvent, Reader, WorkflowMetric, event_id_text
from .otlp import log_records_of, points_of, traces_of

_NO_RUN = "0" * 32
_LAST = (1 << 63) - 1
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
    `execution_events`; for TRACES only. Raises QueryTimeout."""
    feed = _FEEDS[signal]
    places = [feed.position(row) for row in reader.rows(feed.places(after, where).limit(records_max))]
    while places:
        rows = reader.rows(feed.rows(after, places[-1], where))
        request = feed.encode(reader, rows)
        if len(places) == 1 or len(request) <= bytes_max:
            return Outgoing(request, len(places), places[-1])
        places = places[: max(1, min(len(places) - 1, len(places) * bytes_max // len(request)))]
    return None


def waiting(reader: Reader, signal: Signal, after: Position, *, where: ColumnElement[bool] | None = None) -> int:
    """How many records are behind `after`, of those that meet `where`. Raises QueryTimeout."""
    feed = _FEEDS[signal]
    [row] = reader.rows(select(func.count()).select_from(feed.table).where(feed.behind(after, where)))
    [count] = row.values()
    return int(count)


@dataclass(frozen=True)
class _Feed:
    """Where a signal's records lie: those of `table` that meet `condition`, within a commit in the `order` of these
    columns, a time and then ids. `encode` makes a serialised request of whole rows."""

    table: Any
    order: tuple[ColumnElement[Any], ...]
    condition: ColumnElement[bool]
    encode: Callable[[Reader, Sequence[RowMapping]], bytes]

    def places(self, after: Position, where: ColumnElement[bool] | None) -> Select[Any]:
        """The records behind `after`, in their order: of each its stamp and what `order` says."""
        stamp = self.table.c.stored_at_unix_nano
        return select(stamp, *self.order).where(self.behind(after, where)).order_by(stamp, *self.order)

    def rows(self, after: Position, until: Position, where: ColumnElement[bool] | None) -> Select[Any]:
        """Whole rows of the records behind `after`, up to `until`."""
        stamps = self.table.c.stored_at_unix_nano <= until.stamp
        return select(self.table).where(self.behind(after, where), stamps, ~self._beyond(until))

    def behind(self, after: Position, where: ColumnElement[bool] | None) -> ColumnElement[bool]:
        # The first condition says nothing new, but it prunes the scan.
        stamps = self.table.c.stored_at_unix_nano >= after.stamp
        return and_(stamps, self._beyond(after), self.condition, true() if where is None else where)

    def _beyond(self, place: Position) -> ColumnElement[bool]:
        stamp = self.table.c.stored_at_unix_nano
        ids = (UUID(place.run_id), place.event_id)[-len(self.order) + 1 :]
        said = (place.started_at, *ids)
        last = [literal(value, column.type) for value, column in zip(said, self.order, strict=True)]
        return or_(stamp > place.stamp, and_(stamp == place.stamp, tuple_(*self.order) > tuple_(*last)))

    def position(self, place: RowMapping) -> Position:
        stamp, started_at, *ids = place.values()
        run_id = ids[0] if len(ids) == 2 else _NO_RUN
        return Position(stamp, started_at, run_id, ids[-1] if isinstance(ids[-1], int) else _signed(ids[-1]))


def _signed(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "big", signed=True)


def _traces(reader: Reader, rows: Sequence[RowMapping]) -> bytes:
    return traces_of(reader, rows).SerializeToString()


_FEEDS = {
    Signal.TRACES: _Feed(_EVENTS, (_EVENTS.c.started_at_unix_nano, _EVENTS.c.run_id, _EVENTS.c.id), true(), _traces),
    Signal.LOGS: _Feed(
        _LOGS,
        (_LOGS.c.event_started_at_unix_nano, _LOGS.c.log_index),
        # What a repository wrote is no OTLP.
        and_(_LOGS.c.log_index < 0, _LOGS.c.resource_id.is_not(None)),
        log_records_of,
    ),
    Signal.METRICS: _Feed(
        _METRICS, (_METRICS.c.time_unix_nano, _METRICS.c.id), _METRICS.c.otlp.is_not(None), points_of
    ),
}
