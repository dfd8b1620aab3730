"""Where a file comes from: every event that wrote or read it, in whatever run, with the message that led to it and what
it cost."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, func, select

from ..storage import Reader, Row, event_id_text, parse_event_id
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

# How far up and back a message is looked for.
PATH_EVENTS_MAX = 500

Record = dict[str, Any]


def file_event_page(reader: Reader, wanted: FileEventsWanted) -> Record:
    """`{"file_events": [...], "next_cursor": ...}`, newest first. Raises InvalidParameter where no file is named."""
    if (wanted.path is None) == (wanted.path_prefix is None):
        raise InvalidParameter("name a file with ?path=, or files with ?path_prefix=; one of them", parameter="path")
    newest_first = Order(FILES.c.created_at_unix_nano, FILES.c.id, newest_first=True)
    rows, next_cursor = newest_first.page(reader, select(FILES).where(*_filters(wanted)), wanted)
    places = _places(reader, rows)
    messages = _messages(reader, {place.file["id"]: place.path for place in places})
    found = {place.file["id"]: place.json() | {"message": messages[place.file["id"]]} for place in places}
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


@dataclass(frozen=True)
class _Place:
    """A file, and where the event that wrote or read it stands. `path` leads from that event to the top, then back
    through what came before it: model calls that lead to a tool's call stand beside it. Its steps are (run id, event
    id)."""

    file: Row
    run: Row
    event: Record | None
    path: Sequence[tuple[str, str]]
    cost_usd: float | None

    def json(self) -> Record:
        run = {name: self.run[name] for name in ("id", "session_id", "name", "agent")}
        return file_json(self.file) | {"run": run, "event": self.event, "cost_usd": self.cost_usd}


def _places(reader: Reader, files: Sequence[Row]) -> list[_Place]:
    """The place of each file, run by run: one tree is held at a time."""
    by_run: defaultdict[str, list[Row]] = defaultdict(list)
    for file in files:
        by_run[file["run_id"]].append(file)
    runs = reader.rows(select(RUNS).where(RUNS.c.id.in_(by_run))) if files else ()
    return [place for run in runs for place in _places_in(reader, run, by_run[run["id"]])]


def _places_in(reader: Reader, run: Row, files: Sequence[Row]) -> Iterator[_Place]:
    events = event_briefs(reader, run, (file["event_id"] for file in files))
    tree = tree_of(reader, run)
    costs = None if tree is None else _Costs(reader, run, tree)
    for file in files:
        event_id = file["event_id"]
        position = NONE if tree is None or event_id is None else _positions(tree, [event_id])[0]
        if tree is None or costs is None or position == NONE:
            path, cost_usd = [] if event_id is None else [event_id], None
        else:
            path = _path(tree, position)
            cost_usd = costs.within(tree.subtree(position))
        yield _Place(file, run, events[event_id], [(run["id"], step) for step in path], cost_usd)


def _path(tree: Tree, position: int) -> list[str]:
    steps = np.append(tree.path_up(position), np.arange(position)[::-1])[:PATH_EVENTS_MAX]
    return [event_id_text(number) for number in tree.ids[steps].tolist()]


def _positions(tree: Tree, event_ids: Iterable[str]) -> list[int]:
    return tree.positions(np.array([parse_event_id(event_id) for event_id in event_ids], dtype=np.int64)).tolist()


class _Costs:
    """What the events of a run cost, by their place in its tree."""

    def __init__(self, reader: Reader, run: Row, tree: Tree) -> None:
        told = (COSTS.c.run_id == run["id"], COSTS.c.event_id.is_not(None), COSTS.c.cost_usd.is_not(None))
        rows = reader.rows(select(COSTS.c.event_id, COSTS.c.cost_usd).where(*told))
        positions = _positions(tree, (row["event_id"] for row in rows))
        placed = sorted(zip(positions, (row["cost_usd"] for row in rows), strict=True))
        self._positions = [position for position, _ in placed]
        self._sums = [0, *accumulate(cost for _, cost in placed)]

    def within(self, part: slice) -> float | None:
        """Of the events in this stretch of the tree; None where nothing is told."""
        first, end = (bisect_left(self._positions, place) for place in (part.start, part.stop))
        return dollars(self._sums[end] - self._sums[first]) if end > first else None


def _messages(reader: Reader, paths: Mapping[str, Sequence[tuple[str, str]]]) -> dict[str, Record | None]:
    """For each path of events the latest message of the first event on it that has any."""
    steps = {step for path in paths.values() for step in path}
    latest = _latest_message_ids(reader, steps) if steps else {}
    wanted = {name: next((latest[step] for step in path if step in latest), None) for name, path in paths.items()}
    ids = [number for number in wanted.values() if number is not None]
    rows = reader.rows(messages_cut().where(one_of(MESSAGES.c.id, ids))) if ids else ()
    messages: dict[int | None, Record] = {row["id"]: message_json(row) | {"event_id": row["event_id"]} for row in rows}
    return {name: messages.get(number) for name, number in wanted.items()}


def _latest_message_ids(reader: Reader, events: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """The latest message of each of these events that has any; of others too, since run and event are asked for by
    themselves."""
    run_ids, event_ids = ({step[part] for step in events} for part in (0, 1))
    of_events = (
        MESSAGES.c.run_id.in_(run_ids),
        one_of(MESSAGES.c.event_id, [parse_event_id(id_) for id_ in event_ids]),
    )
    event = (MESSAGES.c.run_id, MESSAGES.c.event_id)
    in_time = (MESSAGES.c.time_unix_nano.desc(), MESSAGES.c.id.desc())
    statement = select(*event, MESSAGES.c.id).distinct(*event).where(*of_events).order_by(*event, *in_time)
    return {(row["run_id"], row["event_id"]): row["id"] for row in reader.rows(statement)}
