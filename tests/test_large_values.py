"""Spans with values of many megabytes, more of them than the engine has memory for: stored, and not the file's end."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text

from clew.collector.projection import read_requests
from clew.storage import Store, engine, large_values

from .log_requests import record, send
from .log_requests import request as log_request

START_NS = 1_750_000_000_000_000_000
MEGABYTES = 6
COUNT = 30


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much less as the values here are fewer than those that fill a gigabyte."""
    monkeypatch.setattr(engine, "MEMORY_BYTES", 120_000_000)
    monkeypatch.setitem(engine.SETTINGS, "memory_limit", "120MB")
    monkeypatch.setattr(large_values, "LARGE_BYTES_MIN", 16 << 20)
    monkeypatch.setattr(large_values, "STEP_BYTES", 32 << 20)


def _write(store: Store, number: int, megabytes: int = 0) -> int:
    """Returns how many spans were stored."""
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add().scope_spans.add().spans.add(name="large", start_time_unix_nano=START_NS + number)
    )
    span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), b"\1" * 8
    span.end_time_unix_nano = span.start_time_unix_nano + 1
    span.attributes.add(key="text").value.string_value = f"{number:08x}" * (megabytes << 17)
    return store.write(read_requests([request.SerializeToString()]).batch).stored


def _limit(store: Store) -> str:
    with store.read(seconds_max=10) as reader:
        [row] = reader.rows(text("SELECT current_setting('memory_limit') AS value"))
    return str(row["value"])


def test_more_than_there_is_memory_for_is_stored(tmp_path: Path) -> None:
    """One after the other, as they come; and after the file is opened again it still takes spans."""
    path = str(tmp_path / "clew.duckdb")
    with closing(Store.open(path)) as store:
        usual = _limit(store)
        for number in range(COUNT):
            assert _write(store, number, MEGABYTES) == 1
    with closing(Store.open(path)) as store:
        assert _write(store, COUNT) == 1
        assert _limit(store) != usual
        with store.read(seconds_max=60) as reader:
            [row] = reader.rows(
                text("SELECT count(*) AS count, max(strlen(attributes::VARCHAR)) AS size FROM execution_events")
            )
        assert (row["count"], row["size"] >> 20) == (COUNT + 1, MEGABYTES)


def test_keys_that_differ_in_case_alone_are_sized_too(tmp_path: Path) -> None:
    """A file opens again with such keys among its newest rows, wherever OTLP has attributes."""
    path = str(tmp_path / "clew.duckdb")
    built = ExportTraceServiceRequest()
    block = built.resource_spans.add()
    scope_block = block.scope_spans.add()
    span = scope_block.spans.add(trace_id=b"\1" * 16, span_id=b"\1" * 8, name="work", start_time_unix_nano=START_NS)
    logged = record("said")
    owners = (block.resource, scope_block.scope, span, span.events.add(), span.links.add(trace_id=b"\2" * 16), logged)
    for owner in owners:
        for key in ("host", "Host"):
            owner.attributes.add(key=key).value.string_value = key
    with closing(Store.open(path)) as store:
        assert store.write(read_requests([built.SerializeToString()]).batch).stored == 1
        assert send(store, log_request(logged)).stored == 1
    with closing(Store.open(path)) as store:
        assert _write(store, 1) == 1


def test_memory_is_as_usual_once_others_follow(tmp_path: Path) -> None:
    """What the newest rows do not need any more is not taken."""
    with closing(Store.open(str(tmp_path / "clew.duckdb"))) as store:
        usual = _limit(store)
        for number in range(4):
            _write(store, number, MEGABYTES)
        assert _limit(store) != usual
        small = 2 * engine.ROW_GROUP_ROWS, 0
        store._writer._large_values.stored([("event_logs", *small)], 1.0)
        assert _limit(store) != usual, "these are rows of another table"
        store._writer._large_values.stored([("execution_events", *small)], 1.0)
        assert _limit(store) == usual


def test_what_only_came_again_is_not_the_newest(tmp_path: Path) -> None:
    """Its rows are dropped: those with large values still are the unfinished row group, and others need no memory."""
    with closing(Store.open(str(tmp_path / "clew.duckdb"))) as store:
        usual = _limit(store)
        assert _write(store, 0, MEGABYTES) == 1
        for _ in range(8):
            assert _write(store, 0, MEGABYTES) == 0
        assert _limit(store) == usual
        for number in range(1, 4):
            _write(store, number, MEGABYTES)
        more = _limit(store)
        assert more != usual
        assert _write(store, 0) == 0
        assert _limit(store) == more
