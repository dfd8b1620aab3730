"""Rows that log records bring along: messages, files, checkpoints and approvals, of the event that they name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue, KeyValueList
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.storage import ApprovalRequest, Checkpoint, EventLog, File, Message, Row, Store

from .log_requests import EVENT, RUN, record, request, send, send_spans, spans


def pairs(**said: str | int) -> list[KeyValue]:
    values = {key.replace("__", "."): value for key, value in said.items()}
    return [
        KeyValue(key=key, value=AnyValue(int_value=value) if isinstance(value, int) else AnyValue(string_value=value))
        for key, value in values.items()
    ]


def rows_of(store: Store, model: Any) -> Sequence[Row]:
    with store.read() as reader:
        return reader.rows(select(model.__table__).where(model.run_id == RUN))


def test_records_bring_messages_files_and_approvals(store: Store) -> None:
    """A record that tells of a message, a file, a checkpoint or an approval makes that row, once, of its event."""
    said = AnyValue(kvlist_value=KeyValueList(values=pairs(content="Hello?")))
    asked = LogRecord(body=said, time_unix_nano=1, trace_id=RUN.bytes, span_id=EVENT, event_name="gen_ai.user.message")
    approved = pairs(clew__approval__id="q", clew__approval__status="approved")
    told = [
        asked,
        record("Hi.", at=2, event_name="clew.message", attributes=pairs(clew__message__sender="scout")),
        record("", at=3, event_name="clew.file", attributes=pairs(file__path="a.py", file__size=7)),
        record("", at=4, event_name="clew.approval", attributes=approved),
        record("", at=5, event_name="clew.checkpoint", attributes=pairs(clew__checkpoint__snapshot='{"step": 2}')),
        record("of no run", run=None, event_name="clew.message"),
    ]
    for _ in range(2):
        send(store, request(*told))
    messages = sorted(rows_of(store, Message), key=lambda row: row["time_unix_nano"])
    assert [(row["role"], row["sender"], row["content"]) for row in messages] == [
        ("user", "user", "Hello?"),
        (None, "scout", "Hi."),
    ]
    [file] = rows_of(store, File)
    assert (file["file_path"], file["file_type"], file["size_bytes"]) == ("a.py", "code", 7)
    [approval] = rows_of(store, ApprovalRequest)
    assert (approval["id"], approval["status"]) == ("q", "approved")
    [checkpoint] = rows_of(store, Checkpoint)
    assert checkpoint["context_snapshot"] == {"step": 2}
    of_record = {row["log_index"] for row in (*messages, file, checkpoint)}
    assert {row["event_id"] for row in (*messages, file, checkpoint, approval)} == {EVENT.hex()}
    assert of_record <= {row["log_index"] for row in rows_of(store, EventLog)}


def test_what_a_record_told_outlives_the_pending_copy_of_its_event(store: Store) -> None:
    """The finished event takes the place of the pending one; what a log record told of it stays."""
    send_spans(store, spans(end=0))
    file = record("", event_name="clew.file", attributes=pairs(file__path="a"))
    send(store, request(record("Hi.", event_name="clew.message"), file))
    assert send_spans(store, spans()).replaced == 1
    assert [len(rows_of(store, model)) for model in (Message, File)] == [1, 1]


@pytest.mark.parametrize(
    ("name", "body", "said", "expected"),
    [
        ("gen_ai.choice", '{"index": 0, "message": {"role": "assistant", "content": "42"}}', {}, ("assistant", "42")),
        ("gen_ai.system.message", "", {"gen_ai.event.content": '{"content": "Be brief."}'}, ("system", "Be brief.")),
        ("gen_ai.tool.message", "", {"content": "sunny", "id": "call_1"}, ("tool", "sunny")),
        ("gen_ai.content.prompt", "", {"gen_ai.prompt": "Why?"}, ("user", "Why?")),
        (
            "gen_ai.client.inference.operation.details",
            "",
            {"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "Because."}]}]'},
            ("assistant", "Because."),
        ),
    ],
)
def test_genai_events_are_messages(
    store: Store, name: str, body: str, said: dict[str, str], expected: tuple[str, str]
) -> None:
    """OTel GenAI's events about messages say the same as log records and as span events."""
    attributes = [KeyValue(key=key, value=AnyValue(string_value=value)) for key, value in said.items()]
    send(store, request(record(body, event_name=name, attributes=attributes)))
    [row] = rows_of(store, Message)
    assert (row["role"], row["content"]) == expected
    if not body:
        sent = ExportTraceServiceRequest.FromString(spans())
        sent.resource_spans[0].scope_spans[0].spans[0].events.add(name=name, time_unix_nano=60, attributes=attributes)
        told = read_requests([sent.SerializeToString()]).batch.records["messages"]
        assert (told["role"].to_pylist(), told["content"].to_pylist()) == ([expected[0]], [expected[1]])
