"""OTLP metrics into rows of `workflow_metrics`, a row a data point.

Metrics come by the hundred where spans come by the hundred thousand, in five shapes: protobuf's own objects read them.
A point is kept as it came, in a `Metric` of its own; the columns say what can be asked for. The first exemplar that
names a trace links the point to its run and event.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from time import time_ns
from typing import Any

import pyarrow as pa
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Exemplar, Metric

from ..storage.batch import Origins
from ..storage.hashed import HashedBatch, prepare_hashed
from .attributes import from_messages
from .origins import DistinctOrigins, Origin, read_resource, read_scope
from .reading import Reading, mended

SHAPES = ("gauge", "sum", "histogram", "exponential_histogram", "summary")
_TIME_MAX = (1 << 63) - 1
_COLUMNS = {
    "point_id": pa.int64(),
    "run_id": pa.binary(16),
    "event_id": pa.int64(),
    "metric_name": pa.string(),
    "metric_type": pa.string(),
    "metric_value": pa.float64(),
    "unit": pa.string(),
    "started_at_unix_nano": pa.int64(),
    "time_unix_nano": pa.int64(),
    "resource_id": pa.int64(),
    "scope_id": pa.int64(),
    "otlp": pa.binary(),
    "session_id": pa.string(),
    "service_name": pa.string(),
    "met_at_unix_nano": pa.int64(),
    "is_placed_by_arrival": pa.bool_(),
}


def read_metric_requests(requests: list[bytes]) -> Reading:
    """Serialised ExportMetricsServiceRequests into one batch. A bad one harms no other, a point with an exemplar whose
    ids are of wrong length no other point."""
    good, fates = mended(requests, ExportMetricsServiceRequest, None)
    points: list[_Point] = []
    for number, request in good:
        read = list(_points_of(ExportMetricsServiceRequest.FromString(request)))
        rejections = tuple(filter(None, map(_refusal, read)))
        fates[number] = replace(fates[number], rejections=rejections)
        points += read if not rejections else [point for point in read if not _refusal(point)]
    return Reading(prepare_hashed(_batch(points)) if points else None, fates)


@dataclass(frozen=True)
class _Point:
    """A data point of any shape, the metric that it is of, and where it comes from."""

    value: Any
    metric: Metric
    shape: str
    resource: Origin
    scope: Origin


def _points_of(request: ExportMetricsServiceRequest) -> Iterator[_Point]:
    for of_resource in request.resource_metrics:
        resource = read_resource(_presence(of_resource, "resource"), of_resource.schema_url)
        for of_scope in of_resource.scope_metrics:
            scope = read_scope(_presence(of_scope, "scope"), of_scope.schema_url)
            for metric in of_scope.metrics:
                shape = metric.WhichOneof("data")
                for value in getattr(metric, shape).data_points if shape else ():
                    yield _Point(value, metric, shape, resource, scope)


def _presence(block: Any, name: str) -> bytes | None:
    return getattr(block, name).SerializeToString() if block.HasField(name) else None


def _refusal(point: _Point) -> str:
    """Why the point cannot be stored, "" where it can. An id that is absent, or all zero, says that there is none."""
    for exemplar in _exemplars(point):
        for name, width in (("trace_id", 16), ("span_id", 8)):
            if len(found := getattr(exemplar, name)) not in (0, width):
                said = f"{name} of an exemplar is {len(found)} bytes long, not {width}"
                return f"data point of {point.metric.name[:80]!r}: {said}"
    return ""


def _exemplars(point: _Point) -> list[Exemplar]:
    return [] if point.shape == "summary" else list(point.value.exemplars)


def _batch(points: list[_Point]) -> HashedBatch:
    rows = [_row(point) for point in points]
    columns = {name: pa.array([row[name] for row in rows], kind) for name, kind in _COLUMNS.items()}
    attributes = from_messages([point.value.attributes for point in points])
    resources = _stored([point.resource for point in points], ["service_name"])
    scopes = _stored([point.scope for point in points], ["name", "version"])
    return HashedBatch("workflow_metrics", pa.table(columns), attributes, resources, scopes)


def _stored(origins: list[Origin], texts: list[str]) -> Origins:
    return DistinctOrigins(origins, texts).stored()


def _row(point: _Point) -> dict[str, Any]:
    otlp = _as_it_came(point)
    linked = next((exemplar for exemplar in _exemplars(point) if any(exemplar.trace_id)), None)
    time = min(point.value.time_unix_nano, _TIME_MAX)
    met_at = time if linked is None else min(linked.time_unix_nano, _TIME_MAX) or time
    is_placed_by_arrival = linked is not None and not met_at
    return {
        "point_id": _hash(otlp, point),
        "run_id": linked.trace_id if linked else None,
        "event_id": int.from_bytes(linked.span_id, "big", signed=True) or None if linked else None,
        "metric_name": point.metric.name,
        "metric_type": point.shape,
        "metric_value": _figure(point),
        "unit": point.metric.unit or None,
        "started_at_unix_nano": min(point.value.start_time_unix_nano, _TIME_MAX) or None,
        "time_unix_nano": time,
        "resource_id": point.resource["id"],
        "scope_id": point.scope["id"],
        "otlp": otlp,
        "session_id": point.resource["session_id"],
        "service_name": point.resource["service_name"],
        "met_at_unix_nano": time_ns() if is_placed_by_arrival else met_at,
        "is_placed_by_arrival": is_placed_by_arrival,
    }


def _as_it_came(point: _Point) -> bytes:
    """The point in a Metric that is otherwise as its own."""
    metric, own = Metric(), point.metric
    metric.name, metric.description, metric.unit = own.name, own.description, own.unit
    metric.metadata.extend(own.metadata)
    data, own_data = getattr(metric, point.shape), getattr(own, point.shape)
    for name in ("aggregation_temporality", "is_monotonic"):
        if name in own_data.DESCRIPTOR.fields_by_name:
            setattr(data, name, getattr(own_data, name))
    data.data_points.append(point.value)
    return metric.SerializeToString(deterministic=True)


def _figure(point: _Point) -> float | None:
    """The point's value, or its sum where it has several; None where it has neither."""
    if point.shape in ("gauge", "sum"):
        member = point.value.WhichOneof("value")
        return None if member is None else float(getattr(point.value, member))
    has_sum = point.shape == "summary" or point.value.HasField("sum")
    return float(point.value.sum) if has_sum else None


def _hash(otlp: bytes, point: _Point) -> int:
    origin = b"".join(part["id"].to_bytes(8, "big", signed=True) for part in (point.resource, point.scope))
    return int.from_bytes(blake2b(otlp, digest_size=8, salt=origin).digest(), "big", signed=True)
