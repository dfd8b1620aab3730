"""Version 1 of Jaeger's API over HTTP, as Jaeger 2.20 has it: what its page and Grafana's data source ask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from fastapi import APIRouter, Response

from ...storage import Reader, run_id_text
from ..api import Ask, json_response
from ..errors import InvalidParameter, NotFound
from ..jaeger_json import trace_id_text
from .dependencies import dependencies
from .errors import ANSWERS, V1Route, envelope
from .parameters import (
    DependenciesQuery,
    MetricsQuery,
    OperationsQuery,
    SearchQuery,
    ServiceName,
    TraceId,
    parse_trace_id,
)
from .search import TraceSearch, find_traces, traces_by_id
from .services import operations, services
from .span_metrics import call_rates, error_rates, latencies
from .trace_json import traces_json

v1 = APIRouter(prefix="/api", tags=["jaeger"], route_class=V1Route, responses=ANSWERS)


@v1.get("/services", summary="Jaeger: services")
async def list_services(asker: Ask) -> Response:
    """The names of all services that have spans."""
    names = await asker.ask(services)
    return json_response(envelope(names, total=len(names)))


@v1.get("/operations", summary="Jaeger: operations of a service, with their kinds")
async def list_operations(asker: Ask, wanted: OperationsQuery) -> Response:
    """Name and span kind of each operation."""
    if not wanted.service:
        raise InvalidParameter("parameter 'service' is required", parameter="service")
    found = await asker.ask(operations, wanted.service, wanted.span_kind)
    named = [{"name": name, "spanKind": kind} for name, kind in found]
    return json_response(envelope(named, total=len(named)))


@v1.get("/services/{service:path}/operations", summary="Jaeger: names of a service's operations")
async def list_operation_names(asker: Ask, service: ServiceName) -> Response:
    """Each name once."""
    names = sorted({name for name, _ in await asker.ask(operations, service)})
    return json_response(envelope(names, total=len(names)))


@v1.get("/traces", summary="Jaeger: traces with a span like this, newest first")
async def search_traces(asker: Ask, wanted: SearchQuery) -> Response:
    """Whole traces, each with its spans. With `traceID`, those traces; ones that are not there are told in `errors`."""
    if wanted.trace_ids:
        return json_response(await asker.ask(_traces_by_id, list(map(parse_trace_id, wanted.trace_ids))))
    return json_response(await asker.ask(_traces_found, wanted.search()))


@v1.get("/traces/{trace_id}", summary="Jaeger: one trace")
async def get_trace(asker: Ask, trace_id: TraceId) -> Response:
    """The trace with all its spans. The id may lack leading zeros."""
    return json_response(await asker.ask(_trace, parse_trace_id(trace_id)))


@v1.get("/dependencies", summary="Jaeger: which service called which")
async def list_dependencies(asker: Ask, wanted: DependenciesQuery) -> Response:
    """Calls from one service to another, told by parent and child spans."""
    return json_response(envelope(await asker.ask(dependencies, *wanted.times(), wanted.service)))


@v1.get("/metrics/calls", summary="Jaeger: calls a second")
async def get_call_rates(asker: Ask, wanted: MetricsQuery) -> Response:
    """By service, and operation if so wished, over time."""
    return json_response(await asker.ask(call_rates, wanted.measured()))


@v1.get("/metrics/errors", summary="Jaeger: share of calls that failed")
async def get_error_rates(asker: Ask, wanted: MetricsQuery) -> Response:
    """By service, and operation if so wished, over time."""
    return json_response(await asker.ask(error_rates, wanted.measured()))


@v1.get("/metrics/latencies", summary="Jaeger: a quantile of durations")
async def get_latencies(asker: Ask, wanted: MetricsQuery) -> Response:
    """In milliseconds, by service, and operation if so wished, over time."""
    if wanted.quantile is None:
        raise InvalidParameter("unable to parse param 'quantile': it is required", parameter="quantile")
    return json_response(await asker.ask(latencies, wanted.measured(), wanted.quantile))


@v1.get("/metrics/minstep", summary="Jaeger: the smallest step of the metrics")
async def get_min_step() -> Response:
    """In milliseconds."""
    return json_response(envelope(1))


def _traces_found(reader: Reader, search: TraceSearch) -> bytes:
    return _answer(traces_json(reader, find_traces(reader, search)))


def _traces_by_id(reader: Reader, run_ids: Sequence[UUID]) -> bytes:
    runs = traces_by_id(reader, run_ids)
    missing = {run_id_text(run_id) for run_id in run_ids} - {run["id"] for run in runs}
    errors = [{"msg": "trace not found", "traceID": trace_id_text(run_id)} for run_id in sorted(missing)]
    return _answer(traces_json(reader, runs), errors or None)


def _trace(reader: Reader, run_id: UUID) -> bytes:
    runs = traces_by_id(reader, [run_id])
    if not runs:
        raise NotFound("trace not found", parameter="traceID")
    return _answer(traces_json(reader, runs))


def _answer(traces: Iterable[bytes], errors: list[dict[str, Any]] | None = None) -> bytes:
    whole = orjson.Fragment(b"[" + b",".join(traces) + b"]")
    return orjson.dumps(envelope(whole, errors=errors))
