"""The signals of OTLP, as a table: what each is called on the wire. `intake` knows what reads their requests: most who
talk of signals never read one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from ..storage import WriteOutcome


class Sink(Protocol):
    """What the intake needs of a store: all of the batch stored and durable on return, or a StorageError."""

    def write(self, batch: Any) -> WriteOutcome: ...


@dataclass(frozen=True)
class Signal:
    """One of OTLP's signals: its `name` in paths, what its `records` are called, the service and its messages, and the
    field of a partial success that counts what was `rejected`."""

    name: str
    records: str
    service: ServiceDescriptor
    request: type[Message]
    response: type[Message]
    rejected: str

    @property
    def path(self) -> str:
        """Where OTLP/HTTP takes it."""
        return f"/v1/{self.name}"


TRACES = Signal(
    name="traces",
    records="spans",
    service=trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"],
    request=trace_service_pb2.ExportTraceServiceRequest,
    response=trace_service_pb2.ExportTraceServiceResponse,
    rejected="rejected_spans",
)
LOGS = Signal(
    name="logs",
    records="log_records",
    service=logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"],
    request=logs_service_pb2.ExportLogsServiceRequest,
    response=logs_service_pb2.ExportLogsServiceResponse,
    rejected="rejected_log_records",
)
METRICS = Signal(
    name="metrics",
    records="metric_points",
    service=metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"],
    request=metrics_service_pb2.ExportMetricsServiceRequest,
    response=metrics_service_pb2.ExportMetricsServiceResponse,
    rejected="rejected_data_points",
)
SIGNALS = {signal.name: signal for signal in (TRACES, LOGS, METRICS)}
