"""OTLP over HTTP: `POST /v1/traces`, a route for the application that listens."""

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
from .intake import Intake, Malformed, Outcome
from .otlp_json import json_from, request_from_json

PATH = "/v1/traces"
# Bodies that are decompressed and decoded at a time; the waiting for their commit takes no thread.
DECODING_MAX = 8

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Encoding:
    """One of OTLP's two encodings; `read` gives a request's protobuf and a warning or ""."""

    media_type: str
    read: Callable[[bytes], tuple[bytes, str]]
    write: Callable[[Message], bytes]


_PROTOBUF = _Encoding("application/x-protobuf", lambda body: (body, ""), lambda message: message.SerializeToString())
_JSON = _Encoding("application/json", request_from_json, json_from)
_ENCODINGS = {encoding.media_type: encoding for encoding in (_PROTOBUF, _JSON)}


def otlp_routes(intake: Intake, *, payload_bytes_max: int = 64 << 20) -> list[Route]:
    """The routes of OTLP/HTTP (OTLP 1.11 section "OTLP/HTTP"): every answer, also to a refusal, is OTLP's own.

    A body may be gzip, zstd or deflate; over `payload_bytes_max` bytes, before or after decompression, it gets 413.
    """
    return [Route(PATH, _TraceExport(intake, payload_bytes_max), name="OTLP traces over HTTP")]


class _TraceExport:
    """The ASGI endpoint; not a function, so that it sees every method and refuses the others itself."""

    def __init__(self, intake: Intake, payload_bytes_max: int) -> None:
        self._intake = intake
        self._payload_bytes_max = payload_bytes_max
        self._decoding = CapacityLimiter(DECODING_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        encoding = _ENCODINGS.get(_media_type(request))
        try:
            outcome = await self._export(request, encoding)
            response = _response(encoding or _JSON, 200, response_to(outcome))
        except Exception as error:  # noqa: BLE001 the sender must be answered, whatever happened
            response = _refusal(encoding or _JSON, error)
        await response(scope, receive, send)

    async def _export(self, request: Request, encoding: _Encoding | None) -> Outcome:
        if request.method != "POST":
            raise MethodNotAllowed(f"{PATH} takes POST, not {request.method}")
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
        return TooLarge(f"the body is larger than {self._payload_bytes_max} bytes: send fewer spans in a request")

    def _accept(self, body: bytes, coding: str, encoding: _Encoding) -> tuple[Future[Outcome], str]:
        plain = decompressed(body, coding, bytes_max=self._payload_bytes_max)
        request, warning = encoding.read(plain)
        return self._intake.accept(request), warning


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
