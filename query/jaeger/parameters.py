"""What a question of Jaeger's may say over HTTP, and how it is read. What cannot be read raises ValueError within a
model, InvalidParameter elsewhere. A parameter that is there and empty says nothing; unknown ones are passed over, since
Jaeger's page sends its own settings along."""

from __future__ import annotations

import re
import time
from base64 import b64decode
from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Path, Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema, model_validator
from starlette.datastructures import QueryParams

from ..errors import InvalidParameter
from ..parameters import parse_instant
from .durations import parse_duration
from .search import TRACES_DEFAULT, TRACES_MAX, TraceSearch
from .services import kind_number
from .span_metrics import Measured

_HEX = re.compile(r"[0-9a-fA-F]{1,32}", re.ASCII)
# Jaeger's page joins several services to one: `service=a,service=b`.
_SEPARATOR = re.compile(r",(?:service=)?")
_US, _MS, _HOUR, _DAY = 10**3, 10**6, 3600 * 10**9, 86400 * 10**9
_INT64_MAX = (1 << 63) - 1
_TEXT = WithJsonSchema({"type": "string"})
_Number = Annotated[int, Field(ge=0, le=_INT64_MAX)]
_Duration = Annotated[int, BeforeValidator(parse_duration), _TEXT]


def parse_trace_id(text: str) -> UUID:
    """A trace id: 1 to 32 hex digits, leading zeros left out if one likes, or its 16 bytes in base64. Raises
    InvalidParameter."""
    if _HEX.fullmatch(text):
        return UUID(text.rjust(32, "0"))
    try:
        content = b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
        return UUID(bytes=content)
    except ValueError:
        message = f"{text[:80]!r} is not a trace id: 1 to 32 hex digits, or 16 bytes in base64"
        raise InvalidParameter(message, parameter="traceID") from None


def parse_tags(text: str) -> dict[str, str]:
    """Tags out of a JSON object. Raises ValueError."""
    try:
        tags = orjson.loads(text)
    except orjson.JSONDecodeError:
        tags = None
    if not isinstance(tags, dict) or any(isinstance(value, dict | list) or value is None for value in tags.values()):
        raise ValueError(f'{text[:80]!r} is not a JSON object of text, such as {{"http.status_code":"500"}}')
    return {key: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in tags.items()}


class _Parameters(BaseModel):
    @model_validator(mode="before")
    @classmethod
    def _without_empty(cls, given: Any) -> Any:
        return {name: value for name, value in given.items() if value not in ("", [""])}


class SearchWanted(_Parameters):
    """Which traces, for /api/traces."""

    trace_ids: list[str] = Field([], alias="traceID", description="These traces; everything else is passed over then.")
    service: str = Field("", description="Only traces with a span of this service.")
    operation: str = Field("", description="Only traces in which that span has this name.")
    tag: list[str] = Field([], description="`key:value` that the span has as a tag; may be given several times.")
    tags: Annotated[dict[str, str], BeforeValidator(parse_tags), _TEXT] = Field({}, description="The same as JSON.")
    duration_min: _Duration = Field(0, alias="minDuration", description="The span lasts that long or longer: `10us`.")
    duration_max: _Duration = Field(0, alias="maxDuration", description="The span does not last longer: `1.5s`.")
    start: _Number | None = Field(None, description="The span starts then or later: microseconds since 1970.")
    end: _Number | None = Field(None, description="The span starts no later: microseconds since 1970; else now.")
    lookback: str = Field("", description="How far back from `end`, where there is no `start`: `2d` if not said.")
    limit: int = Field(TRACES_DEFAULT, ge=1, le=TRACES_MAX, description="How many traces at most, newest first.")

    def search(self) -> TraceSearch:
        """What to look for. Raises InvalidParameter."""
        last = min((self.end + 1) * _US - 1, _INT64_MAX) if self.end is not None else time.time_ns()
        first = min(self.start * _US, _INT64_MAX) if self.start is not None else max(0, last - self._lookback())
        if self.start is not None and first > last:
            raise InvalidParameter("invalid parameter: start time must be before end time", parameter="start")
        return TraceSearch(
            first=first,
            last=last,
            service=self.service,
            operation=self.operation,
            tags=dict(map(_tag, self.tag)) | self.tags,
            duration_min_ns=self.duration_min,
            duration_max_ns=self.duration_max,
            limit=self.limit,
        )

    def _lookback(self) -> int:
        try:
            return parse_duration(self.lookback) or 2 * _DAY
        except ValueError:  # the page says `custom` beside a start and an end
            return 2 * _DAY


class OperationsWanted(_Parameters):
    """Whose operations, for /api/operations."""

    service: str = Field("", description="The service.")
    span_kind: str = Field("", alias="spanKind", description="Only operations of this span kind, such as `server`.")


class DependenciesWanted(_Parameters):
    """Which calls between services, for /api/dependencies."""

    end: _Number | None = Field(None, alias="endTs", description="The end of the time: milliseconds since 1970.")
    lookback: _Number = Field(_DAY // _MS, description="How much time before it, in milliseconds.")
    service: str = Field("", description="Only calls from or to this service.")

    def times(self) -> tuple[int, int]:
        """From when to when, in nanoseconds, both included."""
        return _times(self.end, self.lookback)


class MetricsWanted(_Parameters):
    """What to measure, for /api/metrics/…; times in milliseconds."""

    services: list[str] = Field([], alias="service", description="The services; several are given one by one.")
    by_operation: bool = Field(False, alias="groupByOperation", description="Each operation by itself.")
    kinds: list[str] = Field(["server"], alias="spanKind", description="Spans of these kinds.")
    end: _Number | None = Field(None, alias="endTs", description="The end of the time: milliseconds since 1970.")
    lookback: _Number = Field(_HOUR // _MS, description="How much time before it.")
    step: Annotated[int, Field(ge=1, le=_INT64_MAX)] = Field(5000, description="How far apart the points are.")
    quantile: float | None = Field(None, description="For latencies: which quantile, from 0 to 1.")

    def measured(self) -> Measured:
        """What to measure. Raises InvalidParameter."""
        services = [name for given in self.services for name in (given, *_SEPARATOR.split(given)) if name]
        if not services:
            raise InvalidParameter("please provide at least one service name", parameter="service")
        first, last = _times(self.end, self.lookback)
        step_ns = min(self.step * _MS, _INT64_MAX)
        return Measured(services, [_kind(name) for name in self.kinds], first, last + 1, step_ns, self.by_operation)


def v3_search(given: QueryParams) -> TraceSearch:
    """What `query.serviceName` and the other parameters of a search say. Raises InvalidParameter."""
    if given.get("query.filter"):
        raise InvalidParameter("query.filter is not supported; say it with query.attributes", parameter="query.filter")
    first = _v3(given, "query.startTimeMin", "query.start_time_min", parse_instant, None)
    end = _v3(given, "query.startTimeMax", "query.start_time_max", parse_instant, None)
    if first is None or end is None:
        raise InvalidParameter("query.startTimeMin and query.startTimeMax are required")
    if first >= end:
        raise InvalidParameter("query.startTimeMin must be before query.startTimeMax")
    return TraceSearch(
        first=first,
        last=end - 1,
        service=_v3(given, "query.serviceName", "query.service_name", str, ""),
        operation=_v3(given, "query.operationName", "query.operation_name", str, ""),
        tags=_v3(given, "query.attributes", "query.attributes", parse_tags, {}),
        duration_min_ns=_v3(given, "query.durationMin", "query.duration_min", parse_duration, 0),
        duration_max_ns=_v3(given, "query.durationMax", "query.duration_max", parse_duration, 0),
        limit=_v3(given, "query.searchDepth", "query.search_depth", int, 0)
        or _v3(given, "query.num_traces", "query.num_traces", int, TRACES_DEFAULT),
    )


def _v3(given: QueryParams, name: str, old_name: str, parse: Any, default: Any) -> Any:
    text = given.get(name) or given.get(old_name)
    if not text:
        return default
    try:
        return parse(text)
    except ValueError as error:
        raise InvalidParameter(f"malformed parameter {name}: {error}", parameter=name) from error


def _tag(text: str) -> tuple[str, str]:
    key, colon, value = text.partition(":")
    if not colon:
        raise InvalidParameter(f"malformed 'tag' parameter, expecting key:value, received: {text[:80]}")
    return key, value


def _kind(name: str) -> int:
    number = kind_number(name)
    if number is None:
        raise InvalidParameter(f"unsupported span kind: {name[:80]!r}", parameter="spanKind")
    return number


def _times(end_ms: int | None, lookback_ms: int) -> tuple[int, int]:
    last = time.time_ns() if end_ms is None else min(end_ms * _MS, _INT64_MAX)
    return max(0, last - lookback_ms * _MS), last


def _described(**texts: str) -> dict[str, Any]:
    """Parameters for OpenAPI of routes that read them themselves."""
    told = [(name.replace("__", "."), text) for name, text in texts.items()]
    return {
        "parameters": [
            {"name": name, "in": "query", "description": text, "schema": {"type": "string"}} for name, text in told
        ]
    }


V3_SEARCH = _described(
    query__startTimeMin="The span starts then or later: RFC 3339. Required.",
    query__startTimeMax="The span starts before then. Required.",
    query__serviceName="Only traces with a span of this service.",
    query__operationName="Only traces in which that span has this name.",
    query__attributes='What the span has as tags, as JSON: `{"http.status_code":"500"}`.',
    query__durationMin="The span lasts that long or longer: `10us`.",
    query__durationMax="The span does not last longer: `1.5s`.",
    query__searchDepth="How many traces at most, newest first.",
)
V3_OPERATIONS = _described(
    service="The service. Required.", spanKind="Only operations of this span kind, such as `server`."
)
TraceId = Annotated[str, Path(description="1 to 32 hex digits; leading zeros may be left out.")]
ServiceName = Annotated[str, Path(description="The service's name.")]
SearchQuery = Annotated[SearchWanted, Query()]
OperationsQuery = Annotated[OperationsWanted, Query()]
DependenciesQuery = Annotated[DependenciesWanted, Query()]
MetricsQuery = Annotated[MetricsWanted, Query()]
