"""OTLP log records: taken over both transports, stored once, with their run and event whichever comes first, and given
back as they came."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from hypothesis import settings
from opentelemetry._logs import LogRecord as SdkLogRecord
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from clew.collector.intake import LARGE_BYTES, Intake
from clew.collector.log_records import read_log_requests
from clew.collector.outcomes import Busy, Malformed
from clew.collector.signals import LOGS
from clew.exporter.otlp import run_as_otlp
from clew.storage import EventLog, PreparedBatch, Row, Store, WorkflowRun, WriteOutcome
from clew.storage.hashed import PreparedHashed

from .conftest import Gate
from .log_requests import EVENT, RUN, record, request, send, send_spans, spans

EXPORT = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}
TIMEOUT_S = 60
DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=60)


def stored(store: Store) -> Sequence[Row]:
    """The stored log records by time, after a look at what must always hold."""
    logs = EventLog.__table__
    with store.read() as reader:
        runs = {run["id"]: run for run in reader.rows(select(WorkflowRun.__table__))}
        rows = reader.rows(select(logs).where(logs.c.log_index < 0).order_by(logs.c.event_started_at_unix_nano))
    assert len({row["log_index"] for row in rows}) == len(rows)
    for row in rows:
        if row["run_id"] is not None:
            run = runs[row["run_id"]]
            placed = row["event_started_at_unix_nano"]
            assert run["started_at_unix_nano"] <= placed <= run["last_started_at_unix_nano"]
    return rows


def the_run(store: Store) -> Row:
    with store.read() as reader:
        [row] = reader.rows(select(WorkflowRun.__table__).where(WorkflowRun.id == RUN))
    return row


# --- once, and whole --------------------------------------------------------------------------------------------------


def test_a_record_sent_again_is_stored_once(store: Store) -> None:
    """In one group, in a later one, alone or among new ones; with and without a run."""
    sent = request(record("a"), record("b", run=None), record("c", at=300))
    assert send(store, sent, sent) == WriteOutcome(stored=3, repeated=3, replaced=0)
    assert send(store, sent) == WriteOutcome(stored=0, repeated=3, replaced=0)
    assert send(store, sent, request(record("new"))) == WriteOutcome(stored=1, repeated=3, replaced=0)
    assert sorted(row["content"] for row in stored(store)) == ["a", "b", "c", "new"]


def test_equal_records_of_a_request_are_as_many(store: Store) -> None:
    """A clock of milliseconds makes them; the request that comes again brings none."""
    sent = request(record("a"), record("retrying"), record("retrying"), record("b"), record("retrying"))
    assert send(store, sent, request(record("retrying")), sent) == WriteOutcome(stored=5, repeated=6, replaced=0)
    assert send(store, sent) == WriteOutcome(stored=0, repeated=5, replaced=0)
    assert sorted(row["content"] for row in stored(store)) == ["a", "b", *["retrying"] * 3]


def test_a_record_sent_again_after_a_restart_is_stored_once(tmp_path: Path) -> None:
    """What the store knows of its records is in the file, not in the process."""
    sent = request(record("a"), record("b", run=None))
    for expected in (WriteOutcome(2, 0, 0), WriteOutcome(0, 2, 0)):
        store = Store.open(str(tmp_path / "clew.duckdb"))
        assert send(store, sent) == expected
        assert len(stored(store)) == 2
        store.close()


def test_a_record_that_tells_no_time_is_stored_once(store: Store) -> None:
    """In a run it is placed at its arrival, and found again although it arrives again later."""
    runs = []
    for expected in (WriteOutcome(2, 0, 0), WriteOutcome(0, 2, 0)):
        assert send(store, request(record(at=0), record(at=0, run=None))) == expected
        runs.append(the_run(store))
    assert runs[0] == runs[1], "the run lasts no longer for it"
    assert {row["time_unix_nano"] for row in stored(store)} == {0}
    assert the_run(store)["started_at_unix_nano"] > 10**18


def test_records_that_differ_in_anything_are_kept(store: Store) -> None:
    """In their body, their time, their event, their run or just in what sent them."""
    other = UUID(int=8)
    records = [record(), record("else"), record(at=101), record(event=b"neighbor"), record(run=other)]
    assert send(store, request(*records), request(record(), service="planner")).stored == 6


def test_a_batch_is_stored_whole_or_not_at_all(store: Store) -> None:
    """A record that the database refuses takes its whole batch with it."""
    batch = read_log_requests([request(record("a"), record("b"))]).batch
    rows = batch.rows.rows
    broken = rows.set_column(rows.schema.get_field_index("name"), "name", [["fine", None]])
    with pytest.raises(Exception, match="NOT NULL"):
        store.write(type(batch)(**{**vars(batch), "rows": type(batch.rows)(**{**vars(batch.rows), "rows": broken})}))
    assert stored(store) == []
    assert send(store, request(record("a"), record("b"))).stored == 2


# --- runs and events --------------------------------------------------------------------------------------------------


def test_a_record_before_any_span_makes_the_run(store: Store) -> None:
    """It runs, and has no events; a span that is no root names it then, a root whenever it comes."""
    send(store, request(record(at=300), service="planner"))
    run = the_run(store)
    assert (run["status"], run["event_count"], run["name"], run["service_name"]) == ("running", 0, None, "planner")
    assert (run["started_at_unix_nano"], run["last_started_at_unix_nano"]) == (300, 300)
    assert send_spans(store, spans(name="child", parent=b"a parent")).stored == 1
    assert (the_run(store)["name"], the_run(store)["event_count"]) == ("child", 1)


@pytest.mark.parametrize("log_first", [True, False])
@pytest.mark.parametrize("restarted", [True, False])
def test_record_and_span_come_in_any_order(tmp_path: Path, log_first: bool, restarted: bool) -> None:
    """The record is the event's either way, the run covers both, and neither is stored twice when it comes again."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    steps: list[Callable[[Store], WriteOutcome]] = [
        lambda at: send(at, request(record(at=300))),
        lambda at: send_spans(at, spans()),
    ]
    for step in steps if log_first else reversed(steps):
        assert step(store).stored == 1
        if restarted:
            store.close()
            store = Store.open(path)
    assert [step(store).repeated for step in steps] == [1, 1]
    [row] = stored(store)
    assert (row["run_id"], row["event_id"]) == (RUN.hex, EVENT.hex())
    run = the_run(store)
    assert (run["name"], run["status"], run["event_count"]) == ("work", "completed", 1)
    assert (run["started_at_unix_nano"], run["last_started_at_unix_nano"]) == (50, 300)
    store.close()


def test_a_record_outlives_the_pending_copy_of_its_event(store: Store) -> None:
    """The finished copy brings its own span events, but the record came by itself."""
    send_spans(store, spans(end=0))
    send(store, request(record()))
    assert send_spans(store, spans(end=200)).replaced == 1
    assert len(stored(store)) == 1


def test_the_run_as_traces_knows_no_records(store: Store) -> None:
    """A span event and a record are not taken for one another."""
    send_spans(store, spans())
    before = run_as_otlp(store, RUN)
    send(store, request(record(at=60)))
    assert run_as_otlp(store, RUN) == before


@pytest.mark.parametrize(
    ("sent", "event_type"),
    [
        (record(), "LOG"),
        (record(run=None), "SYSTEM"),
        (record(severity_number=16), "LOG"),
        (record(severity_number=17), "ERROR"),
        (record(run=None, severity_number=24), "ERROR"),
        (record(attributes=[KeyValue(key="exception.type", value=AnyValue(string_value="E"))]), "ERROR"),
        (record(event_name="gen_ai.user.message"), "MESSAGE"),
        (record(event_name="clew.message"), "MESSAGE"),
        (record(attributes=[KeyValue(key="event.name", value=AnyValue(string_value="gen_ai.choice"))]), "MESSAGE"),
        (record(event_name="clew.result"), "RESULT"),
        (record(event_name="clew.agent.start"), "AGENT_START"),
        (record(event_name="clew.agent.complete"), "AGENT_COMPLETE"),
    ],
)
def test_what_kind_of_record_it_is(store: Store, sent: LogRecord, event_type: str) -> None:
    """An error before all, then what its name says, then whether it is of a run."""
    send(store, request(sent))
    [row] = stored(store)
    assert row["event_type"] == event_type


def test_a_body_is_text_or_json(store: Store) -> None:
    """Text stays as it is; what nests, or is no text, is JSON; an empty body is none."""
    nested = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="n", value=AnyValue(int_value=1))]))
    bodies = [AnyValue(string_value="{}"), nested, AnyValue(bool_value=True), AnyValue(), None]
    send(store, request(*(LogRecord(body=body, time_unix_nano=at) for at, body in enumerate(bodies))))
    assert [row["content"] for row in stored(store)] == ["{}", '{"n":1}', "true", None, None]


# --- what cannot be stored --------------------------------------------------------------------------------------------


def test_ids_of_wrong_length_harm_only_their_record(store: Store) -> None:
    """The others are stored, and the request's fate names the bad ones."""
    good, no_trace, no_span = record("good"), record("no trace"), record("no span")
    no_trace.trace_id, no_span.span_id = b"short", b"far too long"
    reading = read_log_requests([request(no_trace, good, no_span), request(record("also good"))])
    assert [len(fate.rejections) for fate in reading.fates] == [2, 0]
    assert "'no trace': trace_id is 5 bytes long, not 16" in reading.fates[0].rejections[0]
    assert "'no span': span_id is 12 bytes long, not 8" in reading.fates[0].rejections[1]
    store.write(reading.batch)
    assert sorted(row["content"] for row in stored(store)) == ["also good", "good"]


def test_a_broken_request_harms_no_other(store: Store) -> None:
    """Nor does text that is not UTF-8, which is mended."""
    not_utf8 = request(record("abc")).replace(b"abc", b"\xffbc")
    reading = read_log_requests([request(record("good")), b"\xff garbage", not_utf8])
    assert [bool(fate.malformed) for fate in reading.fates] == [False, True, False]
    assert reading.fates[2].warning
    store.write(reading.batch)
    assert sorted(row["content"] for row in stored(store)) == ["good", "\ufffdbc"]


def test_the_intake_takes_records_beside_spans(store: Store) -> None:
    """Each signal is answered after its own commit and counted by what became of it."""
    registry = CollectorRegistry()
    intake = Intake(store, registry=registry)
    try:
        many = [request(*(record("x" * 100, at=at) for at in range(1000 * n, 1000 * n + 800))) for n in range(3)]
        assert all(len(sent) > LARGE_BYTES for sent in many)
        answers = [intake.accept(spans()), *(intake.accept(sent, LOGS) for sent in (*many, many[0]))]
        assert [answer.result(TIMEOUT_S).error_message for answer in answers] == [""] * 5
        with pytest.raises(Malformed):
            intake.accept(b"\xff garbage", LOGS).result(TIMEOUT_S)
        bad = record()
        bad.trace_id = b"short"
        assert intake.accept(request(bad), LOGS).result(TIMEOUT_S).rejected_spans == 1
    finally:
        intake.close()
    counted = {
        outcome: registry.get_sample_value("clew_log_records_total", {"outcome": outcome})
        for outcome in ("stored", "repeated", "rejected")
    }
    assert counted == {"stored": 2400, "repeated": 800, "rejected": 1}
    assert registry.get_sample_value("clew_spans_total", {"outcome": "stored"}) == 1
    assert len(stored(store)) == 2400


# --- on the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_the_sdk_logs_into_a_server(server: Any, transport: str) -> None:
    """What the SDK's own exporter sends is there for whoever asks for the run's logs, and for the event's."""
    exporter: Any
    if transport == "grpc":
        exporter = GrpcLogExporter(endpoint=server.grpc_target, insecure=True)
    else:
        exporter = HttpLogExporter(endpoint=f"{server.http_url}/v1/logs")
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    context = set_span_in_context(NonRecordingSpan(SpanContext(7, 9, is_remote=False, trace_flags=TraceFlags(1))))
    for at, (level, body) in enumerate([(SeverityNumber.INFO, "began"), (SeverityNumber.ERROR, {"code": 3})]):
        provider.get_logger("test").emit(
            SdkLogRecord(timestamp=1000 + at, context=context, severity_number=level, body=body, attributes={"at": at})
        )
    provider.shutdown()
    found = httpx.get(f"{server.http_url}/api/runs/{RUN.hex}/logs").json()
    assert [(log["content"], log["event_type"], log["attributes"]) for log in found["logs"]] == [
        ("began", "LOG", {"at": 0}),
        ('{"code":3}', "ERROR", {"at": 1}),
    ]
    assert {log["event_id"] for log in found["logs"]} == {EVENT.hex()}
    assert httpx.get(f"{server.http_url}/api/runs/{RUN.hex}").json()["status"] == "running"


def test_partial_success_over_both_transports(server: Any) -> None:
    """200 and OK, with the number of records that were rejected and which; in JSON as OTLP writes it."""
    bad = record("bad one")
    bad.span_id = b"short"
    answer = httpx.post(f"{server.http_url}/v1/logs", content=request(bad, record()), headers=PROTOBUF)
    assert answer.status_code == 200
    with grpc.insecure_channel(server.grpc_target) as channel:
        over_grpc = channel.unary_unary(EXPORT)(request(bad, record()), timeout=TIMEOUT_S)
    for response in (answer.content, over_grpc):
        told = ExportLogsServiceResponse.FromString(response).partial_success
        assert told.rejected_log_records == 1
        assert "bad one" in told.error_message
    as_json = {"resourceLogs": [{"scopeLogs": [{"logRecords": [{"traceId": "00", "body": {"stringValue": "odd"}}]}]}]}
    told_in_json = httpx.post(f"{server.http_url}/v1/logs", json=as_json).json()
    assert told_in_json["partialSuccess"]["rejectedLogRecords"] == "1"


def test_json_and_compression_say_the_same(server: Any) -> None:
    """A record in JSON is the one in protobuf, and stored once however it was packed."""
    log = {"timeUnixNano": "100", "traceId": RUN.hex, "spanId": EVENT.hex(), "body": {"stringValue": "said"}}
    body = json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [log]}]}]})
    url = f"{server.http_url}/v1/logs"
    assert httpx.post(url, content=body, headers={"content-type": "application/json"}).json() == {}
    packed = httpx.post(url, content=gzip.compress(request(record())), headers=PROTOBUF | {"content-encoding": "gzip"})
    assert (packed.status_code, packed.content) == (200, b"")
    server.restart()
    assert httpx.post(f"{server.http_url}/v1/logs", content=request(record()), headers=PROTOBUF).status_code == 200
    assert len(httpx.get(f"{server.http_url}/api/runs/{RUN.hex}/logs").json()["logs"]) == 1


def test_a_body_over_the_limit_is_refused(server: Any) -> None:
    """Before it is read, and after it is unpacked."""
    bomb = gzip.compress(bytes((64 << 20) + 1))
    answer = httpx.post(f"{server.http_url}/v1/logs", content=bomb, headers=PROTOBUF | {"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert httpx.get(f"{server.http_url}/v1/logs").status_code == 405


def test_logs_of_a_run_by_pages(server: Any) -> None:
    """Span events and records in order of time, none met twice or left out; filters narrow them; long contents are cut
    unless asked for in full."""
    httpx.post(f"{server.http_url}/v1/traces", content=spans(), headers=PROTOBUF)
    sent = [record(f"{n}", at=60, severity_number=n) for n in range(1, 10)]
    sent.append(record("long " * 2000, at=70, severity_number=17))
    httpx.post(f"{server.http_url}/v1/logs", content=request(*sent), headers=PROTOBUF)
    url = f"{server.http_url}/api/runs/{RUN.hex}/logs"
    whole = httpx.get(url).json()["logs"]
    assert len(whole) == 11
    assert (whole[0]["name"], whole[0]["event_type"], whole[-1]["content_length"]) == ("moment", None, 10_000)
    assert len(whole[-1]["content"]) < 10_000
    paged: list[Any] = []
    cursor: dict[str, str] = {}
    while cursor is not None:
        page = httpx.get(url, params={"limit": 2, **cursor}).json()
        paged += page["logs"]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None  # type: ignore[assignment]
    assert paged == whole
    severe = httpx.get(url, params={"severity_number": 8, "full": True}).json()["logs"]
    assert sorted(log["severity_number"] for log in severe) == [8, 9, 17]
    assert severe[-1]["content"] == "long " * 2000
    errors = httpx.get(url, params={"event_type": "ERROR"}).json()["logs"]
    assert [log["severity_number"] for log in errors] == [17]
    refused = httpx.get(url, params={"event_type": "error"})
    assert (refused.status_code, refused.json()["error"]["parameter"]) == (400, "event_type")
    event = httpx.get(f"{server.http_url}/api/runs/{RUN.hex}/events/{EVENT.hex()}").json()
    assert event["log_count"] == 11
    assert [log["log_index"] for log in event["logs"]] == [log["log_index"] for log in whole]
    assert "clew_log_records_total" in httpx.get(f"{server.http_url}/metrics").text


class RecordsGate(Gate):
    """Spans pass by it."""

    def write(self, batch: PreparedBatch | PreparedHashed) -> WriteOutcome:
        return self._store.write(batch) if isinstance(batch, PreparedBatch) else super().write(batch)


def test_a_flood_of_records_leaves_room_for_spans(store: Store) -> None:
    """A signal's full queue refuses that signal, at once and with a time to come again, and no other."""
    gate = RecordsGate(store)
    gate.open.clear()
    intake = Intake(gate, queue_bytes_max=1)
    try:
        taken = intake.accept(request(record("a")), LOGS)
        with pytest.raises(Busy) as refusal:
            intake.accept(request(record("b")), LOGS)
        assert refusal.value.retry_after_s
        assert intake.accept(spans()).result(TIMEOUT_S).error_message == ""
        gate.open.set()
        assert taken.result(TIMEOUT_S).error_message == ""
    finally:
        gate.open.set()
        intake.close()
    assert [row["content"] for row in stored(store)] == ["a"]


def test_a_record_without_time_does_not_widen_the_search(store: Store) -> None:
    """Records of no run that tell no time are found again among others that do."""
    untold, told = record("untold", run=None, at=0), record("told", run=None, at=10**18)
    assert read_log_requests([request(untold, told)]).batch.since == 10**18
    send(store, request(untold, told))
    assert send(store, request(untold, told)).repeated == 2
    assert send(store, request(untold)).repeated == 1
