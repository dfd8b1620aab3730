"""The parts of a trace in the JSON of Jaeger's version 1, which its page downloads too.

What OTLP calls attributes, events and links are tags, logs and references there, some of OTLP's fields are tags, and
times are whole microseconds. Names and their order follow OpenTelemetry's specification, "OpenTelemetry to Jaeger
Transformation".
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from .attribute_json import number_json, value_json

# What Jaeger calls the service of a resource that says nothing.
NO_SERVICE = "OTLPResourceNoServiceName"

_JS_INTEGER_MAX = (1 << 53) - 1
_TAG_TYPES = {bool: "bool", int: "int64", float: "float64", bytes: "binary"}
_STATUS_NAMES = {1: "OK", 2: "ERROR"}

Json = dict[str, Any]


def trace_id_text(digits: str) -> str:
    """A trace id in hex as Jaeger writes it: an id of 64 bits as 16 digits."""
    return digits[16:] if digits.startswith("0" * 16) else digits


def tag(key: str, value: Any) -> Json:
    """One attribute; `value` is as JSON has it, or bytes."""
    return {"key": key, "type": _TAG_TYPES.get(type(value), "string"), "value": _shown(value)}


def tags_of(attributes: Iterable[KeyValue]) -> list[Json]:
    """OTLP's attributes, in their order."""
    return [tag(pair.key, _plain(pair.value)) for pair in attributes]


def span_tags(kind: str | None, status_code: int, status_message: str | None, trace_state: str | None) -> list[Json]:
    """Those of a span's fields that are tags; `kind` is its name, None for the unspecified one."""
    status = _STATUS_NAMES.get(status_code)
    fields = (
        ("span.kind", kind),
        ("otel.status_code", status),
        ("error", status == "ERROR"),
        ("otel.status_description", status_message),
        ("w3c.tracestate", trace_state),
    )
    return [tag(key, value) for key, value in fields if value]


def scope_tags(name: str | None, version: str | None) -> list[Json]:
    """A scope, which stands before the span's own tags."""
    return [tag(key, value) for key, value in (("otel.scope.name", name), ("otel.scope.version", version)) if value]


def log_of(name: str | None, time_unix_nano: int, fields: list[Json]) -> Json:
    """An event of a span; its name is a field, unless it has one of that key."""
    if name and all(field["key"] != "event" for field in fields):
        fields = [tag("event", name), *fields]
    return {"timestamp": time_unix_nano // 1_000, "fields": fields}


def reference(trace_id: str, span_id: str, tags: Iterable[Json]) -> Json:
    """A link with these tags."""
    is_child = any((each["key"], each["value"]) == ("opentracing.ref_type", "child_of") for each in tags)
    return {"refType": "CHILD_OF" if is_child else "FOLLOWS_FROM", "traceID": trace_id, "spanID": span_id}


def references(trace_id: str, parent_id: str | None, links: Iterable[Json]) -> list[Json]:
    """The parent first; a link to the parent only says of which type that reference is."""
    found = [] if parent_id is None else [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": parent_id}]
    for link in links:
        if parent_id is not None and (link["traceID"], link["spanID"]) == (trace_id, parent_id):
            found[0] = link
        else:
            found.append(link)
    return found


def _plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind in {"bytes_value", "double_value"} else value_json(value)


def _shown(value: Any) -> Any:
    match value:
        case bool() | str():
            return value
        case int():  # a script reads a larger number as another one
            return value if abs(value) <= _JS_INTEGER_MAX else str(value)
        case float():
            return number_json(value)
        case bytes():
            return b64encode(value).decode()
        case None:
            return ""
    return orjson.dumps(value).decode()
