"""Whole servers that send on to one another: what leaves equals what came in, field by field."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData, ResourceMetrics
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, StatusCode

from clew.exporter.otlp import logs_as_otlp, metrics_as_otlp
from clew.server import Addresses, serving
from clew.settings import Settings
from clew.storage import Store

from . import test_ingest_metrics as metric_corpus
from . import test_lossless as span_corpus
from . import test_lossless_logs as log_corpus
from .any_otlp import DETERMINISTIC
from .otlp_targets import grpc_target

PATIENCE_S = 60.0
OTLP = "/opentelemetry.proto.collector"


@contextmanager
def chain(folder: Path) -> Iterator[list[Addresses]]:
    """Three servers: the first sends on to the second over gRPC, the second to the third over HTTP."""
    with (
        _server(folder / "3.duckdb") as third,
        _server(folder / "2.duckdb", f"otlp-{third.http}") as second,
        _server(folder / "1.duckdb", f"otlp-grpc://{second.otlp_grpc}") as first,
    ):
        yield [first, second, third]


def _server(db: Path, *targets: str) -> Any:
    return serving(Settings(db=str(db), grpc_port=0, http_port=0, export=list(targets)), on_end=lambda: None)


def examples(strategy: st.SearchStrategy[Any], most: int) -> list[Any]:
    """What the strategy gives, the same every time."""
    found: list[Any] = []

    @given(strategy)
    @settings(DETERMINISTIC, max_examples=most)
    def collect(example: Any) -> None:
        found.append(example)

    collect()
    return found


def send(target: str, service: str, requests: Sequence[Message]) -> None:
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary(f"{OTLP}.{service}/Export")
        for answer in [export.future(request.SerializeToString(), timeout=PATIENCE_S) for request in requests]:
            assert answer.result() == b""


def until_all_is_sent(servers: Sequence[Addresses]) -> None:
    """Waits until nothing waits, from the first server on."""
    deadline = time.monotonic() + PATIENCE_S
    for server in servers:
        while any(export["lag_records"] for export in exports(server)):
            assert time.monotonic() < deadline, exports(server)
            time.sleep(0.05)


def exports(server: Addresses) -> list[dict[str, Any]]:
    answer = httpx.get(f"{server.http}/api/exports", trust_env=False)
    assert answer.status_code == 200, answer.text
    return list(answer.json()["exports"])


@contextmanager
def opened(path: Path) -> Iterator[Store]:
    store = Store.open(str(path))
    yield store
    store.close()


def test_everything_is_equal_at_the_end_of_a_chain(tmp_path: Path) -> None:
    """Arbitrary spans, log records and metric points, sent to the first of three servers, are in the third as they were
    sent, with what sent them, and nothing else is."""
    spans = examples(span_corpus.requests(), 40)
    for number, sent in zip(count(1), spans, strict=False):
        span_corpus.in_runs_of_their_own(sent, number)
    logs = examples(log_corpus.log_requests(), 25)
    numbers = range(10_000, 10_000 + len(logs))
    log_runs = {
        run for number, sent in zip(numbers, logs, strict=True) for run in log_corpus.of_their_own(sent, number)
    }
    metrics = [_metrics(number, drawn) for number, drawn in enumerate(examples(st.lists(metric_corpus.blocks), 25))]
    with chain(tmp_path) as servers:
        send(servers[0].otlp_grpc, "trace.v1.TraceService", [request for sent in spans for request in sent])
        send(servers[0].otlp_grpc, "logs.v1.LogsService", [request for sent in logs for request in sent])
        send(servers[0].otlp_grpc, "metrics.v1.MetricsService", metrics)
        until_all_is_sent(servers)
        states = exports(servers[0]) + exports(servers[1])
        assert {state["state"] for state in states} == {"sending"}
        assert sum(state["refused"] for state in states) == 0
    with opened(tmp_path / "3.duckdb") as store:
        for sent in spans:
            said = sorted(said for request in sent for said in span_corpus.said_by(request))
            assert span_corpus.stored(store, sent) == said
        _assert_logs(store, logs, numbers, log_runs)
        given_back = MetricsData.FromString(metrics_as_otlp(store))
        for number, sent in enumerate(metrics):
            assert metric_corpus.said_by(given_back, f"{number} ") == metric_corpus.said_by(sent, f"{number} ")


def _metrics(number: int, drawn: list[ResourceMetrics]) -> ExportMetricsServiceRequest:
    sent = ExportMetricsServiceRequest(resource_metrics=drawn)
    for block in sent.resource_metrics:
        for scope_block in block.scope_metrics:
            for metric in scope_block.metrics:
                metric.name = f"{number} {metric.name}"
    return sent


def _assert_logs(store: Store, logs: list[Any], numbers: range, runs: set[bytes]) -> None:
    found = [LogsData.FromString(logs_as_otlp(store, run) or b"") for run in (None, *(UUID(bytes=run) for run in runs))]
    for number, sent in zip(numbers, logs, strict=True):
        said = sorted(said for request in sent for said in log_corpus.said_by(request, number))
        assert sorted(said for data in found for said in log_corpus.said_by(data, number)) == said


def test_an_application_that_knows_clew_alone_is_seen_beside_it(tmp_path: Path) -> None:
    """An OpenTelemetry SDK sends to clew; what stands on the other backend's OTLP port gets the same spans."""
    with grpc_target() as backend, _server(tmp_path / "x.duckdb", f"{backend.url}?name=jaeger") as server:
        provider = TracerProvider()
        exporter = OTLPSpanExporter(endpoint=server.otlp_grpc, insecure=True)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("shop", "1.2")
        with tracer.start_as_current_span("order", attributes={"items": (1, 2), "paid": True}) as order:
            order.add_event("taken", {"by": "till 7"})
            with tracer.start_as_current_span("pay", links=[Link(order.get_span_context())]) as pay:
                pay.set_status(StatusCode.ERROR, "declined")
        provider.shutdown()
        until_all_is_sent([server])
        assert {span.name: span.status.message for spans in backend.taken for span in spans} == {
            "order": "",
            "pay": "declined",
        }
        [order_sent] = [span for spans in backend.taken for span in spans if span.name == "order"]
        assert order_sent.trace_id.hex() == f"{order.get_span_context().trace_id:032x}"
        assert [event.name for event in order_sent.events] == ["taken"]
        assert exports(server)[0]["sent"] == 2
