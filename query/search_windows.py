"""How a search goes back in time: window after window, newest first, until its page is full or its time is over.

Answering with what was found, and where to go on, keeps a search bounded however rare what it looks for is, and however
much is stored. A window is as long as it takes to hold a number of events that is examined at once, be that a second or
a year; the next one may hold many times as many, as many as what was found lets expect to be enough, so that a search
of everything is a few statements. How long that is, is guessed from the runs, which are few, and from the window
before; a count of events tells whether it holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sized
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import BigInteger, BindParameter, ColumnElement, Select, bindparam, func, select

from ..storage import Reader
from .runs import RUNS
from .search_parameters import SearchWanted

Between = tuple[int, int]
Rows = TypeVar("Rows", bound=Sized)

GROWTH_MAX = 64
RECENT_NS = 10 * 10**9
_INT64_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class Effort:
    """How long a page is searched for, and how many events the first window should hold: it holds twice as many at
    most, unless they all started at the same instant."""

    seconds_max: float = 5.0
    window_events: int = 500_000


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
        missing, events_wanted = wanted.limit + 1, effort.window_events
        over = time.monotonic() + effort.seconds_max
        rest = _everything(reader, wanted)
        while rest.events and missing > 0:
            if found and time.monotonic() >= over:
                return found, rest.last + 1
            start, held = self._window(reader, rest, events_wanted)
            began = time.monotonic()
            rows = read((start, rest.last), missing)
            now = time.monotonic()
            found.append(rows)
            rest, missing = rest.before(start, held), missing - len(rows)
            enough = 2 * held * missing // len(rows) if rows else rest.events
            in_time = events_wanted * _growth(now - began, over - now)
            events_wanted = max(effort.window_events, min(enough, in_time))
        return found, None

    def _window(self, reader: Reader, rest: _Rest, wanted: int) -> tuple[int, int]:
        """The start of a window at the end of what is left that holds some `wanted` events, and how many it holds at
        most: guessed by how dense they are at the end; where that are far too few, as if all came evenly."""
        if rest.events <= 2 * wanted:
            return rest.first, rest.events
        start, held = self._reaching(reader, rest, int(wanted / rest.density))
        if GROWTH_MAX * held < wanted and start > rest.first:
            evenly = int(wanted / rest.even_density)
            start, held = self._reaching(reader, rest, max(evenly, GROWTH_MAX * (rest.last - start)))
        return self._shortened(reader, start, rest.last, held, wanted)

    def _shortened(self, reader: Reader, start: int, last: int, held: int, wanted: int) -> tuple[int, int]:
        """The window with a later start, if it holds too many. Guessed as if they came evenly; boldly where guesses
        fail, as an event of long ago makes them."""
        boldness = 1
        while held > 2 * wanted and start < last:
            start = last - int((last - start) * (wanted / held) ** boldness)
            before, held = held, self._events(reader, start, last)
            boldness = 1 if held < 0.98 * before else boldness + 1
        return start, held

    def _reaching(self, reader: Reader, rest: _Rest, length: int) -> tuple[int, int]:
        """The start of a window of that length, and how many events it holds."""
        start = max(rest.first, rest.last - length)
        return start, self._events(reader, start, rest.last)

    def _events(self, reader: Reader, first: int, last: int) -> int:
        [row] = reader.rows(self._counting, {"first": first, "last": last})
        return int(row["events"])

    @cached_property
    def _counting(self) -> Select[Any]:
        window = [bindparam(name, type_=BigInteger) for name in ("first", "last")]
        return select(func.coalesce(self.events, 0).label("events")).where(self.start.between(*window))


class _Rest(NamedTuple):
    """What is left to search: `events` at most, which start between `first` and `last`; and how many there may be in a
    nanosecond near the last."""

    first: int
    last: int
    events: int
    density: float

    @property
    def even_density(self) -> float:
        return self.events / (self.last - self.first + 1)

    def before(self, start: int, held: int) -> _Rest:
        """What is left before a window that held so many."""
        if start <= self.first:
            return self._replace(events=0)
        density = max(held, 1) / (self.last - start + 1)
        return _Rest(self.first, start - 1, max(self.events - held, 1), density)


def _everything(reader: Reader, wanted: SearchWanted) -> _Rest:
    """All that may be on this page or a later one."""
    since, until = wanted.since or 0, _INT64_MAX
    if wanted.until is not None:
        until = wanted.until - 1
    if wanted.cursor is not None:
        until = min(until, wanted.cursor.latest_start)
    recent = {"recent_from": min(until, time.time_ns()) - RECENT_NS}
    [row] = reader.rows(_OVERLAPPING, {"since": since, "until": until} | recent)
    first, last = max(since, row["first"]), min(until, row["last"])
    if first > last:
        return _Rest(first, last, 0, 0)
    rest = _Rest(first, last, int(row["events"]), row["recent_events"] / RECENT_NS)
    return rest if rest.density else rest._replace(density=rest.even_density)


def _growth(seconds_taken: float, seconds_left: float) -> int:
    """How many times as many events as the last window the next one should hold, so that with twice as many, which it
    may have, it is still likely to end in time."""
    return max(1, min(GROWTH_MAX, int(seconds_left / max(2 * seconds_taken, 1e-9))))


def _runs_between(since: BindParameter[int], until: BindParameter[int], recent_from: BindParameter[int]) -> Select[Any]:
    """From when to when the runs lie that overlap that time, and how many events they have; also how many those have
    that went on lately. A run counts as one more, as it does in a search for runs."""
    events = func.sum(RUNS.c.event_count + 1)
    return select(
        func.coalesce(func.min(RUNS.c.started_at_unix_nano), 0).label("first"),
        func.coalesce(func.max(RUNS.c.last_started_at_unix_nano), -1).label("last"),
        func.coalesce(events, 0).label("events"),
        func.coalesce(events.filter(RUNS.c.last_started_at_unix_nano >= recent_from), 0).label("recent_events"),
    ).where(RUNS.c.started_at_unix_nano <= until, RUNS.c.last_started_at_unix_nano >= since)


_OVERLAPPING = _runs_between(*(bindparam(name, type_=BigInteger) for name in ("since", "until", "recent_from")))
