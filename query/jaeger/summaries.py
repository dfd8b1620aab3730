"""What each trace amounts to: when it was, what it began with, how many spans of which service it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, tuple_

from ...storage import Reader, Row
from ..events import EVENTS, RESOURCES
from .search import TraceSearch, find_traces, of_runs
from .services import SERVICE

STATUS_CODE_ERROR = 2


def find_summaries(reader: Reader, search: TraceSearch) -> list[dict[str, Any]]:
    """A summary of each trace found, with the names of the proto's `TraceSummary` and plain values; newest first."""
    return summaries(reader, find_traces(reader, search))


def summaries(reader: Reader, runs: Sequence[Row]) -> list[dict[str, Any]]:
    """A summary of the trace of each run, in the order of the runs."""
    if not runs:
        return []
    by_trace: dict[str, list[Row]] = {}
    for row in reader.rows(_figures(runs)):
        by_trace.setdefault(row["run_id"], []).append(row)
    orphans = {row["run_id"]: row["orphans"] for row in reader.rows(_orphans(runs))}
    return [_summary(run["id"], by_trace.get(run["id"], []), orphans.get(run["id"], 0)) for run in runs]


def _summary(run_id: str, services: list[Row], orphans: int) -> dict[str, Any]:
    roots = [row for row in services if row["root_started_at"] is not None]
    root = min(roots, key=lambda row: row["root_started_at"], default=None)
    return {
        "trace_id": run_id,
        "root_service_name": root["service"] if root else "",
        "root_operation_name": root["root_name"] if root else "",
        "min_start_time_unix_nano": min((row["first_start"] for row in services), default=0),
        "max_end_time_unix_nano": max((row["last_end"] for row in services), default=0),
        "span_count": sum(row["spans"] for row in services),
        "error_span_count": sum(row["errors"] for row in services),
        "orphan_span_count": orphans,
        "services": [
            {"name": row["service"], "span_count": row["spans"], "error_span_count": row["errors"]} for row in services
        ],
    }


def _figures(runs: Sequence[Row]) -> Any:
    """A row for each service of each run, by name."""
    is_root = EVENTS.c.parent_event_id.is_(None)
    # A span that has not ended ends for now where it started.
    ended = func.greatest(EVENTS.c.completed_at_unix_nano, EVENTS.c.started_at_unix_nano)
    return (
        select(
            EVENTS.c.run_id,
            SERVICE.label("service"),
            func.count().label("spans"),
            func.count().filter(EVENTS.c.status_code == STATUS_CODE_ERROR).label("errors"),
            func.min(EVENTS.c.started_at_unix_nano).label("first_start"),
            func.max(ended).label("last_end"),
            func.min(EVENTS.c.started_at_unix_nano).filter(is_root).label("root_started_at"),
            func.arg_min(EVENTS.c.name, EVENTS.c.started_at_unix_nano).filter(is_root).label("root_name"),
        )
        .join(RESOURCES, RESOURCES.c.id == EVENTS.c.resource_id)
        .where(of_runs(EVENTS, runs))
        .group_by(EVENTS.c.run_id, SERVICE)
        .order_by(EVENTS.c.run_id, SERVICE)
    )


def _orphans(runs: Sequence[Row]) -> Any:
    """How many spans of each run have a parent that is not there."""
    parent = EVENTS.alias("parent")
    stored = select(parent.c.run_id, parent.c.id).where(of_runs(parent, runs))
    parent_is_stored = tuple_(EVENTS.c.run_id, EVENTS.c.parent_event_id).in_(stored)
    return (
        select(EVENTS.c.run_id, func.count().label("orphans"))
        .where(of_runs(EVENTS, runs), EVENTS.c.parent_event_id.is_not(None), ~parent_is_stored)
        .group_by(EVENTS.c.run_id)
    )
