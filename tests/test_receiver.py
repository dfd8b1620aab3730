"""The process that receives: nothing taken is lost when it ends, and another takes its place."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import closing
from typing import Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clew.collector.grpc_server import GrpcServer
from clew.collector.outcomes import Busy, Malformed, Outcome, Unavailable
from clew.collector.receiver import Listening, Receiver
from clew.collector.signals import LOGS, TRACES
from clew.storage import Store, WriteFailed

from .conftest import Gate

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
TIMEOUT_S = 60
DONE = Outcome(0, "")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def receiver(gate: Gate, registry: CollectorRegistry) -> Iterator[Receiver]:
    with closing(Receiver()) as receiver:
        receiver.store_in(gate, registry=registry)
        yield receiver
        gate.open.set()


async def _sum(request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
    return str(sum(request)).encode()


async def _count(request: bytes, _context: grpc.aio.ServicerContext) -> Any:
    for number in range(int(request)):
        yield str(number).encode()


async def _refuse(_request: bytes, context: grpc.aio.ServicerContext) -> bytes:
    await context.abort(grpc.StatusCode.NOT_FOUND, "not here", (("reason", "moved"),))


@pytest.fixture
def elsewhere() -> Iterator[str]:
    """A gRPC server with methods of its own; gives its address."""
    methods = {
        "Sum": grpc.unary_unary_rpc_method_handler(_sum),
        "Count": grpc.unary_stream_rpc_method_handler(_count),
        "Refuse": grpc.unary_unary_rpc_method_handler(_refuse),
    }
    server = GrpcServer({"tests.Numbers": methods}, "127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{server.port}"
    server.stop(0)


@pytest.fixture
def port(receiver: Receiver, elsewhere: str) -> int:
    """Where the receiver takes OTLP/gRPC."""
    return receiver.listen(Listening("127.0.0.1:0", elsewhere))


@pytest.fixture
def channel(port: int) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel


def request(number: int) -> bytes:
    built = ExportTraceServiceRequest()
    span = built.resource_spans.add().scope_spans.add().spans.add(name="work")
    span.trace_id, span.span_id = (number + 1).to_bytes(16, "big"), b"12345678"
    return built.SerializeToString()


def stored(store: Store) -> int:
    with store.read() as reader:
        [row] = reader.rows(text("SELECT count(*) AS events FROM execution_events"))
        return int(row["events"])


def receiving() -> list[psutil.Process]:
    """The processes that receive; not multiprocessing's own, which tracks shared resources."""
    children = psutil.Process().children()
    return [child for child in children if any("spawn_main" in part for part in child.cmdline())]


def test_what_is_taken_is_stored_when_it_is_answered(receiver: Receiver, channel: grpc.Channel, store: Store) -> None:
    """Over gRPC, and from this process, of any signal."""
    assert channel.unary_unary(EXPORT)(request(1), timeout=TIMEOUT_S) == b""
    assert receiver.accept(request(2), TRACES).result(TIMEOUT_S) == DONE
    assert stored(store) == 2
    assert receiver.accept(b"", LOGS).result(TIMEOUT_S) == DONE


def test_what_is_refused_is_refused_here(receiver: Receiver, gate: Gate) -> None:
    """With the errors that an intake of this process would raise."""
    with pytest.raises(Malformed, match="ExportTraceServiceRequest"):
        receiver.accept(b"\xff garbage", TRACES).result(TIMEOUT_S)
    gate.failure = WriteFailed("the disk is full")
    with pytest.raises(Unavailable, match="the disk is full"):
        receiver.accept(request(1), TRACES).result(TIMEOUT_S)


def test_closing_finishes_what_was_taken(receiver: Receiver, gate: Gate, store: Store) -> None:
    """Every request taken is stored and answered before `close` returns, and the process gone."""
    gate.open.clear()
    answers = [receiver.accept(request(number), TRACES) for number in range(12)]
    assert gate.reached.wait(TIMEOUT_S)
    closing = threading.Thread(target=receiver.close)
    closing.start()
    gate.open.set()
    closing.join(TIMEOUT_S)
    assert [_refusal(answer) for answer in answers] == [None] * 12
    assert stored(store) == 12
    assert receiving() == []
    assert isinstance(receiver.accept(request(99), TRACES).exception(TIMEOUT_S), Unavailable)


def _refusal(answer: Future[Outcome]) -> type[BaseException] | None:
    error = answer.exception(0)
    return type(error) if error else None


def test_closing_waits_for_nothing_that_was_not_begun() -> None:
    """The process may be starting up or stopped: nothing was taken."""
    receiver = Receiver()
    [process] = receiving()
    process.suspend()
    receiver.close()
    assert receiving() == []


def test_a_killed_process_is_replaced(receiver: Receiver, port: int, store: Store) -> None:
    """What was under way is refused, so that it is sent again; the successor listens where it did."""
    [process] = receiving()
    process.kill()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        export = channel.unary_unary(EXPORT)
        assert export(request(1), timeout=TIMEOUT_S, wait_for_ready=True) == b""
    assert receiver.accept(request(2), TRACES).result(TIMEOUT_S) == DONE
    [successor] = receiving()
    assert successor.pid != process.pid
    assert stored(store) == 2


def test_a_process_killed_at_work_loses_nothing(receiver: Receiver, gate: Gate, store: Store) -> None:
    """A request that was being stored is stored all the same; sent again, it is there once."""
    gate.open.clear()
    answer = receiver.accept(request(1), TRACES)
    assert gate.reached.wait(TIMEOUT_S)
    [process] = receiving()
    process.kill()
    assert isinstance(answer.exception(TIMEOUT_S), Unavailable)
    gate.open.set()
    assert _until_taken(lambda: receiver.accept(request(1), TRACES)) == DONE
    assert stored(store) == 1


def _until_taken(send: Callable[[], Future[Outcome]]) -> Outcome:
    while True:
        try:
            return send().result(TIMEOUT_S)
        except (Unavailable, Busy):
            continue


def test_a_place_that_is_taken_meanwhile_is_a_loss(gate: Gate, elsewhere: str) -> None:
    """Then nothing can be received any more, and whoever serves is told."""
    told = threading.Event()
    with closing(Receiver()) as receiver:
        receiver.store_in(gate, on_loss=told.set)
        port = receiver.listen(Listening("127.0.0.1:0", elsewhere))
        [process] = receiving()
        process.kill()
        process.wait(TIMEOUT_S)
        with socket.create_server(("127.0.0.1", port)):
            assert told.wait(TIMEOUT_S)
        assert str(port) in receiver.lost


def test_a_process_that_cannot_be_started_is_a_loss(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server is told that nobody receives any more, and why."""
    lost = threading.Event()
    with closing(Receiver()) as receiver:
        receiver.store_in(gate, on_loss=lost.set)

        def no_room() -> Any:
            raise OSError("no more processes")

        monkeypatch.setattr(receiver, "_started", no_room)
        receiver._process.kill()
        assert lost.wait(TIMEOUT_S)
        assert "no more processes" in receiver.lost


def test_a_taken_port_is_an_error_that_names_it(receiver: Receiver, port: int, elsewhere: str) -> None:
    """Here, though it was met there."""
    with pytest.raises(OSError, match=f"127.0.0.1:{port}"):
        receiver.listen(Listening(f"127.0.0.1:{port}", elsewhere))


def test_the_metrics_are_those_of_the_process(receiver: Receiver, registry: CollectorRegistry) -> None:
    """Whoever scrapes this process sees what that one counts."""
    assert receiver.accept(request(1), TRACES).result(TIMEOUT_S) == DONE
    assert registry.get_sample_value("clew_spans_total", {"outcome": "stored"}) == 1
    assert registry.get_sample_value("clew_queue_bytes") == 0


def test_other_calls_are_answered_elsewhere(channel: grpc.Channel) -> None:
    """Single answers and streams, health among them."""
    assert channel.unary_unary("/tests.Numbers/Sum")(b"\1\2\3", timeout=TIMEOUT_S) == b"6"
    assert list(channel.unary_stream("/tests.Numbers/Count")(b"3", timeout=TIMEOUT_S)) == [b"0", b"1", b"2"]
    health = health_pb2_grpc.HealthStub(channel)
    answer = health.Check(health_pb2.HealthCheckRequest(service="tests.Numbers"), timeout=TIMEOUT_S)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_reflection_is_answered_elsewhere(channel: grpc.Channel) -> None:
    """A call of several messages gets the answer to each, in their order."""
    asked = [reflection_pb2.ServerReflectionRequest(list_services="", host=str(number)) for number in range(3)]
    answers = list(
        reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked), timeout=TIMEOUT_S)
    )
    assert [answer.original_request.host for answer in answers] == ["0", "1", "2"]
    assert "tests.Numbers" in {service.name for service in answers[0].list_services_response.service}


def test_what_is_refused_elsewhere_is_refused_here(channel: grpc.Channel) -> None:
    """With its code, its text and its metadata; a method that nobody has is unimplemented."""
    for method, code in (("Refuse", grpc.StatusCode.NOT_FOUND), ("Nothing", grpc.StatusCode.UNIMPLEMENTED)):
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary(f"/tests.Numbers/{method}")(b"", timeout=TIMEOUT_S)
        error: Any = refusal.value
        assert error.code() is code
        if method == "Refuse":
            assert (error.details(), dict(error.trailing_metadata())["reason"]) == ("not here", "moved")
