"""Memory for rows with large values.

Whenever it folds its log into the file, the engine holds all values of an unfinished row group at once, whatever their
size, and gives itself up where they are more than its memory: some hundred spans of 10 MB in a row were the end of a
file. So it may have as much more as the newest rows are large, up to half of what the machine has.
"""

from __future__ import annotations

import os
from collections import deque

import duckdb
import pyarrow as pa

from .engine import ROW_GROUP_ROWS, EngineMemory

# Of fewer bytes the engine's usual memory has room.
LARGE_BYTES_MIN = 128 << 20
STEP_BYTES = 256 << 20
# The unfinished row group, and another that is merged with it.
_NEWEST_ROWS = 2 * ROW_GROUP_ROWS
_ON_TOP_MAX = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
_TEXTS = {"execution_events": "attributes::VARCHAR", "event_logs": "attributes::VARCHAR", "history_parts": "text"}


class LargeValues:
    """How large the newest rows are, and the engine's memory with them. For the one who writes."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, memory: EngineMemory) -> None:
        """Looks at what is stored."""
        self._memory = memory
        self._newest: deque[tuple[int, int]] = deque()
        self._rows = self._bytes = 0
        memory.allow_on_top(_ON_TOP_MAX)
        self.come(ROW_GROUP_ROWS, sum(_stored_bytes(connection, *table) for table in _TEXTS.items()))

    def come(self, rows: int, size: int) -> None:
        """So many rows of so many bytes together are about to be stored."""
        self._newest.append((rows, size))
        self._rows, self._bytes = self._rows + rows, self._bytes + size
        while self._rows - self._newest[0][0] >= _NEWEST_ROWS:
            gone_rows, gone_bytes = self._newest.popleft()
            self._rows, self._bytes = self._rows - gone_rows, self._bytes - gone_bytes
        steps = -(-self._bytes // STEP_BYTES) if self._bytes >= LARGE_BYTES_MIN else 0
        self._memory.allow_on_top(min(steps * STEP_BYTES, _ON_TOP_MAX))


def bytes_of(*tables: pa.Table | None) -> int:
    """How much memory the rows take."""
    return sum(table.get_total_buffer_size() for table in tables if table is not None)


def _stored_bytes(connection: duckdb.DuckDBPyConnection, table: str, texts: str) -> int:
    """How large the texts are in the newest rows of the table, as many as a row group has."""
    [[last]] = connection.execute(f"SELECT coalesce(max(rowid), 0) FROM {table}").fetchall()  # noqa: S608
    # A number that is known beforehand: only so are other row groups left out.
    newest = f"SELECT coalesce(sum(strlen({texts})), 0) FROM {table} WHERE rowid > ?"  # noqa: S608
    [[size]] = connection.execute(newest, [last - ROW_GROUP_ROWS]).fetchall()
    return int(size)
