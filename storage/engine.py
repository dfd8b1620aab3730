"""How a database is opened. What differs between engines lives here.

DuckDB is embedded: one process owns the file, every connection is a cursor of the one that opened it. A file has row
groups of ROW_GROUP_ROWS rows: a transaction of at least that many rows goes straight to compressed row groups instead
of through the write-ahead log, and a read of one run prunes finely (ARCHITECTURE.md, decisions).
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

import duckdb
import duckdb_engine
from sqlalchemy import Connection, Engine, PoolProxiedConnection, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import QueuePool

from .errors import DatabaseLocked, StorageError

ROW_GROUP_ROWS = 8192
# Of files that do not say: those made before revision 0015.
_ROW_GROUP_ROWS_ONCE = 4096
CATALOG = "clew"

MEMORY_BYTES = 1_000_000_000

SETTINGS: dict[str, Any] = {
    # The server answers from what it has: no extension is fetched while it runs.
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
    "memory_limit": f"{MEMORY_BYTES}B",
    # What does not fit goes to disk, which one query must not fill.
    "max_temp_directory_size": "4GB",
    # Of new files. A row group of so few rows fills little of a block with one column: with larger blocks, whoever
    # reads one column has most of the others in memory too.
    "default_block_size": 64 << 10,
    "max_vacuum_tasks": 2,
    # Attributes are taken apart into typed columns by `compacting` only.
    "variant_minimum_shredding_size": -1,
    "checkpoint_threshold": "64MB",
}

_BYTES_KEPT = 400_000_000

_SAYS_ROW_GROUP_ROWS = f"""
    SELECT comment FROM duckdb_tables() WHERE database_name = '{CATALOG}' AND table_name = 'execution_events'
"""  # noqa: S608


def database_path(url: str) -> Path:
    """The file that `url` names: a bare path or `duckdb:///path`. Raises StorageError for anything else."""
    if "://" not in url:
        return Path(url).expanduser().absolute()
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StorageError(f"{url!r} is not a database URL; use a path or duckdb:///path") from error
    if parsed.get_backend_name() != "duckdb":
        raise StorageError(f"{parsed.get_backend_name()} is not supported yet; use a path or duckdb:///path")
    if not parsed.database or parsed.database == ":memory:":
        raise StorageError(f"{url!r} names no file; nothing in memory survives a restart, use duckdb:///path")
    return Path(parsed.database).expanduser().absolute()


def open_engine(path: Path) -> Engine:
    """An engine on the DuckDB file at `path`, created when missing. `engine.dispose()` ends it.

    Raises DatabaseLocked when another process holds the file, StorageError when it cannot be opened.
    """
    engine, _ = open_engines(path)
    return engine


def open_engines(path: Path) -> tuple[Engine, Engine]:
    """As `open_engine`, and another on the same file whose transactions are read-only: the engine itself refuses what
    writes. It ends with the first."""
    owner = duckdb.connect(":memory:", config=SETTINGS)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        quoted = str(path).replace("'", "''")
        _attach(owner, quoted)
        owner.execute(f"SET temp_directory = '{quoted}.tmp'")
    except (duckdb.Error, OSError) as error:
        owner.close()
        raise _not_opened(path, error) from error

    engine = _pooled(owner, duckdb_engine.ConnectionWrapper)
    event.listen(engine, "engine_disposed", lambda _engine: _close(owner))
    return engine, _pooled(owner, _ReadOnly)


def _attach(owner: duckdb.DuckDBPyConnection, quoted: str) -> None:
    """With the row groups that the file has: among larger ones a checkpoint makes one of two, and what was a typed
    column of theirs is none then."""

    def attach(rows: int) -> None:
        owner.execute(f"ATTACH '{quoted}' AS {CATALOG} (TYPE duckdb, ROW_GROUP_SIZE {rows})")

    attach(ROW_GROUP_ROWS)
    if owner.execute(_SAYS_ROW_GROUP_ROWS).fetchone() == (None,):
        owner.execute(f"DETACH {CATALOG}")
        attach(_ROW_GROUP_ROWS_ONCE)


def _close(owner: duckdb.DuckDBPyConnection) -> None:
    """With all its cursors; where one is at something that cannot be stopped, the file stays open as long as that."""
    with suppress(duckdb.ResourceInUseException):
        owner.close()


class _ReadOnly(duckdb_engine.ConnectionWrapper):
    """A connection that SQLAlchemy has begin its transactions, by statements that are parsed once."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection) -> None:
        super().__init__(cursor)
        self._cursor = cursor
        self._begin, self._rollback = cursor.extract_statements("BEGIN TRANSACTION READ ONLY; ROLLBACK")

    def begin(self) -> None:
        self._cursor.execute(self._begin)

    def rollback(self) -> None:
        self._cursor.execute(self._rollback)


def _pooled(owner: duckdb.DuckDBPyConnection, wrapped: type[duckdb_engine.ConnectionWrapper]) -> Engine:
    def connect() -> duckdb_engine.ConnectionWrapper:
        cursor = owner.cursor()
        cursor.execute(f"USE {CATALOG}")
        return wrapped(cursor)

    return create_engine(
        "duckdb://", creator=connect, poolclass=QueuePool, pool_size=16, max_overflow=16, pool_timeout=30
    )


def native(connection: Connection | PoolProxiedConnection) -> duckdb.DuckDBPyConnection:
    """DuckDB's own connection beneath a SQLAlchemy one, for columnar work: the wrapper passes every method on."""
    pooled = connection if isinstance(connection, PoolProxiedConnection) else connection.connection
    return cast("duckdb.DuckDBPyConnection", pooled.dbapi_connection)


class EngineMemory:
    """How much memory the engine may have: MEMORY_BYTES, and what it needs on top for a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._on_top = 0

    def allow_on_top(self, size: int) -> None:
        """So many bytes more than usual, from now on."""
        if size != self._on_top:
            self._on_top = size
            self._limit_to(MEMORY_BYTES + size)

    def give_back(self) -> None:
        """Has the engine let go of blocks of the file, those first that were used longest ago, until it holds
        _BYTES_KEPT, or more where a question needs that just now."""
        try:
            self._limit_to(_BYTES_KEPT)
        finally:
            self._limit_to(MEMORY_BYTES + self._on_top)

    def _limit_to(self, size: int) -> None:
        with suppress(duckdb.OutOfMemoryException):  # it holds more that is needed just now
            self._connection.execute(f"SET GLOBAL memory_limit = '{size}B'")


def _not_opened(path: Path, error: Exception) -> StorageError:
    text = str(error)
    holder = re.search(r"held in (.+?) \(PID (\d+)\)", text)
    if holder:
        return DatabaseLocked(f"{path} is in use by process {holder[2]} ({holder[1]}); stop it, or choose another file")
    if "already attached" in text:
        return DatabaseLocked(f"{path} is open in this process already; use what opened it, or close that first")
    if "lock" in text.lower():
        return DatabaseLocked(f"{path} is in use by another process; stop it, or choose another file")
    return StorageError(f"{path} cannot be opened: {text.splitlines()[0]}")
