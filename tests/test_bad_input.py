"""Bad input: a clear error or a partial success, everything valid beside it stored, the server up.

Every case goes to a real server, over gRPC and over HTTP, with a good span before it and behind it in the request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

import grpc
import httpx
import pytest
from google.protobuf import text_format
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}
NOW = 1_700_000_000_000_000_000
TIMEOUT_S = 60
MEGABYTE = 1 << 20
MENDED = "\N{REPLACEMENT CHARACTER}" * 4


class Answer(NamedTuple):
    """What the server said: the response, or the gRPC code and message of its refusal."""

    response: ExportTraceServiceResponse | None
    code: int = 0
    message: str = ""

    @property
    def rejected(self) -> int:
        assert self.response is not None, self.message
        return self.response.partial_success.rejected_spans

    @property
    def said(self) -> str:
        assert self.response is not None, self.message
        return self.response.partial_success.error_message


Send = Callable[[bytes], Answer]


@pytest.fixture(params=["grpc", "http"])
def send(request: pytest.FixtureRequest, server: Any) -> Iterator[Send]:
    """Sends a serialised request over the transport that the parameter names."""
    with grpc.insecure_channel(server.grpc_target) as channel:
        export = channel.unary_unary(EXPORT)

        def send_grpc(body: bytes) -> Answer:
            try:
                return Answer(ExportTraceServiceResponse.FromString(export(body, timeout=TIMEOUT_S)))
            except grpc.RpcError as error:
                return Answer(None, error.code().value[0], error.details())

        def send_http(body: bytes) -> Answer:
            answer = httpx.post(f"{server.http_url}/v1/traces", content=body, headers=PROTOBUF, timeout=TIMEOUT_S)
            if answer.status_code == 200:
                return Answer(ExportTraceServiceResponse.FromString(answer.content))
            status = Status.FromString(answer.content)
            return Answer(None, status.code, status.message)

        yield send_grpc if request.param == "grpc" else send_http


def attribute(key: str, text: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=text))


# Odd, but OTLP: kept as it is.
KEPT: dict[str, dict[str, Any]] = {
    "NUL in texts": {"name": "a\0b", "trace_state": "\0", "attributes": [attribute("k\0", "\0v"), attribute("", "")]},
    "end before start": {"start_time_unix_nano": NOW, "end_time_unix_nano": NOW - 1},
    "no times": {"start_time_unix_nano": 0, "end_time_unix_nano": 0},
    "an end, no start": {"start_time_unix_nano": 0, "end_time_unix_nano": NOW},
    "times at the end of time": {"start_time_unix_nano": 2**64 - 1, "end_time_unix_nano": 2**64 - 1},
    "ten megabytes in one attribute": {"attributes": [attribute("large", "x" * (10 * MEGABYTE))]},
    "ten thousand attributes": {"attributes": [attribute(f"key {n}", f"value {n}") for n in range(10_000)]},
    "a name of a megabyte": {"name": "n" * MEGABYTE},
    "a kind and a status of tomorrow": {"kind": 77, "status": {"code": 77}},
    "links to nowhere": {"links": [{"trace_id": b"short", "span_id": bytes(300)}, {}]},
    "its own parent": {"parent_span_id": (2).to_bytes(8, "big")},
    "a thousand events": {"events": [{"name": "e" * n, "time_unix_nano": n} for n in range(1000)]},
}
# No span: refused, and named.
REFUSED: dict[str, dict[str, Any]] = {
    "span id of 0 bytes": {"span_id": b""},
    "span id of 15 bytes": {"span_id": b"x" * 15},
    "span id of 17 bytes": {"span_id": b"x" * 17},
    "span id all zero": {"span_id": bytes(8)},
    "trace id of 0 bytes": {"trace_id": b""},
    "trace id of 8 bytes": {"trace_id": b"x" * 8},
    "trace id all zero": {"trace_id": bytes(16)},
    "parent id of 16 bytes": {"parent_span_id": b"x" * 16},
}


def around(span: Span, run_id: UUID) -> ExportTraceServiceRequest:
    """The span between two good ones."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add().scope_spans.add()
    block.spans.extend([_good(run_id, 1), span, _good(run_id, 3)])
    return request


def _good(run_id: UUID, number: int, **others: Any) -> Span:
    said = {"start_time_unix_nano": NOW, "end_time_unix_nano": NOW + 1, "name": f"good {number}"} | others
    return Span(**({"trace_id": run_id.bytes, "span_id": number.to_bytes(8, "big")} | said))


def stored(server: Any, run_id: UUID) -> dict[bytes, Span]:
    """The run's spans by id, as the server gives them back."""
    answer = httpx.get(f"{server.http_url}/api/runs/{run_id.hex}/otlp", timeout=TIMEOUT_S)
    assert answer.status_code == 200, answer.text
    traces = TracesData.FromString(answer.content)
    return {span.span_id: span for block in traces.resource_spans for s in block.scope_spans for span in s.spans}


def is_up(server: Any) -> bool:
    return server.process.poll() is None and httpx.get(f"{server.http_url}/readyz").status_code == 200


def test_odd_spans_are_kept_and_no_spans_are_refused(server: Any, send: Send, subtests: pytest.Subtests) -> None:
    """What OTLP can say is stored as it is; what is no span is counted and named; the spans beside it are stored."""
    for number, (case, said) in enumerate((KEPT | REFUSED).items(), start=1):
        with subtests.test(case):
            run_id = UUID(int=number)
            span = _good(run_id, 2, **({"name": "the bad one"} | said))
            answer = send(around(span, run_id).SerializeToString())
            assert answer.rejected == (case in REFUSED)
            assert ("the bad one" in answer.said) == (case in REFUSED)
            spans = stored(server, run_id)
            assert len(spans) == 2 + (case in KEPT)
            if case in KEPT:
                kept = spans[span.span_id]
                kept.attributes.sort(key=lambda pair: pair.key)
                span.attributes.sort(key=lambda pair: pair.key)
                assert kept == span
    assert is_up(server)


def _field(number: int, content: bytes) -> bytes:
    """A length-delimited field, as protobuf writes it: for what its own library refuses to write."""
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size % 128 + 128]), size // 128
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def _deep(depth: int) -> bytes:
    """An AnyValue: a list within a list within a list …"""
    value = _field(1, b"leaf")
    for _ in range(depth):
        value = _field(5, _field(1, value))
    return value


def test_deep_nesting_harms_nothing_beside_it(server: Any, send: Send) -> None:
    """Also deeper than protobuf's own parsers go: the spans of the request are all there, and all can be asked for."""
    for depth in (20, 200, 20_000):
        run_id = UUID(int=depth)
        deep = _good(run_id, 2).SerializeToString() + _field(9, _field(1, b"deep") + _field(2, _deep(depth)))
        good = [_good(run_id, number).SerializeToString() for number in (1, 3)]
        body = _field(1, _field(2, b"".join(_field(2, span) for span in (good[0], deep, good[1]))))
        assert send(body).rejected == 0
        assert len(stored(server, run_id)) == 3
        for path in ("tree", "events", "statistics", f"events/{2:016x}"):
            answer = httpx.get(f"{server.http_url}/api/runs/{run_id.hex}/{path}", timeout=TIMEOUT_S)
            assert answer.status_code == 200, answer.text
    assert is_up(server)


def test_text_that_is_not_utf8_is_mended_with_a_word(server: Any, send: Send) -> None:
    """Bad bytes in a name, in an attribute, within a list: the spans are stored, the sender is warned."""
    in_list = AnyValue()
    in_list.array_value.values.add(string_value="????")
    bad = [
        _good(UUID(int=1), 2, name="????"),
        _good(UUID(int=2), 2, attributes=[attribute("????", "????")]),
        _good(UUID(int=3), 2, attributes=[KeyValue(key="list", value=in_list)]),
    ]
    for number, span in enumerate(bad, start=1):
        body = around(span, UUID(int=number)).SerializeToString().replace(b"????", b"\xff\xfe\x80\xc0")
        answer = send(body)
        assert (answer.rejected, "UTF-8" in answer.said) == (0, True)
        spans = stored(server, UUID(int=number))
        assert len(spans) == 3
        assert MENDED in text_format.MessageToString(spans[span.span_id], as_utf8=True)


def test_what_is_no_request_is_refused_for_good(server: Any, send: Send) -> None:
    """INVALID_ARGUMENT with a word on why; the next request is served."""
    whole = around(_good(UUID(int=1), 2), UUID(int=1)).SerializeToString()
    for body in (b"\xff\xff\xff", b"not protobuf at all", whole[:-5]):
        answer = send(body)
        assert answer.response is None
        assert (answer.code, bool(answer.message)) == (grpc.StatusCode.INVALID_ARGUMENT.value[0], True)
    assert send(whole).rejected == 0
    assert len(stored(server, UUID(int=1))) == 3


BROKEN_JSON = {
    "cut off": b'{"resourceSpans": [',
    "not JSON": b"resourceSpans",
    "a list": b"[]",
    "not UTF-8": b'{"resourceSpans": "\xff"}',
    "a lone surrogate": b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"name": "\\ud800"}]}]}]}',
    "a wrong type": b'{"resourceSpans": 7}',
    "a number too large": b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"flags": 4294967296}]}]}]}',
    "deep": b"[" * 100_000,
    "deep and whole": b'{"a":' * 5000 + b"1" + b"}" * 5000,
}


def test_broken_json_is_refused_for_good(server: Any, subtests: pytest.Subtests) -> None:
    """400 with a Status in JSON that says why; what is only ignored, or mended, succeeds; never anything else."""
    headers = {"content-type": "application/json"}
    for case, body in BROKEN_JSON.items():
        with subtests.test(case):
            answer = httpx.post(f"{server.http_url}/v1/traces", content=body, headers=headers, timeout=TIMEOUT_S)
            said = answer.json()
            if answer.status_code == 200:
                assert case in ("a lone surrogate", "deep and whole")
            else:
                assert (answer.status_code, said["code"], bool(said["message"])) == (400, 3, True)
    assert is_up(server)


def test_json_of_odd_spans_is_kept_too(server: Any) -> None:
    """NUL, zero times, an end before the start and a wrong id, in OTLP's JSON: the same as in protobuf."""
    run_id = UUID(int=1)
    good = {"traceId": run_id.hex, "startTimeUnixNano": str(NOW), "endTimeUnixNano": str(NOW + 1), "name": "good"}
    spans = [
        good | {"spanId": "0000000000000001", "name": "a\0b"},
        good | {"spanId": "0000000000000002", "endTimeUnixNano": "1"},
        good | {"spanId": "0000000000000003", "startTimeUnixNano": 0, "endTimeUnixNano": 0},
        good | {"spanId": "00", "name": "the bad one"},
        good | {"spanId": "not hex", "name": "the worse one"},
    ]
    body = {"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}
    answer = httpx.post(f"{server.http_url}/v1/traces", json=body, timeout=TIMEOUT_S).json()
    assert int(answer["partialSuccess"]["rejectedSpans"]) == 2
    assert "the bad one" in answer["partialSuccess"]["errorMessage"]
    assert "the worse one" in answer["partialSuccess"]["errorMessage"]
    assert len(stored(server, run_id)) == 3
