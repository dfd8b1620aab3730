"""Statements over Arrow tables, planned once for all tables of the same columns.

Planning a statement takes the engine longer than storing a small group by it, and what is stored has the same columns
for hours. So a statement that comes again with the same columns is kept as a prepared one, over a source that hands out
whatever table it is executed with. Not so statements that join what is stored: their plans hold for as much as there
was when they were made.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

import duckdb
import pyarrow as pa

KEPT_MAX = 128

_Key = tuple[str | bytes, ...]


class _Source:
    """An Arrow stream that the engine asks for anew at each execution."""

    def __init__(self, table: pa.Table) -> None:
        self.table: pa.Table | None = table

    def __arrow_c_schema__(self) -> object:
        return self._there().schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self._there().__arrow_c_stream__(requested_schema)

    def _there(self) -> pa.Table:
        assert self.table is not None  # noqa: S101 it is, while the statement is planned or executed
        return self.table


class _Kept:
    """A prepared statement and its sources, by the names that it knows them by."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, number: int, statement: str, tables: _Tables) -> None:
        self._connection = connection
        self._name = f"kept_{number}"
        self._sources = {name: _Source(table) for name, table in tables.items()}
        for name, source in self._sources.items():
            connection.register(self._registered(name), source)
        named = ", ".join(f"{name} AS (FROM {self._registered(name)})" for name in tables)
        connection.execute(f"PREPARE {self._name} AS WITH {named} {statement}")

    def execute(self, tables: _Tables) -> duckdb.DuckDBPyConnection:
        for name, source in self._sources.items():
            source.table = tables[name]
        try:
            return self._connection.execute(f"EXECUTE {self._name}")
        finally:
            for source in self._sources.values():
                source.table = None

    def drop(self) -> None:
        self._connection.execute(f"DEALLOCATE {self._name}")
        for name in self._sources:
            self._connection.unregister(self._registered(name))

    def _registered(self, name: str) -> str:
        return f"{self._name}_{name}"


_Tables = dict[str, pa.Table]


class Statements:
    """What a connection executes over the tables `incoming`, `pairs` and `runs`. For one thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._numbers = count()
        # None for what was met once: much comes never again.
        self._kept: OrderedDict[_Key, _Kept | None] = OrderedDict()

    def execute(
        self,
        statement: str,
        parameters: object = None,
        *,
        incoming: pa.Table | None = None,  # noqa: ARG002 the engine finds it by its name
        pairs: pa.Table | None = None,  # noqa: ARG002
        runs: pa.Table | None = None,  # noqa: ARG002
    ) -> duckdb.DuckDBPyConnection:
        """Plans and executes. The engine looks names that it does not know up among our variables, which takes a
        millisecond less than a view for each."""
        return self._connection.execute(statement, parameters)

    def execute_kept(self, statement: str, **tables: pa.Table | None) -> duckdb.DuckDBPyConnection:
        """Executes a statement that reads nothing but the tables, and keeps it from the second time on."""
        given = {name: table for name, table in tables.items() if table is not None}
        key: _Key = (statement, *(part for name, table in given.items() for part in (name, _columns(table))))
        if key not in self._kept:
            self._meet(key)
            return self.execute(statement, **tables)
        self._kept.move_to_end(key)
        kept = self._kept[key]
        if kept is None:
            kept = self._kept[key] = _Kept(self._connection, next(self._numbers), statement, given)
        return kept.execute(given)

    def _meet(self, key: _Key) -> None:
        self._kept[key] = None
        if len(self._kept) > KEPT_MAX:
            _, oldest = self._kept.popitem(last=False)
            if oldest:
                oldest.drop()


def _columns(table: pa.Table) -> bytes:
    columns: bytes = table.schema.serialize().to_pybytes()
    return columns
