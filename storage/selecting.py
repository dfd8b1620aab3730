"""SQL from outside, answered: checked, read-only, and stopped at its limits.

The engine bounds what it keeps (`memory_limit` is the whole instance's), but not the values that pass through a query,
so the memory of the process is watched while one runs, and limited for those that grow faster than one can watch.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import duckdb
import pyarrow as pa
from sqlalchemy import Engine

from .damage import Damage
from .engine import native
from .errors import CLOSING, QueryFailed, QueryTimeout, QueryTooLarge, StorageError
from .memory import growth_limited, resident_bytes
from .sandbox import Sandbox, without_end

Parameters = Sequence[Any] | Mapping[str, Any]
Written = Callable[[Any], str]

GROWTH_WATCHED_BYTES = 1_250_000_000
GROWTH_BYTES_MAX = 3_000_000_000
_WATCHED_EVERY_S = 0.02
_BATCH_ROWS = 1_024
_FOR_DEVELOPERS = "\n\nStack Trace:"
# What the text of the engine's error begins with where it matters what kind it is.
_KINDS: Mapping[str, type[duckdb.Error]] = {
    "INTERRUPT Error": duckdb.InterruptException,
    "Out of Memory Error": duckdb.OutOfMemoryException,
    "FATAL Error": duckdb.FatalException,
}
_QUOTED_LINE = re.compile(r"^LINE (\d+): (.*)\n(.*)", re.MULTILINE)


@dataclass(frozen=True)
class SqlLimits:
    """How long a query may take, how many rows and bytes its answer may have."""

    seconds_max: float = 30.0
    rows_max: int = 10_000
    bytes_max: int = 64 * 1024 * 1024


class SqlColumn(NamedTuple):
    """A column of an answer; `type` in the engine's words."""

    name: str
    type: str


class SqlAnswer(NamedTuple):
    """What a query answers. `rows` has a column for each of `columns`, named by position; `truncated` where there were
    more rows than may be."""

    columns: list[SqlColumn]
    rows: pa.Table
    truncated: bool


class Selecting:
    """Answers SELECTs over an open database; tells `damage` where one was the end of the engine."""

    def __init__(self, engine: Engine, damage: Damage) -> None:
        self._engine = engine
        self._damage = damage
        self._over = threading.Event()
        self._under_way = 0
        self._changed = threading.Condition()

    def select(
        self, query: str, parameters: Parameters, limits: SqlLimits, written: Written, abandoned: threading.Event
    ) -> SqlAnswer:
        """The rows of `query`, cut at the limits. `written` gives for a column's type the SQL that writes its value
        (`{}`) in the wanted form; `abandoned` is set where nobody waits any more. Raises QueryRefused, QueryFailed,
        QueryTimeout and QueryTooLarge."""
        ends = {self._over: CLOSING, abandoned: "stopped: nobody waits for the answer"}
        watched = partial(_watched, query=query, limits=limits, ends=ends, damage=self._damage)
        with self._counted(), self._connection() as connection, watched(connection):
            self._sandbox.check(connection, query)
            connection.execute("BEGIN TRANSACTION READ ONLY")
            found = connection.sql(without_end(query), params=parameters or None)
            columns = [SqlColumn(name, str(kind)) for name, kind in zip(found.columns, found.types, strict=True)]
            forms = [written(kind).format(f"#{place}") for place, kind in enumerate(found.types, 1)]
            wanted = ", ".join(f"{form} AS c{place}" for place, form in enumerate(forms))
            reader = found.limit(limits.rows_max + 1).project(wanted).to_arrow_reader(_BATCH_ROWS)
            return SqlAnswer(columns, *_cut(reader, limits))

    @property
    def is_answering(self) -> bool:
        """Whether a query is under way."""
        return self._under_way > 0

    def end(self, seconds_max: float) -> None:
        """Stops the queries under way and those to come, which raise QueryTimeout; returns when none is left, or the
        time is over."""
        self._over.set()
        with self._changed:
            self._changed.wait_for(lambda: not self._under_way, seconds_max)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        with self._changed:
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    @cached_property
    def _sandbox(self) -> Sandbox:
        with self._connection() as connection:
            return Sandbox(connection)

    @contextmanager
    def _connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """One of its own, which is not used again: it does not find Python's variables by the names of tables."""
        pooled = self._engine.raw_connection()
        pooled.detach()
        try:
            connection = native(pooled)
            connection.execute("SET SESSION python_enable_replacements = false")
            # As all times of the views, wherever the server stands.
            connection.execute("SET SESSION TimeZone = 'UTC'")
            yield connection
        finally:
            pooled.close()


def _cut(reader: pa.RecordBatchReader, limits: SqlLimits) -> tuple[pa.Table, bool]:
    kept: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in _batches(reader):
        kept.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if size > limits.bytes_max:
            kept.pop()
            rows -= batch.num_rows
            fitting = _fitting(batch, limits.bytes_max - size + batch.nbytes)
            return pa.Table.from_batches([*kept, fitting], reader.schema)[: limits.rows_max], True
    return pa.Table.from_batches(kept, reader.schema)[: limits.rows_max], rows > limits.rows_max


def _batches(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    """Raises the engine's errors as the engine does: Arrow says those that come after the first rows in its own way."""
    try:
        yield from reader
    except OSError as error:
        kinds = (kind for begins, kind in _KINDS.items() if str(error).startswith(begins))
        raise next(kinds, duckdb.Error)(str(error)) from error


def _fitting(batch: pa.RecordBatch, bytes_max: int) -> pa.RecordBatch:
    """As many of the first rows as have so many bytes."""
    rows = batch.num_rows
    while rows and batch[:rows].nbytes > bytes_max:
        rows //= 2
    return batch[:rows]


@contextmanager
def _watched(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    limits: SqlLimits,
    ends: Mapping[threading.Event, str],
    damage: Damage,
) -> Iterator[None]:
    """Stops what runs on `connection` when its time is over, one of `ends` is set (what is said then) or the process
    grows too much, and says in our words what went wrong."""
    stopped: list[StorageError] = []
    ended = threading.Event()
    watched = (connection, limits.seconds_max, ends, stopped, ended)
    watching = threading.Thread(target=_watch, args=watched, name="clew-sql-limits")
    try:
        watching.start()
    except RuntimeError as error:  # No thread can be started: another query has taken all the memory there may be.
        raise _too_large() from error
    try:
        with growth_limited(GROWTH_BYTES_MAX):
            yield
    except duckdb.InterruptException as error:
        raise (stopped or [QueryFailed("stopped")])[0] from error
    except (duckdb.OutOfMemoryException, MemoryError) as error:
        raise _too_large() from error
    except (duckdb.Error, UnicodeError, OverflowError) as error:
        damage.look_at(error)
        raise QueryFailed(_in_lines_of(query, str(error).partition(_FOR_DEVELOPERS)[0]) + _hint(str(error))) from error
    finally:
        ended.set()
        watching.join()


def _watch(
    connection: duckdb.DuckDBPyConnection,
    seconds_max: float,
    ends: Mapping[threading.Event, str],
    stopped: list[StorageError],
    ended: threading.Event,
) -> None:
    until, bytes_before = time.monotonic() + seconds_max, resident_bytes()
    while not ended.wait(_WATCHED_EVERY_S):
        if not stopped and (reason := _reason_to_stop(until, seconds_max, ends, bytes_before)):
            stopped.append(reason)
        if stopped:
            # Again and again: an interrupt reaches only the statement that runs.
            connection.interrupt()


def _reason_to_stop(
    until: float, seconds_max: float, ends: Mapping[threading.Event, str], bytes_before: int
) -> StorageError | None:
    if time.monotonic() >= until:
        return QueryTimeout(f"stopped after {seconds_max:g} s; narrow the query or its time range")
    if told := next((told for end, told in ends.items() if end.is_set()), ""):
        return QueryTimeout(told)
    return _too_large() if resident_bytes() - bytes_before > GROWTH_WATCHED_BYTES else None


def _in_lines_of(query: str, message: str) -> str:
    """The message with the number that the line it quotes has in the query: what fails late is part of a longer one."""
    quoted = _QUOTED_LINE.search(message)
    if quoted is None:
        return message
    said, text, marked = quoted.groups()
    numbers = [number for number, line in enumerate(query.splitlines(), 1) if text.strip(".") in line]
    number = said if not numbers or int(said) in numbers else str(numbers[0])
    moved = len(number) - len(said)
    marked = " " * moved + marked[max(0, -moved) :]
    return f"{message[: quoted.start()]}LINE {number}: {text}\n{marked}{message[quoted.end() :]}"


def _hint(message: str) -> str:
    between_times = "TIMESTAMP_NS" in message and "TIMESTAMP WITH TIME ZONE" in message
    return "\nTimes have no zone here: write now()::TIMESTAMP for now, in UTC" if between_times else ""


def _too_large() -> StorageError:
    return QueryTooLarge("stopped for want of memory; select fewer columns or rows, or sum up by less")
