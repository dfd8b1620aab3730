"""Spans in bulk: page after page of bounded size, run after run.

Runs go by start, then id; the spans of a run likewise, and they stay together. A page tells with its cursor where the
next one begins, so that nothing is held between two pages and whoever stopped goes on later. What arrives meanwhile is
in the pages that come if its place is there: a run that a late span moves to before the cursor, as a whole, is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, and_, false, func, or_, select

from ..storage import ExecutionEvent, Reader, Store, WorkflowRun, parse_event_id, run_id_text
from .otlp import traces_of

PAGE_SPANS_MAX = 2_000
PAGE_BYTES_MAX = 4 << 20
# Read of a page before it is known how large they are: attributes of one span may fill a request.
_FIRST_SPANS = 250
_RUNS_MAX = 1_000
_LAST = (1 << 63) - 1

_RUNS, _EVENTS = WorkflowRun.__table__, ExecutionEvent.__table__


@dataclass(frozen=True)
class Extent:
    """How much was chosen. `until` is just after the start of the latest run, for a choice that later runs leave as it
    is. `missing` are the runs that were named and are not there."""

    runs: int
    spans: int
    until: int
    missing: tuple[UUID, ...]


@dataclass(frozen=True)
class Page:
    """A serialised OTLP `TracesData` of `spans` spans; `next_cursor` is None on the last page."""

    traces: bytes
    spans: int
    next_cursor: str | None


@dataclass(frozen=True)
class _Place:
    """What is read: everything up to this event of this run."""

    run_started_at: int
    run_id: str
    started_at: int
    event_id: int

    def text(self) -> str:
        return f"{self.run_started_at:x}.{self.run_id}.{self.started_at:x}.{self.event_id:x}"

    @property
    def is_end(self) -> bool:
        """Whether the run is read to its end."""
        return (self.started_at, self.event_id) == (_LAST, _LAST)

    @classmethod
    def parse(cls, text: str) -> _Place:
        """Raises ValueError."""
        parts = re.fullmatch(r"([0-9a-f]{1,16})\.([0-9a-f]{32})\.([0-9a-f]{1,16})\.(-?[0-9a-f]{1,16})", text)
        if parts is None or max(numbers := [abs(int(parts[group], 16)) for group in (1, 3, 4)]) > _LAST + 1:
            raise ValueError("not a cursor of this server; pass the one of the page before as it came")
        return cls(numbers[0], parts[2], numbers[1], int(parts[4], 16))


@dataclass(frozen=True)
class ChosenSpans:
    """The spans of the runs named (of all, where none is) that started in `since` to `until`, nanoseconds since 1970,
    the second not included."""

    store: Store
    run_ids: Sequence[UUID] = ()
    since: int = 0
    until: int = _LAST

    def extent(self) -> Extent:
        """How much was chosen. Raises QueryTimeout."""
        figures: Select[Any] = select(
            func.count(), func.sum(_RUNS.c.event_count), func.max(_RUNS.c.started_at_unix_nano)
        )
        with self.store.read() as reader:
            runs, spans, latest = (value or 0 for value in reader.rows(self._of_runs(figures))[0].values())
            found = reader.rows(self._of_runs(select(_RUNS.c.id))) if self.run_ids else ()
        there = {row["id"] for row in found}
        missing = tuple(run_id for run_id in self.run_ids if run_id_text(run_id) not in there)
        return Extent(runs, int(spans), min(max(latest + 1, self.since), _LAST), missing)

    def page(self, cursor: str | None = None) -> Page:
        """The page after the one that gave `cursor`; the first one for None. It may be empty without being the last.

        Raises ValueError for a text that is no cursor, and QueryTimeout.
        """
        after = None if cursor is None else _Place.parse(cursor)
        with self.store.read() as reader:
            found = reader.rows(self._runs_from(after))
            runs = _first_runs(found)
            keys = reader.rows(_keys_of(runs, after)) if runs else ()
            payloads, spans = _payloads(reader, keys)
        if spans < len(keys) or spans == PAGE_SPANS_MAX:
            place = _place_of(keys[spans - 1], runs, after)
        elif len(runs) < len(found) or len(found) == _RUNS_MAX:
            place = _end_of(runs[-1], after)
        else:
            place = None
        # Protobuf messages one after the other are one message.
        return Page(b"".join(payloads), spans, None if place is None else place.text())

    def _of_runs(self, statement: Select[Any]) -> Select[Any]:
        started = _RUNS.c.started_at_unix_nano
        statement = statement.where(started >= self.since, started < self.until)
        return statement.where(_RUNS.c.id.in_(self.run_ids)) if self.run_ids else statement

    def _runs_from(self, after: _Place | None) -> Select[Any]:
        """Runs in their order, from the one that `after` is in: also where a late span has moved that one."""
        started, columns = _RUNS.c.started_at_unix_nano, (_RUNS.c.last_started_at_unix_nano, _RUNS.c.event_count)
        statement = self._of_runs(select(_RUNS.c.id, started, *columns))
        if after is not None:
            later = and_(started == after.run_started_at, _RUNS.c.id > after.run_id)
            begun = false() if after.is_end else _RUNS.c.id == after.run_id
            statement = statement.where(or_(started > after.run_started_at, later, begun))
        return statement.order_by(started, _RUNS.c.id).limit(_RUNS_MAX)


def _first_runs(runs: Sequence[RowMapping]) -> Sequence[RowMapping]:
    """As many of the runs as have the events of a page."""
    counts = accumulate(run["event_count"] for run in runs)
    return runs[: 1 + next((index for index, count in enumerate(counts) if count >= PAGE_SPANS_MAX), len(runs))]


def _keys_of(runs: Sequence[RowMapping], after: _Place | None) -> Select[Any]:
    """The events of a page: their run, id and start, in their order."""
    started = _EVENTS.c.started_at_unix_nano
    earliest = min(_first_start(run, after) for run in runs)
    latest = max(run["last_started_at_unix_nano"] for run in runs)
    of_runs = _EVENTS.c.run_id.in_([run["id"] for run in runs])
    statement = select(_EVENTS.c.run_id, _EVENTS.c.id, started).join(_RUNS, _RUNS.c.id == _EVENTS.c.run_id)
    statement = statement.where(of_runs, started.between(earliest, latest))
    if after is not None:
        later = and_(started == after.started_at, _EVENTS.c.id > after.event_id)
        statement = statement.where(or_(_EVENTS.c.run_id != after.run_id, started > after.started_at, later))
    in_order = statement.order_by(_RUNS.c.started_at_unix_nano, _RUNS.c.id, started, _EVENTS.c.id)
    return in_order.limit(PAGE_SPANS_MAX)


def _first_start(run: RowMapping, after: _Place | None) -> int:
    is_begun = after is not None and after.run_id == run["id"]
    return int(after.started_at if after and is_begun else run["started_at_unix_nano"])


def _payloads(reader: Reader, keys: Sequence[RowMapping]) -> tuple[list[bytes], int]:
    """The events as messages, and how many they are: fewer than keys where that is enough for a page."""
    payloads: list[bytes] = []
    spans = size = 0
    wanted = _FIRST_SPANS
    while spans < len(keys) and size < PAGE_BYTES_MAX:
        events = _events(reader, keys[spans : spans + wanted])
        payloads.append(traces_of(reader, events).SerializeToString())
        spans, size = spans + len(events), size + len(payloads[-1])
        wanted = max(1, (PAGE_BYTES_MAX - size) * spans // size)
    return payloads, spans


def _events(reader: Reader, keys: Sequence[RowMapping]) -> Sequence[RowMapping]:
    """Whole rows: by their keys and not with them, since rows as large as these are not to be sorted."""
    started = _EVENTS.c.started_at_unix_nano
    starts = [key["started_at_unix_nano"] for key in keys]
    statement = select(_EVENTS).where(
        _EVENTS.c.run_id.in_({key["run_id"] for key in keys}),
        _EVENTS.c.id.in_([key["id"] for key in keys]),
        started.between(min(starts), max(starts)),
    )
    rows = {(row["run_id"], row["id"]): row for row in reader.rows(statement)}
    return [rows[key["run_id"], key["id"]] for key in keys]


def _place_of(event: RowMapping, runs: Sequence[RowMapping], before: _Place | None) -> _Place:
    run = next(run for run in runs if run["id"] == event["run_id"])
    return _place_in(run, event["started_at_unix_nano"], parse_event_id(event["id"]), before)


def _end_of(run: RowMapping, before: _Place | None) -> _Place:
    return _place_in(run, _LAST, _LAST, before)


def _place_in(run: RowMapping, started_at: int, event_id: int, before: _Place | None) -> _Place:
    """Never back among the runs that were read: a late span may have moved this one there."""
    run_started_at = max(run["started_at_unix_nano"], before.run_started_at if before else 0)
    return _Place(run_started_at, run["id"], started_at, event_id)
