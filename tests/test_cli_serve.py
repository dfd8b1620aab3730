"""`clew serve`: how it starts, what it says, how it ends."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
UNFINISHED = (
    b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 10\r\n\r\n"
)
START_NS = 1_750_000_000_000_000_000
# Waits again and again, each time with the signal at a later line of the wait, until it comes when all are behind.
SIGNAL_AT_EACH_LINE = """
import faulthandler, itertools, os, signal, sys, threading
from clew.cli.serving import Stop

def wait_with_a_signal_at(line):
    lines, came, is_late = itertools.count(), threading.Event(), threading.Event()

    def trace(*_):
        if not is_late.is_set() and next(lines) == line:
            came.set()
            signal.raise_signal(signal.SIGTERM)
        return trace

    def at_last():
        if not came.wait(3):
            is_late.set()
            os.kill(os.getpid(), signal.SIGTERM)

    stop, late = Stop(), threading.Thread(target=at_last)
    late.start()
    sys.settrace(trace)
    stop.wait()
    sys.settrace(None)
    late.join()
    return came.is_set()

faulthandler.dump_traceback_later(30, exit=True)
print(len(list(itertools.takewhile(bool, map(wait_with_a_signal_at, itertools.count())))))
"""


def _request(run: int, spans: int = 1) -> bytes:
    trace_id = run.to_bytes(16, "big")
    made = [
        Span(
            trace_id=trace_id,
            span_id=(index + 1).to_bytes(8, "big"),
            name=f"step {index}",
            start_time_unix_nano=START_NS,
            end_time_unix_nano=START_NS + 1_000,
        )
        for index in range(spans)
    ]
    scope_spans = ScopeSpans(scope=InstrumentationScope(name="test"), spans=made)
    resource_spans = ResourceSpans(resource=Resource(), scope_spans=[scope_spans])
    return ExportTraceServiceRequest(resource_spans=[resource_spans]).SerializeToString()


def _export(target: str, *requests: bytes) -> None:
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary(EXPORT)
        for request in requests:
            export(request, timeout=20)


def _event_counts(url: str) -> dict[int, int]:
    """The number of events of each run, by the number it was made from."""
    page = httpx.get(f"{url}/api/runs", params={"limit": 1000}).json()
    return {int(run["id"], 16): run["event_count"] for run in page["runs"]}


def test_it_says_where_it_listens_and_where_the_data_is(server: Any, tmp_path: Path) -> None:
    """Four lines for people and programs: OTLP over gRPC, OTLP over HTTP, the API, the file."""
    assert list(server.announced) == ["OTLP/gRPC", "OTLP/HTTP", "API", "data"]
    assert server.announced["OTLP/HTTP"] == f"{server.http_url}/v1/traces"
    assert server.db == tmp_path / "clew.duckdb"
    assert server.db.exists()


def test_ready_means_ready(server: Any) -> None:
    """Once the lines are there, both ports answer: spans sent to one are asked for at the other."""
    _export(server.grpc_target, _request(7, spans=3))
    assert _event_counts(server.http_url) == {7: 3}


def test_otlp_over_http_is_on_the_announced_address(server: Any) -> None:
    """The OTLP/HTTP line is an address to post to as it is."""
    answer = httpx.post(
        server.announced["OTLP/HTTP"], content=_request(8), headers={"content-type": "application/x-protobuf"}
    )
    assert answer.status_code == 200
    assert _event_counts(server.http_url) == {8: 1}


def test_a_run_leaves_as_it_came(server: Any) -> None:
    """What came in over OTLP can be had as OTLP again, to be sent on."""
    _export(server.grpc_target, _request(9, spans=2))
    traces = TracesData.FromString(httpx.get(f"{server.http_url}/api/runs/{9:032x}/otlp").content)
    assert traces.resource_spans == ExportTraceServiceRequest.FromString(_request(9, spans=2)).resource_spans


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(server: Any, number: signal.Signals) -> None:
    """SIGTERM and Ctrl-C: exit code 0, nothing on stderr, and everything answered is there after a restart."""
    _export(server.grpc_target, *(_request(run) for run in range(1, 20)))
    assert server.stop(number) == 0
    assert server.stderr == ""
    server.start()
    assert _event_counts(server.http_url) == dict.fromkeys(range(1, 20), 1)


def test_a_signal_at_any_line_of_the_wait_ends_it() -> None:
    """Also one that comes when the server has just begun to wait."""
    ended = subprocess.run(
        [sys.executable, "-c", SIGNAL_AT_EACH_LINE], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) >= 2, "the signal came at as many lines of it"


def test_a_query_that_cannot_be_stopped_is_left_behind(server: Any) -> None:
    """Told to stop, the server goes all the same, in order and with a word on it."""
    query = "SELECT sum(len(regexp_extract_all(? || range, 'a*b|a'))) FROM range(100)"
    without_end = {"query": query, "parameters": ["a" * 60_000]}

    def ask() -> None:
        with suppress(httpx.HTTPError):
            httpx.post(f"{server.http_url}/api/sql", json=without_end, timeout=60)

    process = psutil.Process(server.process.pid)
    before = process.cpu_times().user
    with ThreadPoolExecutor(1) as thread:
        thread.submit(ask)
        until = time.monotonic() + 30
        while process.cpu_times().user < before + 1 and time.monotonic() < until:
            time.sleep(0.1)
        assert server.stop() == 0
    assert "left a query behind that could not be stopped" in server.stderr
    server.start()
    assert httpx.get(f"{server.http_url}/api/runs").status_code == 200


def test_stopping_keeps_what_was_answered_under_load(server: Any) -> None:
    """A server told to stop while requests pour in: every request answered with OK is stored."""
    answered: list[int] = []
    with grpc.insecure_channel(server.grpc_target) as channel:
        export = channel.unary_unary(EXPORT)
        waiting = {run: export.future(_request(run, spans=20), timeout=20) for run in range(1, 200)}
        waiting[20].result()
        assert server.stop() == 0
        answered = [run for run, answer in waiting.items() if answer.exception() is None]
    server.start()
    stored = _event_counts(server.http_url)
    assert 20 in answered
    assert [run for run in answered if stored.get(run) != 20] == []


def test_a_second_ctrl_c_ends_it_at_once(server: Any) -> None:
    """While the server waits for a client that never finishes its request, a second Ctrl-C does not wait."""
    host, _, port = server.http_url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as slow:
        slow.sendall(b"POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        httpx.get(f"{server.http_url}/healthz")
        server.process.send_signal(signal.SIGINT)
        _wait_until_closed(host, int(port))
        assert server.stop(signal.SIGINT) == -signal.SIGINT


def _wait_until_closed(host: str, port: int) -> None:
    while True:
        try:
            socket.create_connection((host, port)).close()
            time.sleep(0.02)
        except ConnectionError:
            return


def _receiving(server: Any) -> psutil.Process:
    """The process of the server's that receives."""
    children = psutil.Process(server.process.pid).children()
    [receiving] = [child for child in children if any("spawn_main" in part for part in child.cmdline())]
    return receiving


def test_ctrl_c_is_for_the_server_alone(server: Any) -> None:
    """A terminal sends it to every process; the one that receives goes on until the server has it finish."""
    receiving = _receiving(server)
    receiving.send_signal(signal.SIGINT)
    with grpc.insecure_channel(server.grpc_target) as channel:
        channel.unary_unary(EXPORT)(_request(1), timeout=30)
    assert _receiving(server) == receiving
    assert server.stop(signal.SIGINT) == 0
    assert server.stderr == ""


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="the system does not tell what is loaded")
def test_it_goes_without_pandas(server: Any) -> None:
    """It is installed here, takes 50 MB a process and the first sender's time, and makes nothing of what is asked."""
    _export(server.grpc_target, _request(1))
    assert httpx.get(f"{server.http_url}/api/runs/{1:032x}/tree").json()["event_count"] == 1
    assert httpx.post(f"{server.http_url}/api/sql", json={"query": "SELECT name FROM execution_events"}).json()["rows"]
    for process in (_receiving(server), psutil.Process(server.process.pid)):
        loaded = {Path(part.path).parts for part in process.memory_maps()}
        assert any("pyarrow" in parts for parts in loaded)
        assert not any("pandas" in parts for parts in loaded)


def test_it_ends_where_it_cannot_receive_any_more(server: Any) -> None:
    """What receives is killed, and its port taken before another process has it: the server says so and ends."""
    port = int(server.grpc_target.rpartition(":")[2])
    receiving = _receiving(server)
    receiving.kill()
    receiving.wait(30)
    with socket.create_server(("127.0.0.1", port)):
        assert server.process.wait(60) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in server.stderr


def test_a_second_server_on_the_file_is_refused(server: Any, clew: Callable[..., Any]) -> None:
    """The error names the file and the process that has it; exit code 1, no traceback."""
    refused = clew("serve", "--db", str(server.db), "--grpc-port", "0", "--http-port", "0")
    _assert_told(refused, str(server.db), str(server.process.pid), "choose another file with --db")


@pytest.mark.parametrize(("option", "other"), [("--grpc-port", "--http-port"), ("--http-port", "--grpc-port")])
def test_a_taken_port_is_named(option: str, other: str, clew: Callable[..., Any], tmp_path: Path) -> None:
    """The error names the port and the option that chooses another; exit code 1, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = clew("serve", "--db", str(tmp_path / "x.duckdb"), option, port, other, "0")
    _assert_told(refused, f"port {port} on 127.0.0.1 is taken", f"{option} 0")


def test_one_port_for_both_is_refused(clew: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing else listens there, so nobody is sent to look for it."""
    refused = clew("serve", "--db", str(tmp_path / "x.duckdb"), "--grpc-port", "4999", "--http-port", "4999")
    _assert_told(refused, "--grpc-port and --http-port are both 4999")


@pytest.mark.parametrize("origin", ["a.example", "http://a.example/", "http://a.example/page"])
def test_what_is_no_origin_is_refused(origin: str, clew: Callable[..., Any], tmp_path: Path) -> None:
    """No browser would ever name it so, and pages that should be let in would not be."""
    refused = clew("serve", "--db", str(tmp_path / "x.duckdb"), "--cors-origin", origin)
    _assert_told(refused, "--cors-origin", repr(origin), "http://localhost:3000")


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + bytes(84)], ids=["text", "SQLite"])
def test_a_file_that_is_no_database_is_refused(content: bytes, clew: Callable[..., Any], tmp_path: Path) -> None:
    """The file is named and left as it is."""
    file = tmp_path / "notes.txt"
    file.write_bytes(content)
    _assert_told(clew("serve", "--db", str(file)), "notes.txt", "not a valid DuckDB database file")
    assert file.read_bytes() == content


def test_another_database_is_refused(clew: Callable[..., Any]) -> None:
    """A database that clew cannot use yet is named, and what can be used."""
    _assert_told(clew("serve", "--db", "postgresql://somewhere/clew"), "postgresql", "duckdb:///path")


def test_an_open_address_is_warned_about(clew: Callable[..., Any], tmp_path: Path) -> None:
    """Listening for other machines comes with a word on authentication (the address here cannot be had, either)."""
    arguments = ("serve", "--db", str(tmp_path / "x.duckdb"), "--grpc-port", "0", "--http-port", "0")
    refused = clew(*arguments, "--host", "192.0.2.1")
    assert "warning: 192.0.2.1" in refused.stderr
    assert "no authentication" in refused.stderr
    assert "cannot listen on 192.0.2.1" in refused.stderr


def test_a_wrong_option_is_a_usage_error(clew: Callable[..., Any]) -> None:
    """A port out of range: exit code 2, the option named."""
    refused = clew("serve", "--http-port", "70000")
    assert refused.returncode == 2
    assert "--http-port" in refused.stderr


def test_variables_are_settings_and_options_go_before_them(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """CLEW_DB says where the data is, unless --db says otherwise."""
    variables = {"CLEW_DB": str(tmp_path / "by-variable.duckdb")}
    assert start_server(variables=variables).db == tmp_path / "by-variable.duckdb"
    told = str(tmp_path / "by-option.duckdb")
    assert start_server("--db", f"duckdb:///{told}", variables=variables).db == Path(told)


def test_untold_the_data_is_in_the_data_folder(start_server: Callable[..., Any], environment: dict[str, str]) -> None:
    """The folder is made when it is missing."""
    assert start_server().db == Path(environment["XDG_DATA_HOME"]) / "clew" / "clew.duckdb"


def test_pages_of_named_origins_may_call(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """CLEW_CORS_ORIGINS takes several, separated by commas; others are not let in."""
    variables = {"CLEW_CORS_ORIGINS": "http://a.example,http://b.example"}
    server = start_server("--db", str(tmp_path / "x.duckdb"), variables=variables)
    allowed = [
        httpx.get(f"{server.http_url}/healthz", headers={"origin": origin}).headers.get("access-control-allow-origin")
        for origin in ("http://a.example", "http://b.example", "http://c.example")
    ]
    assert allowed == ["http://a.example", "http://b.example", None]


def _assert_told(refused: subprocess.CompletedProcess[str], *words: str) -> None:
    assert refused.returncode == 1
    assert refused.stdout == ""
    [line] = refused.stderr.splitlines()
    assert [word for word in words if word not in line] == []
