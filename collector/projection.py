"""Requests into a SpanBatch: what OTLP says, in the columns of the schema.

Spans that cannot be stored (ids of wrong length or all zero) are told apart one by one; the rest of the request stands.
Where a column cannot hold a value exactly, the value goes into `otlp_residue` as well, a serialised message with just
those fields.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from ..storage import PreparedBatch, prepare
from ..storage.batch import EventParts, SpanBatch
from .attributes import flatten
from .classification import Lookup, classify
from .columns import Bools, beyond, event_ids, has_width, is_zero, numbered, residues, times, unnested, where, wrong_ids
from .origins import resources_of, scopes_of
from .otlp import LINKS, SPAN_EVENTS, SPANS, TRACE_REQUESTS
from .reading import Form, Reading, Tree, attribute_values
from .records import own_columns, records_of, with_costs

_STATUS_ERROR = 2


def read_requests(requests: list[bytes]) -> Reading:
    """Serialised ExportTraceServiceRequests into one batch, see `Form.read`."""
    return _SPANS.read(requests)


def _refusals(spans: pa.StructArray) -> dict[int, str]:
    """Why a span cannot be stored, by row."""
    reasons: dict[int, str] = {}
    for name, width, may_be_absent in (("trace_id", 16, False), ("span_id", 8, False), ("parent_span_id", 8, True)):
        for row, said in wrong_ids(spans.field(name), width, may_be_absent=may_be_absent).items():
            reasons.setdefault(row, f"span {spans.field('name')[row].as_py()[:80]!r}: {name} is {said}")
    return reasons


def _values(spans: pa.StructArray) -> list[pa.StructArray]:
    owners = (spans, spans.field("events").flatten(), spans.field("links").flatten())
    return [attribute_values(owner) for owner in owners]


def _prepared(tree: Tree) -> PreparedBatch:
    return prepare(_batch(tree))


def _batch(tree: Tree) -> SpanBatch:
    spans = tree.records
    resources = resources_of(tree.resource_blocks)
    scopes = scopes_of(tree.scope_blocks)
    attributes = flatten(spans.field("attributes"))
    columns = _span_columns(spans) | _outcome_columns(spans)
    columns |= classify(attributes.columns, columns["name"], columns["status"])
    columns["session_id"] = pc.coalesce(
        columns["session_id"], resources.of_block("session_id").take(pa.array(tree.resource_of_record))
    )
    columns["service_name"] = resources.of_block("service_name").take(pa.array(tree.resource_of_record))
    columns["resource_id"] = resources.of_block("id").take(pa.array(tree.resource_of_record))
    columns["scope_id"] = scopes.of_block("id").take(pa.array(tree.scope_of_record))
    lookup = Lookup(attributes.columns)
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
        resources=resources.stored(),
        scopes=scopes.stored(),
    )


def _span_columns(spans: pa.StructArray) -> dict[str, pa.Array]:
    status = spans.field("status")
    parents = spans.field("parent_span_id")
    columns = {
        "run_id": spans.field("trace_id").cast(pa.binary(16)),
        "id": event_ids(spans.field("span_id")),
        "parent_event_id": event_ids(parents),
        "status_code": pc.fill_null(status.field("code"), 0),
        "status_message": where(status.is_valid(), status.field("message")),
        "trace_state": where(pc.not_equal(spans.field("trace_state"), ""), spans.field("trace_state")),
    }
    for name in ("name", "kind", "flags", *_DROPPED_COUNTS):
        columns[name] = spans.field(name)
    for name, parts in (("span_event_count", "events"), ("span_link_count", "links")):
        columns[name] = pc.fill_null(pc.list_value_length(spans.field(parts)), 0)
    return columns


def _outcome_columns(spans: pa.StructArray) -> dict[str, pa.Array]:
    """When the span ran and how it ended. A span without an end time is still running."""
    started, completed = times(spans.field("start_time_unix_nano")), times(spans.field("end_time_unix_nano"))
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
    logs, rows = unnested(spans.field("events"))
    if not len(logs):
        return None
    attributes = flatten(logs.field("attributes"))
    late = beyond(logs.field("time_unix_nano"))
    columns = {
        "event_row": pa.array(rows, pa.int32()),
        "log_index": pa.array(numbered(rows)),
        "time_unix_nano": pa.array(times(logs.field("time_unix_nano"))),
        "name": logs.field("name"),
        "dropped_attributes_count": logs.field("dropped_attributes_count"),
        "otlp_residue": residues(logs, SPAN_EVENTS, ("time_unix_nano", "attributes"), attributes.inexact | late),
    }
    return EventParts(pa.table(columns), attributes.columns)


def _links(spans: pa.StructArray) -> EventParts | None:
    links, rows = unnested(spans.field("links"))
    if not len(links):
        return None
    attributes = flatten(links.field("attributes"))
    trace_ids, span_ids = links.field("trace_id"), links.field("span_id")
    run_id_fits, event_id_fits = has_width(trace_ids, 16), has_width(span_ids, 8)
    inexact = attributes.inexact | ~run_id_fits | ~event_id_fits
    columns = {
        "event_row": pa.array(rows, pa.int32()),
        "link_index": pa.array(numbered(rows)),
        "linked_run_id": where(pa.array(run_id_fits), trace_ids).cast(pa.binary(16)),
        "linked_event_id": event_ids(where(pa.array(event_id_fits), span_ids), zero_is_null=False),
        "trace_state": where(pc.not_equal(links.field("trace_state"), ""), links.field("trace_state")),
        "flags": links.field("flags"),
        "dropped_attributes_count": links.field("dropped_attributes_count"),
        "otlp_residue": residues(links, LINKS, ("trace_id", "span_id", "attributes"), inexact),
    }
    return EventParts(pa.table(columns), attributes.columns)


_DROPPED_COUNTS = ("dropped_attributes_count", "dropped_events_count", "dropped_links_count")


def _span_residues(spans: pa.StructArray, inexact: Bools) -> pa.Array:
    zero_parent = is_zero(spans.field("parent_span_id"), 8)
    late = beyond(spans.field("start_time_unix_nano")) | beyond(spans.field("end_time_unix_nano"))
    fields = ("parent_span_id", "start_time_unix_nano", "end_time_unix_nano", "attributes")
    return residues(spans, SPANS, fields, inexact | zero_parent | late)


_SPANS = Form(
    request=ExportTraceServiceRequest,
    columns=TRACE_REQUESTS,
    scope_blocks="scope_spans",
    records="spans",
    refusals=_refusals,
    values=_values,
    prepared=_prepared,
)
