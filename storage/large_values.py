"""Memory for rows with large values.

Whenever it folds its log into the file, the engine holds all values of an unfinished row group at once, whatever their
size, and gives itself up where they are more than its memory: some hundred spans of 10 MB in a row were the end of a
file. So it may have as much more as the newest rows are large, up to half of what the machine has.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque

import duckdb
import pyarrow as pa

from .engine import ROW_GROUP_ROWS, EngineMemory
from .schema import Base

# Of fewer bytes the engine's usual memory has room.
LARGE_BYTES_MIN = 384 << 20
STEP_BYTES = 256 << 20
# The unfinished row group, and another that is merged with it.
_NEWEST_ROWS = 2 * ROW_GROUP_ROWS

Tables = list[tuple[str, list[pa.Table]]]

_ON_TOP_MAX = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


class LargeValues:
    """How large the newest rows of each table are, and the engine's memory with them. For the one who writes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: EngineMemory) -> None:
        """Looks at what is stored."""
        self._memory = memory
        self._newest: defaultdict[str, _Newest] = defaultdict(_Newest)
        memory.allow_on_top(_ON_TOP_MAX)
        for table in Base.metadata.tables:
            self._newest[table].come(ROW_GROUP_ROWS, _stored_bytes(connection, table))
        self._allow()

    def make_room(self, tables: Tables) -> None:
        """These are about to be stored, by the name of their table: rows, and what they are made of besides."""
        self._allow(sum(_size(parts) for _, parts in tables))

    def stored(self, tables: Tables, share: float) -> None:
        """So many of their rows were; of the others, the repeated ones, nothing is kept."""
        for name, parts in tables if share else ():
            self._newest[name].come(round(share * parts[0].num_rows), _size(parts))
        self._allow()

    def _allow(self, coming_bytes: int = 0) -> None:
        size = coming_bytes + sum(newest.bytes for newest in self._newest.values())
        steps = -(-size // STEP_BYTES) if size >= LARGE_BYTES_MIN else 0
        self._memory.allow_on_top(min(steps * STEP_BYTES, _ON_TOP_MAX))


def _size(parts: list[pa.Table]) -> int:
    return sum(part.get_total_buffer_size() for part in parts)


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


def _stored_bytes(connection: duckdb.DuckDBPyConnection, table: str) -> int:
    """How large the newest rows of the table are as text, as many as a row group has."""
    [[last]] = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchall()  # noqa: S608
    # A number that is known beforehand: only so are other row groups left out.
    newest = f"SELECT coalesce(sum(strlen(t::VARCHAR)), 0) FROM {table} AS t WHERE rowid > ?"  # noqa: S608
    [[size]] = connection.execute(newest, [last - ROW_GROUP_ROWS]).fetchall()
    return int(size)
