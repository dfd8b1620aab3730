"""What came after a cursor, in the order of commits: the pages that a live stream is made of.

A cursor is a place in that order: the stamp of a commit (`storage.commits`), and within the commit an event by its
start, run and id. It is made of what is stored with the events, so it serves any filter and outlives the server:
whoever comes back with one goes on exactly there. Nothing is told that is not committed, since it is the database that
is asked; nothing is left out or told twice, since stamps rise. A reader that falls behind holds nothing but its cursor.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
from sqlalchemy import ColumnElement, Select, and_, literal, or_, tuple_

from ..storage import Reader, event_id_text, parse_event_id, parse_run_id, run_id_text
from .errors import AnswerTooLarge
from .events import ALL_EVENT_ROWS, EVENTS
from .many_runs import told_with_runs
from .runs import run_json

PAGE_EVENTS = 100

_CURSOR = re.compile(r"(\d{1,19})(?:-(\d{1,19})-([0-9a-f]{32})-([0-9a-f]{16}))?", re.ASCII)
_STORED_AT = EVENTS.c.stored_at_unix_nano
_PLACE_IN_COMMIT = (EVENTS.c.started_at_unix_nano, EVENTS.c.run_id, EVENTS.c.id)
_EVENTS = ALL_EVENT_ROWS.add_columns(EVENTS.c.run_id, _STORED_AT)


@dataclass(frozen=True)
class LiveCursor:
    """A place in the order of commits: after the event `last` (start, run, id) of a commit, or after all of it."""

    stored_at_unix_nano: int
    last: tuple[int, UUID, int] | None = None

    def text(self) -> str:
        if self.last is None:
            return str(self.stored_at_unix_nano)
        started_at, run_id, event_id = self.last
        return f"{self.stored_at_unix_nano}-{started_at}-{run_id_text(run_id)}-{event_id_text(event_id)}"

    @classmethod
    def parse(cls, text: str) -> LiveCursor:
        """The cursor of that text. Raises ValueError."""
        found = _CURSOR.fullmatch(text)
        if found is None:
            raise ValueError(f"{text[:80]!r} is not an id of this stream; send the last one that came, or none")
        stored_at, started_at, run_id, event_id = found.groups()
        last = (int(started_at), parse_run_id(run_id), parse_event_id(event_id)) if run_id else None
        return cls(int(stored_at), last)


@dataclass(frozen=True)
class LivePage:
    """The JSON of events that came after a cursor, each with its own cursor; of their runs as they are now. `next` is
    where to read on; `is_full`: more may be there already."""

    runs: Sequence[str]
    events: Sequence[tuple[LiveCursor, str]]
    next: LiveCursor
    is_full: bool


def live_page(
    reader: Reader, after: LiveCursor, committed: int, wanted: Sequence[ColumnElement[bool]], limit: int = PAGE_EVENTS
) -> LivePage:
    """The events after the cursor that meet the conditions `wanted`, `limit` at most. `committed` is the stamp of the
    last commit before the reader began: it sees all up to there. Raises AnswerTooLarge for a single event only."""
    rows = reader.arrow(_next(after, limit).where(*wanted))
    try:
        runs, texts = told_with_runs(reader, rows)
    except AnswerTooLarge:
        if limit == 1:
            raise
        return live_page(reader, after, committed, wanted, limit // 2)
    cursors = _cursors(rows)
    is_full = len(cursors) == limit
    seen = cursors[-1] if cursors else after
    return LivePage(
        runs=[orjson.dumps(run_json(run)).decode() for run in runs.values()],
        events=list(zip(cursors, texts, strict=True)),
        # Commits to come have later stamps than any that was seen.
        next=seen if is_full else LiveCursor(max(seen.stored_at_unix_nano, committed)),
        is_full=is_full,
    )


def _next(after: LiveCursor, limit: int) -> Select[Any]:
    return _EVENTS.where(_beyond(after)).order_by(_STORED_AT, *_PLACE_IN_COMMIT).limit(limit)


def _beyond(after: LiveCursor) -> ColumnElement[bool]:
    later = EVENTS.c.stored_at_unix_nano > after.stored_at_unix_nano
    if after.last is None:
        return later
    last = [literal(value, column.type) for value, column in zip(after.last, _PLACE_IN_COMMIT, strict=True)]
    later_in_commit = tuple_(*_PLACE_IN_COMMIT) > tuple_(*last)
    # The first condition says nothing new, but it prunes the scan.
    return and_(EVENTS.c.stored_at_unix_nano >= after.stored_at_unix_nano, or_(later, later_in_commit))


def _cursors(rows: pa.Table) -> list[LiveCursor]:
    columns = ("stored_at_unix_nano", "started_at_unix_nano", "run_id", "id")
    places = zip(*(rows[name].to_pylist() for name in columns), strict=True)
    return [LiveCursor(stored_at, (start, UUID(run_id), number)) for stored_at, start, run_id, number in places]
