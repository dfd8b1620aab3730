"""Making attributes quick to search, after they have arrived.

Attributes are quick to search where row groups hold each as a typed column: a search reads the column that it asks for
and nothing else, ten to twenty times faster. Taking them apart costs a third of what storing an event does, so it is
done on arrival only where `upkeep` finds that somebody reads, or time, and for as many events at once as make row
groups. Otherwise compacting rewrites events later, oldest first, into row groups of such columns, which costs five
times as much, but nothing while events arrive. Nothing of an event changes but `compacted_at_unix_nano`. The keys of a
portion are noted: `attribute_places` tells where to look for one.

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
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
from sqlalchemy import func, select

from .damage import Damage
from .engine import ROW_GROUP_ROWS, SETTINGS
from .preparing import PreparedBatch
from .schema import ExecutionEvent
from .variant import RowsWithAttributes

UNCOMPACTED = select(func.count()).where(ExecutionEvent.compacted_at_unix_nano.is_(None))

# A whole row group: only such are taken apart.
PORTION_ROWS = ROW_GROUP_ROWS
CHECKPOINT_PORTIONS = 16
# As many as a row group has in a file of the smaller ones.
TYPED_ROWS_MIN = ROW_GROUP_ROWS // 2
CHECKPOINT_ARRIVED_ROWS = 500_000
KEYS_MAX = 1_000


def can_arrive_compacted(batch: PreparedBatch) -> bool:
    """Do the events fill a row group, which the engine writes at once, and would nothing that is stored with them
    become too many columns?"""
    parts = (batch.events, batch.logs, batch.links, batch.resources, batch.scopes)
    much = [part.keys for part in parts if part is not None and part.rows.num_rows >= TYPED_ROWS_MIN]
    return batch.events.rows.num_rows >= ROW_GROUP_ROWS and all(keys and len(keys) <= KEYS_MAX for keys in much)


class Compaction:
    """Compacts events portion by portion, on a connection that nobody else uses meanwhile."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, damage: Damage) -> None:
        self._connection = connection
        self._damage = damage
        self._portions_since_checkpoint = 0
        self._arrived_since_checkpoint = 0
        self._is_on_arrival = False

    @contextmanager
    def on_arrival(self) -> Iterator[None]:
        """For a transaction that compacts the events that it stores, as far as `arrived` says."""
        with self._shredding():
            self._is_on_arrival = True
            try:
                yield
            finally:
                self._is_on_arrival = False

    def fold_arrivals(self) -> None:
        """A checkpoint, if much has arrived since the last: transactions of `on_arrival` make none."""
        if self._arrived_since_checkpoint >= CHECKPOINT_ARRIVED_ROWS:
            self._checkpoint()

    def arrived(self, events: RowsWithAttributes) -> RowsWithAttributes:
        """The events, about to be stored, and those marked that are compacted then: on arrival, all that fill row
        groups, and the rest if it is half of one or more."""
        rows = events.rows.num_rows
        if not self._is_on_arrival or rows < ROW_GROUP_ROWS:
            return events
        rest = rows % ROW_GROUP_ROWS
        whole = rows - (rest if rest < TYPED_ROWS_MIN else 0)
        now = time.time_ns()
        self._connection.execute(_NOTE, [now, events.keys])
        self._arrived_since_checkpoint += whole
        stamps = pa.array(np.full(rows, now), mask=np.arange(rows) >= whole)
        stamped = events.rows.append_column("compacted_at_unix_nano", stamps)
        return replace(events, rows=stamped, names=[*events.names, "compacted_at_unix_nano"])

    def portion(self) -> int:
        """Compacts the oldest PORTION_ROWS events that are not; returns how many, 0 where there are fewer."""
        with self._shredding(), self._damage.transaction(self._connection):
            rows = self._rewritten()
        self._portions_since_checkpoint += bool(rows)
        if self._portions_since_checkpoint >= (CHECKPOINT_PORTIONS if rows else 1):
            self._checkpoint()
        return rows

    def _checkpoint(self) -> None:
        # The engine refuses one beside another transaction that writes, an export cursor's say: the next will do.
        with suppress(duckdb.TransactionException):
            self._connection.execute("CHECKPOINT")
            self._portions_since_checkpoint = self._arrived_since_checkpoint = 0

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
        """Row groups of TYPED_ROWS_MIN rows that are written within hold attributes as typed columns; no checkpoint
        comes within."""
        try:
            self._set(variant_minimum_shredding_size=TYPED_ROWS_MIN, checkpoint_threshold="1TB")
            yield
        finally:
            self._set(**{name: SETTINGS[name] for name in ("variant_minimum_shredding_size", "checkpoint_threshold")})

    def _set(self, **settings: int | str) -> None:
        for name, value in settings.items():
            self._connection.execute(f"SET GLOBAL {name} = '{value}'")


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
