"""Version 3 of Jaeger's API over HTTP: traces as OTLP, and the services, operations and summaries its page asks for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from ...storage import Row, Store
from ..api import Ask, json_response
from ..errors import InvalidParameter, NotFound
from ..export_api import SpansInBulk
from .errors import ANSWERS, V3Route
from .otlp_json import otlp_json
from .otlp_traces import otlp_traces, together
from .parameters import V3_OPERATIONS, V3_SEARCH, TraceId, parse_trace_id, v3_search
from .search import check_bytes, check_size, find_traces, traces_by_id
from .services import operations, services
from .summaries import find_summaries

v3 = APIRouter(prefix="/api/v3", tags=["jaeger"], route_class=V3Route, responses=ANSWERS)


@v3.get("/services", summary="Jaeger: services")
async def list_services(asker: Ask) -> Response:
    """The names of all services that have spans."""
    return json_response({"services": await asker.ask(services)})


@v3.get("/operations", summary="Jaeger: operations of a service, with their kinds", openapi_extra=V3_OPERATIONS)
async def list_operations(request: Request, asker: Ask) -> Response:
    """`service` and, if so wished, `spanKind`. An operation of no kind is shown as internal."""
    given = request.query_params
    if not given.get("service"):
        raise InvalidParameter("parameter 'service' is required", parameter="service")
    kind = given.get("spanKind") or given.get("span_kind") or ""
    found = await asker.ask(operations, given["service"], kind)
    return json_response({"operations": [{"name": name, "spanKind": kind or "internal"} for name, kind in found]})


@v3.get("/traces", summary="Jaeger: traces with a span like this, newest first", openapi_extra=V3_SEARCH)
async def search_traces(request: Request, asker: Ask) -> Response:
    """`query.startTimeMin` and `query.startTimeMax` are required; `query.serviceName`, `.operationName`, `.attributes`,
    `.durationMin`, `.durationMax` and `.searchDepth` narrow the search."""
    return await _as_otlp(request, asker, await asker.ask(find_traces, v3_search(request.query_params)))


@v3.get("/traces/{trace_id}", summary="Jaeger: one trace")
async def get_trace(request: Request, asker: Ask, trace_id: TraceId) -> Response:
    """The trace as OTLP. The id may lack leading zeros."""
    return await _as_otlp(request, asker, await asker.ask(traces_by_id, [parse_trace_id(trace_id)]))


@v3.get("/trace-summaries", summary="Jaeger: what the traces found amount to", openapi_extra=V3_SEARCH)
async def search_summaries(request: Request, asker: Ask) -> Response:
    """Asked for as /api/v3/traces is, without the spans."""
    found = await asker.ask(find_summaries, v3_search(request.query_params))
    return json_response({"summaries": list(map(_summary_json, found))})


def _summary_json(summary: dict[str, Any]) -> dict[str, Any]:
    """The proto's `TraceSummary` as JSON, nothing left out: Jaeger's page takes no service without a name."""
    return {
        "traceId": summary["trace_id"],
        "rootServiceName": summary["root_service_name"],
        "rootOperationName": summary["root_operation_name"],
        "minStartTimeUnixNano": str(summary["min_start_time_unix_nano"]),
        "maxEndTimeUnixNano": str(summary["max_end_time_unix_nano"]),
        "spanCount": summary["span_count"],
        "errorSpanCount": summary["error_span_count"],
        "orphanSpanCount": summary["orphan_span_count"],
        "services": [
            {"name": each["name"], "spanCount": each["span_count"], "errorSpanCount": each["error_span_count"]}
            for each in summary["services"]
        ],
    }


async def _as_otlp(request: Request, asker: Ask, runs: Sequence[Row]) -> Response:
    choose = request.app.state.spans_in_bulk
    check_size(runs)
    blocks: list[bytes] = []
    for part in together(runs):
        blocks += await asker.run("jaeger_traces", partial(_blocks, choose, asker.store, part))
        check_bytes(sum(map(len, blocks)))
    if not blocks:
        raise NotFound("No traces found")
    return json_response(b'{"result":{"resourceSpans":[' + b",".join(blocks) + b"]}}")


def _blocks(choose: SpansInBulk, store: Store, runs: Sequence[Row]) -> list[bytes]:
    """The blocks of spans of the runs as OTLP's JSON."""
    traces = otlp_traces(choose, store, runs)
    return [orjson.dumps(otlp_json(block)) for trace in traces for block in trace.resource_spans]
