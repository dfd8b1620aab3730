"""clew as the storage of a Jaeger: what it asks of its remote storage over gRPC, and how it writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from .jaeger_server import (
    CAPABILITIES,
    CART,
    DEPENDENCY_READER,
    JOB,
    READER,
    SECOND,
    START,
    TICK,
    JaegerServer,
    jaeger_server,
    shop,
)

# What Jaeger sends for a time that it does not have: 0001-01-01T00:00:00Z, the zero of Go.
GO_ZERO = Timestamp(seconds=-62_135_596_800)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JaegerServer]:
    with jaeger_server(tmp_path_factory.mktemp("jaeger")) as server:
        server.send(shop())
        yield server


def moment(nanoseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def trace_of(message: TracesData) -> str:
    """The id of the one trace that the message has spans of."""
    blocks = [scope for block in message.resource_spans for scope in block.scope_spans]
    [trace_id] = {span.trace_id.hex() for scope in blocks for span in scope.spans}
    return trace_id


def found(server: JaegerServer, **query: Any) -> list[str]:
    """The ids of the traces that `query` finds, which all ways of finding agree upon."""
    by_traces = [trace_of(message) for message in server.ask(READER, "FindTraces", query=query)]
    by_ids = [found.trace_id.hex() for found in server.ask(READER, "FindTraceIDs", query=query).trace_ids]
    summaries = server.ask(READER, "FindTraceSummaries", query=query)
    by_summaries = [summary.trace_id.hex() for message in summaries for summary in message.summaries]
    assert by_traces == by_ids == by_summaries
    return by_traces


def test_get_traces(server: JaegerServer) -> None:
    """Several traces in one stream, no message with spans of two; an id that is not there is passed over."""
    asked = [{"trace_id": bytes.fromhex(trace_id)} for trace_id in (JOB, "77" * 16, TICK, CART)]

    assert [trace_of(message) for message in server.ask(READER, "GetTraces", query=asked)] == [JOB, TICK, CART]
    assert server.ask(READER, "GetTraces", query=asked[1:2]) == []


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, [JOB, TICK, CART]),
        ({"service_name": "stock"}, [JOB, CART]),
        ({"service_name": "stock", "operation_name": "count"}, [CART]),
        ({"start_time_min": moment(START + 1), "start_time_max": moment(START + 120 * SECOND - 1)}, [TICK, CART]),
        ({"start_time_min": moment(START + 120 * SECOND), "start_time_max": moment(START + 120 * SECOND)}, [JOB]),
        ({"start_time_min": GO_ZERO, "start_time_max": GO_ZERO}, [JOB, TICK, CART]),
        ({"duration_min": Duration(seconds=1)}, [TICK]),
        ({"duration_min": Duration(nanos=250_000), "duration_max": Duration(nanos=250_000)}, [JOB]),
        ({"search_depth": 2}, [JOB, TICK]),
    ],
)
def test_searches(server: JaegerServer, query: dict[str, Any], expected: list[str]) -> None:
    """Service, operation, times (the last included), durations and depth narrow the search; newest first. A time that
    Jaeger does not have narrows nothing."""
    assert found(server, **query) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.status_code", {"string_value": "500"}),
        ("http.status_code", {"int_value": 500}),
        ("cached", {"bool_value": True}),
        ("ratio", {"double_value": 72.5}),
        ("zip", {"string_value": "00501"}),
        ("raw", {"bytes_value": b"ab"}),
        ("sizes", {"array_value": {"values": [{"string_value": "S"}, {"string_value": "M"}]}}),
        ("error", {"string_value": "true"}),
    ],
)
def test_attributes_are_found_by_value(server: JaegerServer, key: str, value: dict[str, Any]) -> None:
    """Jaeger gives values with a type or as text: both find the attribute."""
    assert found(server, attributes=[{"key": key, "value": value}]) == [CART]


def test_ids_come_with_their_time(server: JaegerServer) -> None:
    """Each id found says between which times its trace lies."""
    [found_id] = server.ask(READER, "FindTraceIDs", query={"service_name": "shop"}).trace_ids

    assert (found_id.start, found_id.end) == (moment(START), moment(START + 1_500_999))


def test_names(server: JaegerServer) -> None:
    """Services, and operations with their kinds."""
    operations = server.ask(READER, "GetOperations", service="stock").operations

    assert list(server.ask(READER, "GetServices").services) == ["OTLPResourceNoServiceName", "shop", "stock"]
    kinds = {(operation.name, operation.span_kind) for operation in operations}
    assert kinds == {("count", "client"), ("count", "server"), ("restock", "consumer")}


def test_dependencies(server: JaegerServer) -> None:
    """Calls from one service to another between two times."""
    times = {"start_time": moment(START), "end_time": moment(START + SECOND)}
    calls = server.ask(DEPENDENCY_READER, "GetDependencies", **times).dependencies

    assert [(call.parent, call.child, call.call_count) for call in calls] == [("shop", "stock", 2)]


def test_capabilities(server: JaegerServer) -> None:
    """Jaeger may search without a service, and all that it asks for is asked of one span."""
    search = server.ask(CAPABILITIES, "GetCapabilities").search

    assert (search.without_service_name, search.same_span_conjunction) == (True, True)
    assert not search.HasField("filter")


@pytest.mark.parametrize(
    ("method", "fields"),
    [
        ("GetTraces", {"query": [{"trace_id": b"short"}]}),
        ("FindTraces", {"query": {"filter": {"op": "and"}}}),
        ("FindTraceIDs", {"query": {"pagination": {"page_size": 5}}}),
        ("GetOperations", {}),
    ],
)
def test_what_is_not_understood_is_refused(server: JaegerServer, method: str, fields: dict[str, Any]) -> None:
    """Nothing that was asked for is passed over in silence."""
    with pytest.raises(grpc.RpcError) as refusal:
        server.ask(READER, method, **fields)
    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
