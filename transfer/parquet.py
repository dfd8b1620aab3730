"""Spans as Parquet, a row each, in columns that bear the names of the view `spans`.

Attributes are JSON objects as text, events and links lists of structs. A span comes back from its row equal in every
field: the row is read back as it is written, and where something differs (bytes, NaN, a key that occurs twice, a time
past the year 2262) the whole message is kept beside it, in `otlp`, `resource_otlp` or `scope_otlp`.

Other files are read as far as they have columns of these names and types like these; `trace_id`, `span_id`, `name` and
`start_time` must be there.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from ..exporter.rows import key_values
from ..query.attribute_json import value_json
from .errors import BadInput
from .frames import Frame, Request
from .input import Input

SUFFIXES = (".parquet", ".pq")

_MAGIC = b"PAR1"
_FRAME_ROWS = 1_000
_ROW_GROUP_ROWS = 20_000
_ROW_GROUP_BYTES = 32 << 20
_INT64_MAX = (1 << 63) - 1

_TIME = pa.timestamp("ns", "UTC")
_EVENTS = pa.list_(
    pa.struct(
        [
            ("time", _TIME),
            ("name", pa.string()),
            ("attributes", pa.string()),
            ("dropped_attributes_count", pa.uint32()),
        ]
    )
)
_LINKS = pa.list_(
    pa.struct(
        [
            ("trace_id", pa.string()),
            ("span_id", pa.string()),
            ("trace_state", pa.string()),
            ("flags", pa.uint32()),
            ("attributes", pa.string()),
            ("dropped_attributes_count", pa.uint32()),
        ]
    )
)
SCHEMA = pa.schema(
    [
        ("trace_id", pa.string()),
        ("span_id", pa.string()),
        ("parent_span_id", pa.string()),
        ("name", pa.string()),
        ("start_time", _TIME),
        ("end_time", _TIME),
        ("kind", pa.string()),
        ("status_code", pa.string()),
        ("status_message", pa.string()),
        ("duration_ns", pa.int64()),
        ("trace_state", pa.string()),
        ("flags", pa.uint32()),
        ("service_name", pa.string()),
        ("resource_attributes", pa.string()),
        ("resource_schema_url", pa.string()),
        ("scope_name", pa.string()),
        ("scope_version", pa.string()),
        ("scope_attributes", pa.string()),
        ("scope_schema_url", pa.string()),
        ("attributes", pa.string()),
        ("dropped_attributes_count", pa.uint32()),
        ("dropped_events_count", pa.uint32()),
        ("dropped_links_count", pa.uint32()),
        ("events", _EVENTS),
        ("links", _LINKS),
        ("otlp", pa.binary()),
        ("resource_otlp", pa.binary()),
        ("scope_otlp", pa.binary()),
    ]
)
_REQUIRED = ("trace_id", "span_id", "name", "start_time")
_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
_STATUSES = ("UNSET", "OK", "ERROR")

Row = Mapping[str, Any]


def begins(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return head.startswith(_MAGIC)


# --- reading ----------------------------------------------------------------------------------------------------------


def frames(file: Input) -> Iterator[Frame]:
    """A thousand rows each. Raises BadInput."""
    if file.path is None:
        raise BadInput("Parquet cannot be read from standard input: it is read from its end; name the file")
    number = rows = 0
    try:
        with pq.ParquetFile(file.path) as parquet:
            missing = [name for name in _REQUIRED if name not in parquet.schema_arrow.names]
            if missing:
                raise BadInput(f"it has no column {', '.join(missing)}: these are not spans as clew writes them")
            columns = [name for name in SCHEMA.names if name in parquet.schema_arrow.names]
            for batch in parquet.iter_batches(_FRAME_ROWS, columns=columns):
                number += 1
                yield Frame(number, f"rows {rows:,} to {rows + batch.num_rows - 1:,}", batch)
                rows += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"not a whole Parquet file: {str(error).splitlines()[0]}") from error


def requests(batch: pa.RecordBatch) -> list[Request]:
    """What rows ask to be stored. Raises BadInput."""
    traces = TracesData()
    block, origin = ScopeSpans(), None
    try:
        for row in _as_written(batch).to_pylist():
            if origin is None or any(row[name] != origin[name] for name in _ORIGIN):
                block, origin = _add_block(traces, row), row
            block.spans.append(_span_of(row))
    except (pa.ArrowException, orjson.JSONDecodeError, DecodeError, ValueError, TypeError) as error:
        raise BadInput(f"not spans as clew writes them: {str(error).splitlines()[0]}") from error
    return [Request("traces", traces.SerializeToString())]


_ORIGIN = ("service_name", *(name for name in SCHEMA.names if name.startswith(("resource_", "scope_"))))


def _as_written(batch: pa.RecordBatch) -> pa.Table:
    """The rows with all columns, of the types that they have where clew wrote them, but times as nanoseconds: those of
    Python end at microseconds."""
    columns = {
        field.name: batch[field.name] if field.name in batch.schema.names else pa.nulls(batch.num_rows, field.type)
        for field in SCHEMA
    }
    return pa.table(columns).cast(SCHEMA).cast(_in_nanoseconds(SCHEMA))


def _in_nanoseconds(schema: pa.Schema) -> pa.Schema:
    events = pa.list_(pa.struct([("time", pa.int64()), *list(_EVENTS.value_type)[1:]]))
    types = {"start_time": pa.int64(), "end_time": pa.int64(), "events": events}
    return pa.schema([(field.name, types.get(field.name, field.type)) for field in schema])


def _add_block(traces: TracesData, row: Row) -> ScopeSpans:
    of_resource = traces.resource_spans.add(schema_url=row["resource_schema_url"] or "")
    resource, scope = _resource_of(row), _scope_of(row)
    if resource is not None:
        of_resource.resource.CopyFrom(resource)
    block = of_resource.scope_spans.add(schema_url=row["scope_schema_url"] or "")
    if scope is not None:
        block.scope.CopyFrom(scope)
    return block


def _resource_of(row: Row) -> Resource | None:
    if row["resource_otlp"] is not None:
        return Resource.FromString(row["resource_otlp"])
    if row["resource_attributes"] is not None:
        return Resource(attributes=_attributes_of(row["resource_attributes"]))
    return (
        None if row["service_name"] is None else Resource(attributes=key_values({"service.name": row["service_name"]}))
    )


def _scope_of(row: Row) -> InstrumentationScope | None:
    if row["scope_otlp"] is not None:
        return InstrumentationScope.FromString(row["scope_otlp"])
    if row["scope_name"] is None and row["scope_attributes"] is None:
        return None
    attributes = _attributes_of(row["scope_attributes"])
    return InstrumentationScope(name=row["scope_name"], version=row["scope_version"], attributes=attributes)


def _span_of(row: Row) -> Span:
    if row["otlp"] is not None:
        return Span.FromString(row["otlp"])
    span = Span(
        trace_id=_id_of(row["trace_id"]),
        span_id=_id_of(row["span_id"]),
        parent_span_id=_id_of(row["parent_span_id"]),
        name=row["name"],
        start_time_unix_nano=row["start_time"],
        end_time_unix_nano=row["end_time"],
        kind=_numbered(_KINDS, row["kind"]),
        trace_state=row["trace_state"],
        flags=row["flags"],
        attributes=_attributes_of(row["attributes"]),
        events=map(_event_of, row["events"] or ()),
        links=map(_link_of, row["links"] or ()),
        **{name: row[name] for name in _DROPPED},
    )
    if row["status_code"] is not None:
        span.status.code, span.status.message = _numbered(_STATUSES, row["status_code"]), row["status_message"] or ""
        span.status.SetInParent()
    return span


_DROPPED = ("dropped_attributes_count", "dropped_events_count", "dropped_links_count")


def _event_of(row: Row) -> Span.Event:
    return Span.Event(
        time_unix_nano=row["time"],
        name=row["name"],
        attributes=_attributes_of(row["attributes"]),
        dropped_attributes_count=row["dropped_attributes_count"],
    )


def _link_of(row: Row) -> Span.Link:
    return Span.Link(
        trace_id=_id_of(row["trace_id"]),
        span_id=_id_of(row["span_id"]),
        trace_state=row["trace_state"],
        flags=row["flags"],
        attributes=_attributes_of(row["attributes"]),
        dropped_attributes_count=row["dropped_attributes_count"],
    )


def _attributes_of(text: str | None) -> Iterable[KeyValue]:
    return key_values(orjson.loads(text)) if text else ()


def _id_of(text: str | None) -> bytes:
    return bytes.fromhex(text or "")


def _numbered(names: Sequence[str], name: str | None) -> Any:
    return names.index(name) if name in names else 0


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Makes row groups of pages. What has begun cannot be gone on with: the end of a file says where all of it is."""

    state = None

    def __init__(self) -> None:
        self._sink = _Sink()
        self._writer = pq.ParquetWriter(self._sink, SCHEMA, compression="zstd")
        self._waiting: list[pa.Table] = []

    def page(self, traces: bytes) -> bytes:
        """What the spans of a serialised `TracesData` add; nothing, until there are enough for a row group."""
        self._waiting.append(pa.Table.from_pylist(list(_rows(TracesData.FromString(traces))), SCHEMA))
        rows, size = sum(table.num_rows for table in self._waiting), sum(table.nbytes for table in self._waiting)
        if rows >= _ROW_GROUP_ROWS or size >= _ROW_GROUP_BYTES:
            self._write_row_group()
        return self._sink.taken()

    def end(self) -> bytes:
        """The last row group and what closes the file."""
        self._write_row_group()
        self._writer.close()
        return self._sink.taken()

    def _write_row_group(self) -> None:
        if self._waiting:
            self._writer.write_table(pa.concat_tables(self._waiting), row_group_size=_ROW_GROUP_ROWS)
            self._waiting = []


class _Sink(io.RawIOBase):
    """Holds what was written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, data: Any, /) -> int:
        self._pieces.append(bytes(data))
        self._position += len(self._pieces[-1])
        return len(self._pieces[-1])

    def taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _rows(traces: TracesData) -> Iterator[Row]:
    for of_resource in traces.resource_spans:
        resource = _resource_row(of_resource)
        for of_scope in of_resource.scope_spans:
            origin = _NO_VALUES | resource | _scope_row(of_scope)
            for span in of_scope.spans:
                yield origin | _span_row(span)


_NO_VALUES: dict[str, Any] = dict.fromkeys(SCHEMA.names)


def _resource_row(block: ResourceSpans) -> dict[str, Any]:
    resource = block.resource if block.HasField("resource") else None
    attributes = resource.attributes if resource else ()
    names = (pair.value.string_value for pair in attributes if pair.key == "service.name")
    row = {
        "service_name": next(names, None) or None,
        "resource_attributes": None if resource is None else _attributes_text(attributes),
        "resource_schema_url": block.schema_url or None,
    }
    return row | _kept(resource, "resource_otlp", _resource_of, row)


def _scope_row(block: ScopeSpans) -> dict[str, Any]:
    scope = block.scope if block.HasField("scope") else None
    row = {
        "scope_name": scope and scope.name,
        "scope_version": scope and scope.version,
        "scope_attributes": None if scope is None else _attributes_text(scope.attributes),
        "scope_schema_url": block.schema_url or None,
    }
    return row | _kept(scope, "scope_otlp", _scope_of, row)


def _span_row(span: Span) -> dict[str, Any]:
    has_status = span.HasField("status")
    row = {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_span_id": span.parent_span_id.hex() or None,
        "name": span.name,
        "start_time": _time(span.start_time_unix_nano),
        "end_time": _time(span.end_time_unix_nano),
        "kind": _name(_KINDS, span.kind),
        "status_code": _name(_STATUSES, span.status.code) if has_status else None,
        "status_message": span.status.message or None,
        "duration_ns": _duration_ns(span),
        "trace_state": span.trace_state or None,
        "flags": span.flags,
        "attributes": _attributes_text(span.attributes),
        "events": [_event_row(event) for event in span.events],
        "links": [_link_row(link) for link in span.links],
        **{name: getattr(span, name) for name in _DROPPED},
    }
    return row | _kept(span, "otlp", _span_of, row)


def _event_row(event: Span.Event) -> Row:
    return {
        "time": _time(event.time_unix_nano),
        "name": event.name,
        "attributes": _attributes_text(event.attributes),
        "dropped_attributes_count": event.dropped_attributes_count,
    }


def _link_row(link: Span.Link) -> Row:
    return {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "trace_state": link.trace_state or None,
        "flags": link.flags,
        "attributes": _attributes_text(link.attributes),
        "dropped_attributes_count": link.dropped_attributes_count,
    }


def _kept(message: Any, column: str, read: Callable[[Row], Any], row: Row) -> dict[str, bytes | None]:
    """The whole message, where its row does not say the same."""
    if message is None:
        return {column: None}
    whole = message.SerializeToString(deterministic=True)
    is_said = read({**_NO_VALUES, **row}).SerializeToString(deterministic=True) == whole
    return {column: None if is_said else whole}


def _attributes_text(attributes: Iterable[KeyValue]) -> str:
    try:
        return orjson.dumps({pair.key: value_json(pair.value) for pair in attributes}).decode()
    except (TypeError, RecursionError):  # nested deeper than JSON's writer goes
        return "{}"


def _time(unix_nano: int) -> int | None:
    """None for none, and for a time past those of Parquet."""
    return unix_nano if 0 < unix_nano <= _INT64_MAX else None


def _duration_ns(span: Span) -> int | None:
    ended = span.end_time_unix_nano
    return min(max(0, ended - span.start_time_unix_nano), _INT64_MAX) if ended else None


def _name(names: Sequence[str], number: int) -> str | None:
    return names[number] if 0 <= number < len(names) else None
