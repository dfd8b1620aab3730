"""OTLP over HTTP, end to end: real clients, a real server, a real store."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import uvicorn
import zstandard
from google.protobuf import json_format
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from sqlalchemy import select
from starlette.applications import Starlette

from clew.collector.http_server import otlp_routes
from clew.collector.intake import Intake
from clew.storage import ExecutionEvent, Store

PAYLOAD_BYTES_MAX = 1 << 20
TIMEOUT_S = 30
PROTOBUF, JSON = "application/x-protobuf", "application/json"
ENCODINGS = pytest.mark.parametrize("media_type", [PROTOBUF, JSON])
Post = Callable[..., httpx.Response]


@pytest.fixture
def intake(store: Store) -> Iterator[Intake]:
    intake = Intake(store)
    yield intake
    intake.close()


@pytest.fixture
def url(intake: Intake) -> Iterator[str]:
    app = Starlette(routes=otlp_routes(intake, payload_bytes_max=PAYLOAD_BYTES_MAX))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces"
    server.should_exit = True
    thread.join()
    listener.close()


@pytest.fixture
def post(url: str) -> Iterator[Post]:
    """Posts a body of a media type, with headers besides."""
    with httpx.Client(timeout=TIMEOUT_S) as client:
        yield lambda body, media_type=PROTOBUF, **headers: client.post(
            url, content=body, headers={"content-type": media_type, **headers}
        )


def _spans(*names: str) -> ExportTraceServiceRequest:
    """A request of one run with a span for each name, numbered from 1."""
    spans = [
        {"trace_id": bytes(15) + b"\1", "span_id": bytes(7) + bytes([number]), "name": name}
        for number, name in enumerate(names, start=1)
    ]
    return ExportTraceServiceRequest(resource_spans=[{"resource": {}, "scope_spans": [{"scope": {}, "spans": spans}]}])


def _body(media_type: str, *names: str) -> bytes:
    """The same request in either encoding."""
    if media_type == PROTOBUF:
        return _spans(*names).SerializeToString()
    spans = [
        {"traceId": f"{1:032x}", "spanId": f"{number:016x}", "name": name} for number, name in enumerate(names, start=1)
    ]
    return json.dumps({"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": spans}]}]}).encode()


def _stored(store: Store) -> list[str]:
    with store.read() as reader:
        return [row["name"] for row in reader.rows(select(ExecutionEvent.name).order_by(ExecutionEvent.id))]


def _read(answer: httpx.Response, message: Any) -> Any:
    """The answer's message, in the encoding that the answer declares."""
    if answer.headers["content-type"] == PROTOBUF:
        return message.FromString(answer.content)
    assert answer.headers["content-type"] == JSON
    return json_format.Parse(answer.content, message())


@pytest.mark.parametrize("compression", Compression)
def test_the_sdk_exports_its_spans(url: str, store: Store, compression: Compression) -> None:
    """A span that OpenTelemetry's SDK ends is stored when its exporter returns, whatever compression it is set to."""
    provider = TracerProvider(resource=Resource({"service.name": "sdk"}), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(OTLPSpanExporter(url, compression=compression)))
    with provider.get_tracer("tests").start_as_current_span("from the SDK", attributes={"text": "x" * 1000}):
        pass
    assert _stored(store) == ["from the SDK"]
    provider.shutdown()


@pytest.mark.parametrize(
    ("media_type", "answered_type", "content"),
    [
        (PROTOBUF, PROTOBUF, b""),
        (JSON, JSON, b"{}"),
        ("application/json; charset=utf-8", JSON, b"{}"),
        ("Application/X-Protobuf;v=1", PROTOBUF, b""),
    ],
)
def test_full_success_in_the_encoding_of_the_request(
    post: Post, store: Store, media_type: str, answered_type: str, content: bytes
) -> None:
    """Everything taken is 200 and an empty response in the request's encoding, whatever parameters its type has."""
    answer = post(_body(answered_type, "one"), media_type)
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, answered_type, content)
    assert _stored(store) == ["one"]


@pytest.mark.parametrize(("media_type", "body"), [(PROTOBUF, b""), (PROTOBUF, b"\n\0"), (JSON, b"{}")])
def test_an_empty_request_succeeds(post: Post, media_type: str, body: bytes) -> None:
    """A request without spans is a success."""
    assert post(body, media_type).status_code == 200


def test_partial_success_in_json(post: Post, store: Store) -> None:
    """Spans whose ids are no ids are counted, as text, and told of; the others are stored."""
    document = json.loads(_body(JSON, "bad", "good", "bad too"))
    spans = document["resourceSpans"][0]["scopeSpans"][0]["spans"]
    spans[0]["traceId"], spans[2]["spanId"] = "not hex", "0" * 16
    answer = post(json.dumps(document), JSON)
    assert answer.status_code == 200
    partial = answer.json().pop("partialSuccess")
    assert partial.pop("rejectedSpans") == "2"
    assert partial.pop("errorMessage")
    assert partial == {}
    assert _stored(store) == ["good"]


def test_partial_success_in_protobuf(post: Post, store: Store) -> None:
    """The same in protobuf."""
    request = _spans("bad", "good")
    request.resource_spans[0].scope_spans[0].spans[0].trace_id = b"short"
    answer = post(request.SerializeToString())
    assert (answer.status_code, _read(answer, ExportTraceServiceResponse).partial_success.rejected_spans) == (200, 1)
    assert _stored(store) == ["good"]


def test_repaired_text_is_a_success_with_a_warning(post: Post, store: Store) -> None:
    """JSON text cut within a surrogate pair is kept with U+FFFD; nothing is rejected, and a warning tells of it."""
    answer = post(_body(JSON, "CUT").replace(b"CUT", b"cut \\ud83d"), JSON)
    assert answer.status_code == 200
    assert list(answer.json()["partialSuccess"]) == ["errorMessage"]
    assert _stored(store) == ["cut \ufffd"]


def test_a_nul_in_text_is_kept(post: Post, store: Store) -> None:
    """U+0000 survives the way from JSON to the store."""
    assert post(_body(JSON, "a\0b"), JSON).content == b"{}"
    assert _stored(store) == ["a\0b"]


@ENCODINGS
@pytest.mark.parametrize(
    ("coding", "compress"),
    [("gzip", gzip.compress), ("GZIP", gzip.compress), ("zstd", zstandard.compress), ("deflate", zlib.compress)],
)
def test_compressed_bodies_are_taken(
    post: Post, store: Store, media_type: str, coding: str, compress: Callable[[bytes], bytes]
) -> None:
    """gzip, zstd and deflate are undone."""
    answer = post(compress(_body(media_type, "one")), media_type, **{"content-encoding": coding})
    assert answer.status_code == 200
    assert _stored(store) == ["one"]


TOO_LARGE = bytes(PAYLOAD_BYTES_MAX + 1)
BOMB = bytes(200 * PAYLOAD_BYTES_MAX)
REFUSALS = {
    "no request": (400, {}, b"\n\xff{"),
    "not gzip": (400, {"content-encoding": "gzip"}, b"plain"),
    "truncated gzip": (400, {"content-encoding": "gzip"}, gzip.compress(b"{}")[:-3]),
    "truncated zstd": (400, {"content-encoding": "zstd"}, zstandard.compress(b"{}")[:-1]),
    "unknown coding": (400, {"content-encoding": "br"}, b"{}"),
    "too large": (413, {}, TOO_LARGE),
    "gzip bomb": (413, {"content-encoding": "gzip"}, gzip.compress(BOMB)),
    "zstd bomb": (413, {"content-encoding": "zstd"}, zstandard.compress(BOMB)),
}


@ENCODINGS
@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_is_a_status_in_the_encoding_of_the_request(
    post: Post, store: Store, media_type: str, name: str
) -> None:
    """What cannot be taken gets its HTTP status and a google.rpc.Status that says why; the next request succeeds."""
    http_status, headers, body = REFUSALS[name]
    answer = post(body, media_type, **headers)
    assert answer.status_code == http_status
    status = _read(answer, Status)
    assert status.message
    if http_status == 400:
        detail = error_details_pb2.BadRequest()
        assert status.details[0].Unpack(detail)
        assert detail.field_violations[0].description == status.message
    assert "retry-after" not in answer.headers
    assert post(_body(media_type, "next"), media_type).status_code == 200
    assert _stored(store) == ["next"]


def test_a_body_of_unknown_length_is_held_to_the_limit(post: Post, store: Store) -> None:
    """A chunked body is refused once it is over the limit; the next request succeeds."""
    assert post(iter([b"x" * 1000] * 2000)).status_code == 413
    assert post(_body(PROTOBUF, "next")).status_code == 200
    assert _stored(store) == ["next"]


def test_a_declared_length_over_the_limit_is_refused_unread(url: str) -> None:
    """The answer to a body that is declared too large comes before any of it is sent."""
    host, port = httpx.URL(url).host, httpx.URL(url).port
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {JSON}\r\nContent-Length: {1 << 40}\r\n\r\n"
    with socket.create_connection((host, port), TIMEOUT_S) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 413 ")


def test_a_connection_lost_within_a_body_stores_nothing(url: str, post: Post, store: Store) -> None:
    """A body that ends before its declared length is not taken; the next request succeeds."""
    body = _body(PROTOBUF, "lost")
    head = f"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: {PROTOBUF}\r\nContent-Length: {len(body) + 1}\r\n\r\n"
    with socket.create_connection((httpx.URL(url).host, httpx.URL(url).port), TIMEOUT_S) as connection:
        connection.sendall(head.encode() + body)
    assert post(_body(PROTOBUF, "next")).status_code == 200
    assert _stored(store) == ["next"]


@pytest.mark.parametrize("headers", [{"content-type": "text/plain"}, {"content-type": "application/grpc"}, {}])
def test_other_media_types_are_refused(url: str, post: Post, headers: dict[str, str]) -> None:
    """A type that OTLP does not have, or none, gets 415 with the types that it has; the next request succeeds."""
    answer = httpx.post(url, content=b"{}", headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == 415
    assert PROTOBUF in _read(answer, Status).message
    assert post(b"").status_code == 200


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused(url: str, method: str) -> None:
    """Any method but POST gets 405 with the one that is allowed."""
    answer = httpx.request(method, url, timeout=TIMEOUT_S)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert method in _read(answer, Status).message


def test_many_requests_at_once_are_all_stored(url: str, store: Store) -> None:
    """More requests than bodies are decoded at a time wait for their turn; every one is stored."""
    answers: list[int] = []

    def send(number: int) -> None:
        request = _spans(str(number))
        request.resource_spans[0].scope_spans[0].spans[0].span_id = number.to_bytes(8, "big")
        body, headers = request.SerializeToString(), {"content-type": PROTOBUF}
        answers.append(httpx.post(url, content=body, headers=headers, timeout=TIMEOUT_S).status_code)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(1, 41)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 40
    assert _stored(store) == [str(number) for number in range(1, 41)]
