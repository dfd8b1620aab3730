"""Results as Arrow tables, without a detour where they have few rows.

The engine's package makes Arrow of what was executed by another statement over its rows. That takes up to a millisecond
however few they are, and longer beside writes, since it is spread over the engine's threads.
"""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa

FEW = 256

# As the engine itself says these types in Arrow.
_ARROW_TYPES = {
    "BIGINT": pa.int64(),
    "BLOB": pa.binary(),
    "BOOLEAN": pa.bool_(),
    "DOUBLE": pa.float64(),
    "INTEGER": pa.int32(),
    "UBIGINT": pa.uint64(),
    "UINTEGER": pa.uint32(),
    "UUID": pa.string(),
    "VARCHAR": pa.string(),
}


def table_of(executed: duckdb.DuckDBPyConnection) -> pa.Table:
    """The result of what the connection executed last."""
    types = {name: str(kind) for name, kind, *_ in executed.description}
    if not _ARROW_TYPES.keys() >= set(types.values()):
        return executed.to_arrow_table()
    rows = executed.fetchmany(FEW)
    columns = zip(*rows, strict=True) if rows else [()] * len(types)
    first = pa.table({name: _column(values, types[name]) for name, values in zip(types, columns, strict=True)})
    return first if len(rows) < FEW else pa.concat_tables([first, executed.to_arrow_table()])


def _column(values: tuple[Any, ...], kind: str) -> pa.Array:
    if kind == "UUID":
        values = tuple(None if value is None else str(value) for value in values)
    return pa.array(values, _ARROW_TYPES[kind])
