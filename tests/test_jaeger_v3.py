"""Version 3 of Jaeger's API, over HTTP and over gRPC: golden answers for spans that came over OTLP."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

from clew.query.jaeger import otlp_traces, search
from clew.query.jaeger.grpc_services import chunks

from .jaeger_server import (
    CART,
    JOB,
    READER,
    SECOND,
    START,
    TICK,
    TIMEOUT_S,
    V3,
    JaegerServer,
    jaeger_server,
    shop,
    span,
)

TIMES = {"query.startTimeMin": "2023-11-14T22:13:20Z", "query.startTimeMax": "2023-11-14T22:20:00.000000001+00:00"}

LARGE = "77777777777777777777777777777777"
RUNNING = "44444444444444444444444444444444"
HOST = {"key": "host.name", "value": {"string_value": "h"}}
BAD_REQUEST, NOT_FOUND = (400, 3), (404, 5)  # in HTTP and in gRPC


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JaegerServer]:
    with jaeger_server(tmp_path_factory.mktemp("jaeger")) as server:
        server.send(shop())
        yield server


JOB_TRACE = {
    "result": {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "stock"}}]},
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": JOB,
                                "spanId": "0000000000000001",
                                "name": "restock",
                                "kind": 5,
                                "startTimeUnixNano": str(START + 120 * SECOND),
                                "endTimeUnixNano": str(START + 120 * SECOND + 250_000),
                                "links": [
                                    {
                                        "traceId": CART,
                                        "spanId": "0000000000000001",
                                        "attributes": [
                                            {"key": "batch", "value": {"intValue": "12"}},
                                            {"key": "opentracing.ref_type", "value": {"stringValue": "child_of"}},
                                        ],
                                    }
                                ],
                            }
                        ]
                    }
                ],
            }
        ]
    }
}
CART_SUMMARY = {
    "traceId": CART,
    "rootServiceName": "shop",
    "rootOperationName": "GET /cart",
    "minStartTimeUnixNano": str(START),
    "maxEndTimeUnixNano": str(START + 1_500_999),
    "spanCount": 3,
    "errorSpanCount": 1,
    "orphanSpanCount": 0,
    "services": [
        {"name": "shop", "spanCount": 1, "errorSpanCount": 1},
        {"name": "stock", "spanCount": 2, "errorSpanCount": 0},
    ],
}


def by_key(said: Any) -> Any:
    """The same JSON with attributes in the order of their keys: OTLP gives their order no meaning."""
    if isinstance(said, list):
        keyed = all(isinstance(item, dict) and "key" in item for item in said)
        return sorted(said, key=lambda item: item["key"]) if keyed else [by_key(item) for item in said]
    return {name: by_key(value) for name, value in said.items()} if isinstance(said, dict) else said


def trace_ids(traces: Any) -> list[str]:
    """The ids of the traces, each once, in OTLP's JSON."""
    spans = [span for block in traces["resourceSpans"] for scope in block["scopeSpans"] for span in scope["spans"]]
    return list(dict.fromkeys(span["traceId"] for span in spans))


def spans_of(*messages: TracesData) -> list[Span]:
    """All spans, by id and start, each with its attributes sorted."""
    blocks = [block for message in messages for block in message.resource_spans]
    spans = [span for block in blocks for scope in block.scope_spans for span in scope.spans]
    for made in spans:
        for owner in (made, *made.events, *made.links):
            owner.attributes.sort(key=lambda pair: pair.key)
    return sorted(spans, key=lambda span: (span.trace_id, span.span_id, span.start_time_unix_nano))


def moment(nanoseconds: int) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(nanoseconds)
    return stamp


def query(**more: Any) -> dict[str, Any]:
    """A search over the time of all traces."""
    return {"start_time_min": moment(START), "start_time_max": moment(START + 400 * SECOND), **more}


# HTTP.


def test_a_trace_is_otlp(server: JaegerServer) -> None:
    """The trace is OTLP's JSON: ids in hex, times as text, with its resource, scope and links."""
    assert by_key(server.get(f"/api/v3/traces/{JOB}")) == JOB_TRACE
    assert by_key(server.get(f"/api/v3/traces/{JOB}?start_time=2020-01-01T00:00:00Z&raw_traces=true")) == JOB_TRACE


def test_a_trace_sent_again_changes_nothing(server: JaegerServer) -> None:
    """What is answered can be sent over OTLP/HTTP as it is, and names the same spans exactly."""
    before = server.ask(V3, "GetTrace", trace_id=CART)
    body = json.dumps(server.get(f"/api/v3/traces/{CART}")["result"])
    sent = server.http.post("/v1/traces", content=body, headers={"content-type": "application/json"})

    assert (sent.status_code, sent.json()) == (200, {})
    assert server.ask(V3, "GetTrace", trace_id=CART) == before


@pytest.mark.parametrize("spans_max", [1, 3, 100])
def test_traces_read_together_stay_apart(server: JaegerServer, monkeypatch: pytest.MonkeyPatch, spans_max: int) -> None:
    """However many spans are read at once, traces come newest first, and no message has spans of two."""
    monkeypatch.setattr(otlp_traces, "SPANS_TOGETHER_MAX", spans_max)

    messages = server.ask(V3, "FindTraces", query=query())
    assert [{shown.trace_id.hex() for shown in spans_of(message)} for message in messages] == [{JOB}, {TICK}, {CART}]
    assert trace_ids(server.get("/api/v3/traces", **TIMES)["result"]) == [JOB, TICK, CART]


def test_a_large_trace_is_whole(server: JaegerServer) -> None:
    """A trace that takes several reads has all its spans."""
    request = ExportTraceServiceRequest()
    spans = [span(LARGE, number, at=600 * SECOND + number) for number in range(1, 9_001)]
    request.resource_spans.add(resource={"attributes": [HOST]}).scope_spans.add(spans=spans)
    server.send(request)

    shown = spans_of(*server.ask(V3, "GetTrace", trace_id=LARGE))
    assert [int.from_bytes(each.span_id) for each in shown] == list(range(1, 9_001))


def test_a_span_that_still_runs_ends_where_it_started(server: JaegerServer) -> None:
    """Jaeger reckons durations without a sign: a span without an end would last centuries in it."""
    request = ExportTraceServiceRequest()
    spans = [span(RUNNING, 1, at=500 * SECOND), span(RUNNING, 2, parent=1, at=501 * SECOND, lasts=-SECOND)]
    spans[0].ClearField("end_time_unix_nano")
    request.resource_spans.add(resource={"attributes": [HOST]}).scope_spans.add(spans=spans)
    server.send(request)
    starts = [START + 500 * SECOND, START + 501 * SECOND]

    over_http = server.get(f"/api/v3/traces/{RUNNING}")["result"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    over_grpc = spans_of(*server.ask(V3, "GetTrace", trace_id=RUNNING))
    for_jaeger = spans_of(*server.ask(READER, "GetTraces", query=[{"trace_id": bytes.fromhex(RUNNING)}]))

    assert [int(shown["endTimeUnixNano"]) for shown in over_http] == starts
    assert [shown.end_time_unix_nano for shown in over_grpc] == starts
    assert over_grpc == for_jaeger


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, [JOB, TICK, CART]),
        ({"query.serviceName": "stock"}, [JOB, CART]),
        ({"query.service_name": "stock", "query.operation_name": "restock"}, [JOB]),
        ({"query.attributes": '{"http.status_code":"500","error":"true"}'}, [CART]),
        ({"query.durationMin": "1s"}, [TICK]),
        ({"query.duration_max": "10us", "query.serviceName": "stock"}, [CART]),
        ({"query.searchDepth": 1}, [JOB]),
        ({"query.num_traces": 2}, [JOB, TICK]),
        ({"query.startTimeMin": "2023-11-14T22:13:20.000002501Z"}, [JOB, TICK]),
        ({"query.startTimeMax": "2023-11-14T22:15:20Z"}, [TICK, CART]),
        ({"query.startTimeMax": "2023-11-14T22:15:20.000000001Z"}, [JOB, TICK, CART]),
    ],
)
def test_a_search_gives_traces(server: JaegerServer, parameters: dict[str, Any], expected: list[str]) -> None:
    """Parameters narrow the search, in camel or snake case; times are exact, the last one excluded; newest first."""
    assert trace_ids(server.get("/api/v3/traces", **{**TIMES, **parameters})["result"]) == expected


def test_summaries(server: JaegerServer) -> None:
    """A trace in short: its root, its bounds, its spans by service; none where nothing is found."""
    answer = server.get("/api/v3/trace-summaries", **TIMES, **{"query.serviceName": "shop"})

    assert answer == {"summaries": [CART_SUMMARY]}
    assert server.get("/api/v3/trace-summaries", **TIMES, **{"query.serviceName": "nobody"}) == {"summaries": []}


def test_a_summary_of_a_torn_trace(server: JaegerServer) -> None:
    """Spans whose parent is not there are counted, a root is not made up, a service without a name is empty text."""
    torn = "5" * 32
    request = ExportTraceServiceRequest()
    request.resource_spans.add(resource={"attributes": [{"key": "host.name", "value": {"string_value": "h"}}]})
    spans = [span(torn, 2, parent=1, at=-9 * SECOND), span(torn, 3, parent=2, at=-8 * SECOND)]
    request.resource_spans[0].scope_spans.add(spans=spans)
    server.send(request)
    before = {"query.startTimeMin": "2023-11-14T22:13:00Z", "query.startTimeMax": "2023-11-14T22:13:19Z"}

    [summary] = server.get("/api/v3/trace-summaries", **before)["summaries"]
    assert (summary["spanCount"], summary["orphanSpanCount"]) == (2, 1)
    assert (summary["rootServiceName"], summary["rootOperationName"]) == ("", "")
    assert summary["services"] == [{"name": "", "spanCount": 2, "errorSpanCount": 0}]


def test_names(server: JaegerServer) -> None:
    """Services, and the operations of one with their kinds: internal where there is none."""
    unnamed = "OTLPResourceNoServiceName"
    assert server.get("/api/v3/services") == {"services": [unnamed, "shop", "stock"]}
    assert server.get("/api/v3/operations", service="stock", spanKind="client") == {
        "operations": [{"name": "count", "spanKind": "client"}]
    }
    assert server.get("/api/v3/operations", service=unnamed)["operations"] == [{"name": "tick", "spanKind": "internal"}]


@pytest.mark.parametrize(
    ("path", "parameters", "said", "told"),
    [
        ("/api/v3/traces/zz", {}, BAD_REQUEST, "not a trace id"),
        ("/api/v3/traces/77", {}, NOT_FOUND, "No traces found"),
        ("/api/v3/traces", {}, BAD_REQUEST, "are required"),
        ("/api/v3/traces", {**TIMES, "query.serviceName": "nobody"}, NOT_FOUND, "No traces found"),
        ("/api/v3/traces", {**TIMES, "query.startTimeMin": "soon"}, BAD_REQUEST, "query.startTimeMin"),
        ("/api/v3/traces", {**TIMES, "query.startTimeMax": TIMES["query.startTimeMin"]}, BAD_REQUEST, "before"),
        ("/api/v3/traces", {**TIMES, "query.attributes": "x"}, BAD_REQUEST, "JSON"),
        ("/api/v3/traces", {**TIMES, "query.searchDepth": "all"}, BAD_REQUEST, "query.searchDepth"),
        ("/api/v3/traces", {**TIMES, "query.filter": "{}"}, BAD_REQUEST, "query.attributes"),
        ("/api/v3/trace-summaries", {**TIMES, "query.durationMin": "x"}, BAD_REQUEST, "query.durationMin"),
        ("/api/v3/operations", {}, BAD_REQUEST, "'service' is required"),
    ],
)
def test_errors_have_the_gateways_shape(
    server: JaegerServer, path: str, parameters: dict[str, Any], said: tuple[int, int], told: str
) -> None:
    """Jaeger's page and Grafana read `error.message`; the message tells what is wrong."""
    answered, body = server.refused(path, **parameters)

    assert (answered, body["error"]["grpcCode"]) == said
    assert body["error"]["httpCode"] == answered
    assert told in body["error"]["message"]


# gRPC.


def test_get_trace(server: JaegerServer) -> None:
    """The trace comes exactly as it was sent; its id may lack zeros."""
    sent = [span for span in spans_of(shop()) if span.trace_id.hex() == CART]

    assert spans_of(*server.ask(V3, "GetTrace", trace_id=CART)) == sent
    assert [span.name for span in spans_of(*server.ask(V3, "GetTrace", trace_id="ab"))] == ["tick"]


def test_find_traces(server: JaegerServer) -> None:
    """Each message has one trace, newest first; nothing found is an empty stream."""
    found = server.ask(V3, "FindTraces", query=query(service_name="stock"))
    narrowed = query(attributes={"tries": "3"}, duration_min=Duration(nanos=1_500_999), search_depth=1)

    assert [{span.trace_id.hex() for span in spans_of(message)} for message in found] == [{JOB}, {CART}]
    assert len(spans_of(*server.ask(V3, "FindTraces", query=narrowed))) == 3
    assert server.ask(V3, "FindTraces", query=query(service_name="nobody")) == []


def test_names_over_grpc(server: JaegerServer) -> None:
    """Services and operations; an operation without a kind has none."""
    unnamed = "OTLPResourceNoServiceName"
    operations = server.ask(V3, "GetOperations", service=unnamed).operations

    assert list(server.ask(V3, "GetServices").services) == [unnamed, "shop", "stock"]
    assert [(operation.name, operation.span_kind) for operation in operations] == [("tick", "")]


def test_summaries_over_grpc(server: JaegerServer) -> None:
    """The same as over HTTP."""
    [message] = server.ask(V3, "FindTraceSummaries", query=query(service_name="shop"))
    [summary] = message.summaries

    assert (summary.trace_id, summary.span_count, summary.error_span_count) == (CART, 3, 1)
    assert (summary.min_start_time_unix_nano, summary.max_end_time_unix_nano) == (START, START + 1_500_999)
    assert [(service.name, service.span_count) for service in summary.services] == [("shop", 1), ("stock", 2)]


def test_dependencies_over_grpc(server: JaegerServer) -> None:
    """Calls from one service to another between two times."""
    found = server.ask(V3, "GetDependencies", start_time=moment(START), end_time=moment(START + SECOND))

    assert [(call.parent, call.child, call.call_count) for call in found.dependencies] == [("shop", "stock", 2)]


@pytest.mark.parametrize(
    ("method", "fields", "code"),
    [
        ("GetTrace", {"trace_id": "zz"}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetTrace", {"trace_id": "77"}, grpc.StatusCode.NOT_FOUND),
        ("FindTraces", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(search_depth=1_501)}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(search_depth=-1)}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(duration_min={"seconds": -5})}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(start_time_max={"seconds": 1 << 62})}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(start_time_min={"seconds": 5, "nanos": -3})}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(start_time_max=moment(START - SECOND))}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraces", {"query": query(filter={"op": "eq"})}, grpc.StatusCode.INVALID_ARGUMENT),
        ("FindTraceSummaries", {"query": {"service_name": "shop"}}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetOperations", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetOperations", {"service": "shop", "span_kind": "odd"}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetDependencies", {}, grpc.StatusCode.INVALID_ARGUMENT),
        ("GetDependencies", {"start_time": moment(2), "end_time": moment(1)}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_errors_over_grpc(server: JaegerServer, method: str, fields: dict[str, Any], code: grpc.StatusCode) -> None:
    """What cannot be answered has the status that says why, with a message."""
    with pytest.raises(grpc.RpcError) as refusal:
        server.ask(V3, method, **fields)

    assert refusal.value.code() is code
    assert refusal.value.details()


def test_an_answer_too_large(server: JaegerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """More bytes than an answer over HTTP may have are refused."""
    monkeypatch.setattr(search, "ANSWER_BYTES_MAX", 1_000)

    status, body = server.refused(f"/api/v3/traces/{CART}")
    assert (status, body["error"]["grpcCode"]) == (422, 8)
    assert by_key(server.get(f"/api/v3/traces/{JOB}")) == JOB_TRACE


def test_a_trace_too_large(server: JaegerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace with more spans than may be answered is refused whole."""
    monkeypatch.setattr(search, "SPANS_MAX", 2)

    with pytest.raises(grpc.RpcError) as refusal:
        server.ask(V3, "GetTrace", trace_id=CART)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(server.ask(V3, "GetTrace", trace_id=JOB)) == 1


def test_reflection_tells_the_services(server: JaegerServer) -> None:
    """Tools find the services, and the files that describe them."""
    stub = reflection_pb2_grpc.ServerReflectionStub(server.channel)
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=V3),
    ]
    listed, described = stub.ServerReflectionInfo(iter(asked), timeout=TIMEOUT_S)

    names = {service.name for service in listed.list_services_response.service}
    storage = {f"jaeger.storage.v2.{name}" for name in ("TraceReader", "DependencyReader", "Capabilities")}
    assert {V3, *storage} <= names
    assert described.file_descriptor_response.file_descriptor_proto


def test_requests_are_read_as_jaeger_writes_them(server: JaegerServer) -> None:
    """The bytes of a FindTracesRequest and of an answer, by the field numbers of Jaeger's own declarations."""
    seconds = b"\x08\x80\xe2\xcf\xaa\x06"  # Timestamp: field 1, START
    later = b"\x08\x90\xe5\xcf\xaa\x06"  # 400 seconds later
    attribute = b"\x0a\x05tries\x12\x013"  # a map's entry: 1 is the key, 2 the value
    fields = b"\x0a\x04shop" + b"\x12\x09GET /cart" + _field(3, attribute) + _field(4, seconds) + _field(5, later)
    call = server.channel.unary_stream(f"/{V3}/FindTraceSummaries")
    [answer] = call(_field(1, fields + b"\x40\x05"), timeout=TIMEOUT_S)

    assert answer[2:].startswith(_field(1, CART.encode()) + b"\x12\x04shop" + b"\x1a\x09GET /cart")


def _field(number: int, content: bytes) -> bytes:
    """A field of bytes, fewer than 128."""
    return bytes([number << 3 | 2, len(content)]) + content


@pytest.mark.parametrize("bytes_max", [1, 200, 777, 1_000, 1 << 20])
def test_chunks_are_small_and_whole(bytes_max: int) -> None:
    """Pieces of a trace stay under the limit unless one span is larger; together they have every span, once and in its
    order, with its resource and scope."""
    sent = ExportTraceServiceRequest()
    for number in range(3):
        of_resource = sent.resource_spans.add(schema_url=f"resource {number}")
        of_resource.resource.dropped_attributes_count = number
        of_resource.resource.attributes.add(key="k" * 100 * number)
        of_scope = of_resource.scope_spans.add(schema_url=f"scope {number}")
        of_scope.scope.name = f"lib {number}"
        of_scope.spans.extend(Span(name=f"{number} {name}", trace_state="s" * name) for name in range(40))
    pieces = list(chunks(TracesData.FromString(sent.SerializeToString()), bytes_max))

    parsed = [TracesData.FromString(piece) for piece in pieces]
    counts = [len(_origins(piece)) for piece in parsed]
    assert all(len(piece) <= bytes_max or count == 1 for piece, count in zip(pieces, counts, strict=True))
    assert min(counts) >= 1
    assert [origin for piece in parsed for origin in _origins(piece)] == _origins(sent)
    assert (len(pieces) == 1) is (bytes_max == 1 << 20)


def _origins(traces: Any) -> list[tuple[str, str, int, str, str]]:
    """Of each span its name, and where it comes from."""
    return [
        (
            span.name,
            of_resource.schema_url,
            of_resource.resource.dropped_attributes_count,
            of_scope.schema_url,
            of_scope.scope.name,
        )
        for of_resource in traces.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]
