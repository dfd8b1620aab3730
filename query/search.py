"""Events and runs that a filter means, across all runs, newest first.

A page goes on behind the last row of the one before, by start, run and id: what is stored while somebody walks the
pages shifts none of them, and every event that was there when the walk began is met once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import orjson
import pyarrow as pa
from sqlalchemy import ColumnElement, Select, and_, func, literal, literal_column, select, true, tuple_

from ..storage import Reader, Row
from .events import ALL_EVENT_ROWS, EVENTS
from .filter_sql import Where, asks_of_parts, of_events, of_runs
from .many_runs import told_with_runs
from .runs import RUNS, run_json
from .search_parameters import SearchCursor, SearchWanted
from .search_windows import EFFORT, Between, Effort, Timeline

# Summed, not counted: for a count, the engine looks through what it knows of every column of each row group first. Over
# 10 million events with attributes as typed columns that takes 30 ms, where the sum of a short window takes one.
_EVENTS = Timeline(EVENTS.c.started_at_unix_nano, func.sum(literal(1)))
_RUNS = Timeline(RUNS.c.started_at_unix_nano, func.sum(RUNS.c.event_count + 1))
_EVENT_ORDER = (EVENTS.c.started_at_unix_nano, EVENTS.c.run_id, EVENTS.c.id)
_RUN_ORDER = (RUNS.c.started_at_unix_nano, RUNS.c.id)
_ROW_ID: ColumnElement[int] = literal_column("rowid")
_FOUND_EVENTS = ALL_EVENT_ROWS.add_columns(EVENTS.c.run_id)


def search_events(reader: Reader, wanted: SearchWanted, effort: Effort = EFFORT) -> bytes:
    """`{"events": [...], "searched_to_unix_nano": ..., "next_cursor": ...}`. Raises AnswerTooLarge where attributes are
    more than an answer may hold."""
    asks_parts, where = asks_of_parts(wanted.filter), Where.known_to(reader)

    def read(window: Between, rows_max: int) -> pa.Table:
        overlapping = and_(RUNS.c.started_at_unix_nano <= window[1], RUNS.c.last_started_at_unix_nano >= window[0])
        parts_between = _bounds_of_runs(reader, overlapping) if asks_parts else window
        in_window = EVENTS.c.started_at_unix_nano.between(*window)
        of_filter = of_events(wanted.filter, replace(where, events_where=in_window, parts_between=parts_between))
        meant = and_(in_window, _behind(wanted, _EVENT_ORDER), of_filter)
        return reader.arrow(_newest(_FOUND_EVENTS, _EVENT_ORDER, meant, rows_max))

    tables, searched_to = _EVENTS.search(reader, wanted, read, effort)
    found = pa.concat_tables(tables) if tables else pa.table({"run_id": []})
    page = found.slice(0, wanted.limit)
    events = [orjson.Fragment(text) for text in told_with_runs(reader, page)[1]]
    last = [page[column.name][-1].as_py() for column in _EVENT_ORDER] if len(found) > len(page) else None
    return orjson.dumps({"events": events, **_going_on(wanted, last, searched_to)})


def search_runs(reader: Reader, wanted: SearchWanted, effort: Effort = EFFORT) -> dict[str, Any]:
    """`{"runs": [...], "searched_to_unix_nano": ..., "next_cursor": ...}`."""
    where = Where.known_to(reader)

    def read(window: Between, rows_max: int) -> Sequence[Row]:
        in_window = RUNS.c.started_at_unix_nano.between(*window)
        bounds = _bounds_of_runs(reader, in_window)
        of_their_events = EVENTS.c.started_at_unix_nano.between(*bounds)
        of_filter = of_runs(wanted.filter, replace(where, events_where=of_their_events, parts_between=bounds))
        meant = and_(in_window, _behind(wanted, _RUN_ORDER), of_filter)
        return reader.rows(_newest(select(RUNS), _RUN_ORDER, meant, rows_max))

    chunks, searched_to = _RUNS.search(reader, wanted, read, effort)
    found = [run for chunk in chunks for run in chunk]
    page = found[: wanted.limit]
    last = [page[-1]["started_at_unix_nano"], page[-1]["id"]] if len(found) > len(page) else None
    return {"runs": [run_json(run) for run in page], **_going_on(wanted, last, searched_to)}


def _behind(wanted: SearchWanted, order: Sequence[Any]) -> ColumnElement[bool]:
    """Is the row behind the cursor?"""
    if wanted.cursor is None:
        return true()
    place = (wanted.cursor.started_at_unix_nano, wanted.cursor.run_id, wanted.cursor.event_id)
    last = [literal(value, column.type) for value, column in zip(place, order, strict=False)]
    return tuple_(*order) < tuple_(*last)


def _newest(rows: Select[Any], order: Sequence[Any], meant: ColumnElement[bool], rows_max: int) -> Select[Any]:
    """The newest of the rows that are meant. Which these are is found first: whole rows would be sorted with all their
    columns, attributes included."""
    newest_first = [column.desc() for column in order]
    found = select(_ROW_ID).select_from(order[0].table).where(meant).order_by(*newest_first).limit(rows_max)
    return rows.where(_ROW_ID.in_(found)).order_by(*newest_first)


def _bounds_of_runs(reader: Reader, which: ColumnElement[bool]) -> Between:
    """Between which starts the events of these runs lie."""
    first, last = func.min(RUNS.c.started_at_unix_nano), func.max(RUNS.c.last_started_at_unix_nano)
    [row] = reader.rows(
        select(func.coalesce(first, 1).label("first"), func.coalesce(last, 0).label("last")).where(which)
    )
    return row["first"], row["last"]


def _going_on(wanted: SearchWanted, last: Sequence[Any] | None, searched_to: int | None) -> dict[str, Any]:
    """Where the next page begins: behind the last row of this one, or where the search stopped."""
    cursor = None
    if last is not None:
        numbers = dict(zip(("started_at_unix_nano", "run_id", "event_id"), last, strict=False))
        cursor = SearchCursor(**numbers)
    elif searched_to is not None:
        cursor = SearchCursor(started_at_unix_nano=searched_to)
    stopped_at = None if searched_to is None else str(searched_to)
    return {"searched_to_unix_nano": stopped_at, "next_cursor": cursor and wanted.next_cursor(cursor.text())}
