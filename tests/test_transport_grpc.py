"""OTLP over gRPC, end to end: real clients, a real server, a real store."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from sqlalchemy import select

from clew.collector.grpc_server import GrpcServer, otlp_services
from clew.collector.intake import Intake
from clew.storage import ExecutionEvent, Store

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PAYLOAD_BYTES_MAX = 1 << 20
TIMEOUT_S = 30
Send = Callable[..., Any]


@pytest.fixture
def intake(store: Store) -> Iterator[Intake]:
    intake = Intake(store)
    yield intake
    intake.close()


@pytest.fixture
def server(intake: Intake) -> Iterator[GrpcServer]:
    server = GrpcServer(otlp_services(intake), "127.0.0.1:0", payload_bytes_max=PAYLOAD_BYTES_MAX)
    server.start()
    yield server
    server.stop(TIMEOUT_S)


@pytest.fixture
def channel(server: GrpcServer) -> Iterator[grpc.Channel]:
    options = [("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield channel


@pytest.fixture
def send(channel: grpc.Channel) -> Send:
    """Sends bytes as an Export, gives the bytes of the response."""
    export = channel.unary_unary(EXPORT)
    return lambda request, **options: export(request, timeout=TIMEOUT_S, **options)


def _request(*names: str, **fields: Any) -> bytes:
    """A request of one run with a span for each name, numbered from 1; `fields` are of every span."""
    spans = [
        {"trace_id": bytes(15) + b"\1", "span_id": bytes(7) + bytes([number]), "name": name, **fields}
        for number, name in enumerate(names, start=1)
    ]
    resource_spans = {"resource": {}, "scope_spans": [{"scope": {}, "spans": spans}]}
    return ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()


def _stored(store: Store) -> list[str]:
    with store.read() as reader:
        return [row["name"] for row in reader.rows(select(ExecutionEvent.name).order_by(ExecutionEvent.id))]


def _refusal(send: Send, request: bytes, **options: Any) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refusal:
        send(request, **options)
    return refusal.value


def _status(refusal: Any) -> Status | None:
    metadata = dict(refusal.trailing_metadata())
    encoded = metadata.get("grpc-status-details-bin")
    return None if encoded is None else Status.FromString(encoded)


@pytest.mark.parametrize("compression", grpc.Compression)
def test_the_sdk_exports_its_spans(server: GrpcServer, store: Store, compression: grpc.Compression) -> None:
    """A span that OpenTelemetry's SDK ends is stored when its exporter returns, whatever compression it is set to."""
    exporter = OTLPSpanExporter(f"127.0.0.1:{server.port}", insecure=True, compression=compression)
    provider = TracerProvider(resource=Resource({"service.name": "sdk"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with provider.get_tracer("tests").start_as_current_span("from the SDK", attributes={"text": "x" * 1000}):
        pass
    assert _stored(store) == ["from the SDK"]
    provider.shutdown()


def test_full_success_is_an_empty_response(send: Send, store: Store) -> None:
    """When everything was taken `partial_success` is unset, so the response has no bytes."""
    assert send(_request("one")) == b""
    assert _stored(store) == ["one"]


@pytest.mark.parametrize("request_", [b"", b"\n\0"])
def test_an_empty_request_succeeds(send: Send, request_: bytes) -> None:
    """A request without spans, with an empty envelope or none, is a success."""
    assert send(request_) == b""


def test_a_bad_span_harms_itself_only(send: Send, store: Store) -> None:
    """Spans with ids of wrong length are counted and told of in `partial_success`; the others are stored."""
    request = ExportTraceServiceRequest.FromString(_request("bad", "good", "bad too"))
    spans = request.resource_spans[0].scope_spans[0].spans
    spans[0].trace_id, spans[2].span_id = b"short", bytes(8)
    response = ExportTraceServiceResponse.FromString(send(request.SerializeToString()))
    assert response.partial_success.rejected_spans == 2
    assert response.partial_success.error_message
    assert _stored(store) == ["good"]


def test_malformed_bytes_are_an_invalid_argument(send: Send, store: Store) -> None:
    """Bytes that are no request get INVALID_ARGUMENT with a BadRequest that says why; the next request succeeds."""
    refusal = _refusal(send, b"\n\xff")
    assert refusal.code() is grpc.StatusCode.INVALID_ARGUMENT
    status = _status(refusal)
    assert status
    assert status.message == refusal.details()
    detail = BadRequest()
    assert status.details[0].Unpack(detail)
    assert "ExportTraceServiceRequest" in detail.field_violations[0].description
    assert send(_request("next")) == b""
    assert _stored(store) == ["next"]


@pytest.mark.parametrize(
    ("compression", "text_bytes"),
    [(grpc.Compression.NoCompression, PAYLOAD_BYTES_MAX + 1), (grpc.Compression.Gzip, 50 * PAYLOAD_BYTES_MAX)],
)
def test_too_large_is_not_to_be_sent_again(
    send: Send, store: Store, compression: grpc.Compression, text_bytes: int
) -> None:
    """A request over the limit, as it comes or inflated, gets RESOURCE_EXHAUSTED, no RetryInfo; the next is taken."""
    refusal = _refusal(send, _request("x" * text_bytes), compression=compression)
    assert refusal.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert _status(refusal) is None
    assert send(_request("next")) == b""
    assert _stored(store) == ["next"]


def test_a_request_just_within_the_limit_is_taken(send: Send, store: Store) -> None:
    """One attribute may fill a request up to the limit."""
    room = PAYLOAD_BYTES_MAX - len(_request("")) - 100
    assert send(_request("x" * room)) == b""
    assert [len(name) for name in _stored(store)] == [room]


def test_an_unknown_encoding_is_refused(server: GrpcServer, send: Send, store: Store) -> None:
    """A call whose `grpc-encoding` gRPC does not know ends without anything stored; other calls go on."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": EXPORT,
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
        "grpc-encoding": "zstd",
    }
    with socket.create_connection(("127.0.0.1", server.port), TIMEOUT_S) as connection:
        connection.sendall(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(4, 0, 0, b"") + _frame(1, 5, 1, _hpack(headers))
        )
        frames = iter(lambda: _read_frame(connection), None)
        assert next(kind for kind, flags, stream in frames if stream == 1 and (kind == 3 or flags & 1)) in (1, 3)
    assert send(_request("next")) == b""
    assert _stored(store) == ["next"]


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + struct.pack(">BBI", kind, flags, stream) + payload


def _hpack(headers: dict[str, str]) -> bytes:
    """Every header as a literal (RFC 7541 section 6.2.2)."""
    return b"".join(
        b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
        for name, value in headers.items()
    )


def _read_frame(connection: socket.socket) -> tuple[int, int, int]:
    head = _read(connection, 9)
    _read(connection, int.from_bytes(head[:3], "big"))
    return head[3], head[4], int.from_bytes(head[5:], "big")


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        received = connection.recv(size - len(data))
        assert received, "the server closed the connection"
        data += received
    return data


@pytest.mark.parametrize("service", ["", "opentelemetry.proto.collector.trace.v1.TraceService"])
def test_health_is_serving(channel: grpc.Channel, service: str) -> None:
    """The standard health service answers for the server and for OTLP's service."""
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_lists_the_services(channel: grpc.Channel) -> None:
    """Reflection names OTLP's service and knows its messages."""
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=EXPORT.split("/")[1]),
    ]
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    listed, file = stub.ServerReflectionInfo(iter(requests), timeout=TIMEOUT_S)
    assert EXPORT.split("/")[1] in {service.name for service in listed.list_services_response.service}
    assert file.file_descriptor_response.file_descriptor_proto


def test_other_methods_are_unimplemented(channel: grpc.Channel) -> None:
    """A signal that is not there yet is told by UNIMPLEMENTED, which exporters take for final."""
    profiles = channel.unary_unary("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export")
    with pytest.raises(grpc.RpcError) as refusal:
        profiles(b"", timeout=TIMEOUT_S)
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_taken_port_is_an_error_that_names_it(server: GrpcServer, intake: Intake) -> None:
    """A second server on the same port is refused, not shared."""
    with pytest.raises(OSError, match=f"127.0.0.1:{server.port}"):
        GrpcServer(otlp_services(intake), f"127.0.0.1:{server.port}")


def test_a_burst_of_calls_is_answered(channel: grpc.Channel, store: Store) -> None:
    """Of 3,000 Exports begun at once, far more than gRPC lets wait by itself, none is cancelled."""
    export = channel.unary_unary(EXPORT)
    names = [str(number) for number in range(3_000)]
    calls = [export.future(_request(name, start_time_unix_nano=int(name) + 1), timeout=TIMEOUT_S) for name in names]
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}
    assert sorted(_stored(store)) == sorted(names)
