"""Sessions: listed newest first, and what the runs of one amount to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select

from ..storage import Reader, Row, Session
from .costs import spent_by_runs
from .errors import NotFound
from .paging import Order
from .parameters import SessionsWanted
from .runs import RUNS

SESSIONS: Any = Session.__table__


def session_page(reader: Reader, wanted: SessionsWanted) -> dict[str, Any]:
    """`{"sessions": [...], "next_cursor": ...}`, newest first."""
    newest_first = Order(SESSIONS.c.created_at_unix_nano, SESSIONS.c.id, newest_first=True)
    statement = select(SESSIONS)
    if wanted.status is not None:
        statement = statement.where(SESSIONS.c.status == wanted.status)
    rows, next_cursor = newest_first.page(reader, statement, wanted)
    return {"sessions": [_session_json(row) for row in rows], "next_cursor": next_cursor}


def session_answer(reader: Reader, session_id: str) -> dict[str, Any]:
    """The session with its figures. Raises NotFound."""
    found = reader.rows(select(SESSIONS).where(SESSIONS.c.id == session_id))
    if not found:
        message = f"there is no session {session_id[:80]!r}; GET /api/sessions lists those there are"
        raise NotFound(message, parameter="session_id")
    by_status = reader.rows(_runs_by_status(session_id))
    its_runs = select(RUNS.c.id).where(RUNS.c.session_id == session_id)
    since = min((row["first"] for row in by_status), default=0)
    until = max((row["last"] for row in by_status), default=0)
    return {
        **_session_json(found[0]),
        "run_count": sum(row["runs"] for row in by_status),
        "runs_by_status": {row["status"]: row["runs"] for row in by_status},
        "event_count": sum(int(row["events"]) for row in by_status),
        "error_count": sum(int(row["errors"]) for row in by_status),
        "last_activity_unix_nano": str(_last_activity(found[0], by_status)),
        "costs": spent_by_runs(reader, its_runs, since, until),
    }


def _runs_by_status(session_id: str) -> Any:
    return (
        select(
            RUNS.c.status,
            func.count().label("runs"),
            func.sum(RUNS.c.event_count).label("events"),
            func.sum(RUNS.c.error_count).label("errors"),
            func.min(RUNS.c.started_at_unix_nano).label("first"),
            func.max(func.greatest(RUNS.c.last_started_at_unix_nano, RUNS.c.completed_at_unix_nano)).label("last"),
        )
        .where(RUNS.c.session_id == session_id)
        .group_by(RUNS.c.status)
        .order_by(RUNS.c.status)
    )


def _last_activity(session: Row, by_status: Any) -> int:
    """When a run of the session was last heard of, or whoever keeps the session says it was active."""
    said = session["last_active_at_unix_nano"] or session["created_at_unix_nano"]
    return max([said, *(row["last"] for row in by_status)])


def _session_json(row: Row) -> dict[str, Any]:
    last_active = row["last_active_at_unix_nano"]
    return {
        **{name: row[name] for name in ("id", "user_id", "name", "status")},
        "created_at_unix_nano": str(row["created_at_unix_nano"]),
        "last_active_at_unix_nano": None if last_active is None else str(last_active),
    }
