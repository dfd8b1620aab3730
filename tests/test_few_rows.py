"""Results of few rows become the same Arrow tables as the engine's own."""

from __future__ import annotations

from collections.abc import Iterator

import duckdb
import pytest

from clew.storage.few_rows import FEW, table_of

EVERY_TYPE = """
    SELECT i::BIGINT AS a, i::INTEGER AS b, i::UBIGINT AS c, i::UINTEGER AS d, i / 3 AS e, i % 2 = 0 AS f,
           'ö' || i AS g, ('x' || i)::BLOB AS h, md5_number(i::VARCHAR)::UUID AS j,
           CASE WHEN i % 3 = 0 THEN i END AS k, NULL::UUID AS l, 'inf'::DOUBLE AS m
    FROM range(?) numbers(i)
"""


@pytest.fixture
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("count", [0, 1, FEW - 1, FEW, FEW + 1, 3 * FEW])
def test_tables_are_as_the_engine_makes_them(connection: duckdb.DuckDBPyConnection, count: int) -> None:
    """However many rows there are, of every type that is turned here."""
    ours = table_of(connection.execute(EVERY_TYPE, [count]))
    engines = connection.sql(EVERY_TYPE, params=[count]).to_arrow_table()
    assert ours.schema == engines.schema
    assert ours.equals(engines)


@pytest.mark.parametrize("value", ["sum(i)", "[i]", "{'i': i}", "DATE '2026-01-01'", "i::VARIANT", "i::DECIMAL(9, 2)"])
def test_other_types_are_left_to_the_engine(connection: duckdb.DuckDBPyConnection, value: str) -> None:
    """A type that is not turned here comes in the engine's own way, with all columns beside it."""
    statement = f"SELECT {value} AS other, 'beside' AS text FROM range(1) numbers(i)"
    ours = table_of(connection.execute(statement))
    engines = connection.sql(statement).to_arrow_table()
    assert ours.schema == engines.schema
    assert ours.to_pylist() == engines.to_pylist()
