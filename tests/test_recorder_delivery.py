"""Recorded spans on their way: to the server while they are open, and never at the application's expense."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

import clew as package
from clew import record
from clew.exporter import delivery

WAIT_S = 30


@pytest.fixture
def nobody() -> Iterator[str]:
    """host:port where connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def _tree(server: Any, run_id: str) -> dict[str, Any]:
    tree: dict[str, Any] = httpx.get(f"{server.http_url}/api/runs/{run_id}/tree").raise_for_status().json()
    return tree


def _until(found: Callable[[], Any]) -> Any:
    """What `found` finds in the end."""
    deadline = time.monotonic() + WAIT_S
    while not (answer := found()):
        assert time.monotonic() < deadline, "it did not come"
    return answer


def test_a_run_is_running_while_it_is_open(server: Any) -> None:
    """An open span is in the tree without an end; when it ends it is there once, with what was said meanwhile."""
    with package.run("t", endpoint=server.grpc_target) as run, run.agent_call("planner") as call:
        address = f"{server.http_url}/api/runs/{run.run_id}/tree"
        tree = _until(lambda: (answer := httpx.get(address)).is_success and answer.json())
        call.outputs("done")
    assert {(event["status"], event["duration_ns"]) for event in tree["events"]} == {("running", 0)}
    assert tree["run"]["status"] == "running"
    ended = _tree(server, run.run_id)
    assert [(event["id"], event["status"]) for event in ended["events"]] == [
        (run.id, "completed"),
        (call.id, "completed"),
    ]
    assert ended["events"][1]["attributes"]["clew.outputs"] == "done"


def test_much_text_leaves_in_portions() -> None:
    """Collectors refuse messages of more than 4 MiB unless told otherwise: however much is said, all of it arrives."""
    arrived: list[str] = []

    class Collector(TraceServiceServicer):
        def Export(self, request: Any, _: Any) -> ExportTraceServiceResponse:  # noqa: N802  # gRPC's name
            arrived.extend(span.name for r in request.resource_spans for s in r.scope_spans for span in s.spans)
            return ExportTraceServiceResponse()

    collector = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Collector(), collector)
    port = collector.add_insecure_port("127.0.0.1:0")
    collector.start()
    with package.run("t", endpoint=f"127.0.0.1:{port}") as run:
        for _ in range(60):
            with run.tool_call("big", inputs="€" * record.TEXT_MAX):
                pass
    collector.stop(None)
    assert arrived.count("execute_tool big") == 60
    assert "invoke_workflow" in arrived


def test_descriptions_and_names_are_text_too() -> None:
    """Of spans and of their events, which no limit cuts."""
    long = "x" * (delivery.PORTION_CHARS * 2 // 3)
    spans = [
        ReadableSpan("described", status=Status(StatusCode.ERROR, long)),
        ReadableSpan(long),
        ReadableSpan("said", events=[Event(long)]),
        ReadableSpan("short"),
    ]
    assert [len(portion) for portion in delivery._portions(spans)] == [1, 1, 2]


def test_what_cannot_be_said_in_json_or_utf8_does_no_harm(server: Any) -> None:
    """Circular values, numbers past 64 bits and lone surrogates arrive as text that comes near."""
    circular: list[Any] = []
    circular.append(circular)
    with (
        suppress(OSError),
        package.run("lone \ud800", endpoint=server.grpc_target) as run,
        run.tool_call("t \ud800", inputs=circular) as tool,
    ):
        tool.outputs({"n": 2**80, "name": "\udcff"})
        raise OSError("no \udcff")
    [root, event] = _tree(server, run.run_id)["events"]
    assert root["attributes"]["clew.run.task"] == "lone ?"
    assert (event["name"], event["status_message"]) == ("execute_tool t ?", "OSError: no ?")
    assert event["attributes"]["gen_ai.tool.call.arguments"] == "[[...]]"
    assert str(2**80) in event["attributes"]["gen_ai.tool.call.result"]
    address = f"{server.http_url}/api/runs/{run.run_id}/events/{tool.id}"
    [log] = httpx.get(address).raise_for_status().json()["logs"]
    assert log["attributes"]["exception.message"] == "no ?"


def test_an_unreachable_server_costs_a_warning(nobody: str, caplog: pytest.LogCaptureFixture) -> None:
    """The application goes on, waits a little at its run's end, less at the next, and is told once where and why."""
    caplog.set_level(logging.WARNING)
    took = []
    for _ in range(2):
        started = time.monotonic()
        with package.run("t", endpoint=nobody) as run, run.tool_call("x"):
            pass
        took.append(time.monotonic() - started)
    assert took[0] < delivery.FLUSH_S + 1
    assert took[1] < 1
    [said] = [logged.getMessage() for logged in caplog.records]
    assert nobody in said
    assert "clew serve" in said
    assert "UNAVAILABLE" in said


def test_a_silent_server_costs_no_more_than_the_limit() -> None:
    """A server that takes connections and never answers holds a run's end up for the limit and no longer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with package.run("t", endpoint=f"127.0.0.1:{silent.getsockname()[1]}"):
            pass
        assert time.monotonic() - started < delivery.FLUSH_S + 1


def test_an_event_loop_goes_on_meanwhile() -> None:
    """While the end of an asynchronous run waits for its server, other tasks work."""

    async def work(endpoint: str) -> int:
        async def record_a_run() -> None:
            async with package.run("t", endpoint=endpoint):
                pass

        recording = asyncio.create_task(record_a_run())
        turns = 0
        while not recording.done():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert asyncio.run(work(f"127.0.0.1:{silent.getsockname()[1]}")) > 10


def test_spans_arrive_again_after_an_outage(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """A server that comes back gets what is recorded from then on, without a restart of the application."""
    server = start_server("--db", str(tmp_path / "clew.duckdb"))
    target = server.grpc_target
    server.stop()
    with package.run("lost", endpoint=target):
        pass
    again = start_server("--db", str(tmp_path / "clew.duckdb"), "--grpc-port", target.rpartition(":")[2])

    def arrives() -> bool:
        with package.run("found", endpoint=target) as run:
            pass
        return httpx.get(f"{again.http_url}/api/runs/{run.run_id}").is_success

    assert _until(arrives)


def test_at_exit_what_is_left_is_sent(server: Any, environment: dict[str, str]) -> None:
    """A program that ends right after its run, or within one, leaves nothing behind; the environment says where to."""
    program = """
import sys, clew
run = clew.run("t").__enter__()
with run.tool_call("x"): pass
print(run.run_id)
"""
    for variables in (
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{server.grpc_target}"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": server.http_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
    ):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        events = _tree(server, ended.stdout.strip())["events"]
        assert [(event["name"], event["status"]) for event in events] == [
            ("invoke_workflow", "running"),
            ("execute_tool x", "completed"),
        ]
        assert ended.stderr == ""


def test_exit_is_not_held_up(nobody: str, environment: dict[str, str]) -> None:
    """A program whose spans cannot be sent ends all the same, with its own exit code."""
    program = f"import sys, clew\nclew.run('t', endpoint='{nobody}').__enter__()\nsys.exit(7)"
    started = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 7
    assert time.monotonic() - started < delivery.FLUSH_S + 10


def test_jaeger_beside_gets_finished_spans_only(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """A second address gets each span once, when it has ended, also where the first cannot be reached."""
    clew_server = start_server("--db", str(tmp_path / "clew.duckdb"))
    beside = start_server("--db", str(tmp_path / "beside.duckdb"))
    with package.run("t", endpoint=clew_server.grpc_target, jaeger=beside.grpc_target) as run, run.tool_call("x"):
        address = f"{clew_server.http_url}/api/runs/{run.run_id}"
        _until(lambda: httpx.get(address).is_success)
        assert httpx.get(f"{beside.http_url}/api/runs/{run.run_id}").status_code == 404
    for server in (clew_server, beside):
        assert [event["status"] for event in _tree(server, run.run_id)["events"]] == ["completed"] * 2


def test_an_application_keeps_its_own_provider(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its provider gets the spans, and with `pending_processor` clew shows open ones; what it batches is flushed."""
    provider, sent = TracerProvider(), InMemorySpanExporter()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # `set_tracer_provider` cannot be undone
    provider.add_span_processor(record.pending_processor(server.grpc_target))
    provider.add_span_processor(BatchSpanProcessor(sent, schedule_delay_millis=60_000))
    with package.run("t") as run:
        address = f"{server.http_url}/api/runs/{run.run_id}"
        shown = _until(lambda: (answer := httpx.get(address)).is_success and answer.json())
    assert shown["status"] == "running"
    assert [span.name for span in sent.get_finished_spans()] == ["invoke_workflow"]
    provider.shutdown()


def test_an_sdk_that_is_switched_off_records_nothing(environment: dict[str, str], nobody: str) -> None:
    """With OTEL_SDK_DISABLED every call still works."""
    program = f"""
import clew
with clew.run("t", endpoint="{nobody}") as run, run.agent_call("a") as call:
    call.message("m"); call.handoff("b"); call.file("f")
    with run.branch("b"): pass
print(run.run_id)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "OTEL_SDK_DISABLED": "true"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (ended.stdout, ended.stderr) == (f"{'0' * 32}\n", "")


def test_the_command_line_does_not_wait_for_the_sdk(environment: dict[str, str]) -> None:
    """`import clew` loads no SDK; `clew.run` and `clew.record` do, and nothing of the server."""
    program = """
import sys, clew
assert not [name for name in sys.modules if name.startswith("opentelemetry")]
assert clew.record.run is clew.run
assert {"duckdb", "pyarrow", "fastapi"}.isdisjoint(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=True)
