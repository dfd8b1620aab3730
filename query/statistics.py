"""What a run amounts to, reckoned by the database.

Usage (tokens and cost) is counted once: an agent's span often repeats the sum of the model calls below it, so an event
that reports usage counts only when no event below it does. The events of a ring (their own ancestors) are all below one
another; how many events did not count is told.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, RowMapping, Select, func, literal_column, or_, select, tuple_

from ..storage import Reader, run_id_text
from .attribute_json import number_json
from .events import EVENTS, of_run
from .runs import find_run

PERCENTILES = (50, 90, 95, 99)
_INT64_MAX = (1 << 63) - 1

# What GROUPING(agent_name, event_type, model) says: a bit for each that a row is not about.
_ALL, _AGENT, _TYPE, _MODEL = 0b111, 0b011, 0b101, 0b110


def statistics(reader: Reader, run_id: UUID) -> dict[str, Any]:
    """The run's figures. Durations are those of the events that lasted: a moment (0 ns) and an event that has not ended
    have none. Raises NotFound."""
    run = find_run(reader, run_id)
    groups = list(reader.rows(_figures(run)))
    [total] = [row for row in groups if row["about"] == _ALL]
    agents = {row["agent_name"]: row["events"] for row in groups if row["about"] == _AGENT}
    calls = {agent: agents[agent] for agent in sorted(filter(None, agents))}
    [percentiles] = reader.rows(_percentiles(run))
    return {
        "run_id": run_id_text(run_id),
        "total_events": total["events"],
        "event_types": {row["event_type"]: row["events"] for row in groups if row["about"] == _TYPE},
        "agents_involved": list(calls),
        "agent_call_counts": calls,
        "avg_duration_ms": (total["avg_duration_ns"] or 0) / 1e6,
        "total_duration_ms": (total["total_duration_ns"] or 0) / 1e6,
        "duration_percentiles_ns": dict(zip(_PERCENTILE_NAMES, percentiles["values"] or _NO_PERCENTILES, strict=True)),
        "errors": total["errors"],
        "usage": _usage(total) | {"superseded_events": total["superseded_events"]},
        "usage_by_agent": _usage_by("agent_name", (row for row in groups if row["about"] == _AGENT)),
        "usage_by_event_type": _usage_by("event_type", (row for row in groups if row["about"] == _TYPE)),
        "usage_by_model": _usage_by("model", (row for row in groups if row["about"] == _MODEL)),
    }


_PERCENTILE_NAMES = tuple(f"p{percentile}" for percentile in PERCENTILES)
_NO_PERCENTILES = (None,) * len(PERCENTILES)


def _figures(run: RowMapping) -> Select[Any]:
    """One row for the run, and one for each of its agents, event types and models."""
    event = _events(run)
    counts = event.c.reports & event.c.id.not_in(select(_above_usage(event).c.id))
    by = (event.c.agent_name, event.c.event_type, event.c.model)
    lasted = func.nullif(event.c.duration_ns, 0)
    return select(
        func.grouping(*by).label("about"),
        *by,
        func.count().label("events"),
        func.count().filter(event.c.status == "failed").label("errors"),
        func.avg(lasted).label("avg_duration_ns"),
        func.sum(lasted).label("total_duration_ns"),
        func.count().filter(counts).label("usage_events"),
        func.count().filter(event.c.reports & ~counts).label("superseded_events"),
        func.sum(event.c.input_tokens).filter(counts).label("input_tokens"),
        func.sum(event.c.output_tokens).filter(counts).label("output_tokens"),
        func.sum(event.c.cost_usd).filter(counts).label("cost_usd"),
    ).group_by(func.grouping_sets(tuple_(), *(tuple_(column) for column in by)))


def _events(run: RowMapping) -> CTE:
    columns = ("id", "event_type", "agent_name", "model", "status", "duration_ns")
    usage = [EVENTS.c[name] for name in ("input_tokens", "output_tokens", "cost_usd")]
    return (
        select(
            *(EVENTS.c[name] for name in columns),
            *usage,
            # An event that is its own parent has none.
            func.nullif(EVENTS.c.parent_event_id, EVENTS.c.id).label("parent_id"),
            or_(*(column.is_not(None) for column in usage)).label("reports"),
        )
        .where(of_run(EVENTS, run))
        .cte("event")
        .prefix_with("MATERIALIZED")
    )


def _above_usage(event: CTE) -> CTE:
    """The ids of all ancestors of events that report usage. UNION keeps each once, so rings end too."""
    above = select(event.c.parent_id.label("id")).where(event.c.reports, event.c.parent_id.is_not(None))
    above_usage = above.cte("above_usage", recursive=True)
    parents = select(event.c.parent_id).join(above_usage, event.c.id == above_usage.c.id)
    return above_usage.union(parents.where(event.c.parent_id.is_not(None)))


def _percentiles(run: RowMapping) -> Select[Any]:
    fractions: ColumnElement[Any] = literal_column(f"ARRAY[{', '.join(f'0.{number}' for number in PERCENTILES)}]")
    values = func.percentile_disc(fractions).within_group(func.nullif(EVENTS.c.duration_ns, 0))
    return select(values.label("values")).where(of_run(EVENTS, run))


def _usage_by(name: str, groups: Iterable[RowMapping]) -> list[dict[str, Any]]:
    """The groups that used something, the most tokens first; the name is null for events that have none."""
    users = [{name: row[name]} | _usage(row) for row in groups if row["usage_events"]]
    return sorted(users, key=lambda user: (-user["input_tokens"] - user["output_tokens"], user[name] or ""))


def _usage(row: RowMapping) -> dict[str, Any]:
    return {
        "events": row["usage_events"],
        "input_tokens": min(row["input_tokens"] or 0, _INT64_MAX),
        "output_tokens": min(row["output_tokens"] or 0, _INT64_MAX),
        "cost_usd": None if row["cost_usd"] is None else number_json(row["cost_usd"]),
    }
