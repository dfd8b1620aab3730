"""Which service called which, told by spans whose parent belongs to another service."""

from __future__ import annotations

from typing import Any

from sqlalchemy import and_, func, select

from ...storage import Reader, Row
from ..events import EVENTS, RESOURCES
from ..runs import RUNS
from .services import SERVICE

LINKS_MAX = 10_000


def dependencies(reader: Reader, first: int, last: int, service: str = "") -> list[dict[str, Any]]:
    """`{"parent", "child", "callCount"}` of each pair, by names, from spans that started from `first` to `last`; with
    `service` only the pairs it is one of. No more than LINKS_MAX, the most frequent then."""
    calls: dict[tuple[str, str], int] = {}
    names = _service_names(reader)
    for row in reader.rows(_calls(reader, first, last)):
        pair = names[row["parent"]], names[row["child"]]
        if pair[0] != pair[1] and (not service or service in pair):
            calls[pair] = calls.get(pair, 0) + row["calls"]
    most_frequent = sorted(calls.items(), key=lambda call: -call[1])[:LINKS_MAX]
    return [{"parent": pair[0], "child": pair[1], "callCount": count} for pair, count in sorted(most_frequent)]


def _service_names(reader: Reader) -> dict[int, str]:
    return {row["id"]: row["service"] for row in reader.rows(select(RESOURCES.c.id, SERVICE.label("service")))}


def _calls(reader: Reader, first: int, last: int) -> Any:
    """How often spans of one resource are children of spans of another. A span id that spans share is the first's."""
    child, parent = EVENTS.alias("child"), EVENTS.alias("parent")
    runs = _bounds_of_runs(reader, first, last)
    is_parent = and_(
        parent.c.run_id == child.c.run_id,
        parent.c.id == child.c.parent_event_id,
        parent.c.resource_id != child.c.resource_id,
    )
    return (
        select(parent.c.resource_id.label("parent"), child.c.resource_id.label("child"), func.count().label("calls"))
        .select_from(child.join(parent, is_parent))
        .where(
            child.c.started_at_unix_nano.between(first, last),
            parent.c.started_at_unix_nano.between(runs["first"] or 0, runs["last"] or 0),
        )
        .group_by(parent.c.resource_id, child.c.resource_id)
    )


def _bounds_of_runs(reader: Reader, first: int, last: int) -> Row:
    """Between which starts all spans lie that belong to runs of that time: parents may have started before it."""
    started, last_started = RUNS.c.started_at_unix_nano, RUNS.c.last_started_at_unix_nano
    bounds = (func.min(started).label("first"), func.max(last_started).label("last"))
    [row] = reader.rows(select(*bounds).where(started <= last, last_started >= first))
    return row
