"""How a search goes back in time: window after window, newest first, until its page is full or its time is over.

Answering with what was found, and where to go on, keeps a search bounded however rare what it looks for is, and however
much is stored. A window is as long as it takes to hold a number of events that is examined at once, be that a second or
a year; each next one may hold twice as many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, func, select

from ..storage import Reader
from .search_parameters import SearchWanted

Between = tuple[int, int]
Rows = TypeVar("Rows", bound=Sized)


@dataclass(frozen=True)
class Effort:
    """How long a page is searched for, and how many events the first window holds."""

    seconds_max: float = 5.0
    window_events: int = 50_000


EFFORT = Effort()


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
        over = time.monotonic() + effort.seconds_max
        first, last = self._bounds(reader, wanted)
        for window in self._windows(reader, first, last, effort.window_events):
            found.append(read(window, wanted.limit + 1 - sum(map(len, found))))
            if sum(map(len, found)) > wanted.limit:
                break
            if window[0] > first and time.monotonic() >= over:
                return found, window[0]
        return found, None

    def _bounds(self, reader: Reader, wanted: SearchWanted) -> Between:
        """The first and the last start of what may be on this page or a later one; in the wrong order where nothing
        may."""
        conditions = []
        if wanted.since is not None:
            conditions.append(self.start >= wanted.since)
        if wanted.until is not None:
            conditions.append(self.start < wanted.until)
        if wanted.cursor is not None:
            conditions.append(self.start <= wanted.cursor.latest_start)
        bounds = (
            func.coalesce(func.min(self.start), 1).label("first"),
            func.coalesce(func.max(self.start), 0).label("last"),
        )
        [row] = reader.rows(select(*bounds).where(*conditions))
        return row["first"], row["last"]

    def _windows(self, reader: Reader, first: int, last: int, events_max: int) -> Iterator[Between]:
        while first <= last:
            start = first
            while start < last and self._events(reader, start, last) > events_max:
                start = last - (last - start) // 2
            yield start, last
            last, events_max = start - 1, 2 * events_max

    def _events(self, reader: Reader, first: int, last: int) -> int:
        events = func.coalesce(self.events, 0).label("events")
        [row] = reader.rows(select(events).where(self.start.between(first, last)))
        return int(row["events"])
