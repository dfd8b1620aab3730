"""OTLP's JSON encoding, read into the protobuf messages that the rest of the collector takes.

Strict where OTLP is (hex ids), lenient where senders differ: snake_case keys, enums by name, any number as text, base64
of either alphabet. One walk, driven by a table made of the messages' own descriptors, gives the arguments from which
protobuf builds the request. An id that is not hex becomes an id of wrong length: it harms its span, not the request.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import cache
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from .columns import NOT_HEX
from .outcomes import Malformed

# Protobuf's own limit for messages within messages, so that both encodings take the same requests.
DEPTH_MAX = 100

_ID_NAMES = frozenset({"trace_id", "span_id", "parent_span_id"})
_DIGITS_MAX = 20

# A field's JSON value and the depth of its message → the value that protobuf takes. Raises _Unfit.
_Read = Callable[[Any, int], Any]


class _Unfit(Exception):
    """A value that does not fit its field: where it is, told from the inside out, and why."""

    def __init__(self, reason: str, path: str = "") -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path

    def within(self, outer: str) -> _Unfit:
        return _Unfit(self.reason, outer + self.path)


def request_from_json(body: bytes, message_type: type[Message] = ExportTraceServiceRequest) -> tuple[bytes, str]:
    """The serialised request that `body` says in JSON, and a warning or "".

    Text that is not Unicode (bytes that are not UTF-8; half of a surrogate pair, as senders leave that cut text short)
    is kept with U+FFFD in its place, with a warning. Raises Malformed, which says where.
    """
    parsed, warning = _parsed(body)
    try:
        arguments = _message_reader(message_type.DESCRIPTOR)(parsed, 0)
    except _Unfit as error:
        raise Malformed(
            f"not an OTLP request in JSON: {error.path.lstrip('.') or 'the body'}: {error.reason}"
        ) from error
    return message_type(**arguments).SerializeToString(), warning


def json_from(message: Message) -> bytes:
    """The message in proto3's JSON form, as OTLP responses use it: 64-bit integers are text, defaults left out."""
    return str(MessageToJson(message, indent=None)).encode()


def _parsed(body: bytes) -> tuple[Any, str]:
    try:
        return orjson.loads(body), ""
    except orjson.JSONDecodeError as error:
        try:
            return orjson.loads(_as_unicode(body)), "text that is not Unicode was kept with U+FFFD in its place"
        except (ValueError, RecursionError):
            raise Malformed(f"not JSON: {error}") from error


def _as_unicode(body: bytes) -> bytes:
    text = json.dumps(json.loads(body.decode("utf-8", "replace")), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


@cache
def _message_reader(descriptor: Descriptor) -> _Read:
    fields: Mapping[str, tuple[str, _Read]] | None = None

    def read(value: Any, depth: int) -> dict[str, Any]:
        nonlocal fields
        if fields is None:  # not before it is needed: messages contain themselves
            fields = _fields(descriptor)
        if not isinstance(value, dict):
            raise _Unfit(f"expected an object, found {_described(value)}")
        if depth > DEPTH_MAX:
            raise _Unfit(f"nested deeper than {DEPTH_MAX} messages")
        arguments = {}
        for key, item in value.items():
            if item is not None and key in fields:
                name, read_field = fields[key]
                try:
                    arguments[name] = read_field(item, depth + 1)
                except _Unfit as error:
                    raise error.within(f".{key}") from None
        return arguments

    return read


def _fields(descriptor: Descriptor) -> Mapping[str, tuple[str, _Read]]:
    table = {}
    for field in descriptor.fields:
        read = _field_reader(field)
        for key in (field.name, field.json_name):
            table[key] = (field.name, _list_reader(read, field) if field.is_repeated else read)
    return table


def _field_reader(field: FieldDescriptor) -> _Read:
    if field.message_type is not None:
        return _message_reader(field.message_type)
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.name in _ID_NAMES:
        return _read_id
    if field.type in _INTEGER_RANGES:
        return _integer_reader(*_INTEGER_RANGES[field.type])
    return _READERS[field.type]


def _list_reader(read: _Read, field: FieldDescriptor) -> _Read:
    absent: Any = {} if field.message_type is not None else ""

    def read_list(value: Any, depth: int) -> list[Any]:
        if not isinstance(value, list):
            raise _Unfit(f"expected a list, found {_described(value)}")
        items = []
        for item in value:
            try:
                items.append(read(absent if item is None else item, depth))
            except _Unfit as error:
                raise error.within(f"[{len(items)}]") from None
        return items

    return read_list


def _enum_reader(descriptor: EnumDescriptor) -> _Read:
    read_number = _integer_reader(-(1 << 31), (1 << 31) - 1)
    numbers = {value.name: value.number for value in descriptor.values}

    def read(value: Any, depth: int) -> Any:
        return numbers[value] if isinstance(value, str) and value in numbers else read_number(value, depth)

    return read


def _integer_reader(lowest: int, highest: int) -> _Read:
    def read(value: Any, _depth: int) -> int:
        number = value if type(value) is int else _integer(value)
        if not lowest <= number <= highest:
            raise _Unfit(f"expected an integer from {lowest} to {highest}, found {_described(value)}")
        return number

    return read


def _integer(value: Any) -> int:
    try:
        if isinstance(value, float) and value.is_integer():
            return int(value)
        if isinstance(value, str):
            return int(value) if value.lstrip("-").isdecimal() else _whole(Decimal(value))
    except (ValueError, ArithmeticError):
        pass
    raise _Unfit(f"expected an integer, found {_described(value)}")


def _whole(number: Decimal) -> int:
    """Raises ArithmeticError where it is none, or has more digits than an integer of 64 bits."""
    if number.is_finite() and number.adjusted() < _DIGITS_MAX and number == number.to_integral_value():
        return int(number)
    raise ArithmeticError


def _read_number(value: Any, _depth: int) -> float:
    try:
        if not isinstance(value, bool):
            return float(value)
    except (ValueError, TypeError):
        pass
    raise _Unfit(f"expected a number, found {_described(value)}")


def _read_bool(value: Any, _depth: int) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return bool(value == "true")
    raise _Unfit(f"expected true or false, found {_described(value)}")


def _read_text(value: Any, _depth: int) -> str:
    if isinstance(value, str):
        return value
    raise _Unfit(f"expected text, found {_described(value)}")


def _read_base64(value: Any, depth: int) -> bytes:
    digits = _read_text(value, depth).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError as error:
        raise _Unfit(f"expected base64: {error}") from None


def _read_id(value: Any, _depth: int) -> bytes:
    try:
        identifier = bytes.fromhex(value)
    except (ValueError, TypeError):
        return NOT_HEX
    # fromhex skips blanks
    return identifier if len(value) == 2 * len(identifier) else NOT_HEX


def _described(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return orjson.dumps(value).decode()[:80]


_INTEGER_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_SINT32: (-(1 << 31), (1 << 31) - 1),
    FieldDescriptor.TYPE_INT64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_SFIXED64: (-(1 << 63), (1 << 63) - 1),
    FieldDescriptor.TYPE_UINT32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_FIXED32: (0, (1 << 32) - 1),
    FieldDescriptor.TYPE_UINT64: (0, (1 << 64) - 1),
    FieldDescriptor.TYPE_FIXED64: (0, (1 << 64) - 1),
}
_READERS: dict[int, _Read] = {
    FieldDescriptor.TYPE_STRING: _read_text,
    FieldDescriptor.TYPE_BOOL: _read_bool,
    FieldDescriptor.TYPE_DOUBLE: _read_number,
    FieldDescriptor.TYPE_BYTES: _read_base64,
}
