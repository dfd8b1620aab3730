"""Statements over Arrow tables, planned once for all tables of the same columns.

Planning a statement takes the engine longer than storing a small group by it, and what is stored has the same columns
for hours. So a statement that came twice with the same columns is kept as a prepared one, over a source that hands out
whatever table it is executed with. Not so statements that join what is stored: their plans hold for as much as there
was when they were made.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count

import duckdb
import pyarrow as pa

MET_MAX = 128

# Behind a table whose rows are inserted as they come: tables that stand side by side are read by one thread.
SIDE_BY_SIDE = "POSITIONAL JOIN (SELECT NULL AS side_by_side)"


def by_one_thread(insert: str) -> str:
    """The INSERT, carried out by one thread: row groups that several fill are in sight of others some milliseconds
    before the commit. One that reads SIDE_BY_SIDE is as it is; another returns something, to nobody, for which the
    engine copies every row."""
    return insert if SIDE_BY_SIDE in insert else f"{insert} RETURNING 1"


class _Source:
    """An Arrow stream that the engine asks for anew at each execution. Between them it holds nothing."""

    def __init__(self, empty: pa.Table) -> None:
        self._empty = empty
        self.table = empty

    def let_go(self) -> None:
        self.table = self._empty

    def __arrow_c_schema__(self) -> object:
        return self.table.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.table.__arrow_c_stream__(requested_schema)


_Key = tuple[str | bytes, ...]
_Tables = dict[str, pa.Table]


class _Kept:
    """A prepared statement and its sources, by the names that it knows them by; made with empty tables."""

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
                source.let_go()

    def drop(self) -> None:
        self._connection.execute(f"DEALLOCATE {self._name}")
        for name in self._sources:
            self._connection.unregister(self._registered(name))

    def _registered(self, name: str) -> str:
        return f"{self._name}_{name}"


class Statements:
    """What a connection executes over the tables `incoming`, `pairs` and `runs`. For one thread at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._numbers = count()
        # None for what was met once: much comes never again.
        self._met: OrderedDict[_Key, _Kept | None] = OrderedDict()
        self._wanted: dict[_Key, tuple[str, _Tables]] = {}

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
        """Executes a statement that reads nothing but the tables, as a kept one where it is."""
        given = {name: table for name, table in tables.items() if table is not None}
        key: _Key = (statement, *(part for name, table in given.items() for part in (name, _columns(table))))
        kept = self._met.get(key)
        if kept:
            self._met.move_to_end(key)
            return kept.execute(given)
        if key in self._met:
            self._wanted[key] = statement, {name: table.schema.empty_table() for name, table in given.items()}
        self._met[key] = None
        return self.execute(statement, **tables)

    def keep(self) -> None:
        """Keeps what has come twice. Between transactions: what is registered within one may go with it."""
        wanted, self._wanted = self._wanted, {}
        for key, (statement, tables) in wanted.items():
            self._met[key] = _Kept(self._connection, next(self._numbers), statement, tables)
        while len(self._met) > MET_MAX:
            _, oldest = self._met.popitem(last=False)
            if oldest:
                oldest.drop()


def _columns(table: pa.Table) -> bytes:
    columns: bytes = table.schema.serialize().to_pybytes()
    return columns
