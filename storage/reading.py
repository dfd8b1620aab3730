"""Reads: each on a connection of its own, read-only by the engine, ended by a time limit."""

from __future__ import annotations

import threading
import time
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

_TOLD_AGAIN_S = 0.05


class Reader:
    """One read transaction: every statement of it sees the same state."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.ended = ""

    def end(self, reason: str) -> None:
        """Stops the statement that runs, and refuses those to come. Any thread may; the first reason stays."""
        self.ended = self.ended or reason
        native(self._connection).interrupt()

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
        if self.ended:
            raise duckdb.InterruptException(self.ended)


@lru_cache(maxsize=64)
def _compiled(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 only DDL compiles to anything else
    return compiled


class Reads:
    """The read transactions of an engine, each read-only and bounded in time. Those under way can be ended."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._under_way: set[Reader] = set()
        self._changed = threading.Condition()

    @contextmanager
    def transaction(self, seconds_max: float) -> Iterator[Reader]:
        """One of at most `seconds_max` seconds. Raises QueryTimeout when they are over, or when it is ended."""
        with self._engine.connect() as connection, self._begun(connection) as reader:
            too_long = f"stopped after {seconds_max:g} s; narrow the query or its time range"
            timer = threading.Timer(seconds_max, reader.end, [too_long])
            timer.start()
            try:
                yield reader
            except (DBAPIError, duckdb.Error) as error:
                if _interrupted(error):
                    raise QueryTimeout(reader.ended or too_long) from error
                raise
            finally:
                timer.cancel()

    def end(self, reason: str, seconds_max: float) -> None:
        """Ends those under way, which raise QueryTimeout with the reason; returns when they or the time are over."""
        give_up_at = time.monotonic() + seconds_max
        with self._changed:
            ended = set(self._under_way)
            while (left := ended & self._under_way) and time.monotonic() < give_up_at:
                for reader in left:
                    reader.end(reason)
                # What is interrupted just before its statement begins does not notice: it is told again.
                self._changed.wait(_TOLD_AGAIN_S)

    @contextmanager
    def _begun(self, connection: Connection) -> Iterator[Reader]:
        connection.exec_driver_sql("ROLLBACK")
        connection.exec_driver_sql("BEGIN TRANSACTION READ ONLY")
        reader = Reader(connection)
        with self._changed:
            self._under_way.add(reader)
        try:
            yield reader
        finally:
            try:
                connection.rollback()
            finally:
                with self._changed:
                    self._under_way.remove(reader)
                    self._changed.notify_all()


def _interrupted(error: Exception) -> bool:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, duckdb.InterruptException)
