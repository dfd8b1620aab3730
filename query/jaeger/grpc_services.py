"""Jaeger's services over gRPC: `jaeger.api_v3.QueryService` for whoever asks for traces, and what a Jaeger asks of its
storage, `jaeger.storage.v2.TraceReader`, `DependencyReader` and `Capabilities`. It writes over OTLP, as everyone does.

A message holds spans of one trace and stays under the 4 MiB that gRPC clients take unless told otherwise.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, NoReturn
from uuid import UUID

import grpc
import orjson
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, TracesData

from ...storage import Row
from ..asking import Asker
from ..attribute_json import value_json
from ..errors import InvalidParameter, NotFound
from ..export_api import SpansInBulk
from .dependencies import dependencies
from .errors import GRPC_STATUS, told
from .messages import API_V3, STORAGE
from .otlp_traces import begin_block, otlp_traces, together
from .parameters import parse_trace_id
from .search import TRACES_DEFAULT, TraceSearch, check_size, find_traces, traces_by_id
from .services import operations, services
from .summaries import find_summaries

CHUNK_BYTES_MAX = 3 << 20
SUMMARIES_A_MESSAGE = 500

Handlers = Mapping[str, grpc.RpcMethodHandler]
Fields = dict[str, Any]
_INT64_MAX = (1 << 63) - 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Source:
    """What answers are made from."""

    asker: Asker
    spans_in_bulk: SpansInBulk


def jaeger_services(asker: Asker, spans_in_bulk: SpansInBulk) -> dict[str, Handlers]:
    """The handlers of every method, by the full name of their service, for a server on one event loop."""
    source = _Source(asker, spans_in_bulk)
    described = (*API_V3.services_by_name.values(), *STORAGE.services_by_name.values())
    return {
        service.full_name: {method.name: _handler(method, source) for method in service.methods}
        for service in described
    }


def chunks(traces: TracesData, bytes_max: int = CHUNK_BYTES_MAX) -> Iterator[bytes]:
    """The same spans in serialised `TracesData` of at most `bytes_max` bytes, each span with its resource and scope; a
    span that is larger has one of its own. None of them is empty."""
    chunk, size = TracesData(), 0
    for of_resource in traces.resource_spans:
        for of_scope in of_resource.scope_spans:
            block, block_size = None, _empty_block_size(of_resource, of_scope)
            for span in of_scope.spans:
                span_size = span.ByteSize() + _LENGTH_BYTES
                if size and size + span_size + (block_size if block is None else 0) > bytes_max:
                    yield chunk.SerializeToString()
                    chunk, size, block = TracesData(), 0, None
                if block is None:
                    block = begin_block(chunk, of_resource, of_scope)
                    size += block_size
                block.spans.append(span)
                size += span_size
    if size:
        yield chunk.SerializeToString()


# What precedes a message within another: a tag, and the length in seven bits a byte.
_LENGTH_BYTES = 6


def _empty_block_size(of_resource: ResourceSpans, of_scope: ScopeSpans) -> int:
    """How many bytes a block with this resource and scope has at most, its spans left out."""
    urls = len(of_resource.schema_url.encode()) + len(of_scope.schema_url.encode())
    return of_resource.resource.ByteSize() + of_scope.scope.ByteSize() + urls + 6 * _LENGTH_BYTES


def _handler(method: MethodDescriptor, source: _Source) -> grpc.RpcMethodHandler:
    read_request = GetMessageClass(method.input_type).FromString
    response = GetMessageClass(method.output_type)
    if not method.server_streaming:
        return grpc.unary_unary_rpc_method_handler(_unary(_ANSWERS[method.name], source, response), read_request)
    return grpc.unary_stream_rpc_method_handler(_stream(_STREAMS[method.name], source, response), read_request)


def _unary(answer: Callable[[_Source, Any], Awaitable[Fields]], source: _Source, response: Any) -> Any:
    async def handle(request: Message, context: grpc.aio.ServicerContext) -> bytes:
        try:
            fields = await answer(source, request)
        except Exception as error:  # noqa: BLE001 whoever asked must be answered, whatever happened
            await _refuse(context, error)
        return response(**fields).SerializeToString()

    return handle


def _stream(answer: Callable[[_Source, Any], AsyncIterator[bytes | Fields]], source: _Source, response: Any) -> Any:
    async def handle(request: Message, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        try:
            async for part in answer(source, request):
                yield part if isinstance(part, bytes) else response(**part).SerializeToString()
        except Exception as error:  # noqa: BLE001 whoever asked must be answered, whatever happened
            await _refuse(context, error)

    return handle


async def _refuse(context: grpc.aio.ServicerContext, error: Exception) -> NoReturn:
    said = told(error)
    if said is None:
        _log.exception("a question over gRPC failed", exc_info=error)
        said = HTTPStatus.INTERNAL_SERVER_ERROR, f"a fault in clew ({type(error).__name__}); the log has the details"
    await context.abort(GRPC_STATUS.get(said[0], grpc.StatusCode.INTERNAL), said[1])
    raise AssertionError("abort raises")


async def _get_services(source: _Source, _: Any) -> Fields:
    return {"services": await source.asker.ask(services)}


async def _get_operations(source: _Source, request: Any) -> Fields:
    if not request.service:
        raise InvalidParameter("service is required", parameter="service")
    found = await source.asker.ask(operations, request.service, request.span_kind)
    return {"operations": [{"name": name, "span_kind": kind} for name, kind in found]}


async def _get_dependencies(source: _Source, request: Any) -> Fields:
    if not request.HasField("start_time") or not request.HasField("end_time"):
        raise InvalidParameter("start_time and end_time are required", parameter="start_time")
    times = _nanoseconds(request, "start_time"), _nanoseconds(request, "end_time")
    if times[0] >= times[1]:
        raise InvalidParameter("end_time must be after start_time", parameter="end_time")
    found = await source.asker.ask(dependencies, *times)
    calls = [{"parent": call["parent"], "child": call["child"], "call_count": call["callCount"]} for call in found]
    return {"dependencies": calls}


async def _find_trace_ids(source: _Source, request: Any) -> Fields:
    runs = await source.asker.ask(find_traces, _search(request))
    return {"trace_ids": [_found_id(run) for run in runs]}


def _found_id(run: Row) -> Fields:
    start, end = Timestamp(), Timestamp()
    start.FromNanoseconds(run["started_at_unix_nano"])
    end.FromNanoseconds(max(run["completed_at_unix_nano"], run["last_started_at_unix_nano"]))
    return {"trace_id": bytes.fromhex(run["id"]), "start": start, "end": end}


async def _get_capabilities(_: _Source, __: Any) -> Fields:
    return {"search": {"without_service_name": True, "same_span_conjunction": True}}


async def _get_trace(source: _Source, request: Any) -> AsyncIterator[bytes]:
    runs = await source.asker.ask(traces_by_id, [parse_trace_id(request.trace_id)])
    if not runs:
        raise NotFound("trace not found", parameter="trace_id")
    async for chunk in _chunks_of(source, runs):
        yield chunk


async def _get_traces(source: _Source, request: Any) -> AsyncIterator[bytes]:
    run_ids = [_run_id(wanted.trace_id) for wanted in request.query]
    async for chunk in _chunks_of(source, await source.asker.ask(traces_by_id, run_ids)):
        yield chunk


def _run_id(trace_id: bytes) -> UUID:
    if len(trace_id) != 16:
        raise InvalidParameter(f"a trace id has 16 bytes, not {len(trace_id)}", parameter="trace_id")
    return UUID(bytes=trace_id)


async def _find_traces(source: _Source, request: Any) -> AsyncIterator[bytes]:
    async for chunk in _chunks_of(source, await source.asker.ask(find_traces, _search(request))):
        yield chunk


async def _chunks_of(source: _Source, runs: Sequence[Row]) -> AsyncIterator[bytes]:
    """The traces one after the other; more are read when those before have been taken."""

    def read(part: Sequence[Row]) -> list[bytes]:
        traces = otlp_traces(source.spans_in_bulk, source.asker.store, part)
        return [chunk for trace in traces for chunk in chunks(trace)]

    for part in together(runs):
        check_size(part)
        for chunk in await source.asker.run("jaeger_traces", partial(read, part)):
            yield chunk


async def _find_trace_summaries(source: _Source, request: Any) -> AsyncIterator[Fields]:
    found = await source.asker.ask(find_summaries, _search(request))
    if request.DESCRIPTOR.file is STORAGE:
        found = [summary | {"trace_id": bytes.fromhex(summary["trace_id"])} for summary in found]
    for first in range(0, len(found), SUMMARIES_A_MESSAGE):
        yield {"summaries": found[first : first + SUMMARIES_A_MESSAGE]}


def _search(request: Any) -> TraceSearch:
    query, is_v3 = request.query, request.DESCRIPTOR.file is API_V3
    if query.HasField("filter") or (not is_v3 and query.HasField("pagination")):
        message = "filter and pagination are not supported; use attributes and search_depth"
        raise InvalidParameter(message, parameter="filter")
    first, end = _instant(query, "start_time_min"), _instant(query, "start_time_max")
    if is_v3 and (first is None or end is None):
        raise InvalidParameter("start_time_min and start_time_max are required", parameter="start_time_min")
    if first is not None and end is not None and first > end:
        raise InvalidParameter("start_time_min must be before start_time_max", parameter="start_time_min")
    for name in ("duration_min", "duration_max"):
        if _nanoseconds(query, name) < 0:
            raise InvalidParameter(f"{name} is negative; no span lasts so", parameter=name)
    attributes = query.attributes if is_v3 else {pair.key: _text(pair.value) for pair in query.attributes}
    return TraceSearch(
        first=first or 0,
        # Jaeger's storages find what starts at the end too, its API does not.
        last=_INT64_MAX if end is None else end - is_v3,
        service=query.service_name,
        operation=query.operation_name,
        tags=dict(attributes),
        duration_min_ns=_nanoseconds(query, "duration_min"),
        duration_max_ns=_nanoseconds(query, "duration_max"),
        limit=query.search_depth or TRACES_DEFAULT,
    )


def _instant(query: Any, name: str) -> int | None:
    """Nanoseconds since 1970. None for no time, which a Jaeger tells its storage as Go's zero, in the year 1."""
    nanoseconds = _nanoseconds(query, name)
    return min(nanoseconds, _INT64_MAX) if query.HasField(name) and nanoseconds >= 0 else None


def _nanoseconds(message: Any, name: str) -> int:
    """Of a time or duration. Raises InvalidParameter for seconds and nanos that there are not."""
    try:
        return int(getattr(message, name).ToNanoseconds())
    except ValueError as error:
        raise InvalidParameter(f"{name} is none: {error}", parameter=name) from error


def _text(value: Any) -> str:
    """A value to search for as the text of a tag."""
    plain = value_json(AnyValue.FromString(value.SerializeToString()))
    return plain if isinstance(plain, str) else orjson.dumps(plain).decode()


_ANSWERS: dict[str, Callable[[_Source, Any], Awaitable[Fields]]] = {
    "GetServices": _get_services,
    "GetOperations": _get_operations,
    "GetDependencies": _get_dependencies,
    "FindTraceIDs": _find_trace_ids,
    "GetCapabilities": _get_capabilities,
}
_STREAMS: dict[str, Callable[[_Source, Any], AsyncIterator[Any]]] = {
    "GetTrace": _get_trace,
    "GetTraces": _get_traces,
    "FindTraces": _find_traces,
    "FindTraceSummaries": _find_trace_summaries,
}
