"""Whatever OTLP can say in log records comes back equal, with and without a run."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, LogsData

from clew.collector.log_records import read_log_requests
from clew.exporter.otlp import logs_as_otlp
from clew.storage import Store

from .any_otlp import (
    DETERMINISTIC,
    attributes,
    parent_ids,
    presence,
    resources,
    scopes,
    text_of,
    texts,
    times,
    uint32s,
    values,
)

records = st.builds(
    LogRecord,
    time_unix_nano=times,
    observed_time_unix_nano=times,
    severity_number=st.integers(-1, 30),
    severity_text=texts,
    body=st.none() | values,
    attributes=attributes,
    dropped_attributes_count=uint32s,
    flags=uint32s,
    trace_id=st.sampled_from([b"\x01" + bytes(15), b"\xff" + bytes(15), b"", bytes(16)]),
    span_id=parent_ids,
    event_name=texts,
)
example_numbers = count(1)


@st.composite
def log_requests(draw: st.DrawFn) -> list[ExportLogsServiceRequest]:
    """Up to two requests; every record is of an example of its own, so that none repeats another's."""
    sent = [ExportLogsServiceRequest() for _ in range(draw(st.integers(1, 2)))]
    for built in sent:
        block = built.resource_logs.add(resource=draw(st.none() | resources), schema_url=draw(texts))
        for _ in range(draw(st.integers(1, 2))):
            drawn = draw(st.lists(records, max_size=3, unique_by=lambda r: r.SerializeToString(deterministic=True)))
            block.scope_logs.add(scope=draw(st.none() | scopes), schema_url=draw(texts), log_records=drawn)
    return sent


def of_their_own(sent: list[ExportLogsServiceRequest], number: int) -> set[bytes]:
    """Gives the records runs that no other example has, and returns these; what has no run gets a name of its own."""
    runs = set()
    place = 0
    for built in sent:
        for block in built.resource_logs:
            for scope_block in block.scope_logs:
                for log_record in scope_block.log_records:
                    place += 1
                    log_record.severity_text += f" {number} {place}"
                    if any(log_record.trace_id):
                        log_record.trace_id = log_record.trace_id[:8] + number.to_bytes(8, "big")
                        runs.add(log_record.trace_id)
    return runs


Said = list[tuple[str, ...]]


def said_by(logs: ExportLogsServiceRequest | LogsData, number: int) -> Said:
    """Every record of the example with its resource and its scope, as text that is equal where they are."""
    return sorted(
        (text_of(log_record), *presence(block, "resource"), *presence(scope_block, "scope"))
        for block in logs.resource_logs
        for scope_block in block.scope_logs
        for log_record in scope_block.log_records
        if f" {number} " in log_record.severity_text
    )


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Whatever is in it in the end, its file opens again."""
    path = str(tmp_path_factory.mktemp("logs") / "clew.duckdb")
    opened = Store.open(path)
    yield opened
    opened.close()
    Store.open(path).close()


@given(sent=log_requests())
@DETERMINISTIC
def test_every_record_comes_back_as_it_was_sent(shared_store: Store, sent: list[ExportLogsServiceRequest]) -> None:
    """Arbitrary records, with and without runs, are read back equal, with what sent them."""
    number = next(example_numbers)
    runs = of_their_own(sent, number)
    reading = read_log_requests([built.SerializeToString() for built in sent])
    assert not any(fate.rejections or fate.malformed or fate.warning for fate in reading.fates)
    if reading.batch is not None:
        shared_store.write(reading.batch)
    given_back: Said = []
    for run in (None, *(UUID(bytes=run) for run in runs)):
        given_back += said_by(LogsData.FromString(logs_as_otlp(shared_store, run) or b""), number)
    assert sorted(given_back) == sorted(said for built in sent for said in said_by(built, number))
