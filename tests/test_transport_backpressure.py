"""What a sender is told when the store is slow, full or failing, over both transports; and how the server stops."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import grpc
import httpx
import pytest
import uvicorn
from google.rpc import code_pb2
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import select
from starlette.applications import Starlette

from clew.collector.answers import http_status_of, status_of
from clew.collector.grpc_server import GrpcServer, otlp_services
from clew.collector.http_server import otlp_routes
from clew.collector.intake import Intake
from clew.storage import ExecutionEvent, Store, WriteFailed

from .conftest import Gate

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TIMEOUT_S = 30


@dataclass(frozen=True)
class Answer:
    """An answer over either transport: the status of a refusal, None on success, and HTTP's Retry-After."""

    status: Status | None
    retry_after: str | None = None


Send = Callable[[bytes], Answer]


@pytest.fixture
def intake(gate: Gate) -> Iterator[Intake]:
    """An intake whose queue is full as soon as anything waits."""
    intake = Intake(gate, queue_bytes_max=1)
    yield intake
    intake.close()


@pytest.fixture
def grpc_server(intake: Intake, gate: Gate) -> Iterator[GrpcServer]:
    server = GrpcServer(otlp_services(intake), "127.0.0.1:0")
    server.start()
    yield server
    gate.open.set()
    server.stop(TIMEOUT_S)


@pytest.fixture
def send_grpc(grpc_server: GrpcServer) -> Iterator[Send]:
    with grpc.insecure_channel(f"127.0.0.1:{grpc_server.port}") as channel:
        export = channel.unary_unary(EXPORT)

        def send(request: bytes) -> Answer:
            call = export.future(request, timeout=TIMEOUT_S)
            if call.code() is grpc.StatusCode.OK:
                return Answer(None)
            status = Status.FromString(dict(call.trailing_metadata())["grpc-status-details-bin"])
            assert (call.code().value[0], call.details()) == (status.code, status.message)
            return Answer(status)

        yield send


@dataclass(frozen=True)
class HttpServer:
    """uvicorn on a thread, which cuts off at once what is not answered when it stops."""

    server: uvicorn.Server
    thread: threading.Thread
    url: str

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture
def http_server(intake: Intake, gate: Gate) -> Iterator[HttpServer]:
    app = Starlette(routes=otlp_routes(intake))
    config = uvicorn.Config(app, log_config=None, lifespan="off", timeout_graceful_shutdown=0)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running = HttpServer(server, thread, f"http://127.0.0.1:{listener.getsockname()[1]}/v1/traces")
        yield running
        gate.open.set()
        running.stop()


@pytest.fixture
def send_http(http_server: HttpServer) -> Send:
    def send(request: bytes) -> Answer:
        headers = {"content-type": "application/x-protobuf"}
        answer = httpx.post(http_server.url, content=request, headers=headers, timeout=TIMEOUT_S)
        if answer.status_code == 200:
            return Answer(None)
        assert answer.status_code == 503
        return Answer(Status.FromString(answer.content), answer.headers.get("retry-after"))

    return send


@pytest.fixture(params=["grpc", "http"])
def send(request: pytest.FixtureRequest) -> Send:
    """Sends a request over the transport that the parameter names."""
    return request.getfixturevalue(f"send_{request.param}")


@pytest.fixture
def sending() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def _request(name: str) -> bytes:
    span = {"trace_id": bytes(15) + b"\1", "span_id": name.encode().ljust(8, b"\0"), "name": name}
    resource_spans = {"resource": {}, "scope_spans": [{"scope": {}, "spans": [span]}]}
    return ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()


def _stored(store: Store) -> list[str]:
    with store.read() as reader:
        return [row["name"] for row in reader.rows(select(ExecutionEvent.name).order_by(ExecutionEvent.name))]


def _retry_delay_s(answer: Answer) -> float:
    assert answer.status
    assert answer.status.code == code_pb2.UNAVAILABLE
    retry = RetryInfo()
    assert answer.status.details[0].Unpack(retry)
    return retry.retry_delay.ToNanoseconds() / 1e9


def _assert_may_be_sent_again(answer: Answer) -> None:
    assert _retry_delay_s(answer) > 0
    if answer.retry_after is not None:
        assert int(answer.retry_after) >= max(1, _retry_delay_s(answer))


def _send_until_taken(send: Send, request: bytes) -> None:
    """An answer comes a moment before its room in the queue is free again."""
    while (answer := send(request)).status:
        _assert_may_be_sent_again(answer)


def test_a_full_queue_says_when_to_come_again(
    send: Send, gate: Gate, sending: ThreadPoolExecutor, store: Store
) -> None:
    """While the queue is full a request is refused at once, to be sent again; what was taken is answered as usual."""
    gate.open.clear()
    first = sending.submit(send, _request("first"))
    assert gate.reached.wait(TIMEOUT_S)
    refused = send(_request("second"))
    assert not first.done()
    _assert_may_be_sent_again(refused)
    gate.open.set()
    assert first.result() == Answer(None)
    _send_until_taken(send, _request("second"))
    assert _stored(store) == ["first", "second"]


def test_http_says_when_to_come_again_in_whole_seconds(
    send_http: Send, gate: Gate, sending: ThreadPoolExecutor
) -> None:
    """503 carries Retry-After."""
    gate.open.clear()
    first = sending.submit(send_http, _request("first"))
    assert gate.reached.wait(TIMEOUT_S)
    assert int(send_http(_request("second")).retry_after or "") >= 1
    gate.open.set()
    first.result()


def test_a_store_that_fails_is_told_as_unavailable(send: Send, gate: Gate, store: Store) -> None:
    """What could not be stored is to be sent again, and succeeds once the store is well."""
    gate.failure = WriteFailed("no space left")
    refused = send(_request("one"))
    _assert_may_be_sent_again(refused)
    assert refused.status
    assert "no space left" in refused.status.message
    gate.failure = None
    _send_until_taken(send, _request("one"))
    assert _stored(store) == ["one"]


def test_a_long_reason_is_shortened(send: Send, gate: Gate) -> None:
    """A reason of any length and alphabet reaches the sender in a form that fits response headers."""
    gate.failure = WriteFailed("Ω\n" * 1_000_000)
    status = send(_request("one")).status
    assert status
    assert 500 < len(status.message.encode()) <= 1024
    assert status.message.endswith("…")


def test_an_unexpected_failure_keeps_its_details_to_the_log() -> None:
    """A failure that is no refusal is an internal error without particulars, and not to be sent again."""
    status = status_of(KeyError("/secret/path"))
    assert (status.code, http_status_of(KeyError())) == (code_pb2.INTERNAL, 500)
    assert (status_of(MemoryError()).code, http_status_of(MemoryError())) == (code_pb2.UNAVAILABLE, 503)
    assert "secret" not in status.message
    assert not status.details


def test_stopping_answers_what_was_taken(
    grpc_server: GrpcServer, send_grpc: Send, gate: Gate, sending: ThreadPoolExecutor, store: Store
) -> None:
    """A stopping server takes no connection more, and answers a request it has taken once that is stored."""
    gate.open.clear()
    taken = sending.submit(send_grpc, _request("taken"))
    assert gate.reached.wait(TIMEOUT_S)
    stopping = sending.submit(grpc_server.stop, TIMEOUT_S)
    _until_refused(grpc_server.port)
    assert not stopping.done()
    gate.open.set()
    assert taken.result() == Answer(None)
    stopping.result()
    assert _stored(store) == ["taken"]


def _until_refused(port: int) -> None:
    """A connection that waited to be accepted as the listener closed is reset; the next one is refused."""
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), TIMEOUT_S).close()
        except ConnectionResetError:
            continue
        except ConnectionRefusedError:
            return


def test_stopping_gives_up_after_its_grace(
    grpc_server: GrpcServer, send_grpc: Send, gate: Gate, sending: ThreadPoolExecutor
) -> None:
    """A request that is not answered within the grace is cut off, and the stop returns."""
    gate.open.clear()
    taken: Future[Answer] = sending.submit(send_grpc, _request("taken"))
    assert gate.reached.wait(TIMEOUT_S)
    grpc_server.stop(0)
    assert taken.exception() is not None


def test_a_cancelled_http_request_leaves_its_commit_alone(
    *,
    http_server: HttpServer,
    send_http: Send,
    send_grpc: Send,
    gate: Gate,
    sending: ThreadPoolExecutor,
    store: Store,
) -> None:
    """When the HTTP server stops before the answer, what was taken is stored all the same, and the intake goes on."""
    gate.open.clear()
    taken = sending.submit(send_http, _request("taken"))
    assert gate.reached.wait(TIMEOUT_S)
    http_server.stop()
    assert taken.exception() is not None
    gate.open.set()
    _send_until_taken(send_grpc, _request("next"))
    assert _stored(store) == ["next", "taken"]
