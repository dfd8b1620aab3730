"""OTLP's JSON encoding, read: the same request as in protobuf, leniently, and a clear refusal of what is none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clew.collector.otlp_json import DEPTH_MAX, request_from_json
from clew.collector.outcomes import Malformed
from clew.collector.projection import read_requests

DEPTH_DRAWN = 9
IDS = {"traceId", "spanId", "parentSpanId", "trace_id", "span_id", "parent_span_id"}
VALUES: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.TYPE_STRING: st.text(max_size=8),
    FieldDescriptor.TYPE_BYTES: st.binary(max_size=17),
    FieldDescriptor.TYPE_BOOL: st.booleans(),
    FieldDescriptor.TYPE_DOUBLE: st.floats(allow_nan=False),
    FieldDescriptor.TYPE_ENUM: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT32: st.integers(-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: st.integers(-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: st.integers(0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED64: st.integers(0, (1 << 64) - 1),
}


def _arguments(descriptor: Descriptor, depth: int = 0) -> st.SearchStrategy[dict[str, Any]]:
    """Any content of a message, drawn by its descriptor; one member of a oneof at most."""
    fields = [field for field in descriptor.fields if field.containing_oneof is None and _fits(field, depth)]
    lists = {field.name: _field(field, depth) for field in fields if field.is_repeated}
    others = {field.name: _field(field, depth) for field in fields if not field.is_repeated}
    drawn: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(lists, optional=others)
    for oneof in descriptor.oneofs:
        members = [st.fixed_dictionaries({f.name: _field(f, depth)}) for f in oneof.fields if _fits(f, depth)]
        drawn = st.builds(dict.__or__, drawn, st.one_of(st.just({}), *members))
    return drawn


def _fits(field: FieldDescriptor, depth: int) -> bool:
    return field.message_type is None or depth < DEPTH_DRAWN


def _field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    value = VALUES.get(field.type)
    if value is None:
        value = st.deferred(lambda: _arguments(field.message_type, depth + 1))
    return st.lists(value, max_size=2) if field.is_repeated else value


REQUESTS = _arguments(ExportTraceServiceRequest.DESCRIPTOR).map(lambda drawn: ExportTraceServiceRequest(**drawn))


def _with_hex_ids(value: Any) -> Any:
    if isinstance(value, list):
        return [_with_hex_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: base64.b64decode(item).hex() if key in IDS else _with_hex_ids(item) for key, item in value.items()}


def _read(document: Any) -> ExportTraceServiceRequest:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return ExportTraceServiceRequest.FromString(request_from_json(body)[0])


def _of_span(**fields: Any) -> dict[str, Any]:
    return {"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}


def _read_span(**fields: Any) -> Any:
    return _read(_of_span(**fields)).resource_spans[0].scope_spans[0].spans[0]


def _read_value(**value: Any) -> Any:
    return _read_span(attributes=[{"key": "k", "value": value}]).attributes[0].value


@given(REQUESTS, st.booleans(), st.booleans())
def test_json_and_protobuf_say_the_same(request: Message, snake_case: bool, numbered_enums: bool) -> None:
    """Any request, written as OTLP JSON, is read as the request it was; also with snake_case keys and enum names."""
    document = MessageToDict(request, preserving_proto_field_name=snake_case, use_integers_for_enums=numbered_enums)
    assert _read(_with_hex_ids(document)) == request


@pytest.mark.parametrize("text", ["5B8EFFF798038103D269B633813FC60C", "5b8efff798038103d269b633813fc60c"])
def test_ids_are_hex_of_either_case(text: str) -> None:
    """Ids are hex digits, upper or lower case."""
    assert _read_span(traceId=text).trace_id == bytes.fromhex(text)


@pytest.mark.parametrize("text", ["", None])
def test_an_empty_id_is_absent(text: str | None) -> None:
    """A parent id that is empty or null makes a root."""
    assert _read_span(parentSpanId=text).parent_span_id == b""


@pytest.mark.parametrize("text", ["5b8eff", "abc", "not hex!", "00 00 00 00 00 00 00 01", 7])
@pytest.mark.parametrize(("key", "size"), [("traceId", 16), ("spanId", 8), ("parentSpanId", 8)])
def test_an_id_that_is_none_keeps_a_wrong_length(key: str, size: int, text: Any) -> None:
    """An id that is short or no hex is read with a length that is neither right nor zero, to harm its span only."""
    names = {"traceId": "trace_id", "spanId": "span_id", "parentSpanId": "parent_span_id"}
    assert len(getattr(_read_span(**{key: text}), names[key])) not in (0, size)


@pytest.mark.parametrize(
    ("text", "said"), [("z" * 32, "not 32 hexadecimal digits"), ("5b8eff", "3 bytes long, not 16")]
)
def test_what_is_wrong_with_an_id_is_told(text: str, said: str) -> None:
    """As it was sent: a text of the right length has no wrong one."""
    request = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": text, "spanId": "12" * 8, "name": "work"}]}]}]}
    serialised, _ = request_from_json(json.dumps(request).encode())
    reading = read_requests([serialised])
    assert reading.fates[0].rejections == (f"span 'work': trace_id is {said}",)


@pytest.mark.parametrize(
    "number", [1544712660000000001, "1544712660000000001", "1544712660000000001e0", "15447126600000000.01E2"]
)
def test_64_bit_integers_are_numbers_or_text(number: int | str) -> None:
    """A time in nanoseconds is exact as a number and as text."""
    assert _read_span(startTimeUnixNano=number).start_time_unix_nano == 1544712660000000001


@pytest.mark.parametrize("kind", [2, "2", 2.0, "SPAN_KIND_SERVER"])
def test_an_enum_is_a_number_or_a_name(kind: int | str) -> None:
    """OTLP demands numbers; names are understood."""
    assert _read_span(kind=kind).kind == 2


@pytest.mark.parametrize("text", ["+/8=", "-_8=", "+/8", "-_8"])
def test_bytes_are_base64_of_either_alphabet(text: str) -> None:
    """Standard and URL-safe base64 are read, padded or not."""
    assert _read_value(bytesValue=text).bytes_value == base64.b64decode("+/8=")


@pytest.mark.parametrize(
    ("text", "number"), [("Infinity", "inf"), ("-Infinity", "-inf"), ("NaN", "nan"), ("1.5", "1.5")]
)
def test_a_double_may_be_text(text: str, number: str) -> None:
    """Numbers that JSON lacks come as text, and others may."""
    assert str(_read_value(doubleValue=text).double_value) == number


def test_null_is_absent() -> None:
    """A null field is as if it were not there; a null value of an attribute is an empty value."""
    span = _read_span(name=None, status=None, attributes=[{"key": "k", "value": None}], events=None)
    assert (span.name, span.HasField("status"), span.attributes[0].HasField("value"), len(span.events)) == (
        "",
        False,
        False,
        0,
    )


def test_an_empty_array_is_a_value() -> None:
    """An empty array differs from no value."""
    assert _read_value(arrayValue={}).WhichOneof("value") == "array_value"


def test_unknown_fields_are_ignored() -> None:
    """Fields of later versions are passed over at every level."""
    document = _of_span(name="n", later={"deep": [1]})
    document["other"] = 1
    assert _read(document) == _read(_of_span(name="n"))


def test_a_nul_in_text_is_kept() -> None:
    """U+0000 is a character like any other."""
    assert _read_span(name="a\0b").name == "a\0b"


@pytest.mark.parametrize("bad", [b"\\ud83d", b"\xff"])
def test_text_that_is_not_unicode_is_repaired_and_warned_of(bad: bytes) -> None:
    """Half a surrogate pair or a stray byte becomes U+FFFD; the rest stays exact, and a warning tells of it."""
    body = json.dumps(_of_span(name="BAD", startTimeUnixNano=1544712660000000001)).encode().replace(b"BAD", b"x" + bad)
    request, warning = request_from_json(body)
    span = ExportTraceServiceRequest.FromString(request).resource_spans[0].scope_spans[0].spans[0]
    assert (span.name, span.start_time_unix_nano) == ("x\ufffd", 1544712660000000001)
    assert "U+FFFD" in warning


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"intValue": 1}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return _of_span(attributes=[{"key": "k", "value": value}])


def test_nesting_goes_as_deep_as_protobuf_reads() -> None:
    """Values nest as deep as protobuf's own parser goes, five messages being around them."""
    arrays = (DEPTH_MAX - 5) // 2
    assert _read(_nested(arrays)).ByteSize() > 2 * arrays


@pytest.mark.parametrize("depth", [DEPTH_MAX // 2, 5_000, 200_000])
def test_deeper_nesting_is_refused(depth: int) -> None:
    """Nesting without end is a clear refusal."""
    value = '{"arrayValue":{"values":[' * depth + "]}}" * depth
    body = json.dumps(_of_span(attributes=[{"key": "k", "value": "HERE"}])).replace('"HERE"', value)
    with pytest.raises(Malformed, match=r"deep|depth"):
        request_from_json(body.encode())


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"", "line 1 column 1"),
        (b'{"resourceSpans": [}', "line 1 column 20"),
        (b"[]", "the body: expected an object, found a list"),
        (_of_span(name=5), r"spans\[0\].name: expected text, found 5"),
        (_of_span(flags=-1), r"spans\[0\].flags: expected an integer from 0 to 4294967295, found -1"),
        (_of_span(flags=True), r"spans\[0\].flags: expected an integer, found true"),
        (_of_span(kind="SERVER"), r"spans\[0\].kind: expected an integer"),
        (_of_span(startTimeUnixNano=1.5), "startTimeUnixNano: expected an integer, found 1.5"),
        (_of_span(endTimeUnixNano="9" * 5000), "endTimeUnixNano: expected an integer"),
        (_of_span(attributes={}), r"spans\[0\].attributes: expected a list, found an object"),
        (_of_span(attributes=[{}, {"value": {"bytesValue": "?"}}]), r"attributes\[1\].value.bytesValue: .*base64"),
        (_of_span(attributes=[{"value": {"doubleValue": "x"}}]), "doubleValue: expected a number"),
        (_of_span(attributes=[{"value": {"boolValue": 1}}]), "boolValue: expected true or false"),
    ],
)
def test_a_refusal_says_where(body: Any, where: str) -> None:
    """What is no JSON, or no request, is refused with the place and what was expected there."""
    with pytest.raises(Malformed, match=where):
        _read(body)
