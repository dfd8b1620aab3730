"""The schema's revisions: up, down and up again, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import ARRAY, JSON, Column, Engine, TypeDecorator, text, update

from clew.collector.projection import read_requests
from clew.exporter.otlp import run_as_otlp
from clew.storage import Base, HistoryPart, SchemaUnknown, StorageError, Store, migrate
from clew.storage.engine import open_engine
from clew.storage.schema import VIEWS, Variant
from clew.storage.schema.base import HexUuid, Word

NEWEST = migrate.history()[-1][0]
RUN = UUID(int=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "clew.duckdb"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    """An empty database."""
    engine = open_engine(path)
    yield engine
    engine.dispose()


@pytest.fixture
def filled(path: Path) -> Path:
    """A database of the newest revision with a run in it, closed."""
    store = Store.open(str(path))
    _write_a_span(store)
    store.close()
    return path


@pytest.fixture
def full(path: Path) -> Path:
    """A database of the newest revision with a row in every table, every column of it filled; closed."""
    engine = open_engine(path)
    migrate.upgrade(engine)
    with engine.begin() as connection:
        for table in Base.metadata.sorted_tables:
            connection.execute(table.insert().values({column: _some(column) for column in table.columns}))
        # What it stands for goes back into the attributes on the way down: nothing, as it is no more than these.
        connection.execute(update(HistoryPart).values(text="{}"))
    engine.dispose()
    return path


def _some(column: Column[Any]) -> Any:
    """A value of the column's type, the same in all columns of that type: so every foreign key finds its row."""
    if isinstance(column.type, HexUuid):
        return RUN
    if isinstance(column.type, Word):
        return next(iter(column.type.enum))
    if isinstance(column.type, JSON | Variant):
        return {"key": ["value", 1, None]}
    if isinstance(column.type, ARRAY):
        return []
    known = {bool: True, int: 7, str: "text", float: 0.5, bytes: b"bytes", Decimal: Decimal("0.25")}
    return known[_python_type(column)]


def _python_type(column: Column[Any]) -> type:
    """What the column holds beneath its decorations."""
    held = column.type.impl if isinstance(column.type, TypeDecorator) else column.type
    return held.python_type


def _contents(engine: Engine) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table of clew's."""
    with engine.connect() as connection:
        return {
            name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]
            for name in _tables(engine)
            if name in Base.metadata.tables
        }


def _write_a_span(store: Store) -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=RUN.bytes, span_id=b"12345678")
    span.attributes.add(key="key").value.string_value = "value"
    span.events.add(name="moment")
    span.links.add(trace_id=RUN.bytes)
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    store.write(batch)


def _run(path: Path, *statements: str) -> None:
    engine = open_engine(path)
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def _tables(engine: Engine) -> dict[str, dict[str, bool]]:
    """Every table's columns, and whether they may be NULL."""
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT table_name, column_name, is_nullable FROM duckdb_columns() WHERE NOT internal")
        ).all()
    tables: dict[str, dict[str, bool]] = {}
    for table, column, is_nullable in rows:
        tables.setdefault(table, {})[column] = is_nullable
    return tables


@pytest.mark.parametrize(("made_before", "block_bytes"), [(False, 64 << 10), (True, 256 << 10)])
def test_new_files_have_small_blocks_and_others_keep_theirs(path: Path, *, made_before: bool, block_bytes: int) -> None:
    """A file in the engine's own blocks, as they were before, is used like any other."""
    if made_before:
        duckdb.connect(str(path)).close()
    with closing(Store.open(str(path))) as store:
        _write_a_span(store)
        with store.read() as reader:
            [row] = reader.rows(text("SELECT block_size FROM pragma_database_size() WHERE database_name = 'clew'"))
            assert row["block_size"] == block_bytes
    with closing(Store.open(str(path))) as store:
        assert run_as_otlp(store, RUN) is not None


def test_the_migrations_make_the_schema(engine: Engine) -> None:
    """The newest revision has the tables and columns that the code works with, and no others."""
    migrate.upgrade(engine)
    made = _tables(engine)
    assert set(made) == {*Base.metadata.tables, *VIEWS, "alembic_version"}
    for name, table in Base.metadata.tables.items():
        assert made[name] == {column.name: bool(column.nullable) for column in table.columns}, name


def test_an_empty_file_is_migrated_when_opened(path: Path) -> None:
    """To the newest revision, ready to be written to."""
    store = Store.open(str(path))
    assert migrate.current(store.engine) == NEWEST
    _write_a_span(store)
    assert run_as_otlp(store, RUN)
    store.close()


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    """Quotes and braces in it mean nothing."""
    path = tmp_path / "Ariadne's {thread}.duckdb"
    for _ in range(2):
        with closing(Store.open(str(path))) as store:
            _write_a_span(store)
            assert run_as_otlp(store, RUN)
    assert path.exists()


def test_data_survives_closing(filled: Path) -> None:
    """Opening a database of the newest revision changes nothing."""
    store = Store.open(str(filled))
    assert run_as_otlp(store, RUN)
    store.close()


def test_up_down_and_up_with_data(filled: Path) -> None:
    """Every revision can be left and reached again on a database that holds data; down to the base nothing stays."""
    engine = open_engine(filled)
    for revision, before, _ in reversed(migrate.history()):
        assert migrate.current(engine) == revision
        migrate.downgrade(engine, before or "base")
    assert set(_tables(engine)) <= {"alembic_version"}
    for revision, _, _ in migrate.history():
        migrate.upgrade(engine, revision)
        assert migrate.current(engine) == revision
    engine.dispose()
    store = Store.open(str(filled))
    _write_a_span(store)
    assert run_as_otlp(store, RUN)
    store.close()


def test_nothing_is_lost_on_the_way_down_and_up(full: Path) -> None:
    """With rows in every table: those that an older revision knows survive the way to it and back, column by column."""
    engine = open_engine(full)
    before = _contents(engine)
    assert set(before) == set(Base.metadata.tables)
    assert all(before.values()), "a table has no row in this test"
    for revision, _, _ in reversed(migrate.history()[:-1]):
        migrate.downgrade(engine, revision)
        assert {name: rows for name, rows in _contents(engine).items() if not rows} == {}
        older = _tables(engine)
        migrate.upgrade(engine)
        after = _contents(engine)
        for table in set(older) & set(before):
            kept = [{name: row[name] for name in older[table]} for row in before[table]]
            assert [{name: row[name] for name in older[table]} for row in after[table]] == kept, table
    engine.dispose()


def test_down_to_the_base_with_data(full: Path) -> None:
    """Rows in every table are in nobody's way."""
    engine = open_engine(full)
    migrate.downgrade(engine, "base")
    assert set(_tables(engine)) <= {"alembic_version"}
    engine.dispose()


def test_a_database_brought_down_to_nothing_is_as_an_empty_file(filled: Path) -> None:
    """It is migrated when it is opened."""
    engine = open_engine(filled)
    migrate.downgrade(engine, "base")
    assert migrate.current(engine) is None
    engine.dispose()
    store = Store.open(str(filled))
    assert migrate.current(store.engine) == NEWEST
    assert run_as_otlp(store, RUN) is None
    store.close()


def test_a_revision_of_tomorrow_is_refused(filled: Path) -> None:
    """A file that a newer clew has written is left alone; the message says so."""
    _run(filled, "UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(SchemaUnknown, match=r"9999.*newer clew"):
        Store.open(str(filled))
    _run(filled, f"UPDATE alembic_version SET version_num = '{NEWEST}'")
    Store.open(str(filled)).close()


def test_a_foreign_file_is_refused(path: Path) -> None:
    """Somebody else's database stays as it is."""
    _run(path, "CREATE TABLE cats (name TEXT)", "INSERT INTO cats VALUES ('Ariadne')")
    with pytest.raises(SchemaUnknown, match="not clew's"):
        Store.open(str(path))
    engine = open_engine(path)
    assert set(_tables(engine)) == {"cats"}
    engine.dispose()


def test_what_is_no_database_is_refused(path: Path) -> None:
    """A file of another kind is not written over."""
    path.write_bytes(b"a letter to Ariadne\n" * 1000)
    with pytest.raises(StorageError, match="cannot be opened"):
        Store.open(str(path))
    assert path.read_bytes() == b"a letter to Ariadne\n" * 1000


@pytest.mark.parametrize("older", [revision for revision, _, _ in migrate.history()[:-1]])
def test_an_older_revision_is_refused_with_the_command_to_run(filled: Path, older: str) -> None:
    """A database that holds data is its owner's to migrate: the message is the command that does it."""
    engine = open_engine(filled)
    migrate.downgrade(engine, older)
    engine.dispose()
    with pytest.raises(SchemaUnknown, match=f"clew migrate upgrade --db {filled}"):
        Store.open(str(filled))


def test_an_unknown_revision_is_not_migrated_to(filled: Path) -> None:
    """A typing error changes nothing."""
    engine = open_engine(filled)
    for run in (migrate.upgrade, migrate.downgrade):
        with pytest.raises(StorageError, match="nowhere"):
            run(engine, "nowhere")
    assert migrate.current(engine) == NEWEST
    engine.dispose()


def test_the_history_is_one_line(engine: Engine) -> None:
    """Each revision follows the one before; the first follows none."""
    history = migrate.history()
    assert [before for _, before, _ in history] == [None, *(revision for revision, _, _ in history[:-1])]
