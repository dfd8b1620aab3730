"""Opening a database from an application: `init_database`, `get_db_session`, and what a session watches over.

A file is opened once in a process, by a pool of connections. A serving process has its own (`store`): while a server
runs, the file is the server's, and applications send telemetry or ask over HTTP.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from platformdirs import user_data_path
from sqlalchemy import Connection, Engine, and_, event, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.orm import UOWTransaction
from sqlalchemy.orm.attributes import get_history

from . import migrate
from .deleting import delete
from .engine import database_path, open_engine
from .recounting import have_parts_counted, recount, widen
from .references import check_references, settle_ids, table_of
from .schema import Base, EventLink, EventLog, ExecutionEvent, Resource, Scope, WorkflowRun, origin

# The one asked for last stands last.
_engines: dict[Path, Engine] = {}
_turn = threading.Lock()


class DatabaseSession(OrmSession):
    """A SQLAlchemy session that keeps what DuckDB does not: what rows refer to has to be there (UnknownReference),
    deleted rows take along what goes with them, runs stay true to their events, and are changed for that: of two
    sessions that write at once to the same run, the engine refuses one. On every engine alike; statements that pass
    rows by (`session.execute(delete(...))`, `query.delete()`, `bulk_save_objects`) are not watched."""


def data_folder() -> Path:
    """The user's data folder for clew, by the platform's rules."""
    return user_data_path("clew", appauthor=False)


def init_database(url: str | None = None) -> Engine:
    """Opens the database at `url` (a path or `duckdb:///path`; without it what CLEW_DB names, else `clew.duckdb` in the
    user's data folder), creating and migrating an empty one. Again for the same file: the same engine.

    Raises DatabaseLocked when another process holds it, SchemaUnknown when it is not at this clew's revision.
    """
    path = _path(url)
    with _turn:
        engine = _engines.pop(path, None) or _opened(path)
        _engines[path] = engine
    return engine


def get_db_session(url: str | None = None) -> DatabaseSession:
    """A session on the database at `url`, opened as by `init_database`; without it, on the one that `init_database`
    was asked for last, if any. Close it, or use it in a `with`."""
    with _turn:
        latest = next(reversed(_engines.values()), None)
    return DatabaseSession(latest if url is None and latest is not None else init_database(url))


def close_database(url: str | None = None) -> None:
    """Closes the file, so that a server can have it; without `url`, every one that is open."""
    with _turn:
        for path in list(_engines) if url is None else [_path(url)]:
            engine = _engines.pop(path, None)
            if engine is not None:
                engine.dispose()


def _path(url: str | None) -> Path:
    return database_path(url or os.environ.get("CLEW_DB") or str(data_folder() / "clew.duckdb"))


def _opened(path: Path) -> Engine:
    engine = open_engine(path)
    try:
        migrate.prepare(engine, str(path))
    except BaseException:
        engine.dispose()
        raise
    return engine


@event.listens_for(DatabaseSession, "before_flush")
def _check_and_cascade(session: DatabaseSession, _context: UOWTransaction, _instances: Any) -> None:
    connection = session.connection()
    written = [*session.new, *(row for row in session.dirty if session.is_modified(row))]
    settle_ids(written)
    check_references(connection, written)
    if any(isinstance(row, ExecutionEvent) for row in session.new):
        _store_own_origin(connection)
    session.info["written"] = [row for row in written if isinstance(row, ExecutionEvent)]
    session.info["deleted"] = list(session.deleted)
    keys = {row: tuple(getattr(row, column.key) for column in table_of(row).primary_key) for row in session.deleted}
    for row, key in keys.items():
        _delete(session, row, key)


def _store_own_origin(connection: Connection) -> None:
    known = select(Scope.id).where(Scope.id == origin.SCOPE["id"])
    if connection.execute(known).first():
        return
    for model, row in ((Resource, origin.RESOURCE), (Scope, origin.SCOPE)):
        connection.execute(insert(model).values(row).on_conflict_do_nothing())


def _delete(session: DatabaseSession, row: Base, key: tuple[Any, ...]) -> None:
    table = table_of(row)
    condition = and_(*(column == value for column, value in zip(table.primary_key, key, strict=True)))
    delete(session.connection(), table, condition)
    if None in key:  # the ORM deletes again what is gone already, but refuses to by a key with NULL
        session.expunge(row)


@event.listens_for(DatabaseSession, "after_flush")
def _look_after_parts(session: DatabaseSession, _context: UOWTransaction) -> None:
    """Of which runs logs and links were written, and which runs events have left: known now that rows bear the ids of
    what they are related to, and still tell which they bore before."""
    written = [*session.new, *session.dirty]
    parts = [get_history(row, "run_id") for row in written if isinstance(row, EventLog | EventLink)]
    if run_ids := {run_id for history in parts for run_id in history.sum()} - {None}:
        have_parts_counted(session.connection(), run_ids)
    events = [get_history(row, "run_id") for row in written if isinstance(row, ExecutionEvent)]
    session.info["left"] = [run_id for history in events for run_id in history.deleted or ()]


@event.listens_for(DatabaseSession, "after_flush_postexec")
def _keep_runs_true(session: DatabaseSession, _context: UOWTransaction) -> None:
    written, deleted = session.info.pop("written", []), session.info.pop("deleted", [])
    connection = session.connection()
    touched: dict[str, list[int]] = {row.run_id: [] for row in deleted if getattr(row, "run_id", None)}
    touched |= {run_id: [] for run_id in session.info.pop("left", [])}
    for row in written:
        touched.setdefault(row.run_id, []).append(row.started_at_unix_nano)
    for run_id, starts in touched.items():
        widen(connection, run_id, {min(starts), max(starts)} if starts else ())
        recount(connection, run_id)
    for row in list(session.identity_map.values()):
        if deleted or (isinstance(row, WorkflowRun) and touched):
            session.expire(row)
