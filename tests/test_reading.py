"""What a read sees and may do, and how it is ended: by the store that is closed or by its limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import duckdb
import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import DBAPIError

from clew.storage import QueryFailed, QueryTimeout, QueryTooLarge, Selecting, Session, SqlLimits, Store, reading
from clew.storage.engine import native
from clew.storage.selecting import _watched

SQL_WITHOUT_END = "SELECT count(*) FROM range(1000000000000) WHERE range % 7 = 3"
WITHOUT_END = text(SQL_WITHOUT_END)


def read_without_end(store: Store, begun: threading.Event) -> None:
    with store.read() as reader:
        begun.set()
        reader.rows(WITHOUT_END)


def test_closing_ends_reads_under_way(tmp_path: Path) -> None:
    """They say why, the store closes in order, and the file can be opened again."""
    path = str(tmp_path / "clew.duckdb")
    store, begun = Store.open(path), threading.Event()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(read_without_end, store, begun)
        assert begun.wait(30)
        store.close()
        with pytest.raises(QueryTimeout, match="about to be closed"):
            asked.result()
    Store.open(path).close()


def test_sql_from_outside_is_ended_too(tmp_path: Path) -> None:
    """Whether it is under way or to come; then the store closes in order."""
    store = Store.open(str(tmp_path / "clew.duckdb"))
    selecting = Selecting(store.engine, store.damage)
    with ThreadPoolExecutor(2) as threads:
        question = (SQL_WITHOUT_END, (), SqlLimits(), lambda _: "{}", threading.Event())
        asked = [threads.submit(selecting.select, *question) for _ in range(2)]
        selecting.end(30)
        for query in asked:
            with pytest.raises(QueryTimeout, match="about to be closed"):
                query.result()
    store.close()


def test_sql_that_is_the_end_of_the_engine_is_noticed(store: Store) -> None:
    """By whoever serves, who ends then: a mistake in a query is told to its asker alone."""
    with closing(store.engine.raw_connection()) as connection:
        for error, told in ((duckdb.BinderException("no such column"), ""), (duckdb.FatalException("over"), "over")):
            watched = _watched(native(connection), "SELECT 1", SqlLimits(), {}, store.damage)
            with pytest.raises(QueryFailed), watched:
                raise error
            assert store.damage.reason == told


def test_what_is_asked_once_is_not_kept(store: Store) -> None:
    """Its values would be kept with it: the ids of all events of a large run, say."""
    with store.read() as reader:
        reader.arrow(select(Session.id), {})
        before = reading._kept_compiled.cache_info().currsize
        for number in range(3):
            reader.arrow(select(Session.id).where(Session.created_at_unix_nano == number))
        assert reading._kept_compiled.cache_info().currsize == before > 0


def test_a_read_for_which_there_is_no_memory_says_so(store: Store) -> None:
    """And what to do; the next one finds its answer."""
    with store.read() as reader:
        reader.rows(text("SELECT 1"))
    with closing(store.engine.raw_connection()) as connection:
        native(connection).execute("SET GLOBAL memory_limit = '30MB'")
    with pytest.raises(QueryTooLarge, match="smaller limit"), store.read() as reader:
        reader.rows(text("SELECT list(range) FROM range(10000000)"))
    with store.read() as reader:
        assert len(reader.rows(text("SELECT 1 AS one"))) == 1


def test_a_read_cannot_write(store: Store) -> None:
    """The engine itself refuses it, and the next read is answered."""
    with pytest.raises(DBAPIError, match="read-only"), store.read() as reader:
        reader.rows(text("INSERT INTO sessions (id) VALUES ('s') RETURNING id"))
    with store.read() as reader:
        assert len(reader.rows(text("SELECT 1 AS one"))) == 1


def test_every_statement_of_a_read_sees_the_same(store: Store) -> None:
    """What is committed in between, the next read sees."""
    sessions = select(Session.id)
    with store.read() as reader:
        before = reader.rows(sessions)
        with store.engine.begin() as connection:
            connection.execute(insert(Session).values(id="committed meanwhile"))
        assert reader.rows(sessions) == before
    with store.read() as reader:
        assert len(reader.rows(sessions)) == len(before) + 1


def test_reads_may_begin_after_others_were_ended(store: Store) -> None:
    """Only those under way are ended."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(read_without_end, store, begun)
        assert begun.wait(30)
        store.end_reads()
        with pytest.raises(QueryTimeout):
            asked.result()
    with store.read() as reader:
        assert len(reader.rows(text("SELECT 1 AS one"))) == 1


def test_a_read_that_takes_too_long_says_so(store: Store) -> None:
    """By its own limit."""
    with pytest.raises(QueryTimeout, match=r"stopped after 0\.1 s"), store.read(seconds_max=0.1) as reader:
        reader.rows(WITHOUT_END)


def test_a_short_read_is_not_kept_waiting_for_a_long_one(store: Store) -> None:
    """Each is ended by its own limit, whichever began first."""
    begun = threading.Event()
    with ThreadPoolExecutor(1) as thread:
        asked = thread.submit(read_without_end, store, begun)
        assert begun.wait(30)
        with pytest.raises(QueryTimeout, match=r"stopped after 0\.1 s"), store.read(seconds_max=0.1) as reader:
            reader.rows(WITHOUT_END)
        assert not asked.done()
        store.end_reads()
        with pytest.raises(QueryTimeout, match="about to be closed"):
            asked.result()


def test_the_last_read_leaves_no_thread_behind_when_the_store_closes(tmp_path: Path) -> None:
    """The one that watches the limits ends with the store."""
    store = Store.open(str(tmp_path / "clew.duckdb"))
    with store.read() as reader:
        reader.rows(text("SELECT 1"))
        watching = [thread for thread in threading.enumerate() if thread.name == "clew-read-limits"]
    assert watching
    store.close()
    for thread in watching:
        thread.join(30)
        assert not thread.is_alive()
