"""`clew serve --export`, `clew exports` and `clew export-to`, as they are typed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from clew.collector.projection import read_requests
from clew.exporter.pages import PAGE_SPANS_MAX
from clew.query.exports_api import Exports
from clew.storage import Store
from clew.transfer.sending import REMEMBERED_S, Bookmark

from .otlp_targets import TAKEN, HttpAnswer, Spans, free_port, http_target

PATIENCE_S = 30.0
RUN = (7).to_bytes(16, "big")
# A page and a half.
SPANS = 3 * PAGE_SPANS_MAX // 2


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with a run of a page and a half."""
    path = str(tmp_path_factory.mktemp("history") / "clew.duckdb")
    store = Store.open(path)
    read = read_requests([_request(SPANS).SerializeToString()]).batch
    assert read is not None
    store.write(read)
    store.close()
    return path


def send(server: Any, spans: int) -> list[str]:
    """Sends so many spans of RUN; gives their names."""
    with grpc.insecure_channel(server.grpc_target) as channel:
        TraceServiceStub(channel).Export(_request(spans))
    return [f"span {number}" for number in range(spans)]


def _request(spans: int) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(spans):
        times = {"start_time_unix_nano": 10**18 + number, "end_time_unix_nano": 10**18 + number + 1}
        scope.spans.add(trace_id=RUN, span_id=(number + 1).to_bytes(8, "big"), name=f"span {number}", **times)
    return request


def until_sent(server: Any, number: int) -> dict[str, Any]:
    """Waits until the first target has so many spans; gives what is told of it."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = httpx.get(f"{server.http_url}/api/exports", trust_env=False)
        Exports.model_validate_json(answer.content, strict=True)
        told: dict[str, Any] = answer.json()["exports"][0]
        if told["sent"] == number:
            return told
        time.sleep(0.05)
    raise AssertionError(answer.text)


def test_a_target_is_served_shown_and_measured(
    start_server: Callable[..., Any], clew: Callable[..., Any], tmp_path: Path
) -> None:
    """By option or variable; its header is shown nowhere."""
    with http_target() as target:
        url = f"{target.url}?name=jaeger&header=authorization:Bearer%20hunter2"
        server = start_server("--db", str(tmp_path / "x.duckdb"), variables={"CLEW_EXPORT": url})
        server.read_until(target.url)
        assert server.rest == f"export     jaeger {target.url}\n"
        names = send(server, 5)
        until_sent(server, 5)
        assert target.names == names
        shown = clew("exports", "--url", server.http_url)
        assert shown.stdout.splitlines()[1].split() == ["jaeger", "traces", "✓", "sending", "5", target.url]
        figures = httpx.get(f"{server.http_url}/metrics", trust_env=False).text
        assert 'clew_export_sent_total{signal="traces",target="jaeger"} 5.0' in figures
        assert 'clew_export_lag_seconds{signal="traces",target="jaeger"} 0.0' in figures
        assert "hunter2" not in shown.stdout + figures + clew("exports", "--json", "--url", server.http_url).stdout
    assert server.stop() == 0


def test_what_is_in_the_way_is_shown(start_server: Callable[..., Any], clew: Callable[..., Any]) -> None:
    """Below the table: of which target, and what to do."""
    server = start_server("--export", f"otlp-http://127.0.0.1:{free_port()}?name=a", "--export", "otlp-grpc://b?name=b")
    send(server, 3)
    deadline = time.monotonic() + PATIENCE_S
    while "is the target running?" not in (shown := clew("exports", "--url", server.http_url)).stdout:
        assert time.monotonic() < deadline, shown.stdout
    assert "a gets no traces" in shown.stdout
    assert "✗ waiting" in shown.stdout


def test_without_targets_there_is_a_hint(demo_server: Any, clew: Callable[..., Any]) -> None:
    """`clew exports` says how to have one."""
    assert "--export otlp-grpc://" in clew("exports", "--url", demo_server.http_url).stdout


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("otlp-grpc://h?filter=agent%20%3D", "the filter of h"),
        ("otlp-grpc://h?token=hunter2", "no parameter 'token'"),
    ],
)
def test_a_wrong_target_is_refused(clew: Callable[..., Any], url: str, told: str) -> None:
    """At the start, in one line, with exit code 1."""
    refused = clew("serve", "--grpc-port", "0", "--http-port", "0", "--export", url)
    [line] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert told in line
    assert "hunter2" not in line


def test_history_is_sent_and_can_be_sent_twice(database: str, clew: Callable[..., Any]) -> None:
    """Each time all spans of the run arrive, in order."""
    with http_target() as target:
        for times in (1, 2):
            sent = clew("export-to", target.url, "--run", RUN.hex(), "--db", database)
            assert (sent.returncode, sent.stderr) == (0, "")
            assert sent.stdout == f"{SPANS:,} spans sent to {target.url}\n"
            assert len(target.names) == times * SPANS
            assert target.names[-SPANS:] == [f"span {number}" for number in range(SPANS)]


def test_an_interrupted_sending_goes_on(
    database: str, clew: Callable[..., Any], tmp_path: Path, environment: dict[str, str]
) -> None:
    """Ctrl-C between two pages: the same command sends the second page alone."""
    first_came, over = threading.Event(), threading.Event()

    def judge(spans: Spans) -> HttpAnswer:
        if not first_came.is_set() or over.is_set():
            first_came.set()
            return TAKEN
        over.wait()
        return HttpAnswer(503)

    with http_target(judge) as target:
        arguments = ["export-to", target.url, "--all", "--db", database]
        whole = [sys.executable, "-m", "clew", *arguments]
        with subprocess.Popen(whole, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as sending:
            first_came.wait(PATIENCE_S)
            while not list(tmp_path.rglob("exports/*.json")):
                assert sending.poll() is None
                time.sleep(0.01)
            sending.send_signal(signal.SIGINT)
            _, said = sending.communicate(timeout=PATIENCE_S)
        over.set()
        assert sending.returncode == 130
        assert "the same command goes on from here" in said
        again = clew(*arguments)
        assert f"going on after {PAGE_SPANS_MAX:,} spans" in again.stderr
        assert again.stdout == f"{SPANS:,} spans sent to {target.url}\n"
        assert target.names == [f"span {number}" for number in range(SPANS)]


def test_an_interrupted_export_says_what_to_do(database: str, environment: dict[str, str]) -> None:
    """Ctrl-C while its reader is slow: what is not in a file cannot go on."""
    whole = [sys.executable, "-m", "clew", "export", "--all", "--db", database]
    with subprocess.Popen(whole, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as exporting:
        assert exporting.stdout
        assert exporting.stdout.read(1) == b"{"
        exporting.send_signal(signal.SIGINT)
        _, said = exporting.communicate(timeout=PATIENCE_S)
    assert exporting.returncode == 130
    assert said.decode() == "clew: warning: interrupted; the same command starts again\n"


def test_an_old_bookmark_counts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs have come since: after a day the same choice begins anew."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    bookmark = Bookmark.of({"to": "otlp-grpc://h:4317"})
    bookmark.set({"cursor": "x"})
    assert bookmark.read() == {"cursor": "x"}
    yesterday = time.time() - REMEMBERED_S - 1
    os.utime(bookmark.path, (yesterday, yesterday))
    assert bookmark.read() is None


def test_what_a_target_refuses_is_told(database: str, clew: Callable[..., Any]) -> None:
    """With what was refused, and exit code 1."""
    bad = HttpAnswer(400, b"not this", {"content-type": "text/plain"})
    with http_target(lambda spans: bad if "span 5" in {span.name for span in spans} else TAKEN) as target:
        sent = clew("export-to", target.url, "--all", "--db", database)
        assert sent.returncode == 1
        assert sent.stdout == f"{SPANS - 1:,} spans sent to {target.url}\n"
        assert f"refused span {RUN.hex()}/{6:016x}: HTTP 400: not this" in sent.stderr
        assert "1 span refused by the target" in sent.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("otlp-grpc://h",), "say --all"),
        (("otlp-grpc://h?filter=x", "--all"), "leave the filter out"),
    ],
)
def test_mistakes_are_told(clew: Callable[..., Any], arguments: tuple[str, ...], told: str) -> None:
    """In one line."""
    refused = clew("export-to", *arguments)
    [line] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert told in line


def test_a_target_that_does_not_speak_otlp_ends_the_command(demo_server: Any, clew: Callable[..., Any]) -> None:
    """At once, with what to do. The spans come from a server here."""
    target = demo_server.http_url.replace("http://", "otlp-grpc://")
    refused = clew("export-to", target, "--all", "--url", demo_server.http_url)
    assert refused.returncode == 1
    assert "no gRPC is spoken there" in refused.stderr
