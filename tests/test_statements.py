"""Statements over Arrow tables: kept from the third time on, and as good as new ones."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.storage.statements import MET_MAX, Statements

INSERT = "INSERT INTO kept BY NAME SELECT number, text FROM incoming RETURNING 1"
PAIRED = (
    "INSERT INTO kept BY NAME SELECT number, other AS text FROM incoming LEFT JOIN pairs USING (number) RETURNING 1"
)


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(":memory:") as connection:
        connection.execute("CREATE TABLE kept (number BIGINT PRIMARY KEY, text VARCHAR NOT NULL DEFAULT '')")
        yield connection


@pytest.fixture
def statements(connection: duckdb.DuckDBPyConnection) -> Statements:
    return Statements(connection)


def rows(*numbers: int, text: str = "text") -> pa.Table:
    return pa.table({"number": pa.array(numbers, pa.int64()), "text": [text] * len(numbers)})


def written(connection: duckdb.DuckDBPyConnection, statements: Statements, statement: str, **tables: pa.Table) -> None:
    """Executes it as a writer does, in a transaction."""
    statements.keep()
    connection.begin()
    statements.execute_kept(statement, **tables)
    connection.commit()


def kept(connection: duckdb.DuckDBPyConnection) -> int:
    """How many statements the engine holds prepared."""
    [[count]] = connection.execute("SELECT count(*) FROM duckdb_prepared_statements()").fetchall()
    return int(count)


def stored(connection: duckdb.DuckDBPyConnection) -> list[int]:
    return [number for (number,) in connection.execute("SELECT number FROM kept ORDER BY number").fetchall()]


def test_a_statement_that_came_twice_is_kept(connection: duckdb.DuckDBPyConnection, statements: Statements) -> None:
    """It is executed with the tables of each time, and holds none of them."""
    for number in range(5):
        table = rows(number)
        held = weakref.ref(table)
        written(connection, statements, INSERT, incoming=table)
        del table
        assert held() is None
        assert kept(connection) == (number > 1)
    assert stored(connection) == [0, 1, 2, 3, 4]


def test_other_columns_are_another_statement(connection: duckdb.DuckDBPyConnection, statements: Statements) -> None:
    """Of other types, or in another order."""
    narrow = pa.table({"number": pa.array([7], pa.int8()), "text": ["narrow"]})
    turned = pa.table({"text": ["turned"], "number": pa.array([8])})
    for _ in range(3):
        connection.execute("DELETE FROM kept")
        for table in (rows(1), narrow, turned):
            written(connection, statements, INSERT, incoming=table)
    assert stored(connection) == [1, 7, 8]
    assert kept(connection) == 3


def test_a_transaction_that_is_taken_back_takes_none_along(
    connection: duckdb.DuckDBPyConnection, statements: Statements
) -> None:
    """Whichever time it was when the transaction failed, the next one works."""
    for failing in range(5):
        statements.keep()
        connection.begin()
        statements.execute_kept(INSERT, incoming=rows(2 * failing))
        with pytest.raises(duckdb.ConstraintException):
            statements.execute_kept(INSERT, incoming=rows(2 * failing))
        connection.rollback()
        statements.keep()
        connection.begin()
        statements.execute_kept(INSERT, incoming=rows(2 * failing + 1))
        connection.commit()
    assert stored(connection) == [1, 3, 5, 7, 9]


def test_only_so_many_are_kept(connection: duckdb.DuckDBPyConnection, statements: Statements) -> None:
    """The one that was not asked for the longest makes room; it is planned again when it comes."""
    for _ in range(3):
        for number in range(MET_MAX + 5):
            written(connection, statements, f"{INSERT} + {number}", incoming=rows())
    assert kept(connection) <= MET_MAX
    recent = [f"{INSERT} + {number}" for number in range(5)]
    for _ in range(3):
        for statement in recent:
            written(connection, statements, statement, incoming=rows())
    assert 5 <= kept(connection) <= MET_MAX


@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=3)), max_size=4), max_size=8))
def test_kept_ones_store_what_new_ones_do(batches: list[list[tuple[int, str]]]) -> None:
    """Over several tables, empty ones too."""
    with duckdb.connect(":memory:") as plain, duckdb.connect(":memory:") as keeping:
        for connection in (plain, keeping):
            connection.execute("CREATE TABLE kept (number BIGINT, text VARCHAR)")
        new, old = Statements(plain), Statements(keeping)
        for batch in batches:
            incoming = rows(*(number for number, _ in batch))
            numbers, texts = [number for number, _ in batch], [text for _, text in batch]
            pairs = pa.table({"number": pa.array(numbers, pa.int64()), "other": pa.array(texts, pa.string())})
            new.execute(PAIRED, incoming=incoming, pairs=pairs)
            written(keeping, old, PAIRED, incoming=incoming, pairs=pairs)
        everything = "SELECT number, text FROM kept ORDER BY ALL"
        assert keeping.execute(everything).fetchall() == plain.execute(everything).fetchall()
