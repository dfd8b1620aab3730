"""Who calls whom: agents, or services, over any window of time.

An event that names an agent is a call where the nearest event above it that names one names another: that one is the
caller. So what stands between and names nobody (a tool, a framework's step) does not part them, up to LEVELS_MAX of it.
Services likewise.

A hand-over is a call too, from its agent (else the nearest one above it) to the one that it hands over to. What that
one does below the hand-over is the same call.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CTE, ColumnElement, Select, Text, and_, case, cast, func, literal, null, or_, select, true

from ..storage import Reader
from ..storage.conventions import RECIPIENTS
from .events import EVENTS, RESOURCES
from .figures_parameters import Callers, DependenciesWanted
from .runs import RUNS

# Each level is a pass over all that is looked at.
LEVELS_MAX = 32

_HANDOFF_NAMES = "handoff to "


def dependencies(reader: Reader, wanted: DependenciesWanted) -> dict[str, Any]:
    """Those who worked in the window, and the calls that started in it, `wanted.limit` of each, the busiest first."""
    event = _events(wanted, _of_runs_in(reader, wanted))
    is_meant = _in_window(event.c.started_at_unix_nano, wanted)
    nodes = reader.rows(_nodes(event, is_meant).limit(wanted.limit))
    edges = reader.rows(_edges(event, is_meant).limit(wanted.limit))
    return {
        "of": wanted.of.value,
        "nodes": [{name: row[name] for name in ("name", "events", "errors")} for row in nodes],
        "edges": [
            {name: row[name] for name in ("caller", "callee", "calls", "errors", "runs")}
            | {"duration_ns": int(row["duration_ns"])}
            for row in edges
        ],
        "nodes_left_out": nodes[0]["in_all"] - len(nodes) if nodes else 0,
        "edges_left_out": edges[0]["in_all"] - len(edges) if edges else 0,
    }


def _in_window(started_at: ColumnElement[int], wanted: DependenciesWanted) -> ColumnElement[bool]:
    since = true() if wanted.since is None else started_at >= wanted.since
    return and_(since, true() if wanted.until is None else started_at < wanted.until)


def _of_runs_in(reader: Reader, wanted: DependenciesWanted) -> ColumnElement[bool]:
    """Events between the times in which runs of the window have any: a caller may have started before it."""
    first, last = RUNS.c.started_at_unix_nano, RUNS.c.last_started_at_unix_nano
    since = true() if wanted.since is None else last >= wanted.since
    until = true() if wanted.until is None else first < wanted.until
    [bounds] = reader.rows(select(func.min(first).label("first"), func.max(last).label("last")).where(since, until))
    return and_(true(), EVENTS.c.started_at_unix_nano.between(bounds["first"] or 0, bounds["last"] or 0))


def _events(wanted: DependenciesWanted, condition: ColumnElement[bool]) -> CTE:
    """With `parent_id`, null for an event that is its own parent, the `name` of who worked, and the `recipient` that
    was handed over to."""
    columns = [EVENTS.c[column] for column in ("run_id", "id", "status", "duration_ns", "started_at_unix_nano")]
    columns.append(func.nullif(EVENTS.c.parent_event_id, EVENTS.c.id).label("parent_id"))
    if wanted.of is Callers.SERVICES:
        event = select(*columns, RESOURCES.c.service_name.label("name"), null().label("recipient"))
        event = event.join_from(EVENTS, RESOURCES, RESOURCES.c.id == EVENTS.c.resource_id)
    else:
        handoff = _handoffs(condition)
        event = select(*columns, EVENTS.c.agent_name.label("name"), handoff.c.recipient)
        is_handoff = and_(handoff.c.run_id == EVENTS.c.run_id, handoff.c.id == EVENTS.c.id)
        event = event.join_from(EVENTS, handoff, is_handoff, isouter=True)
    return event.where(condition).cte("event")


def _handoffs(condition: ColumnElement[bool]) -> CTE:
    """By themselves, since only their attributes are read."""
    named = func.nullif(func.substr(EVENTS.c.name, len(_HANDOFF_NAMES) + 1), "")
    said = [_text_at(key) for key in RECIPIENTS]
    by_name = case((func.starts_with(EVENTS.c.name, _HANDOFF_NAMES), named))
    handoff = select(EVENTS.c.run_id, EVENTS.c.id, func.coalesce(*said, _inputs_to(), by_name).label("recipient"))
    return handoff.where(condition, EVENTS.c.event_type == "handoff").cte("handoff")


def _text_at(key: str) -> ColumnElement[str]:
    value = func.variant_extract(EVENTS.c.attributes, literal(key, Text))
    return func.nullif(case((func.variant_typeof(value) == "VARCHAR", cast(value, Text))), "")


def _inputs_to() -> ColumnElement[str]:
    """Who stands in `clew.inputs`, which a long hand-over has in its history."""
    in_history = func.json_extract_string(func.history_text(EVENTS.c.history_id), "/clew.inputs")
    inputs = func.coalesce(_text_at("clew.inputs"), in_history)
    return func.nullif(case((func.json_valid(inputs), func.json_extract_string(inputs, "/to"))), "")


def _nodes(event: CTE, is_meant: ColumnElement[bool]) -> Select[Any]:
    events = func.count()
    errors = func.count().filter(event.c.status == "failed")
    named = select(event.c.name, events.label("events"), errors.label("errors"), func.count().over().label("in_all"))
    return named.where(is_meant, event.c.name.is_not(None)).group_by(event.c.name).order_by(events.desc(), event.c.name)


def _edges(event: CTE, is_meant: ColumnElement[bool]) -> Select[Any]:
    call, calls = _calls(event, is_meant), func.count()
    return (
        select(
            call.c.caller,
            call.c.callee,
            calls.label("calls"),
            func.count().filter(call.c.status == "failed").label("errors"),
            func.count(call.c.run_id.distinct()).label("runs"),
            func.sum(call.c.duration_ns).label("duration_ns"),
            func.count().over().label("in_all"),
        )
        .group_by(call.c.caller, call.c.callee)
        .order_by(calls.desc(), call.c.caller, call.c.callee)
    )


def _calls(event: CTE, is_meant: ColumnElement[bool]) -> CTE:
    """One row a call. The way up from an event that names somebody ends at the first one above that does; that from a
    hand-over begins at itself."""
    way_up = select(_first_steps(event, is_meant)).cte("way_up", recursive=True)
    above = event.alias("above")
    is_above = and_(above.c.run_id == way_up.c.run_id, above.c.id == way_up.c.above_id)
    kept = [way_up.c[name] for name in ("id", "run_id", "status", "duration_ns", "callee")]
    further = select(*kept, above.c.parent_id, way_up.c.level + 1).join_from(way_up, above, is_above)
    nobody = and_(above.c.name.is_(None), above.c.parent_id.is_not(None), way_up.c.level < LEVELS_MAX)
    return _called(event, way_up.union_all(further.where(nobody)))


def _first_steps(event: CTE, is_meant: ColumnElement[bool]) -> CTE:
    said = [event.c[name] for name in ("id", "run_id", "status", "duration_ns")]
    nested = select(*said, event.c.name.label("callee"), event.c.parent_id.label("above_id"), literal(1).label("level"))
    handed = select(*said, event.c.recipient, event.c.id, literal(0)).where(is_meant, event.c.recipient.is_not(None))
    named = and_(is_meant, event.c.name.is_not(None), event.c.parent_id.is_not(None))
    return nested.where(named).union_all(handed).cte("first_step")


def _called(event: CTE, way_up: CTE) -> CTE:
    caller = event.alias("caller_event")
    is_caller = and_(caller.c.run_id == way_up.c.run_id, caller.c.id == way_up.c.above_id)
    found = select(*(way_up.c[name] for name in ("run_id", "status", "duration_ns", "callee")))
    found = found.add_columns(caller.c.name.label("caller")).join_from(way_up, caller, is_caller)
    is_told = or_(caller.c.id == way_up.c.id, caller.c.recipient.is_distinct_from(way_up.c.callee))
    return found.where(caller.c.name != way_up.c.callee, is_told).cte("call")
