"""Where a file comes from: every event that wrote or read it, in whatever run, with the message that led to it and what
it cost."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, RowMapping, func, select

from ..storage import Reader, event_id_text, parse_event_id
from .costs import COSTS, dollars
from .errors import InvalidParameter
from .event_brief import event_briefs
from .events import one_of, tree_of
from .files import FILES, file_json
from .messages import MESSAGES, message_json, messages_cut
from .paging import Order
from .parameters import FileEventsWanted
from .runs import RUNS
from .tree import NONE, Tree

Record = dict[str, Any]


def file_event_page(reader: Reader, wanted: FileEventsWanted) -> Record:
    """`{"file_events": [...], "next_cursor": ...}`, newest first. Raises InvalidParameter where no file is named."""
    if (wanted.path is None) == (wanted.path_prefix is None):
        raise InvalidParameter("name a file with ?path=, or files with ?path_prefix=; one of them", parameter="path")
    newest_first = Order(FILES.c.created_at_unix_nano, FILES.c.id, newest_first=True)
    rows, next_cursor = newest_first.page(reader, select(FILES).where(*_filters(wanted)), wanted)
    by_run: defaultdict[str, list[RowMapping]] = defaultdict(list)
    for row in rows:
        by_run[row["run_id"]].append(row)
    runs = reader.rows(select(RUNS).where(RUNS.c.id.in_(by_run))) if rows else ()
    found = {origin["id"]: origin for run in runs for origin in _origins(reader, run, by_run[run["id"]])}
    return {"file_events": [found[row["id"]] for row in rows], "next_cursor": next_cursor}


def _filters(wanted: FileEventsWanted) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if wanted.path is not None:
        filters.append(FILES.c.file_path == wanted.path)
    if wanted.path_prefix is not None:
        filters.append(func.starts_with(FILES.c.file_path, wanted.path_prefix))
    if wanted.role is not None:
        filters.append(FILES.c.role == wanted.role)
    return filters


def _origins(reader: Reader, run: RowMapping, files: Sequence[RowMapping]) -> Iterable[Record]:
    """Of each file of the run what a page shows."""
    briefs = event_briefs(reader, run, (file["event_id"] for file in files))
    tree = tree_of(reader, run)
    messages = _messages(reader, run, {file["id"]: _event_and_above(tree, file["event_id"]) for file in files})
    costs = _Costs(reader, run, tree)
    of_run = {name: run[name] for name in ("id", "session_id", "name", "agent")}
    for file in files:
        yield {
            **file_json(file),
            "run": of_run,
            "event": briefs[file["event_id"]],
            "message": messages[file["id"]],
            "cost_usd": costs.of(file["event_id"]),
        }


def _event_and_above(tree: Tree | None, event_id: str | None) -> list[str]:
    """The event, the event it hangs from, and so on to the top. The event alone where it is in no tree."""
    position = _position(tree, event_id)
    if tree is None or position == NONE:
        return [] if event_id is None else [event_id]
    return [event_id_text(number) for number in tree.ids[tree.path_up(position)].tolist()]


def _position(tree: Tree | None, event_id: str | None) -> int:
    if tree is None or event_id is None:
        return NONE
    return int(tree.positions(np.array([parse_event_id(event_id)]))[0])


def _messages(reader: Reader, run: RowMapping, paths: dict[str, list[str]]) -> dict[str, Record | None]:
    """For each path of events the latest message of the first event on it that has any."""
    on_paths = [parse_event_id(event_id) for event_id in {event_id for path in paths.values() for event_id in path}]
    statement = messages_cut().where(MESSAGES.c.run_id == run["id"], one_of(MESSAGES.c.event_id, on_paths))
    in_time = (MESSAGES.c.event_id, MESSAGES.c.time_unix_nano.desc(), MESSAGES.c.id.desc())
    latest = reader.rows(statement.distinct(MESSAGES.c.event_id).order_by(*in_time)) if on_paths else ()
    said = {row["event_id"]: message_json(row) | {"event_id": row["event_id"]} for row in latest}
    return {file: next((said[event] for event in path if event in said), None) for file, path in paths.items()}


class _Costs:
    """What the events of a run cost, by their place in its tree."""

    def __init__(self, reader: Reader, run: RowMapping, tree: Tree | None) -> None:
        self._tree = tree
        told = (COSTS.c.run_id == run["id"], COSTS.c.event_id.is_not(None), COSTS.c.cost_usd.is_not(None))
        rows = reader.rows(select(COSTS.c.event_id, COSTS.c.cost_usd).where(*told))
        placed = sorted((_position(tree, row["event_id"]), row["cost_usd"]) for row in rows)
        self._positions = [position for position, _ in placed]
        self._sums = [0, *accumulate(cost for _, cost in placed)]

    def of(self, event_id: str | None) -> float | None:
        """Of the event and all below it; None where nothing is told."""
        position = _position(self._tree, event_id)
        if self._tree is None or position == NONE:
            return None
        part = self._tree.subtree(position)
        first, end = (bisect_left(self._positions, place) for place in (part.start, part.stop))
        return dollars(self._sums[end] - self._sums[first]) if end > first else None
