"""How a request gets to a target: OTLP over gRPC or over HTTP, one at a time, each with a time limit.

A sender never raises for what a target does: whatever comes back, or does not, is an `Answer`.
"""

from __future__ import annotations

import gzip
import ssl
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import grpc
import httpx
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from .outgoing import Signal
from .target_answers import Answer, Verdict, answer_of_http, answer_of_status, no_otlp, shown, unreachable
from .targets import LOOPBACK, BadTarget, Target

_ANSWER_BYTES_MAX = 1 << 20
_GZIP_LEVEL = 1  # a third of the time of the usual one, and a tenth more bytes
_PROTOBUF = "application/x-protobuf"


class _Service(NamedTuple):
    """A signal's service; `rejected` is the field of a partial success that counts what was."""

    descriptor: ServiceDescriptor
    response: type[Message]
    rejected: str


_SERVICES = {
    Signal.TRACES: _Service(
        trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"],
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
    ),
    Signal.LOGS: _Service(
        logs_service_pb2.DESCRIPTOR.services_by_name["LogsService"],
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
    ),
    Signal.METRICS: _Service(
        metrics_service_pb2.DESCRIPTOR.services_by_name["MetricsService"],
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
}


class Sends(Protocol):
    """Sends to one target."""

    def send(self, signal: Signal, request: bytes) -> Answer:
        """Sends a serialised request and waits for what it is answered, as long as the target's time limit says."""


class Sender(Sends, Protocol):
    """Sends to one target, for one thread, over connections of its own."""

    def close(self) -> None:
        """Ends the connections, and over gRPC a call under way as well."""


def sender_to(target: Target) -> Sender:
    """A sender that connects when it first sends. Raises BadTarget where the files for TLS are of no use."""
    try:
        context = _tls_context(target) if target.is_tls else None
    except (OSError, ssl.SSLError) as error:
        raise BadTarget(f"the TLS files of target {target.name!r} cannot be used: {error}") from error
    return GrpcSender(target) if target.is_grpc else HttpSender(target, context)


class GrpcSender:
    """OTLP over gRPC. A channel that failed is given up: the next request looks the host up and connects anew, so that
    only one of the two, gRPC or clew, decides when it is tried again."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._metadata = tuple(target.headers.items())
        self._compression = grpc.Compression.Gzip if target.compression == "gzip" else None
        self._channel: grpc.Channel | None = None

    def send(self, signal: Signal, request: bytes) -> Answer:
        """See `Sender`."""
        service = _SERVICES[signal]
        channel = self._channel = self._channel or _channel(self._target)
        export = channel.unary_unary(f"/{service.descriptor.full_name}/Export")
        try:
            body = export(
                request, timeout=self._target.timeout_s, metadata=self._metadata, compression=self._compression
            )
        except grpc.RpcError as error:
            return self._failed(error, is_traces=signal is Signal.TRACES)
        except ValueError:  # the channel was closed meanwhile
            return unreachable("the connection was closed")
        return _answer_of(service, body, _PROTOBUF)

    def close(self) -> None:
        """See `Sender`."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _failed(self, error: Any, *, is_traces: bool) -> Answer:
        code, message = error.code(), error.details() or ""
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            self.close()
        if code is grpc.StatusCode.DEADLINE_EXCEEDED and message.lower() == "deadline exceeded":
            return _no_answer_in(self._target)
        trailers = dict(error.trailing_metadata() or ())
        details = trailers.get("grpc-status-details-bin")
        return answer_of_status(code.value[0], message, details, is_traces=is_traces)


class HttpSender:
    """OTLP over HTTP, as protobuf."""

    def __init__(self, target: Target, context: ssl.SSLContext | None) -> None:
        self._target = target
        scheme = "https" if target.is_tls else "http"
        self._url = f"{scheme}://{target.authority}{target.path}/v1"
        self._headers = {**target.headers, "content-type": _PROTOBUF, "user-agent": "clew"}
        # A proxy for the outer world has no business between a server and its own machine.
        mounts = {f"all://{target.authority}": None} if target.host in LOOPBACK else None
        self._http = httpx.Client(verify=context or False, timeout=target.timeout_s, mounts=mounts)

    def send(self, signal: Signal, request: bytes) -> Answer:
        """See `Sender`."""
        content, headers = request, self._headers
        if self._target.compression == "gzip":
            content, headers = gzip.compress(request, _GZIP_LEVEL), {**headers, "content-encoding": "gzip"}
        try:
            with self._http.stream("POST", f"{self._url}/{signal}", content=content, headers=headers) as answer:
                body = _bounded(answer, time.monotonic() + self._target.timeout_s)
        except httpx.TimeoutException:
            return _no_answer_in(self._target)
        except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            return unreachable(str(error) or type(error).__name__)
        if not answer.is_success:
            said = {name.lower(): value for name, value in answer.headers.items()}
            return answer_of_http(answer.status_code, body, said, is_traces=signal is Signal.TRACES)
        return _answer_of(_SERVICES[signal], body, answer.headers.get("content-type", ""))

    def close(self) -> None:
        """See `Sender`."""
        self._http.close()


def _channel(target: Target) -> grpc.Channel:
    options: Sequence[tuple[str, Any]] = (
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", int(target.host not in LOOPBACK)),
        ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
        ("grpc.primary_user_agent", "clew"),
    )
    if not target.is_tls:
        return grpc.insecure_channel(target.authority, options)
    root, key, cert = (path.read_bytes() if path else None for path in (target.ca, target.key, target.cert))
    return grpc.secure_channel(target.authority, grpc.ssl_channel_credentials(root, key, cert), options)


def _tls_context(target: Target) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=target.ca)
    if target.cert is not None:
        context.load_cert_chain(target.cert, target.key)
    return context


def _bounded(answer: httpx.Response, deadline: float) -> bytes:
    """The body, as far as it is worth reading: an answer is short, and comes in time as a whole. Raises HTTPError."""
    body = b""
    for portion in answer.iter_bytes():
        body += portion
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the answer does not end")
        if len(body) > _ANSWER_BYTES_MAX:
            break
    return body


def _answer_of(service: _Service, body: bytes, content_type: str) -> Answer:
    """What the body of a success says."""
    response: Any = service.response()
    if not body:
        return Answer(Verdict.TAKEN)
    try:
        if content_type.startswith(_PROTOBUF):
            response.ParseFromString(body)
        elif content_type.startswith("application/json"):
            Parse(body, response, ignore_unknown_fields=True)
        else:
            return no_otlp(f"it answers with {content_type or 'a body of no type'}")
    except (DecodeError, ParseError):
        return no_otlp("it answers success with a body that cannot be read")
    said = response.partial_success
    return Answer(Verdict.TAKEN, shown(said.error_message), refused=max(getattr(said, service.rejected), 0))


def _no_answer_in(target: Target) -> Answer:
    return unreachable(
        f"no answer within {target.timeout_s:g} s; it hangs, or needs longer: ?timeout=SECONDS", is_slow=True
    )
