"""OTLP messages as OTLP's JSON: as protobuf's own, but ids are hex and enums are numbers."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from ..attribute_json import number_json

_IDS = {"trace_id", "span_id", "parent_span_id"}
_INT64_TYPES = {
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED64,
    FieldDescriptor.TYPE_SFIXED64,
    FieldDescriptor.TYPE_SINT64,
}


def otlp_json(message: Message) -> dict[str, Any]:
    """The message with all it says, for orjson."""
    said = {}
    for field, value in message.ListFields():
        name, says = _field(field)
        said[name] = says(value)
    return said


@lru_cache(maxsize=1024)
def _field(field: FieldDescriptor) -> tuple[str, Callable[[Any], Any]]:
    """The field's name, and how its values are said."""
    says = _says_one(field)
    return field.json_name, (lambda values: [says(value) for value in values]) if field.is_repeated else says


def _says_one(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.message_type:
        return otlp_json
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bytes.hex if field.name in _IDS else (lambda value: b64encode(value).decode())
    if field.type in _INT64_TYPES:
        return str
    if field.type in {FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT}:
        return number_json
    return lambda value: value
