"""What a target's answers mean, over gRPC and HTTP alike, and what is to be done about the bad ones.

OTLP says which errors are passing and which are not (opentelemetry.io/docs/specs/otlp, "Failures"). clew is stricter
with itself: what may be the fault of an address, of credentials or of the moment costs no data, it is waited out.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

RETRY_AFTER_S_MAX = 3600.0
_MESSAGE_LENGTH_MAX = 500


class Verdict(StrEnum):
    """What became of a request."""

    TAKEN = "taken"  # for good, though perhaps not all of it
    REFUSED = "refused"  # these records will never be taken
    TOO_LARGE = "too large"
    UNCLEAR = "unclear"  # an error of the target's own: because of these records, or of the moment
    LATER = "later"
    SLOW = "slow"  # no answer in time
    MISTAKEN = "mistaken"  # something other than the records has to be put right first
    NOT_TAKEN = "not taken"  # the target does not know this signal


@dataclass(frozen=True)
class Answer:
    """A target's answer, in words that tell what to do. `refused` counts the records that a request which was taken has
    lost; `retry_after_s` is how long the target wants to be left alone."""

    verdict: Verdict
    message: str = ""
    refused: int = 0
    retry_after_s: float | None = None


def answer_of_status(code: int, message: str, details: bytes | None, *, is_traces: bool) -> Answer:
    """What a gRPC status other than OK means; `details` are a serialised `google.rpc.Status`."""
    retry_after_s = _retry_info(details)
    verdict = _GRPC.get(code, Verdict.UNCLEAR)
    if verdict is Verdict.TOO_LARGE and retry_after_s is not None:
        verdict = Verdict.LATER
    if verdict is Verdict.NOT_TAKEN and is_traces:
        verdict = Verdict.MISTAKEN
    if _wrong_protocol(message):
        verdict = Verdict.MISTAKEN
    name = code_pb2.Code.Name(code) if code in code_pb2.Code.values() else f"code {code}"
    return Answer(verdict, _advised(f"{name}: {message}", code), retry_after_s=retry_after_s)


def answer_of_http(status: int, body: bytes, headers: dict[str, str], *, is_traces: bool) -> Answer:
    """What an HTTP status other than success means; `headers` by their names in lower case."""
    verdict = _HTTP.get(status, _verdict_of_class(status))
    if verdict is Verdict.NOT_TAKEN and is_traces:
        verdict = Verdict.MISTAKEN
    said = f"HTTP {status}: {_told(body, headers)}" + (f" to {headers['location']}" if "location" in headers else "")
    retry_after_s = _retry_after(headers.get("retry-after", "")) or _retry_info(body)
    return Answer(verdict, _advised(said, status), retry_after_s=retry_after_s)


def unreachable(message: str, *, is_slow: bool = False) -> Answer:
    """No answer at all."""
    verdict = Verdict.MISTAKEN if _wrong_protocol(message) else Verdict.SLOW if is_slow else Verdict.LATER
    return Answer(verdict, _advised(message))


def no_otlp(what: str) -> Answer:
    """An answer that is none of OTLP's."""
    return Answer(Verdict.MISTAKEN, f"{shown(what)}; that is no OTLP: does the URL name the target's OTLP port?")


def _verdict_of_class(status: int) -> Verdict:
    return {2: Verdict.TAKEN, 4: Verdict.REFUSED, 5: Verdict.UNCLEAR}.get(status // 100, Verdict.MISTAKEN)


def _wrong_protocol(said: str) -> bool:
    return any(sign in said for sign in _PROTOCOL_ADVICE)


def _advised(said: str, code: int | None = None) -> str:
    advice = [word for sign, word in (_PROTOCOL_ADVICE | _ADVICE).items() if sign in said]
    advice += [_ADVICE_BY_CODE[code]] if code in _ADVICE_BY_CODE else []
    return f"{shown(said)}; {advice[0]}" if advice else shown(said)


def shown(said: str) -> str:
    """What a target says, in one line that is fit for a terminal, and not too long."""
    line = " ".join("".join(sign if sign.isprintable() else " " for sign in said).split())
    return line if len(line) <= _MESSAGE_LENGTH_MAX else f"{line[:_MESSAGE_LENGTH_MAX]}…"


def _told(body: bytes, headers: dict[str, str]) -> str:
    """What the body says of the error: OTLP's status, or the text that it is."""
    if headers.get("content-type", "").startswith("application/x-protobuf"):
        try:
            return Status.FromString(body).message
        except DecodeError:
            return "a body that is no protobuf"
    return body[: 4 * _MESSAGE_LENGTH_MAX].decode("utf-8", "replace")


def _retry_after(said: str) -> float | None:
    """Seconds or a date (RFC 9110 section 10.2.3)."""
    try:
        seconds = float(said) if said.isdecimal() else parsedate_to_datetime(said).timestamp() - time.time()
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_S_MAX)


def _retry_info(details: bytes | None) -> float | None:
    """The delay that a serialised `google.rpc.Status` asks for."""
    try:
        status = Status.FromString(details or b"")
        for detail in status.details:
            info = RetryInfo()
            if detail.Unpack(info):
                return min(max(info.retry_delay.ToNanoseconds() / 1e9, 0.0), RETRY_AFTER_S_MAX)
    except (DecodeError, ValueError):
        pass  # a body that is no status asks for nothing
    return None


_GRPC = {
    code_pb2.INVALID_ARGUMENT: Verdict.REFUSED,
    code_pb2.RESOURCE_EXHAUSTED: Verdict.TOO_LARGE,
    code_pb2.UNIMPLEMENTED: Verdict.NOT_TAKEN,
    code_pb2.UNAUTHENTICATED: Verdict.MISTAKEN,
    code_pb2.PERMISSION_DENIED: Verdict.MISTAKEN,
    code_pb2.DEADLINE_EXCEEDED: Verdict.SLOW,
    **dict.fromkeys(
        (code_pb2.UNAVAILABLE, code_pb2.CANCELLED, code_pb2.ABORTED, code_pb2.OUT_OF_RANGE, code_pb2.DATA_LOSS),
        Verdict.LATER,
    ),
}
_HTTP = {
    **dict.fromkeys((401, 402, 403, 407, 415, 421, 426), Verdict.MISTAKEN),
    **dict.fromkeys((404, 405, 501), Verdict.NOT_TAKEN),
    **dict.fromkeys((408, 425, 429, 502, 503, 504), Verdict.LATER),
    413: Verdict.TOO_LARGE,
}
_LOGIN = "it wants to know who sends: add ?header=authorization:… to the URL, or look at what is there"
_PATH = "it knows no traces at this address: look at the URL's port and path"
_ADVICE_BY_CODE = {
    code_pb2.UNAUTHENTICATED: _LOGIN,
    code_pb2.PERMISSION_DENIED: _LOGIN,
    code_pb2.UNIMPLEMENTED: _PATH,
    **dict.fromkeys((401, 403, 407), _LOGIN),
    **dict.fromkeys((404, 405, 501), _PATH),
    **dict.fromkeys((301, 302, 303, 307, 308), "the target has moved: write the address it tells into the URL"),
    415: "it takes no protobuf: does the URL name the target's OTLP port?",
}
_NO_GRPC = "no gRPC is spoken there: write otlp-http://, or the target's gRPC port"
_NO_HTTP = "no HTTP is spoken there: write otlp-grpc://, or the target's HTTP port"
# What libraries say of an address that is wrong and stays so, and what to do then.
_PROTOCOL_ADVICE = {
    "Failed parsing HTTP/2": _NO_GRPC,
    "http1.x server": _NO_GRPC,
    "illegal status line": _NO_HTTP,
    "illegal request line": _NO_HTTP,
    "WRONG_VERSION_NUMBER": "no TLS is spoken there: write otlp-grpc:// or otlp-http://",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not known: add ?ca=FILE to the URL",
}
# And of what may pass by itself.
_CLOSES = "it closes connections: does it want TLS (otlp-grpcs://, otlp-https://), or is this another port?"
_ADVICE = {
    "Connection refused": "nothing listens there: is the target running?",
    "Domain name not found": "look at the host in the URL",
    "Name or service not known": "look at the host in the URL",
    "Socket closed": _CLOSES,
    "disconnected without sending": _CLOSES,
}
