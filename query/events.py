"""Events of one run: how they are found, in which columns, and by pages.

The run's row bounds the start times of its events, so every statement here names those bounds beside the run's id:
they are what spares the engine from reading other runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import JSON, ColumnElement, RowMapping, Select, Text, and_, cast, func, or_, select

from ..storage import EventLink, EventLog, ExecutionEvent, Reader, Resource, Scope
from .event_json import event_texts, place_in_tree
from .parameters import EventCursor, EventsWanted
from .runs import find_run
from .tree import Tree, grow

# The tree's order is worked out in memory: some 100 bytes an event, and a second for a million.
TREE_EVENTS_MAX = 2_000_000

EVENTS: Any = ExecutionEvent.__table__
LOGS: Any = EventLog.__table__
LINKS: Any = EventLink.__table__
RESOURCES: Any = Resource.__table__
SCOPES: Any = Scope.__table__

_COLUMNS = (
    *("id", "otel_span_id", "parent_event_id", "name", "kind", "event_type", "event_subtype", "agent_name"),
    *("agent_role", "model", "status", "status_message", "started_at_unix_nano", "completed_at_unix_nano"),
    *("duration_ns", "input_tokens", "output_tokens", "cost_usd", "otlp_residue"),
)


def tree_of(reader: Reader, run: RowMapping) -> Tree | None:
    """The tree of the run's events; None when there are more than TREE_EVENTS_MAX."""
    if run["event_count"] > TREE_EVENTS_MAX:
        return None
    links = select(*(EVENTS.c[name] for name in ("id", "parent_event_id", "started_at_unix_nano")))
    links = links.add_columns(EVENTS.c.completed_at_unix_nano).where(of_run(EVENTS, run))
    ids, parents, started_at, completed_at = reader.arrow(links).columns
    return grow(
        ids.to_numpy(),
        pc.fill_null(parents, 0).to_numpy(),
        parents.is_valid().to_numpy(),
        started_at.to_numpy(),
        completed_at.to_numpy(),
    )


def event_rows(run: RowMapping) -> Select[Any]:
    """The run's events with the columns that `event_json` shows."""
    logs, links = _count(LOGS, run, "log_count"), _count(LINKS, run, "link_count")
    joined = (
        EVENTS.outerjoin(RESOURCES, RESOURCES.c.id == EVENTS.c.resource_id)
        .outerjoin(SCOPES, SCOPES.c.id == EVENTS.c.scope_id)
        .outerjoin(logs, logs.c.event_id == EVENTS.c.id)
        .outerjoin(links, links.c.event_id == EVENTS.c.id)
    )
    return (
        select(
            *(EVENTS.c[name] for name in _COLUMNS),
            json_text(EVENTS.c.attributes).label("attributes"),
            RESOURCES.c.service_name,
            SCOPES.c.name.label("scope_name"),
            func.coalesce(logs.c.log_count, 0).label("log_count"),
            func.coalesce(links.c.link_count, 0).label("link_count"),
        )
        .select_from(joined)
        .where(of_run(EVENTS, run))
    )


def event_page(reader: Reader, run_id: UUID, wanted: EventsWanted) -> bytes:
    """`{"events": [...], "next_cursor": ...}`, by start, then id. Raises NotFound."""
    run = find_run(reader, run_id)
    conditions = [condition(wanted) for name, condition in _FILTERS.items() if getattr(wanted, name) is not None]
    by_start = (EVENTS.c.started_at_unix_nano, EVENTS.c.id < 0, EVENTS.c.id)
    found = reader.arrow(event_rows(run).where(*conditions).order_by(*by_start).limit(wanted.limit + 1))
    page = place_in_tree(found.slice(0, wanted.limit), tree_of(reader, run))
    cursor = _cursor_at(page, wanted.limit - 1).text() if found.num_rows > page.num_rows else None
    events = [orjson.Fragment(text + "}") for text in event_texts(page).to_pylist()]
    return orjson.dumps({"events": events, "next_cursor": cursor})


def of_run(table: Any, run: RowMapping, *, start: str = "started_at_unix_nano") -> ColumnElement[bool]:
    """Rows of `table` that belong to the run, with the bounds that prune the scan; `start` is the column that holds
    the event's start."""
    bounds = (run["started_at_unix_nano"], run["last_started_at_unix_nano"])
    return and_(table.c.run_id == run["id"], table.c[start].between(*bounds))


def json_text(attributes: ColumnElement[Any]) -> ColumnElement[str]:
    """Attributes as JSON text; see `attribute_json` for what that text cannot say."""
    return cast(cast(attributes, JSON), Text)


def _count(table: Any, run: RowMapping, label: str) -> Any:
    counted = select(table.c.event_id, func.count().label(label))
    counted = counted.where(of_run(table, run, start="event_started_at_unix_nano"))
    return counted.group_by(table.c.event_id).subquery()


def _after(last: EventCursor) -> ColumnElement[bool]:
    # Ids stand in the order of their hex text: negative ones, whose first bit is set, come last.
    started_at, event_id = EVENTS.c.started_at_unix_nano, EVENTS.c.id
    same_half = (event_id < 0) if last.id < 0 else (event_id >= 0)
    later_id = and_(same_half, event_id > last.id)
    if last.id >= 0:
        later_id = or_(later_id, event_id < 0)
    at_or_after = started_at >= last.started_at_unix_nano
    return and_(at_or_after, or_(started_at > last.started_at_unix_nano, later_id))


def _cursor_at(page: pa.Table, row: int) -> EventCursor:
    return EventCursor(
        started_at_unix_nano=page["started_at_unix_nano"][row].as_py(),
        id=page["id"][row].as_py(),
    )


_FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "event_type": lambda wanted: EVENTS.c.event_type == wanted.event_type,
    "agent_name": lambda wanted: EVENTS.c.agent_name == wanted.agent_name,
    "cursor": lambda wanted: _after(wanted.cursor),
}
