"""`clew tail`: events on the terminal as they are committed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clew.following import _messages

START = 1_750_000_000_000_000_000
RUN = 7


def _send(url: str, number: int, *, run: int = RUN, message: str = "") -> None:
    request = ExportTraceServiceRequest()
    span = (
        request.resource_spans.add()
        .scope_spans.add()
        .spans.add(trace_id=run.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name=f"step {number}")
    )
    span.start_time_unix_nano, span.end_time_unix_nano = START + number, START + number + 2_000_000
    if message:
        span.status.code, span.status.message = 2, message
    headers = {"content-type": "application/x-protobuf"}
    sent = httpx.post(f"{url}/v1/traces", content=request.SerializeToString(), headers=headers, trust_env=False)
    sent.raise_for_status()


@pytest.fixture
def tailing(environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `clew tail` with these arguments; ended after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-u", "-m", "clew", "tail", *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
        started.append(subprocess.Popen(command, text=True, env=environment, **pipes))  # type: ignore[call-overload]
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")


def _interrupted(process: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code after Ctrl-C, and stderr."""
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    return process.returncode, stderr


def test_events_are_shown_as_they_come(server: Any, tailing: Callable[..., subprocess.Popen[str]]) -> None:
    """A line each: the run, the name, how it ended, how long it took. Ctrl-C ends it, which is no failure."""
    _send(server.http_url, 1)
    process = tailing("--since", "-1h", "--url", server.http_url)
    shown = _line(process)
    assert shown.split()[2:] == ["00000000", "○", "step", "1", "✓", "2", "ms"]
    _send(server.http_url, 2, message="no bread\nat\u2028all\x85")
    assert _line(process).split()[3:] == ["○", "step", "2", "✗", "2", "ms", "no", "bread"]
    assert _interrupted(process) == (0, "")


def test_a_server_that_restarts_is_waited_for(server: Any, tailing: Callable[..., subprocess.Popen[str]]) -> None:
    """Nothing is left out and nothing is shown twice, though the server was killed meanwhile."""
    _send(server.http_url, 1)
    process = tailing("--since", "-1h", "--json", "--url", server.http_url)
    assert json.loads(_line(process))["name"] == "step 1"
    port = server.http_url.rpartition(":")[2]
    server.arguments = (*server.arguments, "--http-port", port)
    server.restart(signal.SIGKILL)
    _send(server.http_url, 2)
    assert json.loads(_line(process))["name"] == "step 2"
    assert _interrupted(process) == (0, "")


def test_only_what_is_asked_for_is_shown(server: Any, tailing: Callable[..., subprocess.Popen[str]]) -> None:
    """A filter and a run narrow it."""
    _send(server.http_url, 1)
    _send(server.http_url, 2)
    _send(server.http_url, 3, run=9 << 124)
    process = tailing('name != "step 1"', "--run", "0", "--since", "-1h", "--json", "--url", server.http_url)
    assert json.loads(_line(process))["name"] == "step 2"
    _send(server.http_url, 4)
    assert json.loads(_line(process))["name"] == "step 4"


@pytest.mark.parametrize(
    ("arguments", "told"), [(("name =",), "a value should be here"), (("--since", "yesterday"), "'yesterday' is not")]
)
def test_what_cannot_be_followed_is_told(
    server: Any, clew: Callable[..., subprocess.CompletedProcess[str]], arguments: tuple[str, ...], told: str
) -> None:
    """In one line, with exit code 1."""
    ended = clew("tail", *arguments, "--url", server.http_url)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert told in ended.stderr
    assert "Traceback" not in ended.stderr


def test_no_server_is_told_at_once(clew: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """Only a stream that has begun is waited for."""
    ended = clew("tail", "--url", "http://127.0.0.1:9")
    assert ended.returncode == 1
    assert "start a server with `clew serve`" in ended.stderr


def test_a_message_that_was_cut_off_is_none() -> None:
    """Only the empty line makes it whole."""
    assert list(_messages(iter(["event: event", "data: {}", "", "id: 7", "", "event: event", "data: {"]))) == [
        {"event": "event", "data": "{}"},
        {"id": "7"},
    ]
