"""The order of commits: the stamp that every event bears."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import func, select

from clew.collector.projection import read_requests
from clew.storage import ExecutionEvent, Resource, Store, WorkflowRun
from clew.storage.engine import ROW_GROUP_ROWS

START = 1_750_000_000_000_000_000


def _commit(store: Store, *numbers: int, ended: bool = True) -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in numbers:
        end = START + 1 if ended else 0
        span_id = number.to_bytes(8, "big")
        spans.append(
            Span(trace_id=UUID(int=7).bytes, span_id=span_id, start_time_unix_nano=START, end_time_unix_nano=end)
        )
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    store.write(batch)


def _stamps(store: Store) -> dict[int, int]:
    """The stamp of each event."""
    with store.read() as reader:
        rows = reader.rows(select(ExecutionEvent.id, ExecutionEvent.stored_at_unix_nano))
    return {int(row["id"], 16): row["stored_at_unix_nano"] for row in rows}


def test_stamps_rise_from_commit_to_commit(store: Store) -> None:
    """Events of one commit share theirs, which says when it was, and is the last there is."""
    before = time.time_ns()
    _commit(store, 1, 2)
    _commit(store, 3)
    stamps = _stamps(store)
    assert before <= stamps[1] == stamps[2] < stamps[3] == store.commits.last <= time.time_ns()


def test_stamps_rise_where_the_clock_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that stands still or is put back changes nothing, over restarts neither."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    now = time.time_ns()
    for number, clock in enumerate((now, now, now - 10**9), start=1):
        monkeypatch.setattr(time, "time_ns", lambda clock=clock: clock)
        _commit(store, number)
    store.close()
    reopened = Store.open(path)
    _commit(reopened, 4)
    assert _stamps(reopened) == {1: now, 2: now + 1, 3: now + 2, 4: now + 3}
    reopened.close()


def test_what_takes_the_place_of_a_pending_copy_is_new(store: Store) -> None:
    """It bears its own commit's stamp; a repetition changes nothing."""
    _commit(store, 1, ended=False)
    _commit(store, 2)
    _commit(store, 1)
    stamps = _stamps(store)
    _commit(store, 1, 2)
    assert stamps[2] < stamps[1]
    assert _stamps(store) == stamps


def test_stamps_hold_through_checkpoints(tmp_path: Path) -> None:
    """Whatever the engine does to rows when it tidies up, which changes its own row ids."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    _commit(store, *range(1, 9_001))
    _commit(store, 9_001)
    kept = {number: stamp for number, stamp in _stamps(store).items() if number % 3 == 0 or number == 9_001}
    with store.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM execution_events WHERE id % 3 <> 0 AND id <> 9001")
    store.close()
    reopened = Store.open(path)
    assert _stamps(reopened) == kept
    reopened.close()


def test_a_commit_is_seen_whole(store: Store) -> None:
    """Whoever reads meanwhile finds as many events as their runs say, however many there are in one commit; so too
    while they are compacted."""
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(_counts_until, over, store)
        for number in range(8):
            _commit_much(store, number)
        while store.compact():
            pass
        over.set()
    seen = reading.result()
    assert [counts for counts in seen if counts[0] != counts[1]] == []
    assert len(set(seen)) > 1, "it has read between commits"


def test_a_thousand_resources_in_one_commit(store: Store) -> None:
    """Each is there once, also where all of them come again."""
    for sent in range(2):
        request = ExportTraceServiceRequest()
        for number in range(1_200):
            block = request.resource_spans.add()
            block.resource.attributes.add(key="service.instance.id").value.int_value = number
            trace_id = UUID(int=1 + number + 1_200 * sent).bytes
            block.scope_spans.add().spans.add(trace_id=trace_id, span_id=bytes(7) + b"1", start_time_unix_nano=START)
        batch = read_requests([request.SerializeToString()]).batch
        assert batch
        assert store.write(batch).stored == 1_200
    with store.read() as reader:
        [row] = reader.rows(select(func.count(Resource.id).label("resources")))
    assert row["resources"] == 1_200


def _counts_until(over: threading.Event, store: Store) -> list[tuple[int, int]]:
    """How many events runs have, and how many there are, time and again, each in one read."""
    of_runs = select(func.coalesce(func.sum(WorkflowRun.event_count), 0).label("events"))
    counted = select(func.count(ExecutionEvent.run_id).label("events"))
    seen = []
    while not over.is_set():
        with store.read() as reader:
            [[said], [there]] = ([row["events"] for row in reader.rows(question)] for question in (of_runs, counted))
        seen.append((int(said), int(there)))
    return seen


def _commit_much(store: Store, number: int) -> None:
    """A run of some row groups of events, and logs that take the commit long to write."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for place in range(1, 3 * ROW_GROUP_ROWS):
        span = spans.add(trace_id=UUID(int=1 + number).bytes, span_id=place.to_bytes(8, "big"))
        span.start_time_unix_nano = span.end_time_unix_nano = START
        if place < 100:
            span.events.add(time_unix_nano=START, name="x" * 200_000)
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    store.write(batch)
