"""Log records and the span that they belong to, as requests, and how they are stored."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from clew.collector.log_records import read_log_requests
from clew.collector.projection import read_requests
from clew.storage import Store, WriteOutcome

RUN, EVENT = UUID(int=7), (9).to_bytes(8, "big")


def record(
    body: str = "said", *, run: UUID | None = RUN, event: bytes = EVENT, at: int = 100, **more: Any
) -> LogRecord:
    """A log record of the event, or, with no run, of none."""
    ids = {"trace_id": run.bytes, "span_id": event} if run else {}
    return LogRecord(body=AnyValue(string_value=body), time_unix_nano=at, **ids, **more)


def request(*records: LogRecord, service: str = "") -> bytes:
    sent = ExportLogsServiceRequest()
    block = sent.resource_logs.add()
    if service:
        block.resource.attributes.add(key="service.name", value=AnyValue(string_value=service))
    block.scope_logs.add(log_records=records)
    return sent.SerializeToString()


def spans(*, name: str = "work", start: int = 50, end: int = 200, parent: bytes = b"") -> bytes:
    """A request with the span that EVENT is."""
    sent = ExportTraceServiceRequest()
    sent.resource_spans.add().scope_spans.add().spans.add(
        trace_id=RUN.bytes,
        span_id=EVENT,
        parent_span_id=parent,
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        events=[Span.Event(name="moment", time_unix_nano=start + 1)],
    )
    return sent.SerializeToString()


def send(store: Store, *requests: bytes) -> WriteOutcome:
    """Stores requests of log records as one group."""
    return store.write(read_log_requests(list(requests)).batch)


def send_spans(store: Store, sent: bytes) -> WriteOutcome:
    batch = read_requests([sent]).batch
    assert batch is not None
    return store.write(batch)
