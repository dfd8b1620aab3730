"""How a search goes back in time: window after window, newest first, until its page is full or its time is over.

Answering with what was found, and where to go on, keeps a search bounded however rare what it looks for is, and however
much is stored. A window is as long as it takes to hold a number of events that is examined at once, be that a second or
a year; the next one may hold many times as many, as many as what was found lets expect to be enough, so that a search
of everything is a few statements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam, func, select

from ..storage import Reader
from .runs import RUNS
from .search_parameters import SearchWanted

Between = tuple[int, int]
Rows = TypeVar("Rows", bound=Sized)

GROWTH_MAX = 64


@dataclass(frozen=True)
class Effort:
    """How long a page is searched for, and how many events the first window should hold: it holds twice as many at
    most, unless they all started at the same instant."""

    seconds_max: float = 5.0
    window_events: int = 200_000


EFFORT = Effort()

_BOUNDS = select(
    func.coalesce(func.min(RUNS.c.started_at_unix_nano), 1).label("first"),
    func.coalesce(func.max(RUNS.c.last_started_at_unix_nano), 0).label("last"),
)


@dataclass(frozen=True)
class Timeline:
    """Rows in time: the column of their start, and the aggregate that says how many events they stand for."""

    start: Any
    events: ColumnElement[Any]

    def search(
        self, reader: Reader, wanted: SearchWanted, read: Callable[[Between, int], Rows], effort: Effort = EFFORT
    ) -> tuple[list[Rows], int | None]:
        """What `read` finds, window by window: it is given the first and last start of a window and how many rows to
        read at most, newest first. All together are one more than the page may hold, where there are so many. Also
        where the search stopped for want of time: all that started then or later has been searched. None otherwise."""
        found: list[Rows] = []
        missing, events_wanted = wanted.limit + 1, effort.window_events
        over = time.monotonic() + effort.seconds_max
        first, last = _bounds(reader, wanted)
        left = self._events(reader, first, last)
        while left and missing > 0:
            if found and time.monotonic() >= over:
                return found, last + 1
            start, held = self._last_events(reader, first, last, left, events_wanted)
            began = time.monotonic()
            rows = read((start, last), missing)
            now = time.monotonic()
            found.append(rows)
            left, missing, last = left - held, missing - len(rows), start - 1
            enough = 2 * held * missing // len(rows) if rows else left
            in_time = events_wanted * _growth(now - began, over - now)
            events_wanted = max(effort.window_events, min(enough, in_time))
        return found, None

    def _last_events(self, reader: Reader, first: int, last: int, there: int, wanted: int) -> tuple[int, int]:
        """The start of a window that ends at `last` and holds some `wanted` of the events that are there, and how many
        it does hold. Guessed as if they came evenly; boldly where guesses fail, as an event of long ago makes them."""
        start, held, boldness = first, there, 1
        while held > 2 * wanted and start < last:
            start = last - int((last - start) * (wanted / held) ** boldness)
            before, held = held, self._events(reader, start, last)
            boldness = 1 if held < 0.98 * before else boldness + 1
        return start, held

    def _events(self, reader: Reader, first: int, last: int) -> int:
        [row] = reader.rows(self._counting, {"first": first, "last": last})
        return int(row["events"])

    @cached_property
    def _counting(self) -> Select[Any]:
        window = [bindparam(name, type_=BigInteger) for name in ("first", "last")]
        return select(func.coalesce(self.events, 0).label("events")).where(self.start.between(*window))


def _bounds(reader: Reader, wanted: SearchWanted) -> Between:
    """Between which starts all lies that may be on this page or a later one; in the wrong order where nothing may."""
    [row] = reader.rows(_BOUNDS, {})
    ends = [row["last"]]
    if wanted.until is not None:
        ends.append(wanted.until - 1)
    if wanted.cursor is not None:
        ends.append(wanted.cursor.latest_start)
    return max(row["first"], wanted.since or 0), min(ends)


def _growth(seconds_taken: float, seconds_left: float) -> int:
    """How many times as many events as the last window the next one should hold, so that with twice as many, which it
    may have, it is still likely to end in time."""
    return max(1, min(GROWTH_MAX, int(seconds_left / max(2 * seconds_taken, 1e-9))))
