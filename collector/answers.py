"""What a sender is told, the same over gRPC and HTTP: OTLP's response to an outcome, `google.rpc.Status` to a refusal.

A refusal that can be sent again carries RetryInfo, and none other does: senders take its absence for "never again".
"""

from __future__ import annotations

from typing import Any, cast

from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import BadRequest, RetryInfo
from google.rpc.status_pb2 import Status

from .outcomes import Busy, Malformed, Outcome, Refused, Unavailable
from .signals import Signal

# A refusal travels in gRPC trailers, twice and percent-encoded, and peers drop metadata beyond 8 KiB.
MESSAGE_BYTES_MAX = 1024


class TooLarge(Refused):
    """The request exceeds the size limit, as it came or decompressed; sending it again will not help."""


class UnsupportedMediaType(Refused):
    """The body is of a type that OTLP does not have."""


class MethodNotAllowed(Refused):
    """The path takes POST only."""


# kind of refusal: google.rpc.Code, HTTP status
_CODES: dict[type[BaseException], tuple[int, int]] = {
    Malformed: (code_pb2.INVALID_ARGUMENT, 400),
    MethodNotAllowed: (code_pb2.UNIMPLEMENTED, 405),
    TooLarge: (code_pb2.RESOURCE_EXHAUSTED, 413),
    UnsupportedMediaType: (code_pb2.INVALID_ARGUMENT, 415),
    Busy: (code_pb2.UNAVAILABLE, 503),
    Unavailable: (code_pb2.UNAVAILABLE, 503),
    MemoryError: (code_pb2.UNAVAILABLE, 503),  # there will be more
}
_FAILED = (code_pb2.INTERNAL, 500)


def response_to(outcome: Outcome, signal: Signal) -> Message:
    """The response of OTLP section "Full Success" or "Partial Success"; `partial_success` is unset on full success."""
    response: Any = signal.response()
    if outcome.rejected_spans or outcome.error_message:
        setattr(response.partial_success, signal.rejected, outcome.rejected_spans)
        response.partial_success.error_message = _shortened(outcome.error_message)
    return cast(Message, response)


def status_of(error: Exception) -> Status:
    """The status that tells of a refusal; anything else is told as an internal error that names no details."""
    code, _ = _codes_of(error)
    if not isinstance(error, Refused):
        return Status(
            code=code, message="the server failed unexpectedly and has logged why; nothing is known to be stored"
        )
    message = _shortened(str(error))
    return Status(code=code, message=message, details=[_packed(detail) for detail in _details(error, message)])


def http_status_of(error: Exception) -> int:
    """The HTTP status that goes with `status_of`."""
    return _codes_of(error)[1]


def _codes_of(error: Exception) -> tuple[int, int]:
    return next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), _FAILED)


def _details(error: Refused, message: str) -> list[Message]:
    if isinstance(error, Malformed):
        return [BadRequest(field_violations=[BadRequest.FieldViolation(field="body", description=message)])]
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(int(error.retry_after_s * 1e9))
        return [RetryInfo(retry_delay=delay)]
    return []


def _packed(detail: Message) -> AnyMessage:
    packed = AnyMessage()
    packed.Pack(detail)
    return packed


def _shortened(message: str) -> str:
    encoded = message.encode("utf-8", "replace")
    if len(encoded) <= MESSAGE_BYTES_MAX:
        return encoded.decode()
    return encoded[: MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"
