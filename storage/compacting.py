"""Making attributes quick to search, after they have arrived.

Attributes are quick to search where row groups hold each as a typed column: a search reads the column that it asks for
and nothing else, ten to twenty times faster. Taking them apart costs a third of what storing an event does, so it is
not done on arrival. Compacting rewrites events, oldest first, into row groups of such columns. Nothing of an event
changes but `compacted_at_unix_nano`. The keys of a portion are noted: `attribute_keys` tells where to look for one.

A portion is a transaction, small enough that a write waits for it no longer than for another write: readers see the
events at their old place or at the new one, and a process killed meanwhile has moved the portion or has not. The old
places are free once a checkpoint finds no reader that may still look at them, hence one now and then.

The engine makes a column of every key, however many there are, and runs out of memory over tens of thousands: so
portions of too many keys are left as they are, and only the portion's own rows are ever taken apart, no others that a
checkpoint happens to write.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import duckdb
from sqlalchemy import func, select

from .engine import ROW_GROUP_ROWS, SETTINGS
from .schema import ExecutionEvent

UNCOMPACTED = select(func.count()).where(ExecutionEvent.compacted_at_unix_nano.is_(None))

# Whole row groups: only such are taken apart.
PORTION_ROWS = 2 * ROW_GROUP_ROWS
CHECKPOINT_PORTIONS = 16
KEYS_MAX = 1_000


class Compaction:
    """Compacts events portion by portion, on a connection that nobody else uses meanwhile."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._portions_since_checkpoint = 0

    def portion(self) -> int:
        """Compacts the oldest PORTION_ROWS events that are not; returns how many, 0 where there are fewer."""
        with self._shredding(), _transaction(self._connection):
            rows = self._rewritten()
        self._portions_since_checkpoint += bool(rows)
        if self._portions_since_checkpoint >= (CHECKPOINT_PORTIONS if rows else 1):
            self._checkpoint()
        return rows

    def _checkpoint(self) -> None:
        # The engine refuses one beside another transaction that writes, an export cursor's say: the next will do.
        with suppress(duckdb.TransactionException):
            self._connection.execute("CHECKPOINT")
            self._portions_since_checkpoint = 0

    def _rewritten(self) -> int:
        bounds = self._connection.execute(_OLDEST).fetchone()
        if bounds is None:
            return 0
        [[keys, count]] = self._connection.execute(_KEYS, bounds).fetchall()
        rewrite = _REWRITE if count <= KEYS_MAX else _LEAVE
        now = time.time_ns()
        self._connection.execute(_NOTE, [now, keys if count <= KEYS_MAX else None])
        [[rows]] = self._connection.execute(rewrite, [now, *bounds]).fetchall()
        return int(rows)

    @contextmanager
    def _shredding(self) -> Iterator[None]:
        """Whole row groups that are written within hold attributes as typed columns; no checkpoint comes within."""
        self._set(variant_minimum_shredding_size=ROW_GROUP_ROWS, checkpoint_threshold="1TB")
        try:
            yield
        finally:
            self._set(**{name: SETTINGS[name] for name in ("variant_minimum_shredding_size", "checkpoint_threshold")})

    def _set(self, **settings: int | str) -> None:
        for name, value in settings.items():
            self._connection.execute(f"SET GLOBAL {name} = '{value}'")


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
_LEAVE = _REWRITE.replace(", attributes = attributes", "")

_NOTE = "INSERT INTO compacted_portions VALUES (?, ?)"

# The keys of attributes, and how many keys there are in all. Those of nested values are told apart by where they are,
# but not by their place in a list.
_KEYS = r"""
    WITH portion AS MATERIALIZED (
        SELECT attributes::JSON AS attributes FROM execution_events
        WHERE rowid BETWEEN ? AND ? AND compacted_at_unix_nano IS NULL
    ), keys AS MATERIALIZED (SELECT DISTINCT unnest(json_keys(attributes)) AS key FROM portion)
    SELECT (SELECT coalesce(list(key), []) FROM keys), count(DISTINCT key) FROM (
        SELECT key FROM keys
        UNION ALL
        SELECT regexp_replace(fullkey, '\[\d+\]', '[]', 'g') FROM portion, json_tree(attributes)
        WHERE attributes::VARCHAR LIKE '%:{%' OR attributes::VARCHAR LIKE '%[{%' OR attributes::VARCHAR LIKE '%[[%'
    )
"""
