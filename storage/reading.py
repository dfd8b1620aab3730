"""Reads: each on a connection of its own, read-only by the engine, ended by a time limit."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import duckdb
import pyarrow as pa
from sqlalchemy import ClauseElement, Connection, Dialect, Engine, Executable, RowMapping
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from .engine import native
from .errors import QueryTimeout


class Reader:
    """One read transaction: every statement of it sees the same state."""

    def __init__(self, connection: Connection, over: threading.Event) -> None:
        self._connection = connection
        self._over = over

    def rows(self, statement: Executable) -> Sequence[RowMapping]:
        """The rows of `statement`. VARIANT columns come as Python dicts."""
        self._check_time()
        return self._connection.execute(statement).mappings().all()

    def arrow(self, statement: ClauseElement, values: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of `statement` by columns, with `values` for its named parameters. UUIDs come as text with dashes;
        bound values are passed as they are. A statement that is kept is compiled once for all values."""
        self._check_time()
        compiled = _compiled(statement, self._connection.dialect)
        said = compiled.construct_expanded_state(dict(values or {}))
        bound = list(said.positional_parameters) if compiled.positional else []
        return native(self._connection).sql(said.statement, params=bound).to_arrow_table()

    def _check_time(self) -> None:
        """Stops between statements too: an interrupt reaches only the one that runs."""
        if self._over.is_set():
            raise duckdb.InterruptException("the time of this read is over")


@lru_cache(maxsize=64)
def _compiled(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 only DDL compiles to anything else
    return compiled


@contextmanager
def read_transaction(engine: Engine, seconds_max: float) -> Iterator[Reader]:
    """A read-only transaction of at most `seconds_max` seconds. Raises QueryTimeout when they are over."""
    with engine.connect() as connection:
        engine_connection = native(connection)
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN TRANSACTION READ ONLY")
        over = threading.Event()

        def end() -> None:
            over.set()
            engine_connection.interrupt()

        timer = threading.Timer(seconds_max, end)
        timer.start()
        try:
            yield Reader(connection, over)
        except (DBAPIError, duckdb.Error) as error:
            if _interrupted(error):
                raise QueryTimeout(f"stopped after {seconds_max:g} s; narrow the query or its time range") from error
            raise
        finally:
            timer.cancel()
            connection.rollback()


def _interrupted(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, duckdb.InterruptException)
