"""What the API answers when it cannot answer, and what it tells operators: a real server, a real client."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from math import inf
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
import uvicorn
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from sqlalchemy import text

from clew.collector.http_server import otlp_routes
from clew.collector.intake import Intake
from clew.collector.projection import read_requests
from clew.query import answers, events, tree_answer
from clew.query.app import build_app
from clew.storage import Store
from clew.storage.engine import native

ORIGIN = "https://page.example"
SLOW, BROKEN, BLOCKED, PLAIN = (UUID(int=number) for number in range(1, 5))


@dataclass
class Api:
    """A server and a client of it; `released` lets the answers about BLOCKED go."""

    client: httpx.Client
    released: threading.Event

    def get(self, path: str, model: type[BaseModel]) -> Any:
        """The JSON that `path` answers, which is as `model` describes it."""
        response = self.client.get(path)
        assert response.status_code == 200, response.text
        model.model_validate_json(response.content, strict=True)
        return response.json()

    def error(self, path: str, method: str = "GET") -> tuple[int, dict[str, Any]]:
        """Status and content of the error that `path` answers, which has the one shape."""
        response = self.client.request(method, path)
        assert response.headers["content-type"] == "application/json"
        answers.ErrorAnswer.model_validate_json(response.content, strict=True)
        return response.status_code, response.json()["error"]


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    store = Store.open(str(tmp_path_factory.mktemp("operation") / "clew.duckdb"))
    registry = CollectorRegistry()
    intake = Intake(store, registry=registry)
    released = threading.Event()

    def run_as_otlp(store: Store, run_id: UUID) -> bytes | None:
        if run_id == BROKEN:
            raise RuntimeError("secret of the server")
        if run_id == SLOW:
            with store.read(seconds_max=0.05) as reader:
                reader.rows(text("SELECT count(*) FROM range(1000000000) a, range(1000000000) b"))
        if run_id == BLOCKED:
            released.wait(60)
        return b"traces" if run_id in (PLAIN, BLOCKED) else None

    app = build_app(
        store, registry=registry, routes=otlp_routes(intake), cors_origins=[ORIGIN], run_as_otlp=run_as_otlp
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as client:
        yield Api(client, released)
    server.should_exit = True
    thread.join()
    intake.close()
    store.close()


RUN = "0" * 31 + "9"


@pytest.mark.parametrize(
    ("path", "status", "code", "parameter"),
    [
        ("/api/runs/nonsense", 400, "invalid_parameter", "run_id"),
        (f"/api/runs/{'0' * 32}", 400, "invalid_parameter", "run_id"),
        ("/api/runs/nonsense/tree", 400, "invalid_parameter", "run_id"),
        (f"/api/runs/{RUN}", 404, "not_found", "run_id"),
        (f"/api/runs/{RUN}/tree", 404, "not_found", "run_id"),
        (f"/api/runs/{RUN}/tree?root=12", 400, "invalid_parameter", "root"),
        (f"/api/runs/{RUN}/tree?shape=round", 400, "invalid_parameter", "shape"),
        (f"/api/runs/{RUN}/events", 404, "not_found", "run_id"),
        (f"/api/runs/{RUN}/events?cursor=x", 400, "invalid_parameter", "cursor"),
        (f"/api/runs/{RUN}/events/xyz", 400, "invalid_parameter", "event_id"),
        (f"/api/runs/{RUN}/events/{'1' * 16}", 404, "not_found", "run_id"),
        (f"/api/runs/{RUN}/statistics", 404, "not_found", "run_id"),
        (f"/api/runs/{RUN}/otlp", 404, "not_found", "run_id"),
        (f"/api/runs/{BROKEN}/otlp", 500, "internal", None),
        (f"/api/runs/{SLOW}/otlp", 504, "timeout", None),
        ("/api/runs?limit=0", 400, "invalid_parameter", "limit"),
        ("/api/runs?limit=1001", 400, "invalid_parameter", "limit"),
        ("/api/runs?limit=many", 400, "invalid_parameter", "limit"),
        ("/api/runs?since=yesterday", 400, "invalid_parameter", "since"),
        ("/api/runs?cursor=%00", 400, "invalid_parameter", "cursor"),
        ("/api/runs?id_prefix=xyz", 400, "invalid_parameter", "id_prefix"),
        ("/api/runs?sesion_id=a", 400, "invalid_parameter", "sesion_id"),
        ("/api/runs?status=failed&status=running", 400, "invalid_parameter", "status"),
        (f"/api/runs/{RUN}?limit=5", 400, "invalid_parameter", "limit"),
        ("/api/sql/schema?table=spans", 400, "invalid_parameter", "table"),
        ("/healthz?now=1&now=2", 400, "invalid_parameter", "now"),
        ("/nowhere", 404, "not_found", None),
    ],
)
def test_errors_have_one_shape(api: Api, path: str, status: int, code: str, parameter: str | None) -> None:
    """Every error has the one shape, names the parameter to blame, and keeps the server's secrets."""
    answered, error = api.error(path)

    assert (answered, error["code"], error["parameter"]) == (status, code, parameter)
    assert error["message"]
    assert "secret" not in error["message"]


def test_a_connection_that_ends_with_a_fault_says_so(api: Api) -> None:
    """So that a client opens another, instead of losing its next question on this one."""
    response = api.client.get(f"/api/runs/{BROKEN}/otlp")
    assert (response.status_code, response.headers["connection"]) == (500, "close")
    assert api.client.get("/healthz").status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_who_watches_the_server_may_say_more(api: Api, path: str) -> None:
    """Load balancers and scrapers add parameters of their own; they are answered all the same."""
    assert api.client.get(path, params={"now": "1"}).status_code == 200


def test_method_that_is_not_taken(api: Api) -> None:
    """Another method gets the one shape, and is told which one to use."""
    status, error = api.error("/api/runs", "DELETE")

    assert (status, error["code"]) == (405, "method_not_allowed")
    assert "GET" in error["message"]


def test_too_many_questions_at_once(api: Api) -> None:
    """Past a bound of waiting questions the next is told to come again; those taken before are answered."""

    async def ask_many() -> list[httpx.Response]:
        limits = httpx.Limits(max_connections=100)
        base_url = api.client.base_url
        async with httpx.AsyncClient(base_url=base_url, limits=limits, timeout=60, trust_env=False) as client:
            asked = [asyncio.create_task(client.get(f"/api/runs/{BLOCKED}/otlp")) for _ in range(90)]
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            assert (await client.get("/healthz")).status_code == 200
            api.released.set()
            return await asyncio.gather(*asked)

    answered = asyncio.run(ask_many())
    refused = [response for response in answered if response.status_code == 503]

    assert {response.status_code for response in answered} == {200, 503}
    assert {response.json()["error"]["code"] for response in refused} == {"busy"}
    assert {response.headers["retry-after"] for response in refused} == {"1"}


# Operation.


def test_index_lists_every_address(api: Api) -> None:
    """GET / lists the addresses, OTLP's among them."""
    addresses = api.get("/", answers.Addresses)["addresses"]

    assert {"GET /api/runs", "GET /api/runs/{run_id}/tree", "GET /metrics"} <= addresses.keys()
    assert all(addresses.values())
    assert any("/v1/traces" in address for address in addresses)


def test_health_and_readiness(api: Api) -> None:
    """The process says it is up, the store says that it answers."""
    assert api.get("/healthz", answers.State) == api.get("/readyz", answers.State) == {"status": "ok"}


def test_who_asks_is_noticed(api_client: httpx.Client, store: Store) -> None:
    """For them the store is kept up; a probe of readiness waits for no answer about what is stored, SQL does."""
    assert api_client.get("/readyz").is_success
    assert store.audience.away_s == inf
    assert api_client.post("/api/sql", json={"query": "SELECT 1"}).is_success
    assert store.audience.away_s < inf


def test_what_there_is_no_memory_for_is_refused(api_client: httpx.Client, store: Store) -> None:
    """With 422 and what to do, by Jaeger's API in Jaeger's shape; where there is memory, it is answered."""
    built, run_id = ExportTraceServiceRequest(), UUID(int=9)
    spans = built.resource_spans.add().scope_spans.add().spans
    for number in range(1, 9):
        span = spans.add(trace_id=run_id.bytes, span_id=number.to_bytes(8, "big"), name="large")
        span.start_time_unix_nano = 10**18 + number
        span.attributes.add(key="text").value.string_value = f"{number}" * 4_000_000
    store.write(read_requests([built.SerializeToString()]).batch)
    _limit_memory(store, "40MB")
    refused = api_client.get(f"/api/runs/{run_id}/events")
    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "answer_too_large")
    assert "smaller limit" in refused.json()["error"]["message"]
    [by_jaeger] = api_client.get(f"/api/traces/{run_id.hex}").json()["errors"]
    assert (by_jaeger["code"], by_jaeger["msg"]) == (422, refused.json()["error"]["message"])
    _limit_memory(store, "1GB")
    assert len(api_client.get(f"/api/runs/{run_id}/events").raise_for_status().json()["events"]) == 8


def _limit_memory(store: Store, limit: str) -> None:
    with closing(store.engine.raw_connection()) as connection:
        native(connection).execute(f"SET GLOBAL memory_limit = '{limit}'")


def test_metrics_are_prometheus_text(api: Api) -> None:
    """/metrics shows the registry, questions answered among it."""
    api.client.get("/readyz")
    response = api.client.get("/metrics")

    assert response.headers["content-type"].startswith("text/plain")
    assert 'clew_query_seconds_count{question="_probe"}' in response.text


def test_run_as_otlp(api: Api) -> None:
    """A run as OTLP is passed on as it was made."""
    response = api.client.get(f"/api/runs/{PLAIN}/otlp")

    assert (response.headers["content-type"], response.content) == ("application/x-protobuf", b"traces")


@pytest.mark.parametrize("path", ["/api/runs", "/v1/traces"])
def test_pages_of_allowed_origins_may_ask(api: Api, path: str) -> None:
    """Browsers get CORS answers for origins that are allowed, for the API and for OTLP, and none for others."""
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    allowed = api.client.options(path, headers={"origin": ORIGIN, **asks})
    other = api.client.options(path, headers={"origin": "https://other.example", **asks})

    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, ORIGIN)
    assert "access-control-allow-origin" not in other.headers


def test_every_route_and_parameter_is_documented(api: Api) -> None:
    """OpenAPI describes each route, each parameter, each answer and the errors."""
    paths = api.client.get("/openapi.json").json()["paths"]

    assert "/api/runs/{run_id}/tree" in paths
    for path, methods in paths.items():
        for operation in methods.values():
            assert operation["summary"], path
            assert operation["description"], path
            assert "422" not in operation["responses"], path
            assert all(parameter.get("description") for parameter in operation.get("parameters", ())), path
            assert operation["responses"]["200"]["content"], path


def test_the_page_that_describes_the_api_needs_no_network(api: Api) -> None:
    """Whatever /docs loads comes from the server itself."""
    page = api.client.get("/docs")
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.status_code == 200
    assert any(address.endswith(".js") for address in loaded)
    for address in loaded:
        assert httpx.URL(address).host in ("", api.client.base_url.host), address
        assert api.client.get(address).status_code == 200, address


def test_trees_past_the_limits_are_refused_whole(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tree with more events or bytes than an answer may hold is refused, saying what to ask instead; less of it is
    answered."""
    run = record_chain(api, 5)
    for limit in ("ANSWER_EVENTS_MAX", "ANSWER_BYTES_MAX"):
        with monkeypatch.context() as patch:
            patch.setattr(tree_answer, limit, 4)
            status, error = api.error(f"/api/runs/{run}/tree")

            assert (status, error["code"]) == (422, "answer_too_large")
            assert "?root=" in error["message"]
    monkeypatch.setattr(tree_answer, "ANSWER_EVENTS_MAX", 4)

    assert api.get(f"/api/runs/{run}/tree?root={3:016x}", answers.TreeAnswer)["event_count"] == 3


def test_events_of_a_run_too_large_for_a_tree(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages go on where no tree can be built; what only the tree knows is null."""
    run = record_chain(api, 5)
    monkeypatch.setattr(events, "TREE_EVENTS_MAX", 4)
    page = api.get(f"/api/runs/{run}/events", answers.EventPage)["events"]

    assert [(event["name"], event["depth"], event["self_time_ns"]) for event in page] == [("step", None, None)] * 5


def record_chain(api: Api, length: int) -> str:
    """Sends a run that is one chain of `length` events with ids from 1 on; returns its id."""
    run = uuid4()
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.SetInParent()
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.SetInParent()
    for number in range(1, length + 1):
        span = scope_spans.spans.add(trace_id=run.bytes, span_id=number.to_bytes(8), name="step")
        span.start_time_unix_nano, span.end_time_unix_nano = 10**18 + number, 10**18 + 100
        span.parent_span_id = (number - 1).to_bytes(8) if number > 1 else b""
    headers = {"content-type": "application/x-protobuf"}
    response = api.client.post("/v1/traces", content=request.SerializeToString(), headers=headers)
    assert response.status_code == 200, response.text
    return run.hex
