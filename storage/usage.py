"""Whose usage counts, and for which agent.

Tokens and cost are counted once: an agent's span often repeats the sum of the model calls below it, so an event that
reports usage counts only when no event below it does. The events of a ring (their own ancestors) are all below one
another. What an event uses that names no agent is its nearest ancestor's who does: OTel GenAI names the agent on
`invoke_agent`, seldom on the model calls below it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from sqlalchemy import (
    ARRAY,
    CTE,
    ColumnElement,
    Text,
    Uuid,
    and_,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
)

from .conventions import USAGE
from .schema import ExecutionEvent, WorkflowRun

EVENTS: Any = ExecutionEvent.__table__
RUNS: Any = WorkflowRun.__table__

# How far above a model call its agent is looked for.
AGENT_LEVELS_MAX = 1_000
EVENTS_AT_ONCE = 500_000
# The way up a tree is walked level by level, each a pass over what is looked at: deep runs are looked at alone.
LONE_RUN_EVENTS = 5_000

RUN_COLUMNS = tuple(RUNS.c[name] for name in ("id", "started_at_unix_nano", "last_started_at_unix_nano", "event_count"))

_COLUMNS = ("run_id", "id", "event_type", "agent_name", "model", "status", "duration_ns")


def usage_of(wanted: ColumnElement[bool]) -> CTE:
    """The events that are `wanted`, whole runs: `run_id`, `id`, the columns that figures are made of, whether it
    `reports` usage, whether that `counts`, whether events below report it too (`superseded`), and its `user`, the agent
    that the usage is put down to."""
    event = _events(wanted)
    above, acting = _above_usage(event), _acting_agents(event)
    return (
        select(
            event,
            (event.c.reports & above.c.id.is_(None)).label("counts"),
            above.c.id.is_not(None).label("superseded"),
            func.coalesce(event.c.agent_name, acting.c.agent_name).label("user"),
        )
        .join_from(event, above, _is(above, event.c.run_id, event.c.id), isouter=True)
        .join(acting, _is(acting, event.c.run_id, event.c.id), isouter=True)
        .cte("used")
    )


def whole_runs(runs: pa.Table) -> Iterator[ColumnElement[bool]]:
    """For `usage_of`, one after the other: all events of some of the runs (RUN_COLUMNS, by start), EVENTS_AT_ONCE or
    fewer, or of one run."""
    counts = runs["event_count"].to_numpy()
    few = np.flatnonzero(counts <= LONE_RUN_EVENTS)
    shares = np.split(few, np.flatnonzero(np.diff(np.cumsum(counts[few]) // EVENTS_AT_ONCE)) + 1)
    for places in (*(share for share in shares if share.size), *np.flatnonzero(counts > LONE_RUN_EVENTS)):
        some: pa.Table = runs.take(pa.array(np.atleast_1d(places)))
        first, last = (some[f"{which}started_at_unix_nano"].to_numpy() for which in ("", "last_"))
        in_time = EVENTS.c.started_at_unix_nano.between(int(first.min()), int(last.max()))
        yield and_(in_time, _among(EVENTS.c.run_id, some["id"].to_pylist()))


def _among(column: ColumnElement[Any], run_ids: list[str]) -> ColumnElement[bool]:
    """Is it one of these runs, however many? One bound value."""
    array = cast(bindparam(None, run_ids, type_=ARRAY(Text), unique=True), ARRAY(Uuid))
    found: ColumnElement[bool] = column.in_(select(func.unnest(array)))
    return found


def _events(wanted: ColumnElement[bool]) -> CTE:
    """With `parent_id`, null for an event that is its own parent."""
    usage = [EVENTS.c[name] for name in USAGE]
    return (
        select(
            *(EVENTS.c[name] for name in _COLUMNS),
            *usage,
            func.nullif(EVENTS.c.parent_event_id, EVENTS.c.id).label("parent_id"),
            or_(*(column.is_not(None) for column in usage)).label("reports"),
        )
        .where(wanted)
        .cte("event")
        .prefix_with("MATERIALIZED")
    )


def _above_usage(event: CTE) -> CTE:
    """(run_id, id) of all ancestors of events that report usage. UNION keeps each once, so rings end too."""
    reporting = select(event.c.run_id, event.c.parent_id.label("id"))
    above = reporting.where(event.c.reports, event.c.parent_id.is_not(None)).cte("above_usage", recursive=True)
    parents = select(event.c.run_id, event.c.parent_id).join(above, _is(event, above.c.run_id, above.c.id))
    return above.union(parents.where(event.c.parent_id.is_not(None)))


def _acting_agents(event: CTE) -> CTE:
    """(run_id, id, agent_name) of the events that report usage and name no agent: the nearest ancestor's."""
    nameless = select(event.c.run_id, event.c.id, event.c.parent_id.label("ancestor_id"), literal(1).label("level"))
    way_up = nameless.where(event.c.reports, event.c.agent_name.is_(None)).cte("way_up", recursive=True)
    further = select(way_up.c.run_id, way_up.c.id, event.c.parent_id, way_up.c.level + 1)
    further = further.join(event, _is(event, way_up.c.run_id, way_up.c.ancestor_id))
    way_up = way_up.union_all(further.where(event.c.agent_name.is_(None), way_up.c.level < AGENT_LEVELS_MAX))
    found = select(way_up.c.run_id, way_up.c.id, event.c.agent_name)
    found = found.join(event, _is(event, way_up.c.run_id, way_up.c.ancestor_id))
    return found.where(event.c.agent_name.is_not(None)).cte("acting")


def _is(event: CTE, run_id: Any, event_id: Any) -> ColumnElement[bool]:
    return and_(event.c.run_id == run_id, event.c.id == event_id)
