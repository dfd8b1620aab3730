"""OTLP JSON lines, as OpenTelemetry's file exporter writes them.

OpenTelemetry specification, "OpenTelemetry Protocol File Exporter": UTF-8, a JSON value on each line, a line feed after
each; the values are `TracesData`, `LogsData` or `MetricsData` in OTLP's JSON encoding (ids in hex, 64-bit integers as
text, enums as numbers, keys in lowerCamelCase).
"""

from __future__ import annotations

import math
import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from operator import attrgetter
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from ..collector.otlp_json import request_from_json
from ..collector.outcomes import Malformed
from ..collector.signals import SIGNALS
from .errors import BadInput
from .frames import FRAME_BYTES_MAX, Frame, Request, too_long
from .input import Input

SUFFIXES = (".jsonl", ".ndjson", ".json")

_SIGNALS = {
    key: signal
    for signal, records in (("traces", "Spans"), ("logs", "Logs"), ("metrics", "Metrics"))
    for key in (f"resource{records}", f"resource_{records.lower()}")
}
_KEYS = tuple(f'"{key}"'.encode() for key in _SIGNALS)
_FIRST_KEY = re.compile(rb'\s*\{\s*"(\w+)"')
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_ID_NAMES = frozenset({"trace_id", "span_id", "parent_span_id"})
_INTEGERS_AS_TEXT = frozenset(
    {
        FieldDescriptor.TYPE_INT64,
        FieldDescriptor.TYPE_UINT64,
        FieldDescriptor.TYPE_FIXED64,
        FieldDescriptor.TYPE_SFIXED64,
        FieldDescriptor.TYPE_SINT64,
    }
)


def begins(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    first = _FIRST_KEY.match(head.removeprefix(_BYTE_ORDER_MARK))
    return first is not None and first[1].decode() in _SIGNALS


def frames(file: Input) -> Iterator[Frame]:
    """The lines; one that is too long is not held."""
    number = offset = count = 0
    while line := file.stream.readline(FRAME_BYTES_MAX + 1):
        number += 1
        place = f"line {number:,} (byte {offset:,})"
        if len(line) > FRAME_BYTES_MAX:
            size = len(line) + _rest_of_line(file)
            count += 1
            yield Frame(count, place, b"", broken=too_long(size, FRAME_BYTES_MAX, "line"))
            offset += size
            continue
        offset += len(line)
        content = line.removeprefix(_BYTE_ORDER_MARK).strip()
        if content:
            count += 1
            yield Frame(count, place, content)


def _rest_of_line(file: Input) -> int:
    size = 0
    while piece := file.stream.readline(1 << 20):
        size += len(piece)
        if piece.endswith(b"\n"):
            break
    return size


def requests(line: bytes) -> list[Request]:
    """What a line asks to be stored. Raises BadInput."""
    first = _FIRST_KEY.match(line)
    signal = _SIGNALS.get(first[1].decode()) if first else None
    may_have_others = first is not None and any(line.find(key, first.end()) >= 0 for key in _KEYS)
    try:
        if signal is None or may_have_others:
            return [_request(line, signal) for signal in _signals_in(line)]
        return [_request(line, signal)]
    except Malformed as error:
        raise BadInput(str(error)) from error


def _request(line: bytes, signal: str) -> Request:
    payload, warning = request_from_json(line, SIGNALS[signal].request)
    return Request(signal, payload, warning)


def _signals_in(line: bytes) -> set[str]:
    try:
        said = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error}; each value is on a line of its own, as `jq -c .` writes it") from error
    if isinstance(said, dict) and (not said or _SIGNALS.keys() & said.keys()):
        return {_SIGNALS[key] for key in said if key in _SIGNALS}
    raise BadInput("none of resourceSpans, resourceLogs and resourceMetrics is in it, as it is in OTLP")


class Writer:
    """Makes lines of pages."""

    state: Mapping[str, Any] = {}  # a line needs nothing of the one before

    def page(self, traces: bytes) -> bytes:
        """The line of a serialised `TracesData`."""
        return line_of(TracesData.FromString(traces))

    def end(self) -> bytes:
        return b""


def line_of(message: Message) -> bytes:
    """The message in OTLP's JSON encoding, on a line."""
    return orjson.dumps(_object(message), option=orjson.OPT_APPEND_NEWLINE)


def _object(message: Any) -> dict[str, Any]:
    names = _names(message.DESCRIPTOR)
    said = {}
    for field, value in message.ListFields():
        name, write, is_list = names[field.number]
        said[name] = [write(item) for item in value] if is_list else write(value)
    return said


@cache
def _names(descriptor: Descriptor) -> dict[int, tuple[str, Callable[[Any], Any], bool]]:
    return {field.number: (field.json_name, _writer(field), field.is_repeated) for field in descriptor.fields}


def _pair(pair: Any) -> dict[str, Any]:
    """An attribute, which most of what is said is."""
    fields = pair.ListFields()
    if [field.number for field, _ in fields] != _KEY_AND_VALUE:
        return _object(pair)
    (_, key), (_, value) = fields
    scalar = _SCALARS.get(value.WhichOneof("value"))
    if scalar is None:
        return _object(pair)
    name, write = scalar
    return {"key": key, "value": {name: write(value)}}


_KEY_AND_VALUE = [KeyValue.KEY_FIELD_NUMBER, KeyValue.VALUE_FIELD_NUMBER]
_SCALARS: dict[str | None, tuple[str, Callable[[Any], Any]]] = {
    "string_value": ("stringValue", attrgetter("string_value")),
    "bool_value": ("boolValue", attrgetter("bool_value")),
    "int_value": ("intValue", lambda value: str(value.int_value)),
    "double_value": ("doubleValue", lambda value: _number(value.double_value)),
}


def _writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type is not None:
        return _pair if field.message_type.full_name == KeyValue.DESCRIPTOR.full_name else _object
    if field.name in _ID_NAMES:
        return bytes.hex
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: b64encode(value).decode()
    if field.type == FieldDescriptor.TYPE_DOUBLE:
        return _number
    return str if field.type in _INTEGERS_AS_TEXT else lambda value: value


def _number(value: float) -> float | str:
    """JSON has no word for what is no number: proto3's JSON encoding writes it as text."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
