"""Tags as Jaeger searches by them: where a span's own attribute is called like one of Jaeger's tags, and values that
JSON has no form for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue

from clew.collector.projection import read_requests
from clew.query.jaeger.search import TraceSearch, find_traces
from clew.storage import Store

START = 10**18
SAID = {
    "scope.name": "mine",
    "scope.version": "9",
    "otel.scope.name": "mine",
    "otel.status_code": "odd",
    "otel.status_description": "mine",
    "span.status": "fine",
    "span.kind": "client",
    "w3c.tracestate": "mine",
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A run of a span that says all that by itself, and one that says nothing."""
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for number, said in ((1, SAID), (2, {})):
        span = spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="step", kind=2)
        span.start_time_unix_nano, span.end_time_unix_nano = START, START + 1
        for key, value in said.items():
            span.attributes.add(key=key).value.string_value = value
    with closing(Store.open(str(tmp_path_factory.mktemp("own") / "clew.duckdb"))) as store:
        store.write(read_requests([built.SerializeToString()]).batch)
        yield store


def _found(store: Store, key: str, text: str) -> list[int]:
    with store.read() as reader:
        return sorted(int(run["id"], 16) for run in find_traces(reader, TraceSearch(START, START, tags={key: text})))


@pytest.mark.parametrize("key", SAID)
def test_a_spans_own_attribute_is_found(own: Store, key: str) -> None:
    """As it is shown."""
    assert _found(own, key, SAID[key]) == [1]


def test_what_jaeger_shows_is_found_beside_it(own: Store) -> None:
    """Both are servers, whatever one says of itself."""
    assert _found(own, "span.kind", "server") == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (AnyValue(bytes_value=b""), ""),
        (AnyValue(double_value=math.inf), "Infinity"),
        (AnyValue(double_value=-math.inf), "-Infinity"),
        (AnyValue(double_value=math.nan), "NaN"),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(double_value=1e-7)])), "[1e-7]"),
        (AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="1e5")])), '["1e5"]'),
    ],
    ids=str,
)
def test_values_are_found_by_what_is_shown_of_them(store: Store, value: AnyValue, text: str) -> None:
    """Empty bytes, numbers that JSON has no form for, and lists."""
    built = ExportTraceServiceRequest()
    span = built.resource_spans.add().scope_spans.add().spans.add(trace_id=b"t" * 16, span_id=b"s" * 8, name="step")
    span.start_time_unix_nano, span.end_time_unix_nano = START, START + 1
    span.attributes.add(key="k", value=value)
    store.write(read_requests([built.SerializeToString()]).batch)
    assert len(_found(store, "k", text)) == 1
