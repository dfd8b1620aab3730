"""A run's OTLP as Jaeger takes it."""

from __future__ import annotations

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData


def otlp_traces(serialised: bytes | None) -> TracesData:
    """A run's `TracesData`; an empty one for None, a run that is not there.

    A span without an end, or with one before its start, ends where it started: Jaeger reckons durations without a sign,
    so that a span that is still running lasts centuries in it, and its page shows nothing but that.
    """
    traces = TracesData.FromString(serialised or b"")
    for of_resource in traces.resource_spans:
        for of_scope in of_resource.scope_spans:
            for span in of_scope.spans:
                span.end_time_unix_nano = max(span.end_time_unix_nano, span.start_time_unix_nano)
    return traces
