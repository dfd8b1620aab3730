"""Reads: each on a connection of its own, read-only by the engine, ended by a time limit."""

from __future__ import annotations

import math
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from sqlalchemy import ClauseElement, Connection, Dialect, Engine, Executable, SelectBase
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

from .damage import Damage
from .engine import native
from .errors import QueryTimeout, QueryTooLarge
from .few_rows import table_of

PARSED_MAX = 128
PARSED_CHARACTERS_MAX = 8192
_TOLD_AGAIN_S = 0.05
# Whoever asks again within that time has stayed.
AWAY_S = 2.0

Row = Mapping[str, Any]
_TOO_LARGE = "there is not memory enough for this just now; ask for less at once, with a smaller limit, or later again"

# It advises relations. Those are planned twice, which for a run's events takes longer than that copy.
warnings.filterwarnings("ignore", "Arrow output on a DB-API result makes an extra copy", UserWarning)


class Reader:
    """One read transaction: every statement of it sees the same state."""

    def __init__(self, connection: Connection, parsed: _Parsed) -> None:
        self._connection = connection
        self._parsed = parsed
        self.ended = ""

    def end(self, reason: str) -> None:
        """Stops the statement that runs, and refuses those to come. Any thread may; the first reason stays."""
        self.ended = self.ended or reason
        native(self._connection).interrupt()

    def rows(self, statement: Executable, values: Mapping[str, Any] | None = None) -> Sequence[Row]:
        """The rows of `statement`, by the names of its columns. VARIANT columns come as Python dicts. With `values` for
        its named parameters, passed as they are, a SELECT that is kept is compiled once for all values."""
        if values is not None:
            return self._kept_rows(statement, values)
        self._check_time()
        found: Any = self._connection.execute(statement).mappings().all()
        return list(found)

    def _kept_rows(self, statement: Any, values: Mapping[str, Any]) -> Sequence[Row]:
        says = _results(statement, self._connection.dialect)
        found = self._execute(statement, values).fetchall()
        return [
            {name: say(value) if say else value for (name, say), value in zip(says, row, strict=True)} for row in found
        ]

    def arrow(self, statement: ClauseElement, values: Mapping[str, Any] | None = None) -> pa.Table:
        """The result of `statement` by columns. UUIDs come as text with dashes; bound values are passed as they are.
        With `values` for its named parameters, a statement that is kept is compiled once for all values."""
        return table_of(self._execute(statement, values))

    def _execute(self, statement: ClauseElement, values: Mapping[str, Any] | None) -> duckdb.DuckDBPyConnection:
        """Without SQLAlchemy, which would take as long as the engine for what finds few rows."""
        self._check_time()
        dialect = self._connection.dialect
        # Others are made for one question: kept, they would keep its values too.
        compiled = _compiled(statement, dialect) if values is None else _kept_compiled(statement, dialect)
        said = compiled.construct_expanded_state(dict(values or {}))
        bound = list(said.positional_parameters) if compiled.positional else []
        connection = native(self._connection)
        return connection.execute(self._parsed.of(said.statement, connection), bound)

    def _check_time(self) -> None:
        """Stops between statements too: an interrupt reaches only the one that runs."""
        if self.ended:
            raise duckdb.InterruptException(self.ended)


def _compiled(statement: ClauseElement, dialect: Dialect) -> SQLCompiler:
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 only DDL compiles to anything else
    return compiled


_kept_compiled = lru_cache(maxsize=64)(_compiled)


@lru_cache(maxsize=64)
def _results(statement: SelectBase, dialect: Dialect) -> list[tuple[str, Any]]:
    """Each column's name, and what makes the engine's values of it those of its type."""
    columns = statement.selected_columns
    return [(str(column.key), column.type.dialect_impl(dialect).result_processor(dialect, None)) for column in columns]


class _Parsed:
    """Short statements as the engine's parser has read them, which takes a quarter of a millisecond each time. Forgets
    all when full. Any thread may ask."""

    def __init__(self) -> None:
        self._known: dict[str, duckdb.Statement] = {}

    def of(self, text: str, connection: duckdb.DuckDBPyConnection) -> duckdb.Statement | str:
        """What to execute instead of the text, on any connection."""
        if len(text) > PARSED_CHARACTERS_MAX:
            return text
        known = self._known.get(text)
        if known is None:
            [known] = connection.extract_statements(text)
            if len(self._known) >= PARSED_MAX:
                self._known = {}
            self._known[text] = known
        return known


class Audience:
    """Whether somebody waits for answers, or did lately. Any thread may tell."""

    def __init__(self) -> None:
        self._waiting = 0
        self._came_at = self._left_at = -math.inf
        self._turn = threading.Lock()

    @contextmanager
    def waits(self) -> Iterator[None]:
        """Somebody waits within."""
        with self._turn:
            if self.away_s >= AWAY_S:
                self._came_at = time.monotonic()
            self._waiting += 1
        try:
            yield
        finally:
            with self._turn:
                self._waiting -= 1
                self._left_at = time.monotonic()

    @property
    def away_s(self) -> float:
        """For how many seconds nobody has waited: 0 while somebody does, infinite before anybody did."""
        return 0.0 if self._waiting else time.monotonic() - self._left_at

    @property
    def here_s(self) -> float | None:
        """For how many seconds somebody has asked, never pausing for AWAY_S; None while nobody does."""
        return time.monotonic() - self._came_at if self.away_s < AWAY_S else None


class Reads:
    """Read transactions of an engine, the read-only one of `open_engines`, each bounded in time. Those under way can be
    ended."""

    def __init__(self, engine: Engine, damage: Damage) -> None:
        self._engine = engine
        self._damage = damage
        self._parsed = _Parsed()
        self._watch = _Watch()

    @contextmanager
    def transaction(self, seconds_max: float) -> Iterator[Reader]:
        """One of at most `seconds_max` seconds. Raises QueryTimeout when they are over, or when it is ended, and
        QueryTooLarge where the engine has not the memory for it."""
        limit = _Limit(time.monotonic() + seconds_max, seconds_max)
        try:
            with self._engine.connect() as connection, self._begun(connection, limit) as reader:
                try:
                    yield reader
                except (DBAPIError, duckdb.Error) as error:
                    if _is_a(duckdb.InterruptException, error):
                        raise QueryTimeout(reader.ended or limit.passed) from error
                    if _is_a(duckdb.OutOfMemoryException, error):
                        raise QueryTooLarge(_TOO_LARGE) from error
                    raise
        except (DBAPIError, duckdb.Error) as error:
            self._damage.look_at(error)
            raise

    def end(self, reason: str, seconds_max: float) -> None:
        """Ends those under way, which raise QueryTimeout with the reason; returns when they or the time are over."""
        self._watch.end(reason, seconds_max)

    @contextmanager
    def _begun(self, connection: Connection, limit: _Limit) -> Iterator[Reader]:
        """It ends as the connection is given back, when nobody can interrupt that any more."""
        connection.begin()
        reader = Reader(connection, self._parsed)
        self._watch.begin(reader, limit)
        try:
            yield reader
        finally:
            self._watch.over(reader)


class _Limit(NamedTuple):
    """When a read has to be over, by the monotonic clock, and the seconds that it was given."""

    at: float
    seconds_max: float

    @property
    def passed(self) -> str:
        return f"stopped after {self.seconds_max:g} s; narrow the query or its time range"


class _Watch:
    """Ends reads that take too long, on one thread for all while there are any: a timer for each takes longer than many
    a read. Between reads it holds nothing of the engine, which may be let go."""

    def __init__(self) -> None:
        self._under_way: dict[Reader, _Limit] = {}
        turn = threading.Lock()
        self._fewer, self._sooner = threading.Condition(turn), threading.Condition(turn)
        self._looks_at: float | None = None

    def begin(self, reader: Reader, limit: _Limit) -> None:
        with self._sooner:
            if self._looks_at is None:
                threading.Thread(target=self._look, name="clew-read-limits", daemon=True).start()
                self._looks_at = limit.at
            elif limit.at < self._looks_at:
                self._sooner.notify()
            self._under_way[reader] = limit

    def over(self, reader: Reader) -> None:
        with self._fewer:
            del self._under_way[reader]
            self._fewer.notify_all()

    def end(self, reason: str, seconds_max: float) -> None:
        give_up_at = time.monotonic() + seconds_max
        with self._fewer:
            ended = set(self._under_way)
            while (left := ended & self._under_way.keys()) and time.monotonic() < give_up_at:
                for reader in left:
                    reader.end(reason)
                # What is interrupted just before its statement begins does not notice: it is told again.
                self._fewer.wait(_TOLD_AGAIN_S)
            self._sooner.notify()

    def _look(self) -> None:
        with self._sooner:
            while self._under_way:
                now = time.monotonic()
                self._looks_at = max(self._end_late(now), now + _TOLD_AGAIN_S)
                self._sooner.wait(self._looks_at - now)
            self._looks_at = None

    def _end_late(self, now: float) -> float:
        """Ends what is late, and what was told before once more; returns when the first of all has to be over."""
        for reader, limit in self._under_way.items():
            if limit.at <= now:
                reader.end(limit.passed)
        return min(limit.at for limit in self._under_way.values())


def _is_a(kind: type[duckdb.Error], error: Exception) -> bool:
    return isinstance(error.orig if isinstance(error, DBAPIError) else error, kind)
