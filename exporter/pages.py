"""Spans in bulk: page after page of bounded size, run after run.

Runs go by start, then id; the spans of a run likewise, and they stay together. A page tells with its cursor where the
next one begins, so that nothing is held between two pages and whoever stopped goes on later. What arrives meanwhile is
in the pages that come if its place is there: a run that a late span moves to before the cursor, as a whole, is not.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

import numpy as np
import pyarrow as pa
from sqlalchemy import BigInteger, ColumnElement, Select, and_, bindparam, func, or_, select

from ..storage import ExecutionEvent, QueryTooLarge, Reader, Store, WorkflowRun, run_id_text
from .columns import NO_RUN
from .portions import Feed, Place, Portion
from .span_columns import SPAN_COLUMNS, readable_span_messages

PAGE_SPANS_MAX = 8_192
PAGE_BYTES_MAX = 4 << 20
# So many times fewer spans are read where those of a page do not fit into memory together.
_FEWER = 256
_RUNS_MAX = 2_048
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
    """A serialised OTLP `TracesData` of `spans` spans, those of a run one after another; `next_cursor` is None on the
    last page."""

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

        Raises ValueError for a text that is no cursor, QueryTimeout, and StorageError where a part of a history is
        missing.
        """
        after = None if cursor is None else _Place.parse(cursor)
        return self._page(after, PAGE_SPANS_MAX)

    def _page(self, after: _Place | None, spans_max: int) -> Page:
        try:
            with self.store.read() as reader:
                found = reader.arrow(_NAMED_RUNS_BEHIND if self.run_ids else _RUNS_BEHIND, self._values(after))
                runs = _first_runs(found)
                portion = _portion(reader, runs, after, spans_max) if runs else None
        except QueryTooLarge:  # spans are larger than those before
            if spans_max == 1:
                raise
            return self._page(after, max(1, spans_max // _FEWER))
        if portion is not None and not portion.is_all:
            place = _place_of(portion.last, runs, after)
        elif len(runs) < found.num_rows or found.num_rows == _RUNS_MAX:
            place = _end_of(runs[-1], after)
        else:
            place = None
        request, spans = (b"", 0) if portion is None else (portion.request, portion.records)
        return Page(request, spans, None if place is None else place.text())

    @property
    def _last_start(self) -> int:
        """Of the latest run. Nothing comes after the end of all time, where starts are that are too late."""
        return self.until - 1 if self.until < _LAST else _LAST

    def _of_runs(self, statement: Select[Any]) -> Select[Any]:
        started = _RUNS.c.started_at_unix_nano
        statement = statement.where(started >= self.since, started <= self._last_start)
        return statement.where(_RUNS.c.id.in_(self.run_ids)) if self.run_ids else statement

    def _values(self, after: _Place | None) -> dict[str, Any]:
        """What is asked of runs behind a place."""
        behind = after or _Place(-1, NO_RUN, 0, 0)
        return {
            "since": self.since,
            "last_start": self._last_start,
            "after_start": behind.run_started_at,
            "after_run": UUID(behind.run_id),
            "begun_run": UUID(NO_RUN if behind.is_end else behind.run_id),
            "named": list(self.run_ids),
            "runs_max": _RUNS_MAX,
        }


class _Run(NamedTuple):
    run_id: str
    started_at: int
    last_started_at: int


def _runs_behind(*conditions: ColumnElement[bool]) -> Select[Any]:
    """Runs in their order, after the one that is begun, wherever a late span has moved that one."""
    run_id, started, last_started = _RUNS.c.id, _RUNS.c.started_at_unix_nano, _RUNS.c.last_started_at_unix_nano
    since, last_start, after_start, limit = (
        bindparam(name, type_=BigInteger, required=False) for name in ("since", "last_start", "after_start", "runs_max")
    )
    after_run, begun_run = (bindparam(name, type_=run_id.type, required=False) for name in ("after_run", "begun_run"))
    is_begun = run_id == begun_run
    later = or_(started > after_start, and_(started == after_start, run_id > after_run), is_begun)
    statement = select(run_id, started, last_started, _RUNS.c.event_count)
    statement = statement.where(started >= since, started <= last_start, later, *conditions)
    return statement.order_by(~is_begun, started, run_id).limit(limit)


_RUNS_BEHIND = _runs_behind()
_NAMED_RUNS_BEHIND = _runs_behind(_RUNS.c.id.in_(select(func.unnest(bindparam("named", required=False)))))


def _first_runs(runs: pa.Table) -> list[_Run]:
    """As many of the runs as have the events of a page."""
    counts = np.cumsum(runs["event_count"].to_numpy())
    first = runs.slice(0, 1 + int(np.searchsorted(counts, PAGE_SPANS_MAX)))
    ids, started, last_started, _ = (column.to_pylist() for column in first.columns)
    return [_Run(run_id.replace("-", ""), *times) for run_id, *times in zip(ids, started, last_started, strict=True)]


def _portion(reader: Reader, runs: Sequence[_Run], after: _Place | None, spans_max: int) -> Portion | None:
    """As many events of the runs as a page has, `spans_max` at most. A place among them: the run's number in the list,
    start and id."""
    values = {
        "chosen_runs": [UUID(run.run_id) for run in runs],
        "numbers": list(range(len(runs))),
        "runs_begin": min(_first_start(run, after) for run in runs),
        "runs_end": max(run.last_started_at for run in runs),
    }
    behind = (0, after.started_at, after.event_id) if after and _is_begun(runs[0], after) else _BEFORE_ALL
    return _FEED.read(reader, behind, spans_max, PAGE_BYTES_MAX, values)


def _is_begun(run: _Run, after: _Place | None) -> bool:
    return after is not None and after.run_id == run.run_id


def _first_start(run: _Run, after: _Place | None) -> int:
    return after.started_at if after and _is_begun(run, after) else run.started_at


def _place_of(last: Place, runs: Sequence[_Run], before: _Place | None) -> _Place:
    number, started_at, event_id = last
    return _place_in(runs[number], started_at, event_id, before)


def _end_of(run: _Run, before: _Place | None) -> _Place:
    return _place_in(run, _LAST, _LAST, before)


def _place_in(run: _Run, started_at: int, event_id: int, before: _Place | None) -> _Place:
    """A run stays where it was when it was begun, though a late span may have moved it since."""
    run_started_at = before.run_started_at if before and _is_begun(run, before) else run.started_at
    return _Place(run_started_at, run.run_id, started_at, event_id)


def _feed() -> Feed:
    of_runs = (func.unnest(bindparam(name, required=False)) for name in ("chosen_runs", "numbers"))
    run = select(*(of.label(name) for of, name in zip(of_runs, ("run_id", "number"), strict=True))).subquery("run")
    begin, end = (bindparam(name, type_=BigInteger, required=False) for name in ("runs_begin", "runs_end"))
    return Feed(
        order=(run.c.number, _EVENTS.c.started_at_unix_nano, _EVENTS.c.id),
        condition=and_(_EVENTS.c.run_id == run.c.run_id, _EVENTS.c.started_at_unix_nano.between(begin, end)),
        columns=SPAN_COLUMNS,
        messages=readable_span_messages,
        keeps_together=True,
    )


_FEED = _feed()
_BEFORE_ALL: Place = (-1, 0, 0)
