"""Traces as version 1 of Jaeger's API shows them: what OTLP calls attributes, events and links are tags, logs and
references there, and times are whole microseconds.

Names and their order follow the translation that OpenTelemetry made for Jaeger.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
import pyarrow as pa
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import RowMapping, select

from ...storage import Reader, event_id_text
from ..attribute_json import AttributeOwner, number_json, value_json
from ..events import EVENTS, LINKS, LOGS, RESOURCES, SCOPES, json_text
from ..histories import whole_attributes
from .search import check_bytes, check_size, of_runs
from .services import SERVICE, kind_name

_BATCH_ROWS = 4096
_JS_INT_MAX = (1 << 53) - 1
_STATUS_NAMES = {1: "OK", 2: "ERROR"}

Json = dict[str, Any]
_Event = tuple[str, int]


def traces_json(reader: Reader, runs: Sequence[RowMapping]) -> Iterator[bytes]:
    """The traces of the runs, each a JSON object, in the order of the runs. Raises AnswerTooLarge."""
    check_size(runs)
    if not runs:
        return
    origins = _Origins(reader, runs)
    logs, links = _logs(reader, runs), _links(reader, runs)
    traces = {_dashed(run["id"]): _Trace(trace_id_text(run["id"])) for run in runs}
    size = 0
    for event in _events(reader, _SPANS.where(of_runs(EVENTS, runs)).order_by(*_IN_TIME)):
        key = event["run_id"], event["id"]
        size += traces[event["run_id"]].add(event, origins, logs.get(key, []), links.get(key, []))
        check_bytes(size)
    for trace in traces.values():
        yield trace.json(origins)


def trace_id_text(run_id: str) -> str:
    """A run's id in hex as Jaeger writes it: an id of 64 bits as 16 digits."""
    digits = run_id.replace("-", "")
    return digits[16:] if digits.startswith("0" * 16) else digits


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
        span = {
            "traceID": self._trace_id,
            "spanID": event_id_text(span_id),
            **({"flags": event["flags"]} if event["flags"] else {}),
            "operationName": event["name"],
            "references": _references(self._trace_id, event["parent_event_id"], links),
            "startTime": event["started_at_unix_nano"] // 1000,
            "duration": event["duration_ns"] // 1000,
            "tags": _span_tags(event, origins.scope_tags[event["scope_id"]]),
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


def _span_tags(event: Json, scope_tags: list[Json]) -> list[Json]:
    tags = scope_tags + _tags(event["attributes"], event["otlp_residue"], Span)
    if kind := kind_name(event["kind"]):
        tags.append(_tag("span.kind", kind))
    if status := _STATUS_NAMES.get(event["status_code"]):
        tags.append(_tag("otel.status_code", status))
    if status == "ERROR":
        tags.append(_tag("error", True))
    if event["status_message"]:
        tags.append(_tag("otel.status_description", event["status_message"]))
    if event["trace_state"]:
        tags.append(_tag("w3c.tracestate", event["trace_state"]))
    return tags


def _references(trace_id: str, parent_id: int | None, links: list[Json]) -> list[Json]:
    """The parent first; a link to the parent only says of which type that reference is."""
    references = []
    if parent_id is not None:
        references.append({"refType": "CHILD_OF", "traceID": trace_id, "spanID": event_id_text(parent_id)})
    for link in links:
        if references and (link["traceID"], link["spanID"]) == (trace_id, references[0]["spanID"]):
            references[0] = link
        else:
            references.append(link)
    return references


class _Origins:
    """The resources of the runs' spans as processes, and their scopes as tags."""

    def __init__(self, reader: Reader, runs: Sequence[RowMapping]) -> None:
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
        self.scope_tags = {row["id"]: _scope_tags(row) for row in _rows(reader, scopes)}


def _process(resource: Json) -> Json:
    tags = _tags(resource["attributes"], resource["otlp"], OtlpResource)
    return {"serviceName": resource["service"], "tags": [tag for tag in tags if tag["key"] != "service.name"]}


def _scope_tags(scope: Json) -> list[Json]:
    said = (("otel.scope.name", scope["name"]), ("otel.scope.version", scope["version"]))
    return [_tag(key, value) for key, value in said if value]


def _logs(reader: Reader, runs: Sequence[RowMapping]) -> dict[_Event, list[orjson.Fragment]]:
    of_spans = (of_runs(LOGS, runs, start="event_started_at_unix_nano"), LOGS.c.log_index >= 0)
    logs: dict[_Event, list[orjson.Fragment]] = {}
    for row in _rows(reader, _LOGS.where(*of_spans).order_by(LOGS.c.time_unix_nano, LOGS.c.log_index)):
        fields = _tags(row["attributes"], row["otlp_residue"], Span.Event)
        if row["name"] and all(tag["key"] != "event" for tag in fields):
            fields.insert(0, _tag("event", row["name"]))
        log = orjson.dumps({"timestamp": row["time_unix_nano"] // 1000, "fields": fields})
        logs.setdefault((row["run_id"], row["event_id"]), []).append(orjson.Fragment(log))
    return logs


def _links(reader: Reader, runs: Sequence[RowMapping]) -> dict[_Event, list[Json]]:
    statement = _LINKS.where(of_runs(LINKS, runs, start="event_started_at_unix_nano"))
    links: dict[_Event, list[Json]] = {}
    for row in _rows(reader, statement.order_by(LINKS.c.link_index)):
        tags = _tags(row["attributes"], row["otlp_residue"], Span.Link)
        is_child = any((tag["key"], tag["value"]) == ("opentracing.ref_type", "child_of") for tag in tags)
        reference = {
            "refType": "CHILD_OF" if is_child else "FOLLOWS_FROM",
            "traceID": trace_id_text(row["linked_run_id"] or "0" * 32),
            "spanID": event_id_text(row["linked_event_id"] or 0),
        }
        links.setdefault((row["run_id"], row["event_id"]), []).append(reference)
    return links


def _tags(text: str | None, residue: bytes | None, owner: AttributeOwner) -> list[Json]:
    """Attributes as tags: what the columns say, or the residue (a serialised `owner`) where that has some."""
    exact = None if residue is None else _exact(residue, owner)
    pairs: Iterable[tuple[str, Any]] = exact or orjson.loads(text or "{}").items()
    return [_tag(key, value) for key, value in pairs]


def _exact(residue: bytes, owner: AttributeOwner) -> list[tuple[str, Any]] | None:
    try:
        return [(pair.key, _exact_value(pair.value)) for pair in owner.FromString(residue).attributes]
    except DecodeError:  # nested deeper than protobuf reads: the columns say what can be said
        return None


def _exact_value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in {"bytes_value", "double_value"} else value_json(value)


def _tag(key: str, value: Any) -> Json:
    type_name, shown = _typed(value)
    return {"key": key, "type": type_name, "value": shown}


def _typed(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int):
        # A script reads a larger number as another one.
        return "int64", value if abs(value) <= _JS_INT_MAX else str(value)
    if isinstance(value, float):
        return "float64", number_json(value)
    if isinstance(value, bytes):
        return "binary", b64encode(value).decode()
    text = "" if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
    return "string", text


def _events(reader: Reader, statement: Any) -> Iterator[Json]:
    """`_rows` of events, their attributes whole."""
    for batch in reader.arrow(statement).to_batches(max_chunksize=_BATCH_ROWS):
        yield from whole_attributes(reader, pa.Table.from_batches([batch])).to_pylist()


def _rows(reader: Reader, statement: Any) -> Iterator[Json]:
    """The rows of a statement, ids as they are stored, a batch of them as Python values at a time."""
    for batch in reader.arrow(statement).to_batches(max_chunksize=_BATCH_ROWS):
        yield from batch.to_pylist()


_IN_TIME = (EVENTS.c.started_at_unix_nano, EVENTS.c.id)
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
