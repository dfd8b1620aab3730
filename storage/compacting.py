"""Making attributes quick to search, after they have arrived.

Attributes are quick to search where row groups hold each frequent one as a typed column: a search reads the column that
it asks for and nothing else, ten to twenty times faster. Taking them apart costs a third of what storing an event does,
so on arrival it is done only for what comes little by little (`Shredding`). Compacting does it for what came in floods:
it rewrites events, oldest first, into row groups of such columns. Nothing of an event changes but
`compacted_at_unix_nano`.

A portion is a transaction, small enough that a write waits for it no longer than for another write: readers see the
events at their old place or at the new one, and a process killed meanwhile has moved the portion or has not. The old
places are free once a checkpoint finds no reader that may still look at them, hence one now and then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
from sqlalchemy import func, select

from .engine import ROW_GROUP_ROWS, SETTINGS
from .schema import ExecutionEvent

UNCOMPACTED = select(func.count()).where(ExecutionEvent.compacted_at_unix_nano.is_(None))

# Whole row groups: only such are taken apart.
PORTION_ROWS = 2 * ROW_GROUP_ROWS
CHECKPOINT_PORTIONS = 16


class Shredding:
    """Whether row groups written from now on hold attributes as typed columns."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._wanted = False

    def for_write_of(self, rows: int) -> None:
        """To be said before a write of so many rows, for all of its transaction. Rows that come in less than a row
        group become one at a checkpoint, which then takes them apart: floods come in more."""
        self.set(wanted=rows < ROW_GROUP_ROWS)

    def set(self, *, wanted: bool) -> None:
        """Sets it, for all connections."""
        if wanted != self._wanted:
            rows_min = ROW_GROUP_ROWS if wanted else SETTINGS["variant_minimum_shredding_size"]
            self._connection.execute(f"SET GLOBAL variant_minimum_shredding_size = {rows_min}")
            self._wanted = wanted


class Compaction:
    """Compacts events portion by portion, on a connection that nobody else uses meanwhile."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, shredding: Shredding) -> None:
        self._connection = connection
        self._shredding = shredding
        self._portions_since_checkpoint = 0

    def portion(self) -> int:
        """Compacts the oldest PORTION_ROWS events that are not; returns how many, 0 where there are fewer."""
        self._shredding.set(wanted=True)
        with _transaction(self._connection):
            rows = self._rewritten()
        self._portions_since_checkpoint += bool(rows)
        if self._portions_since_checkpoint >= (CHECKPOINT_PORTIONS if rows else 1):
            self._connection.execute("CHECKPOINT")
            self._portions_since_checkpoint = 0
        return rows

    def _rewritten(self) -> int:
        bounds = self._connection.execute(_OLDEST).fetchone()
        if bounds is None:
            return 0
        [[rows]] = self._connection.execute(_REWRITE, [time.time_ns(), *bounds]).fetchall()
        return int(rows)


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    connection.begin()
    try:
        yield
    except BaseException:
        connection.rollback()
        raise
    connection.commit()


_OLDEST = f"""
    SELECT min(rowid), max(rowid) FROM (
        SELECT rowid FROM execution_events WHERE compacted_at_unix_nano IS NULL LIMIT {PORTION_ROWS}
    ) HAVING count(*) = {PORTION_ROWS}
"""  # noqa: S608

# A VARIANT is not updated in place: the engine deletes the rows and appends them anew, which is what is wanted.
_REWRITE = """
    UPDATE execution_events SET compacted_at_unix_nano = ?, attributes = attributes
    WHERE rowid BETWEEN ? AND ? AND compacted_at_unix_nano IS NULL
"""
