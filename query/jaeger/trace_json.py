"""Traces as version 1 of Jaeger's API shows them, out of columns; `jaeger_json` says what OTLP's words are there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import select

from ...storage import Reader, Row, event_id_text
from ..attribute_json import AttributeOwner
from ..events import EVENTS, LINKS, LOGS, RESOURCES, SCOPES, json_text
from ..histories import whole_attributes
from ..jaeger_json import Json, log_of, reference, references, scope_tags, span_tags, tag, tags_of, trace_id_text
from .search import check_bytes, check_size, of_runs
from .services import SERVICE, kind_name

_BATCH_ROWS = 4096

_Event = tuple[str, int]


def traces_json(reader: Reader, runs: Sequence[Row]) -> Iterator[bytes]:
    """The traces of the runs, each a JSON object, in the order of the runs. Raises AnswerTooLarge."""
    check_size(runs)
    if not runs:
        return
    origins = _Origins(reader, runs)
    logs, links = _logs(reader, runs), _links(reader, runs)
    traces = {_dashed(run["id"]): _Trace(_trace_id(run["id"])) for run in runs}
    size = 0
    for event in _events(reader, _SPANS.where(of_runs(EVENTS, runs)).order_by(*_IN_TIME)):
        key = event["run_id"], event["id"]
        size += traces[event["run_id"]].add(event, origins, logs.get(key, []), links.get(key, []))
        check_bytes(size)
    for trace in traces.values():
        yield trace.json(origins)


def _trace_id(run_id: str) -> str:
    return trace_id_text(run_id.replace("-", ""))


def _dashed(run_id: str) -> str:
    return "-".join((run_id[:8], run_id[8:12], run_id[12:16], run_id[16:20], run_id[20:]))


class _Trace:
    """One trace in the making: its spans as JSON, its processes numbered as the spans name them first."""

    def __init__(self, trace_id: str) -> None:
        self._trace_id = trace_id
        self._spans: list[bytes] = []
        self._processes: dict[int, str] = {}

    def add(self, event: Json, origins: _Origins, logs: list[orjson.Fragment], links: list[Json]) -> int:
        """Adds a span; gives its size in bytes."""
        process = self._processes.setdefault(event["resource_id"], f"p{len(self._processes) + 1}")
        span_id = event["id"] if event["otel_span_id"] is None else event["otel_span_id"]
        parent = None if event["parent_event_id"] is None else event_id_text(event["parent_event_id"])
        fields = (kind_name(event["kind"]), *(event[name] for name in ("status_code", "status_message", "trace_state")))
        own_tags = _tags(event["attributes"], event["otlp_residue"], Span)
        span = {
            "traceID": self._trace_id,
            "spanID": event_id_text(span_id),
            **({"flags": event["flags"]} if event["flags"] else {}),
            "operationName": event["name"],
            "references": references(self._trace_id, parent, links),
            "startTime": event["started_at_unix_nano"] // 1000,
            "duration": event["duration_ns"] // 1000,
            "tags": [*origins.scope_tags[event["scope_id"]], *own_tags, *span_tags(*fields)],
            "logs": logs,
            "processID": process,
            "warnings": None,
        }
        self._spans.append(orjson.dumps(span))
        return len(self._spans[-1])

    def json(self, origins: _Origins) -> bytes:
        trace = {
            "traceID": self._trace_id,
            "spans": orjson.Fragment(b"[" + b",".join(self._spans) + b"]"),
            "processes": {name: origins.processes[resource_id] for resource_id, name in self._processes.items()},
            "warnings": None,
        }
        return orjson.dumps(trace)


class _Origins:
    """The resources of the runs' spans as processes, and their scopes as tags."""

    def __init__(self, reader: Reader, runs: Sequence[Row]) -> None:
        of_spans = of_runs(EVENTS, runs)
        resources = select(
            RESOURCES.c.id,
            SERVICE.label("service"),
            json_text(RESOURCES.c.attributes).label("attributes"),
            RESOURCES.c.otlp,
        ).where(RESOURCES.c.id.in_(select(EVENTS.c.resource_id).where(of_spans)))
        scopes = select(SCOPES.c.id, SCOPES.c.name, SCOPES.c.version).where(
            SCOPES.c.id.in_(select(EVENTS.c.scope_id).where(of_spans))
        )
        self.processes = {row["id"]: _process(row) for row in _rows(reader, resources)}
        self.scope_tags = {row["id"]: scope_tags(row["name"], row["version"]) for row in _rows(reader, scopes)}


def _process(resource: Json) -> Json:
    tags = _tags(resource["attributes"], resource["otlp"], OtlpResource)
    return {"serviceName": resource["service"], "tags": [each for each in tags if each["key"] != "service.name"]}


def _logs(reader: Reader, runs: Sequence[Row]) -> dict[_Event, list[orjson.Fragment]]:
    of_spans = (of_runs(LOGS, runs, start="event_started_at_unix_nano"), LOGS.c.log_index >= 0)
    logs: dict[_Event, list[orjson.Fragment]] = {}
    for row in _rows(reader, _LOGS.where(*of_spans).order_by(LOGS.c.time_unix_nano, LOGS.c.log_index)):
        fields = _tags(row["attributes"], row["otlp_residue"], Span.Event)
        told = orjson.dumps(log_of(row["name"], row["time_unix_nano"], fields))
        logs.setdefault((row["run_id"], row["event_id"]), []).append(orjson.Fragment(told))
    return logs


def _links(reader: Reader, runs: Sequence[Row]) -> dict[_Event, list[Json]]:
    statement = _LINKS.where(of_runs(LINKS, runs, start="event_started_at_unix_nano"))
    links: dict[_Event, list[Json]] = {}
    for row in _rows(reader, statement.order_by(LINKS.c.link_index)):
        tags = _tags(row["attributes"], row["otlp_residue"], Span.Link)
        trace_id, span_id = _trace_id(row["linked_run_id"] or "0" * 32), event_id_text(row["linked_event_id"] or 0)
        links.setdefault((row["run_id"], row["event_id"]), []).append(reference(trace_id, span_id, tags))
    return links


def _tags(text: str | None, residue: bytes | None, owner: AttributeOwner) -> list[Json]:
    """Attributes as tags: what the columns say, or the residue (a serialised `owner`) where that has some."""
    exact = None if residue is None else _exact(residue, owner)
    return exact or [tag(key, value) for key, value in orjson.loads(text or "{}").items()]


def _exact(residue: bytes, owner: AttributeOwner) -> list[Json] | None:
    try:
        return tags_of(owner.FromString(residue).attributes)
    except DecodeError:  # nested deeper than protobuf reads: the columns say what can be said
        return None


def _events(reader: Reader, statement: Any) -> Iterator[Json]:
    """`_rows` of events, their attributes whole."""
    for batch in reader.arrow(statement).to_batches(max_chunksize=_BATCH_ROWS):
        yield from whole_attributes(reader, pa.Table.from_batches([batch])).to_pylist()


def _rows(reader: Reader, statement: Any) -> Iterator[Json]:
    """The rows of a statement, ids as they are stored, a batch of them as Python values at a time."""
    for batch in reader.arrow(statement).to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


# Who lists traces names one after the first of the spans that started first: of several, that is the root.
_IN_TIME = (EVENTS.c.started_at_unix_nano, EVENTS.c.parent_event_id.is_not(None), EVENTS.c.id)
_SPAN_COLUMNS = (
    *("run_id", "id", "otel_span_id", "parent_event_id", "name", "kind", "status_code", "status_message", "flags"),
    *("started_at_unix_nano", "duration_ns", "resource_id", "scope_id", "trace_state", "otlp_residue", "history_id"),
)
_SPANS = select(*(EVENTS.c[name] for name in _SPAN_COLUMNS), json_text(EVENTS.c.attributes).label("attributes"))
_LOGS = select(
    *(LOGS.c[name] for name in ("run_id", "event_id", "time_unix_nano", "name", "otlp_residue")),
    json_text(LOGS.c.attributes).label("attributes"),
)
_LINKS = select(
    *(LINKS.c[name] for name in ("run_id", "event_id", "linked_run_id", "linked_event_id", "otlp_residue")),
    json_text(LINKS.c.attributes).label("attributes"),
)
