"""OTLP over HTTP: `POST /v1/traces`, `/v1/logs` and `/v1/metrics`, routes for the application that listens."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from anyio import CapacityLimiter, to_thread
from google.protobuf.message import Message
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from .answers import MethodNotAllowed, TooLarge, UnsupportedMediaType, http_status_of, response_to, status_of
from .compression import decompressed
from .otlp_json import json_from, request_from_json
from .outcomes import Accepts, Malformed, Outcome
from .signals import SIGNALS, Signal

# Bodies that are decompressed and decoded at a time; the waiting for their commit takes no thread.
DECODING_MAX = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Encoding:
    """One of OTLP's two encodings; `read` gives the protobuf of a request of this type, and a warning or ""."""

    media_type: str
    read: Callable[[bytes, type[Message]], tuple[bytes, str]]
    write: Callable[[Message], bytes]


_PROTOBUF = _Encoding("application/x-protobuf", lambda body, _: (body, ""), lambda message: message.SerializeToString())
_JSON = _Encoding("application/json", request_from_json, json_from)
_ENCODINGS = {encoding.media_type: encoding for encoding in (_PROTOBUF, _JSON)}


def otlp_routes(intake: Accepts, *, payload_bytes_max: int = 64 << 20) -> list[Route]:
    """The routes of OTLP/HTTP (OTLP 1.11 section "OTLP/HTTP"): every answer, also to a refusal, is OTLP's own.

    A body may be gzip, zstd or deflate; over `payload_bytes_max` bytes, before or after decompression, it gets 413.
    """
    decoding = CapacityLimiter(DECODING_MAX)
    return [
        Route(signal.path, _Export(intake, signal, payload_bytes_max, decoding), name=f"OTLP {name} over HTTP")
        for name, signal in SIGNALS.items()
    ]


class _Export:
    """The ASGI endpoint of a signal; not a function, so that it sees every method and refuses the others itself."""

    def __init__(self, intake: Accepts, signal: Signal, payload_bytes_max: int, decoding: CapacityLimiter) -> None:
        self._intake = intake
        self._signal = signal
        self._payload_bytes_max = payload_bytes_max
        self._decoding = decoding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        encoding = _ENCODINGS.get(_media_type(request))
        try:
            outcome = await self._export(request, encoding)
            response = _response(encoding or _JSON, 200, response_to(outcome, self._signal))
        except Exception as error:  # noqa: BLE001 the sender must be answered, whatever happened
            response = _refusal(encoding or _JSON, error)
        await response(scope, receive, send)

    async def _export(self, request: Request, encoding: _Encoding | None) -> Outcome:
        if request.method != "POST":
            raise MethodNotAllowed(f"{self._signal.path} takes POST, not {request.method}")
        if encoding is None:
            raise UnsupportedMediaType(f"send content-type {_PROTOBUF.media_type} or {_JSON.media_type}")
        body = await self._body(request)
        coding = request.headers.get("content-encoding", "").strip().lower()
        accept = partial(self._accept, body, coding, encoding)
        future, warning = await to_thread.run_sync(accept, limiter=self._decoding)
        # A request that is cancelled must not cancel what is being stored.
        outcome = await asyncio.shield(asyncio.wrap_future(future))
        return Outcome(outcome.rejected_spans, "; ".join(filter(None, (outcome.error_message, warning))))

    async def _body(self, request: Request) -> bytes:
        declared = request.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._payload_bytes_max:
            raise self._too_large()
        chunks, size = [], 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > self._payload_bytes_max:
                    raise self._too_large()
                chunks.append(chunk)
        except ClientDisconnect as error:
            raise Malformed("the connection ended before the body did") from error
        return b"".join(chunks)

    def _too_large(self) -> TooLarge:
        records = self._signal.records.replace("_", " ")
        return TooLarge(f"the body is larger than {self._payload_bytes_max} bytes: send fewer {records} in a request")

    def _accept(self, body: bytes, coding: str, encoding: _Encoding) -> tuple[Future[Outcome], str]:
        plain = decompressed(body, coding, bytes_max=self._payload_bytes_max)
        request, warning = encoding.read(plain, self._signal.request)
        return self._intake.accept(request, self._signal), warning


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _refusal(encoding: _Encoding, error: Exception) -> Response:
    response = _response(encoding, http_status_of(error), status_of(error))
    if response.status_code == 500:
        _log.exception("an OTLP/HTTP request failed", exc_info=error)
    if isinstance(error, MethodNotAllowed):
        response.headers["Allow"] = "POST"
    retry_after_s = getattr(error, "retry_after_s", None)
    if retry_after_s is not None:
        response.headers["Retry-After"] = str(max(1, math.ceil(retry_after_s)))
    return response


def _response(encoding: _Encoding, http_status: int, message: Message) -> Response:
    return Response(encoding.write(message), http_status, media_type=encoding.media_type)
