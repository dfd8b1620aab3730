"""A whole server for the tests of Jaeger's APIs, and what they find in it: a small shop's traces, sent over OTLP."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from clew.query.jaeger.messages import API_V3, STORAGE, message_class
from clew.server import serving
from clew.settings import Settings

START = 1_700_000_000_000_000_000  # 2023-11-14T22:13:20Z
SECOND = 10**9
TIMEOUT_S = 60
SENT_AT_ONCE = 200

CART = "0af7651916cd43dd8448eb211c80319c"  # the shop, which calls the stock
TICK = "000000000000000000000000000000ab"  # a minute later; from nobody one knows
JOB = "11111111111111111111111111111111"  # two minutes later; the stock alone, linked to the cart
V3, READER = "jaeger.api_v3.QueryService", "jaeger.storage.v2.TraceReader"
DEPENDENCY_READER, CAPABILITIES = "jaeger.storage.v2.DependencyReader", "jaeger.storage.v2.Capabilities"


@dataclass
class JaegerServer:
    """A server and its clients."""

    http: httpx.Client
    channel: grpc.Channel

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON that `path` answers."""
        response = self.http.get(path, params=parameters or None)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, **parameters: Any) -> tuple[int, Any]:
        """The status and the JSON of an answer that is none."""
        response = self.http.get(path, params=parameters or None)
        assert response.is_error, response.text
        return response.status_code, response.json()

    def ask(self, service: str, method: str, /, **fields: Any) -> Any:
        """The response to a request with these fields; a list of them where the method streams."""
        described = _service(service).methods_by_name[method]
        file = API_V3 if service == V3 else STORAGE
        request = message_class(file, described.input_type.name)(**fields)
        is_traces = described.output_type.full_name == TracesData.DESCRIPTOR.full_name
        response = TracesData if is_traces else message_class(file, described.output_type.name)
        call = self.channel.unary_stream if described.server_streaming else self.channel.unary_unary
        given = call(f"/{service}/{method}", type(request).SerializeToString, response.FromString)(
            request, timeout=TIMEOUT_S
        )
        return list(given) if described.server_streaming else given

    def send(self, *requests: ExportTraceServiceRequest) -> None:
        """Exports them over OTLP/gRPC, SENT_AT_ONCE at a time."""
        export = self.channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")
        for first in range(0, len(requests), SENT_AT_ONCE):
            some = requests[first : first + SENT_AT_ONCE]
            under_way = [export.future(request.SerializeToString(), timeout=TIMEOUT_S) for request in some]
            assert {answer.result() for answer in under_way} == {b""}


@contextmanager
def jaeger_server(folder: Path) -> Iterator[JaegerServer]:
    """A server on a fresh file in `folder`, while the `with` lasts."""
    settings = Settings(db=str(folder / "clew.duckdb"), grpc_port=0, http_port=0)
    with (
        serving(settings, on_end=lambda: None) as addresses,
        httpx.Client(base_url=addresses.http, timeout=TIMEOUT_S, trust_env=False) as http,
        grpc.insecure_channel(addresses.otlp_grpc) as channel,
    ):
        yield JaegerServer(http, channel)


def shop() -> ExportTraceServiceRequest:
    """The traces CART, TICK and JOB."""
    request = ExportTraceServiceRequest()
    lib = {"name": "lib", "version": "1.2", "attributes": _attributes({"tier": "gold"})}
    of_shop = request.resource_spans.add(resource={"attributes": _attributes({"service.name": "shop", "host.id": 7})})
    of_shop.scope_spans.add(scope=lib, spans=[_cart()])
    of_stock = request.resource_spans.add(resource={"attributes": _attributes({"service.name": "stock"})})
    of_stock.scope_spans.add(spans=[*_stock_spans(), _job()])
    request.resource_spans.add().scope_spans.add(spans=[span(TICK, 1, name="tick", at=60 * SECOND, lasts=5 * SECOND)])
    return request


def span(trace_id: str, number: int, parent: int | None = None, *, at: int = 0, lasts: int = 10, **more: Any) -> Span:
    """A span whose id is `number`, starting `at` ns after START."""
    times = {"start_time_unix_nano": START + at, "end_time_unix_nano": START + at + lasts}
    parent_id = b"" if parent is None else parent.to_bytes(8)
    ids = {"trace_id": bytes.fromhex(trace_id), "span_id": number.to_bytes(8), "parent_span_id": parent_id}
    return Span(**ids, **times, **more)


def _cart() -> Span:
    cart = span(CART, 1, lasts=1_500_999, name="GET /cart", kind=Span.SPAN_KIND_SERVER, trace_state="k=v", flags=0x101)
    cart.attributes.extend(
        _attributes({"cached": True, "http.status_code": 500, "ratio": 72.5, "weight": 100.0, "zip": "00501"})
    )
    cart.status.code, cart.status.message = 2, "out of stock"
    failed = cart.events.add(name="exception", time_unix_nano=START + 1_999)
    failed.attributes.extend(_attributes({"exception.type": "KeyError", "tries": 3}))
    cart.events.add(name="", time_unix_nano=START + 2_000).attributes.extend(_attributes({"event": "gone"}))
    return cart


def _stock_spans() -> list[Span]:
    """Both sides of one call, which share the span id."""
    client = span(CART, 2, parent=1, at=1_000, lasts=10_000, name="count", kind=Span.SPAN_KIND_CLIENT)
    client.status.code = 1
    client.attributes.extend(_attributes({"large": 1 << 53, "raw": b"ab", "sizes": ["S", "M"], "box": {"depth": 2}}))
    server = span(CART, 2, parent=1, at=2_500, lasts=8_000, name="count", kind=Span.SPAN_KIND_SERVER)
    to_parent = {"trace_id": bytes.fromhex(CART), "span_id": (1).to_bytes(8)}
    server.links.add(**to_parent, attributes=_attributes({"reason": "order"}))
    return [client, server]


def _job() -> Span:
    job = span(JOB, 1, at=120 * SECOND, lasts=250_000, name="restock", kind=Span.SPAN_KIND_CONSUMER)
    to_cart = {"trace_id": bytes.fromhex(CART), "span_id": (1).to_bytes(8)}
    job.links.add(**to_cart, attributes=_attributes({"opentracing.ref_type": "child_of", "batch": 12}))
    return job


def _attributes(values: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=_value(value)) for key, value in values.items()]


def _value(value: Any) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value={"values": [_value(item) for item in value]})
    if isinstance(value, dict):
        return AnyValue(kvlist_value={"values": _attributes(value)})
    return AnyValue(**{_FIELDS[type(value)]: value})


_FIELDS = {bool: "bool_value", int: "int_value", float: "double_value", bytes: "bytes_value", str: "string_value"}


def _service(name: str) -> Any:
    package, _, short = name.rpartition(".")
    return {API_V3.package: API_V3, STORAGE.package: STORAGE}[package].services_by_name[short]
