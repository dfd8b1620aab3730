"""Memory for rows with large values.

Whenever it folds its log into the file, the engine holds all values of an unfinished row group at once, whatever their
size, and gives itself up where they are more than its memory: some hundred spans of 10 MB in a row were the end of a
file. So it may have as much more as the newest rows are large, up to half of what the machine has.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from typing import Any

import duckdb
from sqlalchemy import Column, Table

from .engine import ROW_GROUP_ROWS, EngineMemory
from .schema import Base
from .schema.base import Variant

# Of fewer bytes the engine's usual memory has room.
LARGE_BYTES_MIN = 384 << 20
STEP_BYTES = 256 << 20
# The unfinished row group, and another that is merged with it.
_NEWEST_ROWS = 2 * ROW_GROUP_ROWS

# Of what is stored together: a table, how many rows of it, and how many bytes these and what they are made of have.
Sizes = list[tuple[str, int, int]]

_ON_TOP_MAX = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class LargeValues:
    """How large the newest rows of each table are, and the engine's memory with them. For the one who writes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: EngineMemory) -> None:
        """Looks at what is stored."""
        self._memory = memory
        self._newest: defaultdict[str, _Newest] = defaultdict(_Newest)
        memory.allow_on_top(_ON_TOP_MAX)
        for table in Base.metadata.tables.values():
            self._newest[table.name].come(ROW_GROUP_ROWS, _stored_bytes(connection, table))
        self._allow()

    def make_room(self, sizes: Sizes) -> None:
        """So much is about to be stored."""
        self._allow(sum(size for _, _, size in sizes))

    def stored(self, sizes: Sizes, share: float) -> None:
        """So many of these rows were; of the others, the repeated ones, nothing is kept."""
        for table, rows, size in sizes if share else ():
            self._newest[table].come(round(share * rows), size)
        self._allow()

    def _allow(self, coming_bytes: int = 0) -> None:
        size = coming_bytes + sum(newest.bytes for newest in self._newest.values())
        steps = -(-size // STEP_BYTES) if size >= LARGE_BYTES_MIN else 0
        self._memory.allow_on_top(min(steps * STEP_BYTES, _ON_TOP_MAX))


class _Newest:
    """The newest rows of a table, at least _NEWEST_ROWS where there are so many, by the batches that they came in."""

    def __init__(self) -> None:
        self._batches: deque[tuple[int, int]] = deque()
        self._rows = self.bytes = 0

    def come(self, rows: int, size: int) -> None:
        self._batches.append((rows, size))
        self._rows, self.bytes = self._rows + rows, self.bytes + size
        while self._rows - self._batches[0][0] >= _NEWEST_ROWS:
            gone_rows, gone_bytes = self._batches.popleft()
            self._rows, self.bytes = self._rows - gone_rows, self.bytes - gone_bytes


def _stored_bytes(connection: duckdb.DuckDBPyConnection, table: Table) -> int:
    """How large the newest rows of the table are as text, as many as a row group has."""
    [[last]] = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table.name}").fetchall()  # noqa: S608
    sizes = " + ".join(f"coalesce(strlen({_as_text(column)}), 0)" for column in table.columns)
    # A number that is known beforehand: only so are other row groups left out.
    newest = f"SELECT coalesce(sum({sizes}), 0) FROM {table.name} WHERE rowid > ?"  # noqa: S608
    [[size]] = connection.execute(newest, [last - ROW_GROUP_ROWS]).fetchall()
    return int(size)


def _as_text(column: Column[Any]) -> str:
    """By way of JSON where keys may differ in case alone, which the engine refuses to make text of otherwise."""
    return f'"{column.name}"::JSON::VARCHAR' if isinstance(column.type, Variant) else f'"{column.name}"::VARCHAR'
