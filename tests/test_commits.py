"""The order of commits: the stamp that every event bears."""

from __future__ import annotations

import time
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.storage import ExecutionEvent, Store

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
    store.write_spans(batch)


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
