"""Traces as Jaeger's page downloads them and its API answers: `{"data": [{"traceID", "spans", "processes"}]}`.

`query.jaeger_json` says what becomes of OTLP's words there. Jaeger's form says less than OTLP: times are whole
microseconds, lists and maps are text, dropped counts and schema URLs are left out.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, TracesData

from ..query.jaeger_json import NO_SERVICE, log_of, reference, references, scope_tags, span_tags, tags_of, trace_id_text
from .errors import BadInput
from .frames import FRAME_BYTES_MAX, Frame, Request, sized
from .input import Input

SUFFIXES: tuple[str, ...] = ()

_CHUNK_BYTES = 1 << 20
_BEGINNING = re.compile(rb'\s*\{\s*(?:"(?:total|limit|offset|errors)"\s*:\s*(?:null|\d+|\[\s*\])\s*,\s*)*"data"\s*:')
_TOKEN = re.compile(rb'[\[\]{}]|"(?:[^"\\]+|\\.)*+("?)', re.DOTALL)
# What stands before the next bracket within a trace: texts, and objects in which no other is.
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_BRACKET = re.compile(rb'(?:[^"\[\]{}]++|%b|\{(?:[^"\[\]{}]++|%b)*+\})*+([\[\]{}]?)' % (_TEXT, _TEXT), re.DOTALL)
_INT64_MAX = (1 << 63) - 1
_KINDS = {"internal": 1, "server": 2, "client": 3, "producer": 4, "consumer": 5}
_KIND_NAMES = {number: name for name, number in _KINDS.items()}
_STATUS_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}
# Tags that are no attributes in OTLP; the second names are older.
_SCOPE_NAME, _SCOPE_VERSION = ("otel.scope.name", "otel.library.name"), ("otel.scope.version", "otel.library.version")
_KIND, _STATUS, _STATUS_TEXT, _ERROR = "span.kind", "otel.status_code", "otel.status_description", "error"
_TRACE_STATE, _REFERENCE_TYPE = "w3c.tracestate", "opentracing.ref_type"

Json = dict[str, Any]


# --- reading ----------------------------------------------------------------------------------------------------------


def begins(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    return _BEGINNING.match(head) is not None


def frames(file: Input) -> Iterator[Frame]:
    """The traces. Raises BadInput for one that is too long or cut short, and where there are errors or anything else
    instead."""
    cutter = _Cutter()
    number = 0
    beginning = b""
    while chunk := file.stream.read(_CHUNK_BYTES):
        beginning = beginning or chunk
        for offset, trace in cutter.traces(chunk):
            number += 1
            yield Frame(number, f"trace {number:,} (byte {offset:,})", trace)
        if cutter.held > FRAME_BYTES_MAX:
            most = f"{sized(FRAME_BYTES_MAX)} is the most that a trace may have; take it as OTLP"
            raise BadInput(f"trace {number + 1:,} is longer than {sized(cutter.held)}: {most}")
    if not cutter.is_complete:
        raise BadInput(f"the file is cut short: it ends within trace {number + 1:,}")
    if not number and (errors := _errors(beginning)):
        raise BadInput(f"Jaeger answered with an error, not with traces: {orjson.dumps(errors[0]).decode()}")
    if not cutter.has_data:
        raise BadInput('no traces as Jaeger tells them: they are in a list, "data"')


def _errors(answer: bytes) -> list[Any]:
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(answer)
        errors = said.get("errors") if isinstance(said, dict) else None
        return errors if isinstance(errors, list) else []
    return []


class _Cutter:
    """Cuts the elements out of `data` as it comes, without parsing them."""

    def __init__(self) -> None:
        self._buffer, self._offset = b"", 0
        self._scanned, self._start = 0, None
        self._depth, self._key, self._is_data = 0, b"", False
        self.has_data = False

    _start: int | None

    @property
    def held(self) -> int:
        """Bytes of what is not cut off yet."""
        return len(self._buffer)

    @property
    def is_complete(self) -> bool:
        return self._depth == 0

    def traces(self, chunk: bytes) -> Iterator[tuple[int, bytes]]:
        """The traces that end in this chunk, each with its place in the file."""
        self._append(chunk)
        yield from self._whole_trace()
        while self._start is None and (token := _TOKEN.search(self._buffer, self._scanned)):
            if token[1] == b"":  # a string that goes on in the next chunk
                self._scanned = token.start()
                return
            self._scanned = token.end()
            if token[1]:
                self._key = token[0] if self._depth == 1 else self._key
            elif token[0] in b"[{":
                self._open(token[0], token.start())
                yield from self._whole_trace()
            else:
                self._depth -= 1

    def _whole_trace(self) -> Iterator[tuple[int, bytes]]:
        """The trace that is begun, if it ends in what is there."""
        while self._start is not None and (bracket := _BRACKET.match(self._buffer, self._scanned)):
            self._scanned = bracket.end()
            if not bracket[1]:
                return
            self._depth += 1 if bracket[1] in b"[{" else -1
            if self._depth == 2:
                yield self._offset + self._start, self._buffer[self._start : bracket.end()]
                self._start = None

    def _append(self, chunk: bytes) -> None:
        done = self._scanned if self._start is None else self._start
        self._buffer = self._buffer[done:] + chunk
        self._offset += done
        self._scanned -= done
        self._start = None if self._start is None else 0

    def _open(self, bracket: bytes, start: int) -> None:
        self._depth += 1
        if self._depth == 2:
            self._is_data = (self._key, bracket) == (b'"data"', b"[")
            self.has_data |= self._is_data
        elif self._depth == 3 and self._is_data:
            self._start = start


def requests(trace: bytes) -> list[Request]:
    """What a trace asks to be stored. Raises BadInput."""
    try:
        said = orjson.loads(trace)
        traces = TracesData()
        blocks: dict[tuple[Any, ...], ScopeSpans] = {}
        for span in said["spans"]:
            process = span.get("process") or said["processes"][span["processID"]]
            _read_span(span, process, traces, blocks)
    except orjson.JSONDecodeError as error:
        raise BadInput(f"not JSON: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise BadInput(f"not a trace as Jaeger writes it: {type(error).__name__} {error}") from error
    return [Request("traces", traces.SerializeToString())]


def _read_span(said: Json, process: Json, traces: TracesData, blocks: dict[tuple[Any, ...], ScopeSpans]) -> None:
    tags = {tag["key"]: tag for tag in said.get("tags") or ()}
    scope = tuple(_taken_text(tags, *names) for names in (_SCOPE_NAME, _SCOPE_VERSION))
    key = id(process), *scope
    if key not in blocks:
        block = traces.resource_spans.add(resource=_resource(process)).scope_spans.add()
        block.scope.name, block.scope.version = scope
        blocks[key] = block
    span = blocks[key].spans.add()
    span.trace_id, span.span_id = _id(said["traceID"], 16), _id(said["spanID"], 8)
    span.name, span.flags = said["operationName"], said.get("flags") or 0
    span.start_time_unix_nano = int(said["startTime"]) * 1_000
    span.end_time_unix_nano = (int(said["startTime"]) + int(said["duration"])) * 1_000
    _read_references(span, said)
    span.kind = cast(Any, _KINDS.get(_taken_text(tags, _KIND).lower(), 0))
    span.trace_state = _taken_text(tags, _TRACE_STATE)
    _read_status(span, tags)
    span.attributes.extend(map(_attribute, tags.values()))
    for log in said.get("logs") or ():
        fields = {field["key"]: field for field in log["fields"]}
        event = span.events.add(time_unix_nano=int(log["timestamp"]) * 1_000, name=_taken_text(fields, "event"))
        event.attributes.extend(map(_attribute, fields.values()))


def _read_references(span: Span, said: Json) -> None:
    """The parent is the first CHILD_OF of the same trace, else the first FOLLOWS_FROM of it; the others are links."""
    references = [
        (each["refType"], _id(each["traceID"], 16), _id(each["spanID"], 8)) for each in said.get("references") or ()
    ]
    of_trace = [each for each in references if each[1] == span.trace_id]
    parent = next((each for each in of_trace if each[0] == "CHILD_OF"), next(iter(of_trace), None))
    span.parent_span_id = parent[2] if parent else _id(said.get("parentSpanID") or "", 8)
    for each in references:
        if each is not parent:
            link = span.links.add(trace_id=each[1], span_id=each[2])
            if each[0] == "CHILD_OF":
                link.attributes.add(key=_REFERENCE_TYPE).value.string_value = "child_of"


def _read_status(span: Span, tags: dict[str, Json]) -> None:
    code = _STATUS_CODES.get(_taken_text(tags, _STATUS).upper())
    if tags.get(_ERROR, {}).get("value") in (True, "true") and code in (None, 2):
        code = 2
        del tags[_ERROR]
    message = _taken_text(tags, _STATUS_TEXT)
    if code is not None or message:
        span.status.code, span.status.message = cast(Any, code or 0), message


def _resource(process: Json) -> Resource:
    attributes = [_attribute(tag) for tag in process.get("tags") or ()]
    if process["serviceName"] != NO_SERVICE:
        attributes.insert(0, _attribute({"key": "service.name", "value": process["serviceName"]}))
    return Resource(attributes=attributes)


def _attribute(tag: Json) -> KeyValue:
    value = tag["value"]
    match tag.get("type", "string"):
        case "bool":
            said = AnyValue(bool_value=value in (True, "true"))
        case "int64" | "int":
            said = AnyValue(int_value=int(value))
        case "float64" | "float":
            said = AnyValue(double_value=float(value))
        case "binary":
            said = AnyValue(bytes_value=b64decode(value))
        case _:
            said = AnyValue(string_value=value if isinstance(value, str) else orjson.dumps(value).decode())
    return KeyValue(key=tag["key"], value=said)


def _taken_text(tags: dict[str, Json], *keys: str) -> str:
    """The text of the first of these tags that is there, which is no attribute then."""
    for key in keys:
        if isinstance(tags.get(key, {}).get("value"), str):
            return str(tags.pop(key)["value"])
    return ""


def _id(text: str, size: int) -> bytes:
    """Jaeger leaves zeros in front of an id out."""
    return bytes.fromhex(text.rjust(2 * size, "0")) if text else b""


# --- writing ----------------------------------------------------------------------------------------------------------


class Writer:
    """Makes a file of pages; of a trace that goes on in the next page only its processes are held."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        state = state or {}
        self._trace_id: str | None = state.get("trace_id")
        self._processes: dict[str, str] = dict(state.get("processes", {}))
        self._is_begun = bool(state)

    @property
    def state(self) -> Mapping[str, Any]:
        """What it takes to go on from here."""
        return {"trace_id": self._trace_id, "processes": self._processes}

    def page(self, traces: bytes) -> bytes:
        """What the spans of a serialised `TracesData` add, where those of a trace come one after another."""
        pieces = [] if self._is_begun else [b'{"data":[']
        self._is_begun = True
        for block in TracesData.FromString(traces).resource_spans:
            process = orjson.dumps(_process(block.resource)).decode()
            for scope_spans in block.scope_spans:
                for span in scope_spans.spans:
                    pieces += self._next(span, process, scope_spans.scope)
        return b"".join(pieces)

    def end(self) -> bytes:
        """What closes the file."""
        beginning = b"" if self._is_begun else b'{"data":['
        return beginning + self._trace_end() + b'],"total":0,"limit":0,"offset":0,"errors":null}\n'

    def _next(self, span: Span, process: str, scope: InstrumentationScope) -> Iterator[bytes]:
        trace_id = trace_id_text(span.trace_id.hex())
        if trace_id == self._trace_id:
            yield b",\n"
        else:
            separator = b",\n" if self._trace_id else b""
            yield self._trace_end() + separator + b'{"traceID":"%b","spans":[\n' % trace_id.encode()
            self._trace_id = trace_id
        process_id = self._processes.setdefault(process, f"p{len(self._processes) + 1}")
        yield orjson.dumps(_span(span, trace_id, process_id, scope))

    def _trace_end(self) -> bytes:
        if self._trace_id is None:
            return b""
        processes = ",".join(f'"{name}":{process}' for process, name in self._processes.items())
        self._processes = {}
        return b'],"processes":{%b},"warnings":null}' % processes.encode()


def _span(span: Span, trace_id: str, process_id: str, scope: InstrumentationScope) -> Json:
    start = _clamped(span.start_time_unix_nano)
    links = [
        reference(trace_id_text(link.trace_id.hex()), link.span_id.hex(), tags_of(link.attributes))
        for link in span.links
    ]
    fields = span_tags(_KIND_NAMES.get(span.kind), span.status.code, span.status.message, span.trace_state)
    events = sorted(span.events, key=lambda event: event.time_unix_nano)
    return {
        "traceID": trace_id,
        "spanID": span.span_id.hex(),
        **({"flags": span.flags} if span.flags else {}),
        "operationName": span.name,
        "references": references(trace_id, span.parent_span_id.hex() if any(span.parent_span_id) else None, links),
        "startTime": start // 1_000,
        "duration": max(0, _clamped(span.end_time_unix_nano) - start) // 1_000,
        "tags": [*scope_tags(scope.name, scope.version), *tags_of(span.attributes), *fields],
        "logs": [log_of(event.name, _clamped(event.time_unix_nano), tags_of(event.attributes)) for event in events],
        "processID": process_id,
        "warnings": None,
    }


def _clamped(unix_nano: int) -> int:
    return min(unix_nano, _INT64_MAX)


def _process(resource: Resource) -> Json:
    tags = tags_of(resource.attributes)
    names = [tag["value"] for tag in tags if (tag["key"], tag["type"]) == ("service.name", "string")]
    name = names[0] if names else "" if tags else NO_SERVICE
    return {"serviceName": name, "tags": [tag for tag in tags if tag["key"] != "service.name"]}
