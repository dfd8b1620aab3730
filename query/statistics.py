"""What a run amounts to, reckoned by the database. `usage` says what counts; how many events did not is told."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, literal_column, select, tuple_

from ..storage import USAGE, Reader, Row, run_id_text, usage_of
from .attribute_json import number_json
from .events import EVENTS, of_run
from .runs import find_run

PERCENTILES = (50, 90, 95, 99)
_INT64_MAX = (1 << 63) - 1

# What GROUPING(agent_name, event_type, model, user) says: a bit for each that a row is not about.
_ALL, _AGENT, _TYPE, _MODEL, _USER = 0b1111, 0b0111, 0b1011, 0b1101, 0b1110


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
        "usage_by_agent": _usage_by("agent_name", (row for row in groups if row["about"] == _USER), key="user"),
        "usage_by_event_type": _usage_by("event_type", (row for row in groups if row["about"] == _TYPE)),
        "usage_by_model": _usage_by("model", (row for row in groups if row["about"] == _MODEL)),
    }


_PERCENTILE_NAMES = tuple(f"p{percentile}" for percentile in PERCENTILES)
_NO_PERCENTILES = (None,) * len(PERCENTILES)


def _figures(run: Row) -> Select[Any]:
    """One row for the run, and one for each of its agents, event types and models, and for each that used something."""
    event = usage_of(of_run(EVENTS, run))
    by = (event.c.agent_name, event.c.event_type, event.c.model, event.c.user)
    lasted = func.nullif(event.c.duration_ns, 0)
    return select(
        func.grouping(*by).label("about"),
        *by,
        func.count().label("events"),
        func.count().filter(event.c.status == "failed").label("errors"),
        func.avg(lasted).label("avg_duration_ns"),
        func.sum(lasted).label("total_duration_ns"),
        func.count().filter(event.c.counts).label("usage_events"),
        func.count().filter(event.c.reports & ~event.c.counts).label("superseded_events"),
        *(func.sum(event.c[name]).filter(event.c.counts).label(name) for name in USAGE),
    ).group_by(func.grouping_sets(tuple_(), *(tuple_(column) for column in by)))


def _percentiles(run: Row) -> Select[Any]:
    fractions: ColumnElement[Any] = literal_column(f"ARRAY[{', '.join(f'0.{number}' for number in PERCENTILES)}]")
    values = func.percentile_disc(fractions).within_group(func.nullif(EVENTS.c.duration_ns, 0))
    return select(values.label("values")).where(of_run(EVENTS, run))


def _usage_by(name: str, groups: Iterable[Row], *, key: str | None = None) -> list[dict[str, Any]]:
    """The groups that used something, the most tokens first; the name is null for events that have none."""
    users = [{name: row[key or name]} | _usage(row) for row in groups if row["usage_events"]]
    return sorted(users, key=lambda user: (-user["input_tokens"] - user["output_tokens"], user[name] or ""))


def _usage(row: Row) -> dict[str, Any]:
    return {
        "events": row["usage_events"],
        "input_tokens": min(row["input_tokens"] or 0, _INT64_MAX),
        "output_tokens": min(row["output_tokens"] or 0, _INT64_MAX),
        "cost_usd": None if row["cost_usd"] is None else number_json(row["cost_usd"]),
    }
