"""Version 1 of Jaeger's API: golden answers for spans that came over OTLP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clew.query.jaeger import search
from clew.settings import Settings
from clew.transfer.jaeger_json import Writer

from .jaeger_server import CART, JOB, SECOND, START, TICK, V3, JaegerServer, jaeger_server, shop, span

PROTOBUF = {"content-type": "application/x-protobuf"}
START_US, START_MS = START // 1_000, START // 1_000_000
ALL = {"start": START_US, "end": START_US + 300_000_000}
TICK_ID = "00000000000000ab"  # Jaeger writes ids of 64 bits with 16 digits
TALK = "99999999999999999999999999999999"
EARLY = "88888888888888888888888888888888"
COARSE = "66666666666666666666666666666666"
LARGE = "77777777777777777777777777777777"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JaegerServer]:
    with jaeger_server(tmp_path_factory.mktemp("jaeger")) as server:
        server.send(shop())
        yield server


def tag(key: str, type_name: str, value: Any) -> dict[str, Any]:
    return {"key": key, "type": type_name, "value": value}


def reference(ref_type: str, trace_id: str, number: int) -> dict[str, Any]:
    return {"refType": ref_type, "traceID": trace_id, "spanID": f"{number:016x}"}


CART_TRACE = {
    "traceID": CART,
    "spans": [
        {
            "traceID": CART,
            "spanID": "0000000000000001",
            "flags": 0x101,
            "operationName": "GET /cart",
            "references": [],
            "startTime": START_US,
            "duration": 1_500,
            "tags": [
                tag("otel.scope.name", "string", "lib"),
                tag("otel.scope.version", "string", "1.2"),
                tag("cached", "bool", True),
                tag("http.status_code", "int64", 500),
                tag("ratio", "float64", 72.5),
                tag("weight", "float64", 100.0),
                tag("zip", "string", "00501"),
                tag("span.kind", "string", "server"),
                tag("otel.status_code", "string", "ERROR"),
                tag("error", "bool", True),
                tag("otel.status_description", "string", "out of stock"),
                tag("w3c.tracestate", "string", "k=v"),
            ],
            "logs": [
                {
                    "timestamp": START_US + 1,
                    "fields": [
                        tag("event", "string", "exception"),
                        tag("exception.type", "string", "KeyError"),
                        tag("tries", "int64", 3),
                    ],
                },
                {"timestamp": START_US + 2, "fields": [tag("event", "string", "gone")]},
            ],
            "processID": "p1",
            "warnings": None,
        },
        {
            "traceID": CART,
            "spanID": "0000000000000002",
            "operationName": "count",
            "references": [reference("CHILD_OF", CART, 1)],
            "startTime": START_US + 1,
            "duration": 10,
            "tags": [
                tag("large", "int64", str(1 << 53)),
                tag("raw", "binary", "YWI="),
                tag("sizes", "string", '["S","M"]'),
                tag("box", "string", '{"depth":2}'),
                tag("span.kind", "string", "client"),
                tag("otel.status_code", "string", "OK"),
            ],
            "logs": [],
            "processID": "p2",
            "warnings": None,
        },
        {
            "traceID": CART,
            "spanID": "0000000000000002",
            "operationName": "count",
            "references": [reference("FOLLOWS_FROM", CART, 1)],
            "startTime": START_US + 2,
            "duration": 8,
            "tags": [tag("span.kind", "string", "server")],
            "logs": [],
            "processID": "p2",
            "warnings": None,
        },
    ],
    "processes": {
        "p1": {"serviceName": "shop", "tags": [tag("host.id", "int64", 7)]},
        "p2": {"serviceName": "stock", "tags": []},
    },
    "warnings": None,
}


def found(server: JaegerServer, **parameters: Any) -> list[str]:
    """The ids of the traces that a search over all times finds."""
    return [trace["traceID"] for trace in server.get("/api/traces", **{**ALL, **parameters})["data"]]


# One trace.


def test_a_trace_is_as_jaeger_shows_it(server: JaegerServer) -> None:
    """Attributes, scope, kind, status, state, events, links and resource come as Jaeger makes them from OTLP; spans
    that share an id are all there."""
    answer = server.get(f"/api/traces/{CART}")

    assert answer == {"data": [CART_TRACE], "total": 0, "limit": 0, "offset": 0, "errors": None}


def test_a_link_says_what_it_refers_to(server: JaegerServer) -> None:
    """A link is a reference FOLLOWS_FROM, unless it says that it is CHILD_OF."""
    [trace] = server.get(f"/api/traces/{JOB}")["data"]

    assert trace["spans"][0]["references"] == [reference("CHILD_OF", CART, 1)]


def test_a_resource_that_says_nothing(server: JaegerServer) -> None:
    """It has Jaeger's name for no service, and is found by it."""
    [trace] = server.get(f"/api/traces/{TICK}")["data"]

    assert trace["processes"] == {"p1": {"serviceName": "OTLPResourceNoServiceName", "tags": []}}
    assert found(server, service="OTLPResourceNoServiceName") == [TICK_ID]


@pytest.mark.parametrize("text", [TICK, "ab", "AB", TICK_ID, "AAAAAAAAAAAAAAAAAAAAqw=="])
def test_an_id_may_be_written_short(server: JaegerServer, text: str) -> None:
    """Leading zeros may be left out, capitals are accepted, base64 too."""
    [trace] = server.get(f"/api/traces/{text}")["data"]

    assert (trace["traceID"], trace["spans"][0]["traceID"]) == (TICK_ID, TICK_ID)


def test_an_export_says_the_same(server: JaegerServer) -> None:
    """A trace that is exported as Jaeger's JSON is the one that the API shows."""
    writer = Writer()
    pages = [writer.page(message.SerializeToString()) for message in server.ask(V3, "GetTrace", trace_id=CART)]

    assert json.loads(b"".join(pages) + writer.end()) == server.get(f"/api/traces/{CART}")


def test_a_conversation_is_shown_whole(server: JaegerServer) -> None:
    """A long attribute that repeats a conversation comes as it was sent, however it is stored."""
    turns = [json.dumps([{"role": "user", "content": f"turn {turn} " * 500}]) for turn in (1, 2)]
    calls = [span(TALK, number, at=400 * SECOND + number) for number in (1, 2)]
    for call, turn in zip(calls, turns, strict=True):
        call.attributes.add(key="gen_ai.input.messages").value.string_value = turn
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add(spans=calls)
    server.send(request)

    [trace] = server.get(f"/api/traces/{TALK}")["data"]
    assert [shown["tags"] for shown in trace["spans"]] == [[tag("gen_ai.input.messages", "string", t)] for t in turns]


def test_the_root_is_first_of_what_started_with_it(server: JaegerServer) -> None:
    """Grafana names a trace after the first of its earliest spans: where a clock is coarse, that is still the root."""
    request = ExportTraceServiceRequest()
    spans = [
        span(COARSE, 1, parent=2, at=500 * SECOND, name="step"),
        span(COARSE, 2, at=500 * SECOND, name="whole"),
        span(COARSE, 3, parent=1, at=500 * SECOND),
    ]
    request.resource_spans.add().scope_spans.add(spans=spans)
    server.send(request)

    [trace] = server.get(f"/api/traces/{COARSE}")["data"]
    assert [shown["operationName"] for shown in trace["spans"]] == ["whole", "step", ""]


# Searches.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("http.status_code", "500"),
        ("ratio", "72.5"),
        ("weight", "100"),
        ("cached", "true"),
        ("zip", "00501"),
        ("large", "9007199254740992"),
        ("raw", "YWI="),
        ("sizes", '["S","M"]'),
        ("box", '{"depth": 2}'),
        ("host.id", "7"),
        ("resource.host.id", "7"),
        ("tier", "gold"),
        ("exception.type", "KeyError"),
        ("tries", "3"),
        ("event", "exception"),
        ("reason", "order"),
        ("error", "true"),
        ("otel.status_code", "OK"),
        ("otel.status_description", "out of stock"),
        ("otel.scope.name", "lib"),
        ("scope.version", "1.2"),
        ("w3c.tracestate", "k=v"),
        ("span.kind", "server"),
        ("span.kind", "CLIENT"),
    ],
)
def test_a_tag_finds_what_is_of_the_span(server: JaegerServer, key: str, value: str) -> None:
    """A text matches the typed attribute of a span, its resource, scope, event or link, and what Jaeger shows as a tag;
    given as `key:value` or as JSON."""
    assert found(server, tag=f"{key}:{value}") == [CART]
    assert found(server, tags=json.dumps({key: value})) == [CART]


@pytest.mark.parametrize(
    "tags",
    [["http.status_code:501"], ["zip:501"], ["cached:True"], ["host.id:gold"], ["tries:3", "large:9007199254740992"]],
)
def test_a_tag_that_no_span_has_finds_nothing(server: JaegerServer, tags: list[str]) -> None:
    """Another value, another key, or two tags that no span has both."""
    assert found(server, tag=tags) == []


def test_tags_narrow_together(server: JaegerServer) -> None:
    """One span has all of them."""
    assert found(server, tag=["tries:3", "host.id:7", "tier:gold"], service="shop", operation="GET /cart") == [CART]
    assert found(server, tag="tries:3", service="stock") == []


def test_no_error_is_every_other_span(server: JaegerServer) -> None:
    """`error=false` finds spans that did not fail, whether they say so or not."""
    assert found(server, tag="error:false") == [JOB, TICK_ID, CART]
    assert found(server, tag="error:false", service="shop") == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"minDuration": "1s"}, [TICK_ID]),
        ({"minDuration": "1500.999us"}, [TICK_ID, CART]),
        ({"minDuration": "1501µs"}, [TICK_ID]),
        ({"maxDuration": "8us"}, [CART]),
        ({"maxDuration": "7.999us"}, []),
        ({"minDuration": "10us", "maxDuration": "250us"}, [JOB, CART]),
        ({"minDuration": "250us", "maxDuration": "250us"}, [JOB]),
    ],
)
def test_durations_are_exact(server: JaegerServer, parameters: dict[str, str], expected: list[str]) -> None:
    """Bounds of microseconds and less hold, both included."""
    assert found(server, **parameters) == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"service": "stock"}, [JOB, CART]),
        ({"service": "stock", "operation": "restock"}, [JOB]),
        ({"operation": "tick"}, [TICK_ID]),
        ({"service": "nobody"}, []),
        ({"limit": 2}, [JOB, TICK_ID]),
        ({"start": START_US + 1, "end": START_US + 60_000_000}, [TICK_ID, CART]),
        ({"start": START_US + 3, "end": START_US + 59_999_999}, []),
        ({"start": "", "end": START_US + 60_000_000, "lookback": "30s"}, [TICK_ID]),
        ({"service": "shop", "minDuration": "", "maxDuration": "", "tags": ""}, [CART]),
    ],
)
def test_a_search_narrows(server: JaegerServer, parameters: dict[str, Any], expected: list[str]) -> None:
    """Service, operation, times and limit; newest first; what is empty says nothing."""
    assert found(server, **parameters) == expected


def test_a_trace_found_is_whole(server: JaegerServer) -> None:
    """A search gives the whole trace, not the spans that match."""
    assert server.get("/api/traces", **ALL, tag="tries:3")["data"] == [CART_TRACE]


def test_traces_asked_for_by_id(server: JaegerServer) -> None:
    """Those that are there are answered, those that are not are named."""
    answer = server.get("/api/traces", traceID=[JOB, "77", CART])

    assert [trace["traceID"] for trace in answer["data"]] == [JOB, CART]
    assert answer["errors"] == [{"msg": "trace not found", "traceID": "77".rjust(16, "0")}]


def test_log_records_alone_are_no_trace(server: JaegerServer) -> None:
    """A run of which only log records have come has no spans to show: it is not found, by either version."""
    record = {"trace_id": bytes.fromhex(EARLY), "time_unix_nano": START, "body": {"string_value": "soon"}}
    request = ExportLogsServiceRequest(resource_logs=[{"scope_logs": [{"log_records": [record]}]}])
    answer = server.http.post("/v1/logs", content=request.SerializeToString(), headers=PROTOBUF)
    assert answer.status_code == 200
    assert server.get(f"/api/runs/{EARLY}")["id"] == EARLY

    assert server.refused(f"/api/traces/{EARLY}")[0] == 404
    assert server.get("/api/traces", traceID=[EARLY])["data"] == []
    with pytest.raises(grpc.RpcError) as refusal:
        server.ask(V3, "GetTrace", trace_id=EARLY)
    assert refusal.value.code() is grpc.StatusCode.NOT_FOUND


# Names.


def test_services(server: JaegerServer) -> None:
    """Every service that has spans, by name."""
    answer = server.get("/api/services")

    names = ["OTLPResourceNoServiceName", "shop", "stock"]
    assert answer == {"data": names, "total": 3, "limit": 0, "offset": 0, "errors": None}


def test_operations(server: JaegerServer) -> None:
    """Names and kinds of a service, of one kind if so wished; the older way gives names alone."""
    by_kind = [("count", "server"), ("count", "client"), ("restock", "consumer")]
    of_stock = server.get("/api/operations", service="stock")

    assert of_stock["data"] == [{"name": name, "spanKind": kind} for name, kind in by_kind]
    assert of_stock["total"] == 3
    assert server.get("/api/operations", service="stock", spanKind="client")["data"] == [of_stock["data"][1]]
    assert server.get("/api/services/stock/operations")["data"] == ["count", "restock"]
    assert server.get("/api/services/no%2Fbody/operations")["data"] == []


# Figures.


def test_dependencies(server: JaegerServer) -> None:
    """A call is a span whose parent is of another service; spans that share an id are two calls."""
    times = {"endTs": START_MS + 1, "lookback": 60_000}
    calls = [{"parent": "shop", "child": "stock", "callCount": 2}]

    assert server.get("/api/dependencies", **times)["data"] == calls
    assert server.get("/api/dependencies", **times, service="stock")["data"] == calls
    assert server.get("/api/dependencies", **times, service="nobody")["data"] == []
    assert server.get("/api/dependencies", endTs=START_MS - 1)["data"] == []


@pytest.mark.parametrize(
    ("path", "name", "help_text", "value"),
    [
        ("calls", "service_operation_call_rate", "calls/sec, grouped by service & operation", 1 / 60),
        ("errors", "service_operation_error_rate", "error rate, grouped by service & operation", 1.0),
        (
            "latencies",
            "service_operation_latencies",
            "0.95th quantile latency, grouped by service & operation",
            1.500999,
        ),
    ],
)
def test_metrics(server: JaegerServer, path: str, name: str, help_text: str, value: float) -> None:
    """Calls, errors and latencies of an operation, as Jaeger's page reads them."""
    asked = {"service": "shop", "groupByOperation": "true", "quantile": 0.95, "step": 60_000}
    answer = server.get(f"/api/metrics/{path}", **asked, endTs=START_MS + 1, lookback=60_000)

    labels = [{"name": "service_name", "value": "shop"}, {"name": "operation", "value": "GET /cart"}]
    points = [{"timestamp": "2023-11-14T22:13:00Z", "gaugeValue": {"doubleValue": pytest.approx(value)}}]
    metrics = [{"labels": labels, "metricPoints": points}]
    assert answer == {"name": name, "type": "GAUGE", "help": help_text, "metrics": metrics}


@pytest.mark.parametrize("services", [["shop", "stock"], "shop,stock", "shop,service=stock"])
def test_metrics_of_services(server: JaegerServer, services: Any) -> None:
    """Several services, one by one or joined as Jaeger's page does, and kinds; none where nothing was called."""
    times = {"endTs": START_MS + 1, "lookback": 60_000, "step": 60_000}
    both = server.get("/api/metrics/calls", service=services, spanKind=["server", "client"], **times)

    rates = {
        metric["labels"][0]["value"]: metric["metricPoints"][0]["gaugeValue"]["doubleValue"]
        for metric in both["metrics"]
    }
    assert both["name"] == "service_call_rate"
    assert rates == {"shop": pytest.approx(1 / 60), "stock": pytest.approx(2 / 60)}
    assert server.get("/api/metrics/calls", service="nobody", **times)["metrics"] == []
    assert server.get("/api/metrics/minstep")["data"] == 1


# What goes wrong.


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/api/traces/zz", 400, "not a trace id"),
        ("/api/traces/77", 404, "trace not found"),
        ("/api/traces?tags=x", 400, "tags"),
        ("/api/traces?tag=x", 400, "key:value"),
        ("/api/traces?minDuration=fast", 400, "1.5s"),
        ("/api/traces?minDuration=-1s", 400, "1.5s"),
        ("/api/traces?minDuration=2s&maxDuration=1s", 400, "larger"),
        ("/api/traces?limit=0", 400, "limit"),
        ("/api/traces?limit=1501", 400, "limit"),
        ("/api/traces?start=soon", 400, "start"),
        ("/api/traces?service=shop&start=5&end=4", 400, "start time must be before"),
        ("/api/operations", 400, "'service' is required"),
        ("/api/operations?service=shop&spanKind=odd", 400, "span kind"),
        ("/api/metrics/calls", 400, "service"),
        ("/api/metrics/calls?service=shop&spanKind=odd", 400, "span kind"),
        ("/api/metrics/calls?service=shop&step=1", 400, "larger step"),
        ("/api/metrics/latencies?service=shop", 400, "quantile"),
        ("/api/metrics/latencies?service=shop&quantile=2", 400, "quantile"),
    ],
)
def test_errors_have_jaegers_shape(server: JaegerServer, path: str, status: int, told: str) -> None:
    """Jaeger's page shows `errors[].msg`; the message tells what is wrong."""
    answered, body = server.refused(path)

    assert answered == status
    assert (body["data"], [error["code"] for error in body["errors"]]) == (None, [status])
    assert told in body["errors"][0]["msg"]


def test_an_answer_is_bounded(server: JaegerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traces with more spans or bytes together than an answer may hold are refused, and it is said what to do."""
    cart_bytes = len(server.http.get(f"/api/traces/{CART}").content)
    for limit, value in (("SPANS_MAX", 3), ("ANSWER_BYTES_MAX", cart_bytes)):
        with monkeypatch.context() as patch:
            patch.setattr(search, limit, value)
            status, body = server.refused("/api/traces", **ALL)

            assert (status, body["errors"][0]["code"]) == (422, 422)
            assert "fewer traces" in body["errors"][0]["msg"]
            assert found(server, service="shop") == [CART]


def test_a_large_trace_sent_in_small_pieces(server: JaegerServer) -> None:
    """A trace of 10,000 spans that came five at a time is answered whole, by id and by a search."""
    requests = [_five(first) for first in range(1, 10_001, 5)]
    server.send(*requests)

    [by_id] = server.get(f"/api/traces/{LARGE}")["data"]
    [by_search] = server.get("/api/traces", **ALL, service="large", operation="step 9999")["data"]

    assert [int(span["spanID"], 16) for span in by_id["spans"]] == list(range(1, 10_001))
    assert {span["references"][0]["spanID"] for span in by_id["spans"][1:]} == {"0000000000000001"}
    assert by_search == by_id


def _five(first: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "large"
    numbers = range(first, first + 5)
    spans = [span(LARGE, number, 1 if number > 1 else None, at=number * SECOND // 100) for number in numbers]
    for made, number in zip(spans, numbers, strict=True):
        made.name = f"step {number}"
    of_resource.scope_spans.add(spans=spans)
    return request


def _commands() -> list[str]:
    """The addresses that the guide's commands ask, without the server's."""
    guide = (Path(__file__).parent.parent / "docs" / "jaeger.md").read_text()
    return re.findall(r"^curl 'http://127\.0\.0\.1:4318(.*)'$", guide, re.MULTILINE)


@pytest.mark.parametrize("path", _commands())
def test_the_guides_commands_answer(server: JaegerServer, path: str) -> None:
    """Every command of docs/jaeger.md is answered as it stands."""
    answer = server.get(path)

    assert answer.get("errors") is None
    asks_of_now = "lookback=12h" in path or "/metrics/" in path
    assert asks_of_now or any(answer.values())


def test_the_guide_names_the_ports() -> None:
    """Grafana and a Jaeger are pointed where a server listens unless it is told otherwise."""
    guide = (Path(__file__).parent.parent / "docs" / "jaeger.md").read_text()

    assert f"url: http://127.0.0.1:{Settings().http_port}\n" in guide
    assert f'endpoint: "127.0.0.1:{Settings().grpc_port}", tls: {{ insecure: true }}' in guide
