"""Runs: found by their id, or listed newest first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, bindparam, select

from ..storage import ExecutionEvent, Reader, Row, WorkflowRun, run_id_text
from .errors import NotFound
from .paging import Order
from .parameters import RunsWanted

RUNS: Any = WorkflowRun.__table__
EVENTS: Any = ExecutionEvent.__table__

_RUN = select(RUNS).where(RUNS.c.id == bindparam("run_id", type_=RUNS.c.id.type))


def no_run(run_id: UUID, parameter: str = "run_id") -> NotFound:
    """What to raise where there is no such run as the parameter names."""
    message = f"there is no run {run_id_text(run_id)}; `clew runs` and GET /api/runs list those there are"
    return NotFound(message, parameter=parameter)


def find_run(reader: Reader, run_id: UUID, *, parameter: str = "run_id") -> Row:
    """The row of the run that the parameter names. Raises NotFound."""
    found = reader.rows(_RUN, {"run_id": run_id})
    if not found:
        raise no_run(run_id, parameter)
    return found[0]


def run_json(run: Row) -> dict[str, Any]:
    """The run as the API shows it: ids in hex, moments as decimal text."""
    return {
        "id": run["id"],
        "session_id": run["session_id"],
        "project_id": run["project_id"],
        "task_id": run["task_id"],
        "name": run["name"],
        "mode": run["mode"],
        "agent": run["agent"],
        "model": run["model"],
        "service_name": run["service_name"],
        "status": run["status"],
        "task_description": run["task_description"],
        "root_event_id": run["root_event_id"],
        "started_at_unix_nano": str(run["started_at_unix_nano"]),
        "last_started_at_unix_nano": str(run["last_started_at_unix_nano"]),
        "completed_at_unix_nano": str(run["completed_at_unix_nano"]),
        "duration_ns": max(0, run["completed_at_unix_nano"] - run["started_at_unix_nano"]),
        "event_count": run["event_count"],
        "error_count": run["error_count"],
    }


def run_answer(reader: Reader, run_id: UUID) -> dict[str, Any]:
    """`run_json` of the run. Raises NotFound."""
    return run_json(find_run(reader, run_id))


def run_page(reader: Reader, wanted: RunsWanted) -> dict[str, Any]:
    """`{"runs": [...], "next_cursor": ...}`, newest first."""
    newest_first = Order(RUNS.c.started_at_unix_nano, RUNS.c.id, newest_first=True)
    conditions = [condition(wanted) for name, condition in _FILTERS.items() if getattr(wanted, name) is not None]
    rows, next_cursor = newest_first.page(reader, select(RUNS).where(*conditions), wanted)
    return {"runs": [run_json(run) for run in rows], "next_cursor": next_cursor}


def _runs_of_agent(wanted: RunsWanted) -> Select[Any]:
    statement = select(EVENTS.c.run_id).where(EVENTS.c.agent_name == wanted.agent)
    # No event starts before its run does, so the runs' lower bound prunes the events too.
    return statement if wanted.since is None else statement.where(EVENTS.c.started_at_unix_nano >= wanted.since)


_FILTERS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "session_id": lambda wanted: RUNS.c.session_id == wanted.session_id,
    "status": lambda wanted: RUNS.c.status == wanted.status,
    "since": lambda wanted: RUNS.c.started_at_unix_nano >= wanted.since,
    "until": lambda wanted: RUNS.c.started_at_unix_nano < wanted.until,
    "id_prefix": lambda wanted: RUNS.c.id.between(wanted.id_prefix.first, wanted.id_prefix.last),
    "agent": lambda wanted: RUNS.c.id.in_(_runs_of_agent(wanted)),
}
