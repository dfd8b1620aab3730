"""`clew import`: what is read of files, that it is stored once, and what is said where something cannot be read."""

from __future__ import annotations

import gzip
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from clew.client import Client
from clew.exporter.otlp import run_as_otlp
from clew.storage import Store
from clew.transfer import TransferError, imports, jaeger_json, otlp_json, otlp_proto
from clew.transfer.database import StoreSink
from clew.transfer.errors import BadInput
from clew.transfer.formats import FORMATS
from clew.transfer.imports import Import
from clew.transfer.server import ServerSink

from .any_otlp import DETERMINISTIC

START = 1_750_000_000_000_000_000
Clew = Callable[..., Any]


def _line(run: int, number: int = 0) -> bytes:
    """A line of OTLP JSON: a span of a run."""
    span = {
        "traceId": f"{run:032x}",
        "spanId": f"{number + 1:016x}",
        "name": f"step {number}",
        "startTimeUnixNano": str(START + number),
        "endTimeUnixNano": str(START + number + 1),
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}).encode() + b"\n"


def test_a_line_of_several_signals_loses_none() -> None:
    """The specification has one; each is taken all the same."""
    line = b'{"resourceLogs": [], "resourceSpans": [], "resource_metrics": []}'
    assert {request.signal for request in otlp_json.requests(line)} == {"logs", "traces", "metrics"}
    named = b'{"resourceLogs": [{"schemaUrl": "\\"resourceSpans\\""}]}'
    assert [request.signal for request in otlp_json.requests(named)] == ["logs"]


def _message(run: int, number: int = 0) -> bytes:
    payload = otlp_json.requests(_line(run, number))[0].payload
    return struct.pack(">I", len(payload)) + payload


def _trace(run: int, **more: Any) -> dict[str, Any]:
    """A trace as Jaeger downloads it."""
    span = {
        "traceID": f"{run:x}",
        "spanID": "1",
        "operationName": "step 0",
        "references": [],
        "startTime": START // 1_000,
        "duration": 5,
        "tags": [],
        "logs": [],
        "processID": "p1",
        "warnings": None,
    }
    processes = {"p1": {"serviceName": "workshop", "tags": []}}
    return {"traceID": span["traceID"], "spans": [{**span, **more}], "processes": processes, "warnings": None}


@pytest.fixture(autouse=True)
def _marks_in_a_folder_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
def sink(store: Store) -> Iterator[StoreSink]:
    """Takes what is imported into `store`."""
    taking = StoreSink(store)
    yield taking
    taking.close()


def _import(sink: Any, path: Path, content: bytes | None = None, **more: Any) -> Import:
    if content is not None:
        path.write_bytes(content)
    of = FORMATS[name] if (name := more.pop("format_name", None)) else None
    importing = Import(sink, more.pop("tell", _raise), more.pop("progress", lambda _done, _total: None), **more)
    importing.file(str(path), of)
    return importing


def _raise(text: str) -> None:
    raise AssertionError(text)


def _spans(store: Store, run: int) -> list[Any]:
    traces = TracesData.FromString(run_as_otlp(store, UUID(int=run)) or b"")
    return [span for block in traces.resource_spans for span in block.scope_spans[0].spans]


# --- what is read -----------------------------------------------------------------------------------------------------

_LINES = _line(1) + b"\n" + _line(1, 1)
_LEGACY = zstandard.ZstdCompressor().compress(_line(1, 1))
FILES = {
    "lines": _LINES,
    "lines without an end, after a byte order mark": b"\xef\xbb\xbf" + _LINES.rstrip(),
    "gzip": gzip.compress(_line(1)) + gzip.compress(_line(1, 1)),
    "zstd": zstandard.ZstdCompressor().compress(_line(1)) + zstandard.ZstdCompressor().compress(_line(1, 1)),
    "messages": _message(1) + _message(1, 1),
    "messages that the Collector compressed": _message(1) + struct.pack(">I", len(_LEGACY)) + _LEGACY,
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_a_file_is_known_by_how_it_begins(store: Store, sink: StoreSink, tmp_path: Path, content: bytes) -> None:
    """Whatever its name; and imported twice, it is stored once."""
    for _ in range(2):
        assert _import(sink, tmp_path / "file", content).tally.taken == {"traces": 2}
    assert [span.name for span in _spans(store, 1)] == ["step 0", "step 1"]


@pytest.mark.parametrize("trace_id", [b"\1" + 15 * b"\0", b"\xff" + 15 * b"\0"])
def test_spans_without_times_are_told_by_their_ids(trace_id: bytes) -> None:
    """They read as metrics, or not at all as logs; they are spans."""
    traces = TracesData()
    span = traces.resource_spans.add().scope_spans.add().spans.add(trace_id=trace_id, span_id=7 * b"\0" + b"\1")
    span.attributes.add()
    span.name = "\u00a4"
    assert [request.signal for request in otlp_proto.requests(traces.SerializeToString())] == ["traces"]


def test_metrics_are_told_from_spans() -> None:
    """Also where their names and descriptions are as long as ids."""
    metrics = MetricsData()
    metric = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="http.server.reqs", unit="1")
    metric.description = "requests"
    metric.gauge.data_points.add(as_int=1)
    assert [request.signal for request in otlp_proto.requests(metrics.SerializeToString())] == ["metrics"]


@pytest.mark.parametrize("is_message", [False, True])
def test_logs_and_metrics_are_imported_too(store: Store, sink: StoreSink, tmp_path: Path, is_message: bool) -> None:
    """Each to where its signal goes."""
    record = {"timeUnixNano": str(START), "body": {"stringValue": "said"}}
    point = {"timeUnixNano": str(START), "asInt": "1"}
    lines = [
        {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]},
        {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "m", "gauge": {"dataPoints": [point]}}]}]}]},
    ]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    if is_message:
        payloads = [otlp_json.requests(line)[0].payload for line in content.splitlines()]
        content = b"".join(struct.pack(">I", len(payload)) + payload for payload in payloads)
    assert _import(sink, tmp_path / "file", content).tally.taken == {"logs": 1, "metrics": 1}


def test_a_trace_of_jaegers_becomes_otlp(store: Store, sink: StoreSink, tmp_path: Path) -> None:
    """Tags that OTLP has fields for, references, logs, process tags, large integers and short ids."""
    tags = [
        {"key": "span.kind", "type": "string", "value": "client"},
        {"key": "error", "type": "bool", "value": True},
        {"key": "otel.status_description", "type": "string", "value": "broken"},
        {"key": "otel.scope.name", "type": "string", "value": "library"},
        {"key": "w3c.tracestate", "type": "string", "value": "a=b"},
        {"key": "large", "type": "int64", "value": "9223372036854775222"},
        {"key": "bytes", "type": "binary", "value": "AAE="},
        {"key": "half", "type": "float64", "value": 0.5},
    ]
    references = [
        {"refType": "FOLLOWS_FROM", "traceID": "ff", "spanID": "9"},
        {"refType": "CHILD_OF", "traceID": "a1", "spanID": "7"},
    ]
    fields = [
        {"key": "event", "type": "string", "value": "found"},
        {"key": "count", "type": "int64", "value": 3},
    ]
    logs = [{"timestamp": START // 1_000 + 2, "fields": fields}]
    trace = _trace(0xA1, tags=tags, references=references, logs=logs)
    trace["processes"]["p1"]["tags"] = [{"key": "host", "type": "string", "value": "one"}]
    _import(sink, tmp_path / "trace.json", json.dumps({"data": [trace], "total": 0, "errors": None}, indent=2).encode())
    traces = TracesData.FromString(run_as_otlp(store, UUID(int=0xA1)) or b"")
    [block] = traces.resource_spans
    assert {pair.key: pair.value.string_value for pair in block.resource.attributes} == {
        "service.name": "workshop",
        "host": "one",
    }
    assert block.scope_spans[0].scope.name == "library"
    [span] = block.scope_spans[0].spans
    assert (span.kind, span.status.code, span.status.message, span.trace_state) == (3, 2, "broken", "a=b")
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (START, START + 5_000)
    assert span.parent_span_id.hex() == f"{7:016x}"
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in span.links] == [(f"{0xFF:032x}", f"{9:016x}")]
    said = {pair.key: pair.value for pair in span.attributes}
    assert said.keys() == {"large", "bytes", "half"}
    assert (said["large"].int_value, said["bytes"].bytes_value) == (9223372036854775222, b"\0\1")
    [event] = span.events
    assert (event.name, event.time_unix_nano, event.attributes[0].value.int_value) == ("found", START + 2_000, 3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(traces=st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=4), size=st.integers(1, 40))
@DETERMINISTIC
def test_traces_are_cut_wherever_the_pieces_of_a_file_end(traces: list[Any], size: int) -> None:
    """Any text in them, braces, quotes and backslashes too, is theirs."""
    text = json.dumps({"errors": None, "data": traces, "total": [{}]}, ensure_ascii=False).encode()
    cutter = jaeger_json._Cutter()
    cut = [cut for at in range(0, len(text), size) for cut in cutter.traces(text[at : at + size])]
    assert [json.loads(trace) for _, trace in cut] == traces
    assert all(text[offset : offset + len(trace)] == trace for offset, trace in cut)
    assert cutter.is_complete


# --- stopping and going on --------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """What ends an import in the midst."""


def test_an_import_goes_on_where_it_was_stopped(
    store: Store, sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is known to be stored is not sent again; into a store that does not have it, all is."""
    monkeypatch.setattr(imports, "REQUEST_BYTES", 1)
    monkeypatch.setattr("clew.transfer.marks.WRITTEN_EVERY_S", 0.0)
    path = tmp_path / "lines"
    path.write_bytes(b"".join(_line(1, number) for number in range(20)))
    seen = iter(range(12))

    def stop(_done: int, _total: int) -> None:
        if next(seen, None) is None:
            raise _Stopped

    with pytest.raises(_Stopped):
        _import(sink, path, progress=stop)
    empty = Store.open(str(tmp_path / "empty.duckdb"))
    other = StoreSink(empty)
    other.name = sink.name  # the same address, with nothing in it
    try:
        stopped = [mark.read_bytes() for mark in (tmp_path / "state").rglob("*.json")]
        assert len(stopped) == 1
        assert _import(other, path).tally.skipped == 0
        assert len(_spans(empty, 1)) == 20
    finally:
        other.close()
        empty.close()
    assert list((tmp_path / "state").rglob("*.json")) == []
    assert _import(sink, path).tally.taken == {"traces": 20}
    assert len(_spans(store, 1)) == 20


def test_what_is_stored_already_is_skipped(sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mark counts while the file is the same and the store holds the last span before it."""
    monkeypatch.setattr(imports, "REQUEST_BYTES", 1)
    monkeypatch.setattr("clew.transfer.marks.WRITTEN_EVERY_S", 0.0)
    path = tmp_path / "lines"
    path.write_bytes(b"".join(_line(1, number) for number in range(20)) + b"broken\n")
    with pytest.raises(BadInput):
        _import(sink, path)
    again = Import(sink, _raise, lambda _done, _total: None)
    with pytest.raises(BadInput):
        again.file(str(path))
    assert (again.tally.skipped, again.tally.taken.total()) == (20, 0)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(BadInput):
        again.file(str(path))
    assert again.tally.taken == {"traces": 20}


# --- the server's side ------------------------------------------------------------------------------------------------


def test_a_busy_server_is_asked_again_when_it_says(tmp_path: Path) -> None:
    """503 with Retry-After is obeyed, and what a server refuses of a request is counted and told."""
    answers = [503, 200]

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0)
            body = b"" if status == 503 else b"\x0a\x06\x08\x01\x12\x02no"  # one rejected: "no"
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    told: list[str] = []
    sink = ServerSink(Client(f"127.0.0.1:{listening.server_port}"))
    tally = _import(sink, tmp_path / "lines", _LINES.replace(b"\n\n", b"\n"), tell=told.append).tally
    sink.close()
    listening.shutdown()
    listening.server_close()
    assert (answers, tally.taken, tally.rejected, told) == ([], {"traces": 1}, {"traces": 1}, ["no"])


def test_what_a_server_refuses_for_good_ends_the_import(server: Any, tmp_path: Path) -> None:
    """With its reason; nothing is tried again."""
    sink = ServerSink(Client(server.http_url))
    answer = sink.accept("traces", b"not protobuf")
    with pytest.raises(TransferError, match="the server refused with status 400"):
        answer.result(30)
    sink.close()


# --- the command ------------------------------------------------------------------------------------------------------


def test_files_are_imported_and_stored_once(server: Any, clew: Clew, tmp_path: Path) -> None:
    """Several files at once, and again."""
    (tmp_path / "a.jsonl").write_bytes(_LINES)
    (tmp_path / "b.json").write_text(json.dumps({"data": [_trace(2)]}))
    for _ in range(2):
        told = clew("import", "a.jsonl", "b.json", "--url", server.http_url)
        assert (told.returncode, told.stdout, told.stderr) == (0, "3 spans imported\n", "")
    extent = httpx.get(f"{server.http_url}/api/export/extent").json()
    assert (extent["runs"], extent["spans"]) == (2, 3)


def test_what_is_before_a_broken_line_is_imported(server: Any, clew: Clew, tmp_path: Path) -> None:
    """The message names file, line and byte; with --keep-going the line is left out."""
    (tmp_path / "spans.jsonl").write_bytes(_line(1) + b'{"resourceSpans":[\n' + _line(1, 1))
    told = clew("import", "spans.jsonl", "--url", server.http_url)
    assert (told.returncode, told.stdout) == (1, "1 span imported\n")
    assert told.stderr.startswith(f"clew: spans.jsonl: line 2 (byte {len(_line(1)):,}): not JSON")
    assert told.stderr.count("\n") == 1
    told = clew("import", "spans.jsonl", "--keep-going", "--url", server.http_url)
    assert (told.returncode, told.stdout) == (1, "1 part imported before\n1 span imported\n")
    assert told.stderr.endswith("clew: warning: 1 part left out, which could not be read\n")


BAD = {
    "another format": (b"a,b\n1,2\n", "in no format that clew reads"),
    "other JSON": (b'{"batches":[]}\n', "in no format that clew reads"),
    "gzip cut short": (gzip.compress(_LINES)[:-12], "cut short: it ends within its gzip data"),
    "zstd cut short": (zstandard.ZstdCompressor().compress(_LINES)[:-4], "cut short: it ends within its zstd data"),
    "broken gzip": (gzip.compress(_LINES)[:10] + bytes(40), "not valid gzip"),
    "a message cut short": (_message(1)[:-3], "message 1 (byte 0) is cut short"),
    "a length cut short": (_message(1) + b"\0\0", f"message 2 (byte {len(_message(1))}) is cut short"),
    "a message too long": (
        b"\x10\0\0\0" + _message(1)[4:],
        "message 1 (byte 0): it has 256.0 MiB; 64.0 MiB is the most",
    ),
    "a trace cut short": (json.dumps({"data": [_trace(1)]}).encode()[:-5], "cut short: it ends within trace 1"),
    "Parquet cut short": (b"PAR1" + bytes(100), "not a whole Parquet file"),
    "an error of Jaeger's": (
        b'{"data":null,"errors":[{"code":404,"msg":"trace not found"}]}',
        'Jaeger answered with an error, not with traces: {"code":404,"msg":"trace not found"}',
    ),
    "no list of traces": (b'{"data":{},"errors":null}', "no traces as Jaeger tells them"),
    "a trace that is none": (b'{"data":[{"spans":[{}]}]}', "trace 1 (byte 9): not a trace as Jaeger writes it"),
}


@pytest.mark.parametrize(("content", "reason"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_told(sink: StoreSink, tmp_path: Path, content: bytes, reason: str) -> None:
    """With the file's name, where in it, and why."""
    with pytest.raises(BadInput) as told:
        _import(sink, tmp_path / "file", content)
    assert str(told.value).startswith(str(tmp_path / "file"))
    assert reason in str(told.value)


def test_a_line_that_is_too_long_is_refused(sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its number and size, and without being held."""
    monkeypatch.setattr(otlp_json, "FRAME_BYTES_MAX", 1_000)
    with pytest.raises(
        BadInput, match=r"line 2 \(byte \d+\): it has 1.0 MiB; 1,000 bytes is the most that a line may have"
    ):
        _import(sink, tmp_path / "lines", _line(1) + b" " * ((1 << 20) - 1) + b"\n")


@pytest.mark.parametrize("of", [_line, _message])
def test_what_is_too_long_is_left_out_where_it_is_asked_to(
    store: Store, sink: StoreSink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of: Callable[[int], bytes]
) -> None:
    """What comes after a line or message that is too long is imported with --keep-going."""
    for module in (otlp_json, otlp_proto):
        monkeypatch.setattr(module, "FRAME_BYTES_MAX", 1_000)
    long = _line(2).strip() + b" " * 2_000 + b"\n" if of is _line else struct.pack(">I", 2_000) + bytes(2_000)
    told: list[str] = []
    tally = _import(sink, tmp_path / "file", of(1) + long + of(3), keep_going=True, tell=told.append).tally
    assert (tally.taken, tally.unread) == ({"traces": 2}, 1)
    assert len(_spans(store, 1)) == len(_spans(store, 3)) == 1
    assert "2 (byte" in told[0]


@pytest.mark.parametrize("content", [b"", gzip.compress(b"", mtime=0), zstandard.ZstdCompressor().compress(b"")])
def test_an_export_of_nothing_is_imported(sink: StoreSink, tmp_path: Path, content: bytes) -> None:
    """An empty file, compressed or not, is told of, and is no mistake."""
    told: list[str] = []
    assert not _import(sink, tmp_path / "file", content, tell=told.append).tally.taken
    assert told == [f"{tmp_path / 'file'} is empty: there is nothing to import"]


@pytest.mark.parametrize("format_name", [None, "otlp-json"])
def test_a_pipe_with_a_name_is_read(sink: StoreSink, tmp_path: Path, format_name: str | None) -> None:
    """As `clew import <(...)` and named pipes are: once, and without a place to go on from."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writing = threading.Thread(target=pipe.write_bytes, args=(_LINES,))
    writing.start()
    assert _import(sink, pipe, format_name=format_name).tally.taken == {"traces": 2}
    writing.join()


@pytest.mark.parametrize(
    "content", [_LINES, b'{"foo":[1]}', b'[{"traceID":"1","spans":[]}]', json.dumps(_trace(1)).encode()]
)
def test_what_is_not_jaegers_is_refused_as_its(sink: StoreSink, tmp_path: Path, content: bytes) -> None:
    """Where --format says so and the file is another, nothing is passed over in silence."""
    with pytest.raises(BadInput, match="no traces as Jaeger tells them"):
        _import(sink, tmp_path / "file", content, format_name="jaeger-json")


def test_a_folder_and_a_missing_file_are_told(server: Any, clew: Clew, tmp_path: Path) -> None:
    """In one line, with exit code 1."""
    for name, reason in ((str(tmp_path), "Is a directory"), ("nowhere.jsonl", "No such file or directory")):
        told = clew("import", name, "--url", server.http_url)
        assert (told.returncode, told.stdout) == (1, "")
        assert told.stderr == f"clew: {name} cannot be opened: {reason}\n"


def test_nothing_is_made_for_a_missing_file(clew: Clew, tmp_path: Path) -> None:
    (tmp_path / "there.jsonl").write_bytes(_line(1))
    told = clew("import", "there.jsonl", "missing.jsonl", "--db", "new.duckdb")
    assert (told.returncode, told.stdout) == (1, "")
    assert told.stderr.startswith("clew: missing.jsonl cannot be opened: No such file or directory")
    assert not (tmp_path / "new.duckdb").exists()


def test_an_interrupted_import_says_what_holds(server: Any, environment: dict[str, str]) -> None:
    """Ctrl-C once something was taken: that is stored."""
    command = [sys.executable, "-m", "clew", "import", "-", "--url", server.http_url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as importing:
        assert importing.stdin
        while not httpx.get(f"{server.http_url}/api/runs").json()["runs"]:
            assert importing.poll() is None
            importing.stdin.write(b"".join(_line(1, number) for number in range(10_000)))
        importing.send_signal(signal.SIGINT)
        _, said = importing.communicate(timeout=60)
    assert importing.returncode == 130
    assert said.decode() == (
        "clew: warning: interrupted; what was taken is stored, and importing again stores nothing twice\n"
    )


def test_concatenated_requests_are_one() -> None:
    """What small frames travel as: protobuf messages one after the other say what both do."""
    payloads = [otlp_json.requests(_line(1, number))[0].payload for number in range(2)]
    together = ExportTraceServiceRequest.FromString(b"".join(payloads))
    assert len(together.resource_spans) == 2
