"""Compacting: nothing told of an event changes, whatever happens meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from sqlalchemy import text

from clew.collector.projection import read_requests
from clew.storage import (
    DatabaseSession,
    Store,
    Upkeep,
    WorkflowRun,
    WriteFailed,
    compacting,
    engine,
    migrate,
    upkeep,
    writing,
)
from clew.storage.compacting import PORTION_ROWS, TYPED_ROWS_MIN
from clew.storage.engine import ROW_GROUP_ROWS

START = 10**18
RUN_EVENTS = 64
DEADLINE_S = 60

COMPACTED = "SELECT count(*) FROM execution_events WHERE compacted_at_unix_nano IS NOT NULL"
MEMORY = "SELECT sum(memory_usage_bytes)::BIGINT FROM duckdb_memory()"
MEMORY_LIMIT = "SELECT value FROM duckdb_settings() WHERE name = 'memory_limit'"
KEPT_BYTES = 1 << 20
EVENTS = "SELECT * EXCLUDE (compacted_at_unix_nano) FROM execution_events ORDER BY run_id, id"
TYPED = """
    SELECT count(DISTINCT row_group_id) FROM pragma_storage_info('execution_events')
    WHERE column_name = 'attributes' AND segment_type = 'BIGINT'
"""


def request(events: range, *, end: int = 1) -> bytes:
    """A serialised request of these events, RUN_EVENTS of them a run; with `end=0` they are pending."""
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for number in events:
        spans.add(
            trace_id=(1 + number // RUN_EVENTS).to_bytes(16, "big"),
            span_id=(1 + number).to_bytes(8, "big"),
            name=f"event {number}",
            start_time_unix_nano=START + number,
            end_time_unix_nano=end and START + number + end,
            attributes=[
                KeyValue(key="place", value=AnyValue(int_value=number)),
                KeyValue(key="tool.name", value=AnyValue(string_value=f"tool {number % 7}")),
                KeyValue(key=f"rare.{number % 50}", value=AnyValue(double_value=number / 8)),
            ],
        )
    return built.SerializeToString()


def write(store: Store, events: range, *, end: int = 1) -> None:
    """Stores the events in one transaction."""
    store.write(read_requests([request(events, end=end)]).batch)


def answer(store: Store, question: str) -> Any:
    with store.read() as reader:
        [[value]] = [tuple(row.values()) for row in reader.rows(text(question))]
        return value


def told(store: Store) -> list[dict[str, Any]]:
    """All that is known of all events."""
    with store.read() as reader:
        return [dict(row) for row in reader.rows(text(EVENTS))]


@pytest.fixture
def filled(store: Store) -> Store:
    """A store with three portions of events, and some more, that came at once."""
    parts = [range(2 * PORTION_ROWS), range(2 * PORTION_ROWS, 3 * PORTION_ROWS + 100)]
    for batch in [read_requests([request(part)]).batch for part in parts]:
        store.write(batch)
    return store


def test_nothing_told_changes(filled: Store) -> None:
    """Compacted events say what they said, every column of every one."""
    before = told(filled)
    while filled.compact():
        pass
    assert told(filled) == before
    assert answer(filled, COMPACTED) == 3 * PORTION_ROWS


def test_attributes_become_typed_columns(filled: Store) -> None:
    """The row groups of a compacted portion hold a frequent attribute as a column of its own type; those that lie as
    they arrived do not."""
    assert answer(filled, TYPED) == 0
    assert filled.compact() == PORTION_ROWS
    assert answer(filled, TYPED) == PORTION_ROWS // ROW_GROUP_ROWS


def test_checkpoints_take_nothing_apart(tmp_path: Path) -> None:
    """Events that are not compacted lie as they arrived also where a checkpoint writes them beside such as are."""
    path = tmp_path / "clew.duckdb"
    with closing(Store(path)) as store:
        write(store, range(PORTION_ROWS))
        store.compact()
        for first in range(PORTION_ROWS, 2 * PORTION_ROWS, 512):
            write(store, range(first, first + 512))
    with closing(Store(path)) as reopened:
        assert answer(reopened, TYPED) == PORTION_ROWS // ROW_GROUP_ROWS


@pytest.mark.parametrize(("made_before", "rows"), [(False, ROW_GROUP_ROWS), (True, ROW_GROUP_ROWS // 2)])
def test_files_keep_their_row_groups(tmp_path: Path, *, made_before: bool, rows: int) -> None:
    """Where they were smaller when it was made, a checkpoint would make larger ones of two, and nothing of theirs would
    be typed any more."""
    path = tmp_path / "clew.duckdb"
    with closing(Store(path)) as store:
        write(store, range(1))
        if made_before:
            migrate.downgrade(store.engine, "0014")
            migrate.upgrade(store.engine)
    with closing(Store(path)) as store:
        write(store, range(1, 1 + PORTION_ROWS))
        assert store.compact() == PORTION_ROWS
        assert answer(store, TYPED) == PORTION_ROWS // rows


@pytest.mark.parametrize("nested", [False, True])
def test_too_many_keys_are_left_as_they_are(store: Store, monkeypatch: pytest.MonkeyPatch, *, nested: bool) -> None:
    """Taking them apart would take all memory: such a portion counts as compacted, and is told as it was."""
    monkeypatch.setattr(compacting, "KEYS_MAX", 50)
    built = ExportTraceServiceRequest.FromString(request(range(PORTION_ROWS)))
    for number, span in enumerate(built.resource_spans[0].scope_spans[0].spans):
        del span.attributes[1:]
        value = AnyValue(string_value="said")
        key = f"key {number % 60}"
        if nested:
            value, key = AnyValue(kvlist_value={"values": [KeyValue(key=key, value=value)]}), "all"
        span.attributes.add(key=key).value.CopyFrom(value)
    store.write(read_requests([built.SerializeToString()]).batch)
    before = told(store)
    assert store.compact() == PORTION_ROWS
    assert (answer(store, TYPED), told(store)) == (0, before)


@pytest.mark.parametrize(
    ("events", "compacted"),
    [
        (ROW_GROUP_ROWS - 1, 0),
        (ROW_GROUP_ROWS, ROW_GROUP_ROWS),
        (2 * ROW_GROUP_ROWS + 100, 2 * ROW_GROUP_ROWS),
        (2 * ROW_GROUP_ROWS + TYPED_ROWS_MIN, 2 * ROW_GROUP_ROWS + TYPED_ROWS_MIN),
    ],
)
def test_what_arrives_is_compacted_at_once(store: Store, tmp_path: Path, events: int, compacted: int) -> None:
    """Where that is wanted: all that fill row groups or half of one. They say what they say otherwise, and are stored
    once if they are sent again."""
    store.compacts_arrivals = True
    for _ in range(2):
        write(store, range(events))
    assert answer(store, COMPACTED) == compacted
    assert answer(store, TYPED) == -(-compacted // ROW_GROUP_ROWS)
    with closing(Store(tmp_path / "other.duckdb")) as other:
        write(other, range(events))
        when = {"stored_at_unix_nano": 0}
        assert [row | when for row in told(store)] == [row | when for row in told(other)]


@pytest.mark.parametrize("where", ["one more", "within a value", "in logs"])
def test_arrivals_of_too_many_keys_are_left(store: Store, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """As are those with keys within values, since how many these are is not known on arrival, and those with logs that
    have too many."""
    monkeypatch.setattr(compacting, "KEYS_MAX", 52)
    store.compacts_arrivals = True
    write(store, range(PORTION_ROWS, 2 * PORTION_ROWS))
    assert answer(store, COMPACTED) == PORTION_ROWS, "52 are not too many"
    built = ExportTraceServiceRequest.FromString(request(range(PORTION_ROWS)))
    spans = built.resource_spans[0].scope_spans[0].spans
    if where == "in logs":
        for number, span in enumerate(spans[:TYPED_ROWS_MIN]):
            span.events.add().attributes.add(key=f"key {number % 53}").value.int_value = number
    else:
        nested = AnyValue(kvlist_value={"values": [KeyValue(key="inner")]})
        value = nested if where == "within a value" else AnyValue(string_value="said")
        spans[7].attributes.add(key="outer").value.CopyFrom(value)
    store.write(read_requests([built.SerializeToString()]).batch)
    assert (answer(store, TYPED), answer(store, COMPACTED)) == (PORTION_ROWS // ROW_GROUP_ROWS, PORTION_ROWS)


def test_arrivals_are_folded_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit that compacts what arrives makes a checkpoint: there is one now and then between them."""
    monkeypatch.setattr(compacting, "CHECKPOINT_ARRIVED_ROWS", 2 * PORTION_ROWS)
    log = tmp_path / "clew.duckdb.wal"
    with closing(Store(tmp_path / "clew.duckdb")) as store:
        store.compacts_arrivals = True
        sizes = []
        for portion in range(3):
            write(store, range(portion * PORTION_ROWS, (portion + 1) * PORTION_ROWS))
            sizes.append(log.stat().st_size)
        assert sizes[0] < sizes[1] > sizes[2]


def test_a_batch_is_not_stored_where_folding_fails(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writer is told, and what it sent is there once when it sends it again."""

    def no_room(_: object) -> None:
        raise duckdb.IOException("no space left on device")

    monkeypatch.setattr(compacting, "CHECKPOINT_ARRIVED_ROWS", 1)
    store.compacts_arrivals = True
    write(store, range(PORTION_ROWS))
    with monkeypatch.context() as full:
        full.setattr(compacting.Compaction, "_checkpoint", no_room)
        with pytest.raises(WriteFailed, match="no space left"):
            write(store, range(PORTION_ROWS, 2 * PORTION_ROWS))
    assert len(told(store)) == PORTION_ROWS
    write(store, range(PORTION_ROWS, 2 * PORTION_ROWS))
    assert len(told(store)) == 2 * PORTION_ROWS


def test_what_is_too_little_is_left(store: Store) -> None:
    """Fewer events than a portion are left as they are, until more have come."""
    write(store, range(PORTION_ROWS - 1))
    assert store.compact() == 0
    write(store, range(PORTION_ROWS - 1, PORTION_ROWS))
    assert store.compact() == PORTION_ROWS
    assert store.compact() == 0


def test_a_span_sent_again_is_stored_once(filled: Store) -> None:
    """Compacted events are known when they are sent again."""
    before = told(filled)
    while filled.compact():
        write(filled, range(RUN_EVENTS * 3))
    assert told(filled) == before


def test_a_pending_copy_is_replaced(store: Store) -> None:
    """An event that ends after its pending copy was compacted takes the copy's place."""
    write(store, range(PORTION_ROWS), end=0)
    store.compact()
    write(store, range(RUN_EVENTS))
    assert answer(store, "SELECT count(*) FROM execution_events") == PORTION_ROWS
    assert answer(store, "SELECT count(*) FROM execution_events WHERE completed_at_unix_nano <> 0") == RUN_EVENTS


def test_a_reader_sees_one_state(filled: Store) -> None:
    """A read that began before sees every event once, however much is compacted meanwhile."""
    with filled.read() as reader:
        before = reader.arrow(text(EVENTS))
        while filled.compact():
            pass
        assert reader.arrow(text(EVENTS)) == before


def test_a_compacted_run_is_deleted(filled: Store) -> None:
    """Deleting a run takes its compacted events along."""
    filled.compact()
    with DatabaseSession(filled.engine) as session:
        session.delete(session.get_one(WorkflowRun, f"{1:032x}"))
        session.commit()
    assert answer(filled, "SELECT count(*) FROM execution_events") == 3 * PORTION_ROWS + 100 - RUN_EVENTS


def test_an_idle_store_is_compacted(filled: Store) -> None:
    """A store is compacted by itself once nothing is written any more."""
    with closing(Upkeep(filled, idle_s=0.01)):
        assert _comes_true(lambda: answer(filled, COMPACTED) == 3 * PORTION_ROWS)


@pytest.mark.parametrize("much", [4 * PORTION_ROWS, 10 * PORTION_ROWS], ids=["much", "little"])
def test_memory_is_given_back(filled: Store, monkeypatch: pytest.MonkeyPatch, much: int) -> None:
    """Once nothing is left to do for upkeep, nobody waits, and much was stored and compacted. What may be used again is
    as much as before."""
    monkeypatch.setattr(engine, "_BYTES_KEPT", KEPT_BYTES)
    monkeypatch.setattr(writing, "MUCH_ROWS", much)
    limit = answer(filled, MEMORY_LIMIT)
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up:
        kept_up._idle_s = 0
        with filled.read():
            while kept_up._portion():
                pass
        assert answer(filled, COMPACTED) == 3 * PORTION_ROWS
        assert answer(filled, MEMORY) > KEPT_BYTES, "somebody waits"
        kept_up._portion()
    assert (answer(filled, MEMORY) <= KEPT_BYTES) == (much < 7 * PORTION_ROWS)
    assert answer(filled, MEMORY_LIMIT) == limit


def test_a_busy_store_is_left_alone(filled: Store) -> None:
    """Nothing is compacted while writes take much of the time."""
    batch = read_requests([request(range(PORTION_ROWS))]).batch
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up:
        filled.write(batch)
        assert kept_up._step() == DEADLINE_S
    assert answer(filled, COMPACTED) == 0
    assert not filled.compacts_arrivals


def test_a_busy_store_is_kept_up_for_readers(filled: Store) -> None:
    """While somebody reads, what comes is compacted as it comes, and usage counted; nothing is compacted again."""
    batch = read_requests([request(range(3 * PORTION_ROWS + 100, 4 * PORTION_ROWS))]).batch
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up, filled.read():
        filled.write(batch)
        assert kept_up._step() < DEADLINE_S
        assert filled.count_usage() == 0
        assert answer(filled, COMPACTED) == 0
        write(filled, range(4 * PORTION_ROWS, 5 * PORTION_ROWS))
    assert answer(filled, COMPACTED) == PORTION_ROWS


@pytest.mark.parametrize("awaited", [True, False], ids=["read", "for nobody"])
def test_a_busy_store_is_kept_up_for_who_read_lately(filled: Store, *, awaited: bool) -> None:
    """Who asked within the last minute likely asks again; what is read to be sent on, say, nobody waits for."""
    batch = read_requests([request(range(PORTION_ROWS))]).batch
    with filled.read(awaited=awaited):
        pass
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up:
        filled.write(batch)
        kept_up._step()
    assert filled.compacts_arrivals == awaited


def test_what_arrives_in_a_store_with_time_is_compacted(store: Store) -> None:
    """Also where nobody reads."""
    with closing(Upkeep(store, idle_s=0.01)):
        assert _comes_true(lambda: store.compacts_arrivals)


def _comes_true(condition: Callable[[], bool]) -> bool:
    done, patience = Event(), DEADLINE_S
    while not condition() and patience > 0:
        patience -= done.wait(0.05) or 0.05
    return condition()


def test_a_store_that_is_written_to_a_little_is_compacted(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Portions come between writes where those leave the time."""
    monkeypatch.setattr(upkeep, "BUSY_SHARE_MAX", 1.0)
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as between_writes:
        write(filled, range(1))
        assert between_writes._step() < DEADLINE_S
    assert answer(filled, COMPACTED) == PORTION_ROWS


def test_who_reads_for_a_moment_is_not_disturbed(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside writes nothing is compacted until reading has gone on for a while."""
    monkeypatch.setattr(upkeep, "BUSY_SHARE_MAX", 1.0)
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up, filled.read():
        write(filled, range(1))
        kept_up._step()
        assert answer(filled, COMPACTED) == 0
        monkeypatch.setattr(upkeep, "UNDISTURBED_S", 0.0)
        kept_up._step()
    assert answer(filled, COMPACTED) == PORTION_ROWS


def test_readers_find_half_of_the_time(filled: Store) -> None:
    """All of the time is taken while nobody wants anything of the store."""
    with closing(Upkeep(filled, idle_s=DEADLINE_S)) as kept_up:
        kept_up._idle_s = 0
        while filled.count_usage():
            pass
        assert kept_up._step() == 0
        with filled.read():
            assert 0 < kept_up._step() < DEADLINE_S
    assert answer(filled, COMPACTED) == 2 * PORTION_ROWS


KILLED = """
import sys
from clew.storage import Store
store = Store.open(sys.argv[1])
while store.compact():
    print("a portion", flush=True)
"""


@pytest.mark.parametrize("portions", [0, 1, 2])
def test_killed_meanwhile(tmp_path: Path, portions: int) -> None:
    """A process that is killed while it compacts leaves every event as it was, once."""
    path = tmp_path / "clew.duckdb"
    with closing(Store.open(str(path))) as store:
        write(store, range(3 * PORTION_ROWS))
        before = told(store)
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for _ in range(portions):
            assert process.stdout.readline() == "a portion\n"
        process.kill()
    with closing(Store.open(str(path))) as store:
        assert told(store) == before
        assert answer(store, COMPACTED) >= portions * PORTION_ROWS


KILLED_WRITING = """
import os, signal, sys
from clew.collector.projection import read_requests
from clew.storage import Store
store = Store.open(sys.argv[1])
store.compacts_arrivals = True
for request in sys.argv[2:]:
    store.write(read_requests([open(request, "rb").read()]).batch)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_arrived_compacted_outlives_the_process(tmp_path: Path) -> None:
    """What was stored is there after a process was killed, compacted, once, and goes on to be."""
    paths = [tmp_path / f"request {number}" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(request(range(number * PORTION_ROWS, (number + 1) * PORTION_ROWS)))
    database = str(tmp_path / "clew.duckdb")
    killed = subprocess.run([sys.executable, "-c", KILLED_WRITING, database, *map(str, paths)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with closing(Store.open(database)) as store:
        assert answer(store, COMPACTED) == 3 * PORTION_ROWS
        before = told(store)
        assert [row["name"] for row in before] == [f"event {number}" for number in range(3 * PORTION_ROWS)]
        write(store, range(3 * PORTION_ROWS))
    with closing(Store.open(database)) as store:
        assert told(store) == before
        assert answer(store, TYPED) == 3 * PORTION_ROWS // ROW_GROUP_ROWS


def test_the_command_compacts_a_file(tmp_path: Path, clew: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`clew compact` compacts a file that no server holds, and says how much."""
    path = tmp_path / "clew.duckdb"
    with closing(Store.open(str(path))) as store:
        write(store, range(2 * PORTION_ROWS))
        before = told(store)
    done = clew("compact", "--db", str(path))
    assert (done.returncode, done.stdout) == (0, f"{2 * PORTION_ROWS} events compacted\n"), done.stderr
    with closing(Store.open(str(path))) as store:
        assert told(store) == before
        assert answer(store, COMPACTED) == 2 * PORTION_ROWS


def test_the_command_needs_a_file(tmp_path: Path, clew: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`clew compact` makes no file where there is none."""
    missing = tmp_path / "missing.duckdb"
    refused = clew("compact", "--db", str(missing))
    assert refused.returncode == 1
    assert "there is no" in refused.stderr
    assert not missing.exists()
