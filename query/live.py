"""What came after a cursor, in the order of commits: the pages that a live stream is made of.

A cursor is a place in that order: the stamp of a commit (`storage.commits`), and within the commit an event by its
start, run and id. It is made of what is stored with the events, so it serves any filter and outlives the server:
whoever comes back with one goes on exactly there. Nothing is told that is not committed, since it is the database that
is asked; nothing is left out or told twice, since stamps rise. A reader that falls behind holds nothing but its cursor.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, RowMapping, and_, literal, or_, select, tuple_

from ..storage import Reader, event_id_text, parse_event_id, parse_run_id, run_id_text
from .errors import AnswerTooLarge
from .event_json import event_texts, join, place_in_tree
from .events import EVENT_ROWS, EVENTS, one_of, read_events
from .runs import find_run, run_json

PAGE_EVENTS = 100
# Each run's events are read by themselves, within its time bounds.
PAGE_RUNS = 16

_CURSOR = re.compile(r"(\d{1,19})(?:-(\d{1,19})-([0-9a-f]{32})-([0-9a-f]{16}))?", re.ASCII)
_ORDER = (EVENTS.c.stored_at_unix_nano, EVENTS.c.started_at_unix_nano, EVENTS.c.run_id, EVENTS.c.id)
_PLACE_IN_COMMIT = _ORDER[1:]


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
    statement = select(*_ORDER).where(_beyond(after), *wanted).order_by(*_ORDER).limit(limit)
    places = [_Place(*row.values()) for row in reader.rows(statement)]
    told = _of_few_runs(places)
    try:
        runs, texts = _told(reader, told)
    except AnswerTooLarge:
        if limit == 1:
            raise
        return live_page(reader, after, committed, wanted, limit // 2)
    is_full = len(places) == limit or len(told) < len(places)
    return LivePage(
        runs=runs,
        events=[(place.cursor, texts[place.run_id, place.id]) for place in told],
        next=told[-1].cursor if is_full else _end(after, told, committed),
        is_full=is_full,
    )


@dataclass(frozen=True)
class _Place:
    """Which event, and where in the order of commits."""

    stored_at: int
    started_at: int
    run_id: str
    id: str

    @property
    def cursor(self) -> LiveCursor:
        last = (self.started_at, parse_run_id(self.run_id), parse_event_id(self.id))
        return LiveCursor(self.stored_at, last)


def _beyond(after: LiveCursor) -> ColumnElement[bool]:
    later = EVENTS.c.stored_at_unix_nano > after.stored_at_unix_nano
    if after.last is None:
        return later
    last = [literal(value, column.type) for value, column in zip(after.last, _PLACE_IN_COMMIT, strict=True)]
    later_in_commit = tuple_(*_PLACE_IN_COMMIT) > tuple_(*last)
    # The first condition says nothing new, but it prunes the scan.
    return and_(EVENTS.c.stored_at_unix_nano >= after.stored_at_unix_nano, or_(later, later_in_commit))


def _of_few_runs(places: Sequence[_Place]) -> Sequence[_Place]:
    """The first places, as far as they are of PAGE_RUNS runs."""
    runs: set[str] = set()
    for number, place in enumerate(places):
        runs.add(place.run_id)
        if len(runs) > PAGE_RUNS:
            return places[:number]
    return places


def _end(after: LiveCursor, told: Sequence[_Place], committed: int) -> LiveCursor:
    """The place after all that there is: commits to come have later stamps."""
    stored_at = max(after.stored_at_unix_nano, committed, *(place.stored_at for place in told[-1:]))
    return LiveCursor(stored_at)


def _told(reader: Reader, places: Sequence[_Place]) -> tuple[list[str], dict[tuple[str, str], str]]:
    """The runs, and the events by run and id, as JSON."""
    ids: dict[str, list[int]] = {}
    for place in places:
        ids.setdefault(place.run_id, []).append(parse_event_id(place.id))
    runs = [find_run(reader, parse_run_id(run_id)) for run_id in ids]
    texts = {key: text for run in runs for key, text in _events_told(reader, run, ids[run["id"]])}
    return [orjson.dumps(run_json(run)).decode() for run in runs], texts


def _events_told(reader: Reader, run: RowMapping, ids: list[int]) -> Iterator[tuple[tuple[str, str], str]]:
    rows = read_events(reader, EVENT_ROWS.where(one_of(EVENTS.c.id, ids)), run)
    # The tree is still growing: nobody knows an event's place in it.
    texts = join(event_texts(place_in_tree(rows, None)), f',"run_id":"{run["id"]}"}}')
    for event_id, text in zip(rows["id"].to_pylist(), texts.to_pylist(), strict=True):
        yield (run["id"], event_id_text(event_id)), text
