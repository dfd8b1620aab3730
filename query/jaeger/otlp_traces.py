"""Traces as OTLP, as Jaeger takes it; several are read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from uuid import UUID

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from ...storage import Row, Store
from ..export_api import Spans, SpansInBulk

# About as many as the bulk reader has on a page.
SPANS_TOGETHER_MAX = 8_192
_INT64_MAX = (1 << 63) - 1


def together(runs: Sequence[Row]) -> Iterator[list[Row]]:
    """The runs in their order, in parts of at most SPANS_TOGETHER_MAX spans; a run that has more is one by itself."""
    part: list[Row] = []
    spans = 0
    for run in runs:
        if part and spans + run["event_count"] > SPANS_TOGETHER_MAX:
            yield part
            part, spans = [], 0
        part.append(run)
        spans += run["event_count"]
    if part:
        yield part


def otlp_traces(choose: SpansInBulk, store: Store, runs: Sequence[Row]) -> list[TracesData]:
    """The traces of the runs, in their order, without those that have gone meanwhile.

    A span without an end, or with one before its start, ends where it started: Jaeger reckons durations without a sign,
    so that a span that is still running lasts centuries in it, and its page shows nothing but that.
    """
    run_ids = [UUID(run["id"]) for run in runs]
    traces = {run_id.bytes: TracesData() for run_id in run_ids}
    for page in _pages(choose(store, run_ids, 0, _INT64_MAX)):
        for of_resource in page.resource_spans:
            for of_scope in of_resource.scope_spans:
                for trace_id, spans in groupby(of_scope.spans, key=_trace_id):
                    begin_block(traces[trace_id], of_resource, of_scope).spans.extend(map(_ended, spans))
    return [trace for trace in traces.values() if trace.resource_spans]


def begin_block(traces: TracesData, of_resource: ResourceSpans, of_scope: ScopeSpans) -> ScopeSpans:
    """An empty block in `traces` with this resource and scope."""
    begun = traces.resource_spans.add(schema_url=of_resource.schema_url)
    if of_resource.HasField("resource"):
        begun.resource.CopyFrom(of_resource.resource)
    block = begun.scope_spans.add(schema_url=of_scope.schema_url)
    if of_scope.HasField("scope"):
        block.scope.CopyFrom(of_scope.scope)
    return block


def _pages(spans: Spans) -> Iterator[TracesData]:
    cursor = None
    while True:
        page = spans.page(cursor)
        yield TracesData.FromString(page.traces)
        cursor = page.next_cursor
        if cursor is None:
            return


def _trace_id(span: Span) -> bytes:
    return span.trace_id


def _ended(span: Span) -> Span:
    span.end_time_unix_nano = max(span.end_time_unix_nano, span.start_time_unix_nano)
    return span
