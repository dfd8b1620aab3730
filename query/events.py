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
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Select,
    Text,
    and_,
    bindparam,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
    union_all,
)

from ..storage import EventLink, EventLog, ExecutionEvent, Reader, Resource, Row, Scope
from .event_json import event_texts, place_in_tree
from .histories import whole_attributes
from .parameters import EventCursor, EventsWanted
from .runs import find_run
from .tree import Tree, grow

# The tree's order is worked out in memory: some 100 bytes an event, and a second for a million.
TREE_EVENTS_MAX = 2_000_000

EVENTS: Any = ExecutionEvent.__table__
_EVENT_ROW: ColumnElement[int] = literal_column("execution_events.rowid")
LOGS: Any = EventLog.__table__
LINKS: Any = EventLink.__table__
RESOURCES: Any = Resource.__table__
SCOPES: Any = Scope.__table__

NAMES_KNOWN_MAX = 100_000

_COLUMNS = (
    *("id", "otel_span_id", "parent_event_id", "name", "kind", "event_type", "event_subtype", "agent_name"),
    *("agent_role", "model", "status", "status_message", "started_at_unix_nano", "completed_at_unix_nano"),
    *("duration_ns", "input_tokens", "output_tokens", "cost_usd", "otlp_residue"),
    *("span_event_count", "span_link_count", "resource_id", "scope_id", "history_id"),
)


def tree_of(reader: Reader, run: Row) -> Tree | None:
    """The tree of the run's events; None when there are more than TREE_EVENTS_MAX."""
    if run["event_count"] > TREE_EVENTS_MAX:
        return None
    return tree_from(event_links(reader, run))


def event_links(reader: Reader, run: Row) -> pa.Table:
    """Of the run's events just what `tree_from` needs."""
    return reader.arrow(_EVENT_LINKS, _of_run_values(run))


def rows_of(reader: Reader, run: Row, statement: Select[Any], *, is_kept: bool = True) -> pa.Table:
    """What `statement` (with `of_any_run` in it) selects of the run's events. It is kept by the module that asks it, or
    made for this question."""
    values = _of_run_values(run)
    return reader.arrow(statement, values) if is_kept else reader.arrow(statement.params(values))


def tree_from(rows: pa.Table) -> Tree:
    """The tree of events that are at hand; `rows` need their ids, parents and times."""
    parents = rows["parent_event_id"]
    return grow(
        rows["id"].to_numpy(),
        pc.fill_null(parents, 0).to_numpy(),
        parents.is_valid().to_numpy(),
        rows["started_at_unix_nano"].to_numpy(),
        rows["completed_at_unix_nano"].to_numpy(),
    )


def read_events(reader: Reader, statement: Select[Any], run: Row) -> pa.Table:
    """The run's events that `statement` (EVENT_ROWS, or that narrowed) selects, with the columns that `event_json`
    shows. Raises AnswerTooLarge, see `whole_attributes`."""
    rows = whole_attributes(reader, rows_of(reader, run, statement, is_kept=statement is EVENT_ROWS))
    rows = with_origins(reader, rows)
    if run["parts_counted"]:
        return with_stored_part_counts(rows)
    logs, links = _owners_of_parts(reader, run, rows["id"])
    return rows.append_column("log_count", _occurrences(rows["id"], logs)).append_column(
        "link_count", _occurrences(rows["id"], links)
    )


def with_origins(reader: Reader, rows: pa.Table) -> pa.Table:
    """Rows of events, of whatever runs, and the names of their services and scopes."""
    named = rows.append_column("service_name", _services.of(reader, rows["resource_id"]))
    return named.append_column("scope_name", _scopes.of(reader, rows["scope_id"]))


def with_stored_part_counts(rows: pa.Table) -> pa.Table:
    """Rows of events and how many logs and links each has, where the events' runs all say `parts_counted`."""
    return rows.append_column("log_count", rows["span_event_count"]).append_column(
        "link_count", rows["span_link_count"]
    )


def among_events(*tests: ColumnElement[bool]) -> ColumnElement[bool]:
    """Is the event among those that meet the tests? They are looked for apart: where an alternative is asked of an
    event as well, in an OR, the engine examines every event in all that is asked, and leaves none out."""
    events = select(_EVENT_ROW).select_from(EVENTS).where(*tests).correlate(None)
    found: ColumnElement[bool] = _EVENT_ROW.in_(events)
    return found


def one_of(column: ColumnElement[int], numbers: list[int]) -> ColumnElement[bool]:
    """Is the column one of these numbers, however many? One bound value."""
    return one_of_bound(column, bindparam(None, numbers, type_=ARRAY(BigInteger), unique=True))


def one_of_bound(column: ColumnElement[int], numbers: BindParameter[Any]) -> ColumnElement[bool]:
    """Is the column one of the numbers of an array, bound now or later?"""
    found: ColumnElement[bool] = column.in_(select(func.unnest(numbers)))
    return found


def owners_of_parts(meant: Callable[[Any], ColumnElement[bool]], *columns: str) -> CompoundSelect[Any]:
    """Of the logs and links that are `meant`, given their table: these columns, and whether it `is_log`. One statement,
    since each costs half a millisecond."""
    owners = [
        select(*(table.c[name] for name in columns), literal(is_log).label("is_log")).where(meant(table))
        for table, is_log in ((LOGS, True), (LINKS, False))
    ]
    return union_all(*owners)


def event_page(reader: Reader, run_id: UUID, wanted: EventsWanted) -> bytes:
    """`{"events": [...], "next_cursor": ...}`, by start, then id. Raises NotFound."""
    return orjson.dumps(page_of(reader, find_run(reader, run_id), wanted))


def page_of(reader: Reader, run: Row, wanted: EventsWanted, *conditions: ColumnElement[bool]) -> dict[str, Any]:
    """`event_page` for orjson, of the run's events that meet the conditions."""
    conditions += tuple(condition(wanted) for name, condition in _FILTERS.items() if getattr(wanted, name) is not None)
    by_start = (EVENTS.c.started_at_unix_nano, EVENTS.c.id < 0, EVENTS.c.id)
    statement = EVENT_ROWS.where(*conditions).order_by(*by_start).limit(wanted.limit + 1)
    found = read_events(reader, statement, run)
    page = place_in_tree(found.slice(0, wanted.limit), tree_of(reader, run))
    cursor = _cursor_at(page, wanted.limit - 1).text() if found.num_rows > page.num_rows else None
    events = [orjson.Fragment(text + "}") for text in event_texts(page).to_pylist()]
    return {"events": events, "next_cursor": cursor}


def of_run(table: Any, run: Row, *, start: str = "started_at_unix_nano") -> ColumnElement[bool]:
    """Rows of `table` that belong to the run, with the bounds that prune the scan; `start` is the column that holds
    the event's start."""
    return of_any_run(table, start=start).params(_of_run_values(run))


def of_any_run(table: Any, *, start: str = "started_at_unix_nano") -> ColumnElement[bool]:
    """`of_run` as parameters, see `_of_run_values`: what is written with it is compiled once for all runs."""
    bounds = (bindparam("first_start", type_=BigInteger), bindparam("last_start", type_=BigInteger))
    # The start first: row groups are left out by the first condition that leaves them out, which ids do nowhere.
    return and_(table.c[start].between(*bounds), table.c.run_id == bindparam("of_run", type_=table.c.run_id.type))


def _of_run_values(run: Row) -> dict[str, Any]:
    return {
        "of_run": run["id"],
        "first_start": run["started_at_unix_nano"],
        "last_start": run["last_started_at_unix_nano"],
    }


def json_text(attributes: ColumnElement[Any]) -> ColumnElement[str]:
    """Attributes as JSON text; see `attribute_json` for what that text cannot say."""
    return cast(cast(attributes, JSON), Text)


class _Names:
    """The names of resources or scopes. Their ids are hashes of their content, so what is known once stays true, in
    whatever store."""

    def __init__(self, column: Any) -> None:
        self._column = column
        self._known: dict[int, str | None] = {}

    def of(self, reader: Reader, ids: pa.ChunkedArray) -> pa.Array:
        """The name of each id, asked for once."""
        encoded = ids.combine_chunks().dictionary_encode()
        distinct = encoded.dictionary.to_pylist()
        # Other threads may add to it meanwhile, or begin anew with another.
        known = self._known
        if unknown := [number for number in distinct if number not in known]:
            known = known | self._asked(reader, unknown)
            self._known = known if len(known) <= NAMES_KNOWN_MAX else {}
        return pa.array([known.get(number) for number in distinct], pa.string()).take(encoded.indices)

    def _asked(self, reader: Reader, ids: list[int]) -> dict[int, str | None]:
        table = self._column.table
        rows = reader.rows(select(table.c.id, self._column).where(one_of(table.c.id, ids)))
        return {row["id"]: row[self._column.name] for row in rows}


def _owners_of_parts(reader: Reader, run: Row, ids: pa.ChunkedArray) -> tuple[pa.Array, pa.Array]:
    """The event of every log, and of every link, of the run; of the events `ids` at least. They are counted here, since
    for a few rows the engine takes longer to spread the counting over its threads than to scan."""
    statement, is_whole = _OWNERS_OF_PARTS, len(ids) >= run["event_count"]
    if not is_whole:
        statement = statement.where(one_of(statement.selected_columns.event_id, ids.to_pylist()))
    owner, is_log = rows_of(reader, run, statement, is_kept=is_whole).columns
    return owner.filter(is_log), owner.filter(pc.invert(is_log))


def _occurrences(keys: pa.ChunkedArray, among: pa.ChunkedArray) -> pa.Array:
    """How often each key occurs."""
    values, counts = pc.value_counts(among).flatten()
    return pc.fill_null(counts.take(pc.index_in(keys, value_set=values)), 0)


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


def _of_any_owner(table: Any) -> ColumnElement[bool]:
    return of_any_run(table, start="event_started_at_unix_nano")


_EVENT_LINKS = select(
    EVENTS.c.id, EVENTS.c.parent_event_id, EVENTS.c.started_at_unix_nano, EVENTS.c.completed_at_unix_nano
).where(of_any_run(EVENTS))

# Of all runs; EVENT_ROWS has those of one.
ALL_EVENT_ROWS = select(*(EVENTS.c[name] for name in _COLUMNS), json_text(EVENTS.c.attributes).label("attributes"))

EVENT_ROWS = ALL_EVENT_ROWS.where(of_any_run(EVENTS))

_OWNERS_OF_PARTS = select(owners_of_parts(_of_any_owner, "event_id").subquery())

_services = _Names(RESOURCES.c.service_name)
_scopes = _Names(SCOPES.c.name)

_FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "event_type": lambda wanted: EVENTS.c.event_type == wanted.event_type,
    "agent_name": lambda wanted: EVENTS.c.agent_name == wanted.agent_name,
    "cursor": lambda wanted: _after(wanted.cursor),
}
