"""A run's row stays true to its events when they are written one by one, as `runs` and `writing` keep it for batches.

The run's time bounds are how its events are found, so they are widened first; they never shrink.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import ColumnElement, Connection, Table, case, func, select, update

from .schema import Base, ExecutionEvent

_RUNS: Table = Base.metadata.tables["workflow_runs"]
_EVENTS: Table = ExecutionEvent.__table__  # type: ignore[assignment]


def widen(connection: Connection, run_id: str, started_at: Iterable[int]) -> None:
    """Brings these start times (nanoseconds) of events within the run's bounds."""
    for start in started_at:
        bounds = {
            "started_at_unix_nano": func.least(_RUNS.c.started_at_unix_nano, start),
            "last_started_at_unix_nano": func.greatest(_RUNS.c.last_started_at_unix_nano, start),
        }
        connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(bounds))


def recount(connection: Connection, run_id: str) -> None:
    """Sets what the run's row says of its events: how many, how many failed, the first root, the latest end; their logs
    and links are to be counted, as some may have been written or deleted by themselves."""
    run = connection.execute(select(_RUNS).where(_RUNS.c.id == run_id)).mappings().first()
    if run is None:
        return
    within = of_run(run_id, run["started_at_unix_nano"], run["last_started_at_unix_nano"])
    failed = func.sum(case((_EVENTS.c.status == "failed", 1), else_=0))
    figures = select(func.count(), failed, func.max(_EVENTS.c.completed_at_unix_nano)).where(within)
    [events, errors, completed_at] = connection.execute(figures).one()
    roots = (
        select(_EVENTS.c.id, _EVENTS.c.name)
        .where(within, _EVENTS.c.parent_event_id.is_(None))
        .order_by(_EVENTS.c.id != run["root_event_id"], _EVENTS.c.started_at_unix_nano, _EVENTS.c.id)
    )
    root = connection.execute(roots.limit(1)).first()
    said = {
        "event_count": events,
        "error_count": errors or 0,
        "completed_at_unix_nano": max(completed_at or 0, run["completed_at_unix_nano"]),
        "root_event_id": root.id if root else None,
        "name": run["name"] or (root.name if root else None),
        "parts_counted": False,
        "revision": _RUNS.c.revision + 1,
    }
    connection.execute(update(_RUNS).where(_RUNS.c.id == run_id).values(said))


def have_parts_counted(connection: Connection, run_ids: Collection[str]) -> None:
    """Says of these runs that logs and links of their events are to be counted, as some were written by themselves."""
    connection.execute(update(_RUNS).where(_RUNS.c.id.in_(run_ids), _RUNS.c.parts_counted).values(parts_counted=False))


def of_run(run_id: str, started_at: int, last_started_at: int) -> ColumnElement[bool]:
    """The run's events, by its time bounds: what spares the engine from reading other runs."""
    starts = _EVENTS.c.started_at_unix_nano.between(started_at, last_started_at)
    return starts & (_EVENTS.c.run_id == run_id)
