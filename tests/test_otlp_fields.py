"""The store has a place for every field of OTLP's trace messages, the fields of tomorrow included.

The fields are walked by descriptor: a version of OTLP that brings a new one fails here until the store keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, TracesData

from clew.collector.projection import read_requests
from clew.exporter.otlp import run_as_otlp
from clew.storage import Store

ID = bytes(range(1, 9))
OTHER_VALUES: dict[int, Any] = {
    FieldDescriptor.CPPTYPE_INT32: -7,
    FieldDescriptor.CPPTYPE_INT64: -(2**62),
    FieldDescriptor.CPPTYPE_UINT32: 2**32 - 1,
    FieldDescriptor.CPPTYPE_UINT64: 2**64 - 1,
    FieldDescriptor.CPPTYPE_DOUBLE: 0.1,
    FieldDescriptor.CPPTYPE_FLOAT: 0.5,
    FieldDescriptor.CPPTYPE_BOOL: True,
    FieldDescriptor.CPPTYPE_ENUM: 2,
}


class Path(NamedTuple):
    """The way from the request down to one field."""

    fields: tuple[FieldDescriptor, ...]

    @property
    def name(self) -> str:
        return ".".join(field.name for field in self.fields)


def _paths(message: Descriptor, above: tuple[FieldDescriptor, ...] = ()) -> Iterator[Path]:
    for field in message.fields:
        path = (*above, field)
        yield Path(path)
        # A value within a value within a value holds nothing that the two above do not.
        within = [upper.message_type for upper in path if upper.message_type]
        if field.message_type and within.count(field.message_type) <= 2:
            yield from _paths(field.message_type, path)


PATHS = dict(enumerate(_paths(ExportTraceServiceRequest.DESCRIPTOR), start=1))


def _run_id(number: int) -> UUID:
    return UUID(int=number)


def _request_with(path: Path, run_id: UUID) -> ExportTraceServiceRequest:
    """One valid span, and besides it nothing but this field and what it takes to hold it."""
    request = ExportTraceServiceRequest()
    _set(request, path.fields)
    blocks = request.resource_spans or [request.resource_spans.add()]
    scope_blocks: Any = blocks[0].scope_spans or [blocks[0].scope_spans.add()]
    [span] = scope_blocks[0].spans or [scope_blocks[0].spans.add()]
    span.trace_id, span.span_id = run_id.bytes, ID
    return request


def _set(message: Message, path: tuple[FieldDescriptor, ...]) -> None:
    field, below = path[0], path[1:]
    value = getattr(message, field.name)
    if field.message_type:
        inner = value.add() if field.is_repeated else value
        inner.SetInParent()
        if below:
            _set(inner, below)
    elif field.is_repeated:
        value.append(_other_value(field))
    else:
        setattr(message, field.name, _other_value(field))


def _other_value(field: FieldDescriptor) -> Any:
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return ID if field.type == FieldDescriptor.TYPE_BYTES else f"a {field.name}"
    return OTHER_VALUES[field.cpp_type]


def test_the_walk_reaches_every_kind_of_message() -> None:
    """The walk goes all the way down: a value in a list in an attribute of a link is among the fields."""
    names = {path.name for path in PATHS.values()}
    link = "resource_spans.scope_spans.spans.links.attributes.value"
    assert f"{link}.array_value.values.bytes_value" in names
    assert {path.fields[-1].containing_type for path in PATHS.values()} >= {
        Span.DESCRIPTOR,
        Span.Event.DESCRIPTOR,
        Span.Link.DESCRIPTOR,
        ScopeSpans.DESCRIPTOR,
        AnyValue.DESCRIPTOR,
    }


@pytest.fixture(scope="module")
def full_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store with one run for each path."""
    reading = read_requests(
        [_request_with(path, _run_id(number)).SerializeToString() for number, path in PATHS.items()]
    )
    assert {fate.rejections for fate in reading.fates} == {()}
    assert reading.batch is not None
    opened = Store.open(str(tmp_path_factory.mktemp("fields") / "clew.duckdb"))
    opened.write(reading.batch)
    yield opened
    opened.close()


@pytest.mark.parametrize("number", PATHS, ids=[path.name for path in PATHS.values()])
def test_no_field_is_lost(full_store: Store, number: int) -> None:
    """A request that sets just this field is read back equal."""
    request = _request_with(PATHS[number], _run_id(number))
    stored = TracesData.FromString(run_as_otlp(full_store, _run_id(number)) or b"")
    assert stored.resource_spans[:] == request.resource_spans[:]
