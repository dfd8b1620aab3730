"""Backends to send on to, real ones: an OTLP/HTTP server, an OTLP/gRPC server, a bare socket; each as bad as told."""

from __future__ import annotations

import gzip
import socket
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NamedTuple

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PROTOBUF = "application/x-protobuf"


class HttpAnswer(NamedTuple):
    """What an HTTP target answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = {"content-type": PROTOBUF}


TAKEN = HttpAnswer()
Spans = list[Span]
Judge = Callable[[Spans], HttpAnswer]


@dataclass
class Received:
    """What a target has got: the spans of each request that it took, and the headers of all requests."""

    url: str
    taken: list[Spans] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    log_records: int = 0

    @property
    def names(self) -> list[str]:
        """The names of all spans, in the order in which they came."""
        return [span.name for spans in self.taken for span in spans]


class Certificate(NamedTuple):
    """Files in PEM."""

    cert: Path
    key: Path


def own_certificate(folder: Path) -> Certificate:
    """A certificate of 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tests")])
    address = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder(name, name, key.public_key(), 7, begin, begin + timedelta(days=36_500))
    signed = built.add_extension(address, critical=False).sign(key, hashes.SHA256())
    made = Certificate(folder / "cert.pem", folder / "key.pem")
    made.cert.write_bytes(signed.public_bytes(Encoding.PEM))
    made.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return made


@contextmanager
def http_target(
    judge: Judge = lambda _: TAKEN, *, logs: HttpAnswer = TAKEN, port: int = 0, tls: Certificate | None = None
) -> Iterator[Received]:
    """A target that answers each request for spans as `judge` does, and those for logs with `logs`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers["content-encoding"] == "gzip":
                body = gzip.decompress(body)
            received.headers.append({name.lower(): value for name, value in self.headers.items()})
            answer = judged(body) if self.path.endswith("/v1/traces") else logs
            if self.path.endswith("/v1/logs") and answer is TAKEN:
                received.log_records += len(ExportLogsServiceRequest.FromString(body).resource_logs)
            self.send_response(answer.status)
            for name, value in {**answer.headers, "content-length": str(len(answer.body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    def judged(body: bytes) -> HttpAnswer:
        spans = spans_of(body)
        answer = judge(spans)
        if answer.status == 200 and spans:
            received.taken.append(spans)
        return answer

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    received = Received(f"otlp-http{'s' if tls else ''}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def grpc_target(
    refusal: Callable[[Spans, grpc.ServicerContext], None] | None = None, *, tls: Certificate | None = None
) -> Iterator[Received]:
    """A target that takes spans and nothing else, unless `refusal` aborts the call."""

    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        received.headers.append({str(key): str(value) for key, value in context.invocation_metadata()})
        spans = spans_of(request)
        if refusal is not None:
            refusal(spans, context)
        if spans:
            received.taken.append(spans)
        return ExportTraceServiceResponse().SerializeToString()

    handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server = grpc.server(ThreadPoolExecutor(2), options=(("grpc.max_receive_message_length", 64 << 20),))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    if tls:
        credentials = grpc.ssl_server_credentials([(tls.key.read_bytes(), tls.cert.read_bytes())])
        port = server.add_secure_port("127.0.0.1:0", credentials)
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    received = Received(f"otlp-grpc{'s' if tls else ''}://127.0.0.1:{port}")
    server.start()
    try:
        yield received
    finally:
        server.stop(0).wait()


@contextmanager
def socket_target(says: bytes | None, *, is_closing: bool = True) -> Iterator[int]:
    """A port where `says` is said to whatever comes, before the connection is closed; it stays open and silent where it
    is not closing."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        with suppress(OSError):  # closed: the test is over
            while True:
                connection, _ = listener.accept()
                held.append(connection)
                if is_closing:
                    with suppress(OSError):
                        connection.recv(65_536)
                        connection.sendall(says or b"")
                    connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in held:
        connection.close()


def free_port() -> int:
    """A port where nothing listens at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def spans_of(request: bytes) -> Spans:
    """The spans of a serialised request, in its order."""
    sent = ExportTraceServiceRequest.FromString(request)
    return [span for block in sent.resource_spans for scope in block.scope_spans for span in scope.spans]
