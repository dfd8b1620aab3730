"""OTLP messages as columns: the standard's own descriptors, decoded to Arrow by ptars.

ptars takes descriptors without recursion, so `AnyValue.array_value` and `.kvlist_value` are declared as `bytes` here:
the same on the wire, and read further only where they occur.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, TypeVar

import ptars
import pyarrow as pa
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Edit = Callable[[FieldDescriptorProto], None]
M = TypeVar("M", bound=Message)


class Undecodable(ValueError):
    """Bytes that are not the message they should be."""


class MessageColumns:
    """Turns serialised messages of one type into Arrow structs and back."""

    def __init__(self, pool: DescriptorPool, descriptor: Descriptor) -> None:
        flat = pool.FindMessageTypeByName(descriptor.full_name)
        self._handler = ptars.HandlerPool([flat.file]).get_for_message(flat)
        self._name = descriptor.name

    def decode(self, messages: list[bytes]) -> pa.RecordBatch:
        """One row per message. Raises Undecodable."""
        try:
            return self._handler.list_to_record_batch(messages)
        except ValueError as error:
            raise Undecodable(f"not a serialised {self._name}: {error}") from error

    def encode(self, rows: pa.StructArray) -> list[bytes]:
        """The serialised message of each row; no row may be null."""
        return self._handler.record_batch_to_array(pa.RecordBatch.from_struct_array(rows)).to_pylist()


def repaired(request: bytes, message_type: type[Message], columns: MessageColumns | None = None) -> tuple[bytes, str]:
    """A request that `columns` refuses or may misread, made canonical by protobuf's own parser, and a warning or "".

    Text that is not UTF-8 (protobuf forbids it, some producers send it) is kept with U+FFFD in place of the bad bytes.
    Raises Undecodable when the bytes are no request at all.
    """
    try:
        return message_type.FromString(request).SerializeToString(), ""
    except DecodeError:
        pass
    try:
        message = _with_bytes(message_type).FromString(request)
    except DecodeError as error:
        if columns is None:
            raise Undecodable(f"not a serialised {message_type.DESCRIPTOR.name}: {error}") from error
        columns.decode([request])  # columns can hold what nests deeper than protobuf's parser goes
        return request, ""
    _make_utf8(message)
    return message.SerializeToString(), "text that is not UTF-8 was kept with U+FFFD in place of the bad bytes"


def parsed(message_type: type[M], message: bytes) -> M | None:
    """The message, None where protobuf's own parser does not read it, mostly for nesting deeper than it goes.

    Raises Undecodable where only text that is not UTF-8 is in the way: `repaired` mends that.
    """
    try:
        return message_type.FromString(message)
    except DecodeError:
        pass
    try:
        _with_bytes(message_type).FromString(message)
    except DecodeError:
        return None
    raise Undecodable("text that is not UTF-8")


def _with_bytes(message_type: type[Message]) -> type[Message]:
    """The same on the wire, its text not checked."""
    return GetMessageClass(_BYTES.FindMessageTypeByName(message_type.DESCRIPTOR.full_name))


def _make_utf8(message: Message) -> None:
    waiting = [message]
    while waiting:
        current = waiting.pop()
        for field, value in current.ListFields():
            if field.message_type:
                waiting.extend(value if field.is_repeated else [value])
            elif field.full_name in _STRING_FIELDS:
                if field.is_repeated:
                    value[:] = [_as_utf8(item) for item in value]
                else:
                    setattr(current, field.name, _as_utf8(value))


def _as_utf8(value: bytes) -> bytes:
    return value.decode("utf-8", "replace").encode()


def _files(file: FileDescriptor) -> Iterator[FileDescriptor]:
    for dependency in file.dependencies:
        yield from _files(dependency)
    yield file


def _edited_pool(edit: Edit) -> DescriptorPool:
    """OTLP's messages with `edit` applied to every field."""
    pool, seen = DescriptorPool(), set()
    for file in chain.from_iterable(_files(request.DESCRIPTOR.file) for request in _REQUEST_TYPES):
        if file.name not in seen:
            seen.add(file.name)
            proto = FileDescriptorProto()
            file.CopyToProto(proto)
            waiting = list(proto.message_type)
            while waiting:
                message = waiting.pop()
                waiting.extend(message.nested_type)
                for field in message.field:
                    edit(field)
            pool.Add(proto)
    return pool


def _cut_recursion(field: FieldDescriptorProto) -> None:
    if field.name in ("array_value", "kvlist_value"):
        field.type = FieldDescriptorProto.TYPE_BYTES
        field.ClearField("type_name")


def _string_to_bytes(field: FieldDescriptorProto) -> None:
    if field.type == FieldDescriptorProto.TYPE_STRING:
        field.type = FieldDescriptorProto.TYPE_BYTES


def _string_fields(descriptor: Any, seen: set[str]) -> Iterator[str]:
    if descriptor.full_name in seen:
        return
    seen.add(descriptor.full_name)
    for field in descriptor.fields:
        if field.message_type:
            yield from _string_fields(field.message_type, seen)
        elif field.type == FieldDescriptorProto.TYPE_STRING:
            yield field.full_name


_REQUEST_TYPES = (ExportTraceServiceRequest, ExportLogsServiceRequest, ExportMetricsServiceRequest)
_FLAT = _edited_pool(_cut_recursion)
_BYTES = _edited_pool(_string_to_bytes)
_STRING_FIELDS = frozenset(chain.from_iterable(_string_fields(request.DESCRIPTOR, set()) for request in _REQUEST_TYPES))

TRACE_REQUESTS = MessageColumns(_FLAT, ExportTraceServiceRequest.DESCRIPTOR)
LOG_REQUESTS = MessageColumns(_FLAT, ExportLogsServiceRequest.DESCRIPTOR)
RESOURCES = MessageColumns(_FLAT, Resource.DESCRIPTOR)
SCOPES = MessageColumns(_FLAT, InstrumentationScope.DESCRIPTOR)
SPANS = MessageColumns(_FLAT, Span.DESCRIPTOR)
SPAN_EVENTS = MessageColumns(_FLAT, Span.Event.DESCRIPTOR)
LOG_RECORDS = MessageColumns(_FLAT, LogRecord.DESCRIPTOR)
LINKS = MessageColumns(_FLAT, Span.Link.DESCRIPTOR)
VALUES = MessageColumns(_FLAT, AnyValue.DESCRIPTOR)
ARRAYS = MessageColumns(_FLAT, ArrayValue.DESCRIPTOR)
