"""Requests into a SpanBatch: what OTLP says, in the columns of the schema.

Spans that cannot be stored (ids of wrong length or all zero) are told apart one by one; the rest of the request stands.
Where a column cannot hold a value exactly, the value goes into `otlp_residue` as well, a serialised message with just
those fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from ..storage import PreparedBatch, prepare
from ..storage.batch import EventParts, Origins, SpanBatch
from ..storage.conventions import TEXTS
from .attributes import flatten, from_messages
from .classification import classify
from .otlp import LINKS, LOGS, REQUESTS, RESOURCES, SCOPES, SPANS, MessageColumns, Undecodable, parsed, repaired

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_TIME_MAX = np.iinfo(np.int64).max
_STATUS_ERROR = 2


@dataclass(frozen=True)
class Fate:
    """How one request fared: `malformed` says why nothing of it could be read, `rejections` name the spans of it that
    cannot be stored, `warning` what was mended ("" for nothing)."""

    rejections: tuple[str, ...] = ()
    warning: str = ""
    malformed: str = ""


@dataclass(frozen=True)
class Reading:
    """The good spans of some requests, to be stored together (None where there are none), and each request's fate."""

    batch: PreparedBatch | None
    fates: list[Fate]


def read_requests(requests: list[bytes]) -> Reading:
    """Serialised ExportTraceServiceRequests into one batch. A bad one harms no other.

    They are decoded together, and one by one where that fails, so that what is wrong shows in the fate of the request
    that it is wrong with.
    """
    try:
        tree = _Tree(REQUESTS.decode(requests))
        if not _has_ambiguous_values(tree):
            return _read(tree, list(range(len(requests))), [Fate() for _ in requests])
    except Undecodable:
        pass
    return _read(*_repaired(requests))


def _read(tree: _Tree, number_of_row: list[int], fates: list[Fate]) -> Reading:
    """What `tree` holds, of which row i is request `number_of_row[i]`; `fates` is what became of the requests so far.
    Raises Undecodable for nested text that is not UTF-8."""
    for row, reason in _refusals(tree.spans).items():
        number = number_of_row[int(tree.request_of_span[row])]
        fates[number] = replace(fates[number], rejections=(*fates[number].rejections, reason))
        tree.refuse(row)
    tree.drop_refused()
    return Reading(prepare(_batch(tree)) if len(tree.spans) else None, fates)


def _repaired(requests: list[bytes]) -> tuple[_Tree, list[int], list[Fate]]:
    """The requests that can be read, one a row, which each row is, and the fates so far."""
    fates = [Fate() for _ in requests]
    good: list[tuple[int, bytes]] = []
    for number, request in enumerate(requests):
        try:
            canonical, warning = repaired(request)
        except Undecodable as error:
            fates[number] = Fate(malformed=str(error))
        else:
            good.append((number, canonical))
            fates[number] = Fate(warning=warning)
    tree = _Tree(REQUESTS.decode([canonical for _, canonical in good]))
    return tree, [number for number, _ in good], fates


class _Tree:
    """The nesting of requests, resources, scopes and spans, flattened."""

    def __init__(self, requests: pa.RecordBatch) -> None:
        self.resource_blocks, request_of_resource = _unnested(requests.column(0))
        self.scope_blocks, resource_of_scope = _unnested(self.resource_blocks.field("scope_spans"))
        self.spans, self.scope_of_span = _unnested(self.scope_blocks.field("spans"))
        self.resource_of_span = resource_of_scope[self.scope_of_span]
        self.request_of_span = request_of_resource[self.resource_of_span]
        self._good = np.ones(len(self.spans), dtype=bool)

    def refuse(self, row: int) -> None:
        self._good[row] = False

    def drop_refused(self) -> None:
        if not self._good.all():
            rows = np.flatnonzero(self._good)
            self.spans = self.spans.take(pa.array(rows))
            self.scope_of_span = self.scope_of_span[rows]
            self.resource_of_span = self.resource_of_span[rows]


def _unnested(lists: pa.ListArray) -> tuple[pa.StructArray, Ints]:
    """The items of the lists, and for each the number of its list."""
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists.flatten(), parents


def _refusals(spans: pa.StructArray) -> dict[int, str]:
    """Why a span cannot be stored, by row."""
    reasons: dict[int, str] = {}
    for name, width, may_be_empty in (("trace_id", 16, False), ("span_id", 8, False), ("parent_span_id", 8, True)):
        ids = spans.field(name)
        lengths = pc.binary_length(ids).to_numpy()
        wrong = (lengths != width) & ((lengths != 0) | (not may_be_empty))
        if not may_be_empty:
            wrong |= pc.equal(ids, pa.scalar(bytes(width), pa.binary())).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(wrong).tolist():
            found = ids[row].as_py()
            said = "all zero" if len(found) == width else f"{len(found)} bytes long, not {width}"
            reasons.setdefault(row, f"span {spans.field('name')[row].as_py()[:80]!r}: {name} is {said}")
    return reasons


def _batch(tree: _Tree) -> SpanBatch:
    spans = tree.spans
    resources = _Origins(tree.resource_blocks, "resource", RESOURCES, _read_resource)
    scopes = _Origins(tree.scope_blocks, "scope", SCOPES, _read_scope)
    attributes = flatten(spans.field("attributes"))
    columns = _span_columns(spans) | _outcome_columns(spans)
    columns |= classify(attributes.columns, columns["name"], columns["status"])
    columns["session_id"] = pc.coalesce(
        columns["session_id"], resources.of_block("session_id").take(pa.array(tree.resource_of_span))
    )
    columns["service_name"] = resources.of_block("service_name").take(pa.array(tree.resource_of_span))
    columns["resource_id"] = resources.of_block("id").take(pa.array(tree.resource_of_span))
    columns["scope_id"] = scopes.of_block("id").take(pa.array(tree.scope_of_span))
    columns |= own_columns(lookup)
    columns, costs = with_costs(columns, lookup)
    logs, links = _logs(spans), _links(spans)
    records = records_of(columns, attributes.columns, lookup, logs, links)
    columns["otlp_residue"] = _span_residues(spans, attributes.inexact)
    return SpanBatch(
        events=pa.table(columns),
        attributes=attributes.columns,
        logs=logs,
        links=links,
        records=records if costs is None else records | {"cost_records": costs},
        resources=resources.stored(["service_name"]),
        scopes=scopes.stored(["name", "version"]),
    )


def _span_columns(spans: pa.StructArray) -> dict[str, pa.Array]:
    status = spans.field("status")
    parents = spans.field("parent_span_id")
    columns = {
        "run_id": spans.field("trace_id").cast(pa.binary(16)),
        "id": _event_ids(spans.field("span_id")),
        "parent_event_id": _event_ids(parents),
        "status_code": pc.fill_null(status.field("code"), 0),
        "status_message": _where(status.is_valid(), status.field("message")),
        "trace_state": _where(pc.not_equal(spans.field("trace_state"), ""), spans.field("trace_state")),
    }
    for name in ("name", "kind", "flags", *_DROPPED_COUNTS):
        columns[name] = spans.field(name)
    return columns


def _outcome_columns(spans: pa.StructArray) -> dict[str, pa.Array]:
    """When the span ran and how it ended. A span without an end time is still running."""
    started, completed = _times(spans.field("start_time_unix_nano")), _times(spans.field("end_time_unix_nano"))
    failed = pc.equal(pc.fill_null(spans.field("status").field("code"), 0), _STATUS_ERROR)
    ended = pa.array(completed != 0)
    status = pc.if_else(failed, "failed", pc.if_else(ended, "completed", "running"))
    return {
        "started_at_unix_nano": pa.array(started),
        "completed_at_unix_nano": pa.array(completed),
        "duration_ns": pa.array(np.where(completed > started, completed - started, 0)),
        "status": status,
    }


def _logs(spans: pa.StructArray) -> EventParts | None:
    logs, rows = _unnested(spans.field("events"))
    if not len(logs):
        return None
    attributes = flatten(logs.field("attributes"))
    late = _beyond(logs.field("time_unix_nano"))
    columns = {
        "event_row": pa.array(rows, pa.int32()),
        "log_index": pa.array(_numbered(rows)),
        "time_unix_nano": pa.array(_times(logs.field("time_unix_nano"))),
        "name": logs.field("name"),
        "dropped_attributes_count": logs.field("dropped_attributes_count"),
        "otlp_residue": _residues(logs, LOGS, ("time_unix_nano", "attributes"), attributes.inexact | late),
    }
    return EventParts(pa.table(columns), attributes.columns)


def _links(spans: pa.StructArray) -> EventParts | None:
    links, rows = _unnested(spans.field("links"))
    if not len(links):
        return None
    attributes = flatten(links.field("attributes"))
    run_ids, event_ids = links.field("trace_id"), links.field("span_id")
    run_id_fits, event_id_fits = _has_width(run_ids, 16), _has_width(event_ids, 8)
    inexact = attributes.inexact | ~run_id_fits | ~event_id_fits
    columns = {
        "event_row": pa.array(rows, pa.int32()),
        "link_index": pa.array(_numbered(rows)),
        "linked_run_id": _where(pa.array(run_id_fits), run_ids).cast(pa.binary(16)),
        "linked_event_id": _event_ids(_where(pa.array(event_id_fits), event_ids), zero_is_null=False),
        "trace_state": _where(pc.not_equal(links.field("trace_state"), ""), links.field("trace_state")),
        "flags": links.field("flags"),
        "dropped_attributes_count": links.field("dropped_attributes_count"),
        "otlp_residue": _residues(links, LINKS, ("trace_id", "span_id", "attributes"), inexact),
    }
    return EventParts(pa.table(columns), attributes.columns)


_DROPPED_COUNTS = ("dropped_attributes_count", "dropped_events_count", "dropped_links_count")


class _Origins:
    """The distinct resources or scopes of the blocks, and which block has which."""

    def __init__(
        self,
        blocks: pa.StructArray,
        field: str,
        columns: MessageColumns,
        read: Callable[[bytes | None, str], dict[str, Any]],
    ) -> None:
        messages = blocks.field(field)
        present = messages.is_valid()
        encoded_present = iter(columns.encode(messages.filter(present)))
        encoded = [next(encoded_present) if is_present else None for is_present in present.to_pylist()]
        schema_urls = blocks.field("schema_url").to_pylist()
        self._of_block = [read(message, url) for message, url in zip(encoded, schema_urls, strict=True)]

    def of_block(self, name: str) -> pa.Array:
        """`name` of each block's origin."""
        return pa.array([origin[name] for origin in self._of_block], pa.int64() if name == "id" else pa.string())

    def stored(self, texts: list[str]) -> Origins:
        """Each origin once, with the columns of its table."""
        distinct = list({origin["id"]: origin for origin in self._of_block}.values())
        types = {"id": pa.int64(), "dropped_attributes_count": pa.int64(), "otlp": pa.binary()}
        names = ["id", *texts, "schema_url", "dropped_attributes_count", "otlp"]
        table = {name: pa.array([o[name] for o in distinct], types.get(name, pa.string())) for name in names}
        return Origins(pa.table(table), from_messages([o["attributes"] for o in distinct]))


@lru_cache(maxsize=4096)
def _read_resource(message: bytes | None, schema_url: str) -> dict[str, Any]:
    resource = parsed(Resource, message or b"") or Resource()
    texts = {pair.key: pair.value.string_value for pair in resource.attributes}
    origin = _origin(message, schema_url, resource)
    return origin | {
        "service_name": texts.get("service.name") or None,
        "session_id": next((texts[key] for key in TEXTS["session_id"] if texts.get(key)), None),
    }


@lru_cache(maxsize=4096)
def _read_scope(message: bytes | None, schema_url: str) -> dict[str, Any]:
    scope = parsed(InstrumentationScope, message or b"") or InstrumentationScope()
    return _origin(message, schema_url, scope) | {"name": scope.name or None, "version": scope.version or None}


def _origin(message: bytes | None, schema_url: str, parsed: Resource | InstrumentationScope) -> dict[str, Any]:
    content = b"%d%d " % (message is not None, len(schema_url)) + schema_url.encode() + (message or b"")
    return {
        "id": int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True),
        "schema_url": schema_url or None,
        "dropped_attributes_count": parsed.dropped_attributes_count,
        "attributes": parsed.attributes,
        "otlp": message,
    }


def _event_ids(ids: pa.Array, *, zero_is_null: bool = True) -> pa.Array:
    """8-byte ids as signed integers; null where there is none."""
    absent = pc.fill_null(pc.not_equal(pc.binary_length(ids), 8), True).to_numpy(zero_copy_only=False)
    filled = pc.if_else(pa.array(absent), pa.scalar(bytes(8), ids.type), ids).cast(pa.binary(8))
    numbers = np.frombuffer(filled.buffers()[1], dtype=">i8", count=len(ids), offset=filled.offset * 8).astype(np.int64)
    return pa.array(numbers, mask=absent | (numbers == 0) if zero_is_null else absent)


def _where(present: pa.Array, values: pa.Array) -> pa.Array:
    """`values` where `present`, else null."""
    return pc.if_else(present, values, pa.scalar(None, values.type))


def _has_width(ids: pa.Array, width: int) -> Bools:
    return pc.equal(pc.binary_length(ids), width).to_numpy(zero_copy_only=False)


def _times(times: pa.Array) -> Ints:
    """Unsigned nanoseconds in the column's signed integers, the last of them for any later time."""
    return np.minimum(times.to_numpy(), np.uint64(_TIME_MAX)).astype(np.int64)


def _beyond(times: pa.Array) -> Bools:
    return times.to_numpy() > np.uint64(_TIME_MAX)


def _numbered(rows: Ints) -> Ints:
    """Position among the neighbours that have the same number; `rows` is sorted."""
    if not len(rows):
        return rows
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))


def _span_residues(spans: pa.StructArray, inexact: Bools) -> pa.Array:
    zero_parent = pc.equal(spans.field("parent_span_id"), pa.scalar(bytes(8), pa.binary())).to_numpy(
        zero_copy_only=False
    )
    late = _beyond(spans.field("start_time_unix_nano")) | _beyond(spans.field("end_time_unix_nano"))
    fields = ("parent_span_id", "start_time_unix_nano", "end_time_unix_nano", "attributes")
    return _residues(spans, SPANS, fields, inexact | zero_parent | late)


def _residues(rows: pa.StructArray, columns: MessageColumns, fields: tuple[str, ...], inexact: Bools) -> pa.Array:
    """Per row null, or where the columns are inexact these fields, as a serialised message."""
    residues: list[bytes | None] = [None] * len(rows)
    at = np.flatnonzero(inexact)
    said = pa.StructArray.from_arrays([rows.field(name) for name in fields], fields).take(pa.array(at))
    for row, encoded in zip(at.tolist(), columns.encode(said), strict=True):
        residues[row] = encoded
    return pa.array(residues, pa.binary())


def _has_ambiguous_values(tree: _Tree) -> bool:
    """Does a value set several members of AnyValue's oneof? The last one on the wire counts, and only protobuf's own
    parser knows which that was."""
    owners = [
        tree.spans,
        tree.spans.field("events").flatten(),
        tree.spans.field("links").flatten(),
        tree.resource_blocks.field("resource"),
        tree.scope_blocks.field("scope"),
    ]
    return any(_sets_more_than_one_each(owner.field("attributes").flatten().field("value")) for owner in owners)


def _sets_more_than_one_each(values: pa.StructArray) -> bool:
    present = sum(len(values) - values.field(number).null_count for number in range(values.type.num_fields))
    return present > len(values)
