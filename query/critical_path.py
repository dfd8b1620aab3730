"""The critical path of a run: which event determined how long it took, at every moment of it.

The path is walked backwards, from the end of the run to its start:

1. Within an event the walk goes to the event that ended last, at or before this moment, among those the event may have
   waited for. From that end to this moment the event was at work itself.
2. Where there is none, the event was at work itself since it started; the walk goes on at that moment in its parent,
   since that is who started it, or where that had ended before, in the nearest event above that had not.
3. Above the roots nobody is at work. There the walk goes to the event that ended last, and one that is still running
   counts as ending now.

An event may wait for what is below it. What outlasts its parent did not hold it up: it is waited for by the nearest
event above that ended no sooner, or by nobody but the run. Of several that ended at the same moment the one that
started first is taken. Moments (events of no duration) are not on the path. While the event whose turn it is was not
running itself (its child started after its end, say), the time is nobody's. So every nanosecond of the run belongs to
one event or to nobody, and the contributions add up to the run's duration.

Pure arithmetic on arrays, one element an event, in the order of a `Tree`. The loop takes some steps for each event on
the path and above it, and no more for odd trees.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .tree import NONE, Ints


@dataclass(frozen=True)
class CriticalPath:
    """Steps in order of time, parallel arrays: the position of the event at work (NONE where nobody was), from when
    until when. They cover the run without gap or overlap; none is empty, no two in a row are the same event's."""

    positions: Ints
    started_at: Ints
    completed_at: Ints


def critical_path(parents: Ints, started_at: Ints, completed_at: Ints, first: int, last: int) -> CriticalPath:
    """The path through the events from `first` to `last`, in nanoseconds. `parents` are positions (see `Tree.parents`),
    NONE at the top. An event that ends before it starts lasts no time."""
    completed_at = np.maximum(started_at, completed_at)
    begun_under = _nearest_above(parents, completed_at, started_at)
    walk = _Walk(begun_under, started_at, completed_at, _nearest_above(parents, completed_at, completed_at))
    at, begin, end = (np.array(column, dtype=np.int64) for column in zip(*walk.back(first, last), strict=True))
    # The run itself, above the roots, is never at work.
    started_at, completed_at = np.append(started_at, last), np.append(completed_at, first)
    own_begin = np.clip(started_at[at], begin, end)
    own_end = np.clip(completed_at[at], own_begin, end)
    owners = np.stack([np.full_like(at, NONE), at, np.full_like(at, NONE)], axis=1).ravel()
    bounds = np.stack([begin, own_begin, own_end, end], axis=1)
    return _joined(owners, bounds[:, :-1].ravel(), bounds[:, 1:].ravel())


def _nearest_above(parents: Ints, completed_at: Ints, moments: Ints) -> Ints:
    """For each event the nearest one above it that ended no sooner than at the event's moment; the number of events
    where there is none."""
    # Level k of the table says who is 2**k above, and the latest end on the way there.
    top = len(parents)
    above = np.append(np.where(parents == NONE, top, parents), top)
    latest = np.append(completed_at, np.iinfo(np.int64).max)[above]
    levels = [(above, latest)]
    while (levels[-1][0] != top).any():
        far, latest = levels[-1]
        levels.append((far[far], np.maximum(latest, latest[far])))
    reached = np.arange(top)
    for far, latest in reversed(levels):
        reached = np.where(latest[reached] < moments, far[reached], reached)
    return above[reached]


class _Walk:
    """The way back through one run. Moments only go back, so each list of events to wait for is read once, from the
    latest end on."""

    def __init__(self, begun_under: Ints, started_at: Ints, completed_at: Ints, waits: Ints) -> None:
        self._top = len(begun_under)
        lasting = np.flatnonzero(completed_at > started_at)
        latest_first = np.lexsort((started_at[lasting], -completed_at[lasting], waits[lasting]))
        waited_for = lasting[latest_first]
        bounds = np.searchsorted(waits[waited_for], np.arange(self._top + 2)).tolist()
        self._waited_for, self._next, self._end = waited_for.tolist(), bounds[:-1], bounds[1:]
        self._begun_under = begun_under.tolist()
        self._started, self._completed = started_at.tolist(), completed_at.tolist()
        self._running = NONE

    def back(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """Who it was, from when until when, in order of time; the run itself is the number of events."""
        at, now = self._top, last
        steps: list[tuple[int, int, int]] = []
        while now > first:
            before = self._running_or_ended(now) if at == self._top else self._ended(at, now)
            if before != NONE:
                onward, since = before, min(now, self._completed[before])
            elif at == self._top:
                onward, since = at, first
            else:
                onward, since = self._begun_under[at], min(now, self._started[at])
            steps.append((at, max(since, first), now))
            at, now = onward, since
        return steps[::-1] or [(self._top, first, max(first, last))]

    def _ended(self, at: int, now: int) -> int:
        """Of what `at` waits for, what ended last by now."""
        while self._next[at] < self._end[at]:
            event = self._waited_for[self._next[at]]
            self._next[at] += 1
            if self._completed[event] <= now:
                return event
        return NONE

    def _running_or_ended(self, now: int) -> int:
        """Of what only the run waits for: of those running now the one that started first, else what ended last."""
        top = self._top
        while self._next[top] < self._end[top] and self._completed[self._waited_for[self._next[top]]] >= now:
            event = self._waited_for[self._next[top]]
            self._next[top] += 1
            if self._running == NONE or self._started[event] < self._started[self._running]:
                self._running = event
        is_running = self._running != NONE and self._started[self._running] < now
        return self._running if is_running else self._ended(top, now)


def _joined(owners: Ints, begin: Ints, end: Ints) -> CriticalPath:
    """The path without empty steps, with one step where the same event follows itself."""
    lasting = end > begin
    owners, begin, end = owners[lasting], begin[lasting], end[lasting]
    another = np.flatnonzero(np.append(True, owners[1:] != owners[:-1])) if owners.size else np.array([], dtype=int)
    return CriticalPath(owners[another], begin[another], np.append(begin[another[1:]], end[-1:]))
