"""What sending on costs those who send to clew, and how fast a target catches up that was down.

    python bench/forwarding.py --spans 200000 --rounds 3

In turns, so that whatever else the machine does slows all alike: a server without a target, one whose target is down,
one whose target takes all, one whose target hangs, one whose target refuses everything. Each gets the same spans from
several senders. After the load the target that was down comes up: it must get every span once, in the order in which
the server committed them. Prints one JSON line: spans a second that were acknowledged, the medians of the rounds, as
shares of what the server without a target took; likewise the processor time that the servers used for the load, which
says more where the machine is busy otherwise; spans a second while catching up.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from outgoing import REQUEST_SPANS, request_of_runs
from sqlalchemy import text

from clew.storage import Store

SERVICE = "opentelemetry.proto.collector.trace.v1.TraceService"
SENDERS = 16
KINDS = ("none", "down", "up", "hangs", "refuses")
LIMIT = (("grpc.max_receive_message_length", 64 << 20),)


def sink(port: int, path: str | None) -> None:
    """Takes every request and writes it into the file after its length, until told to end. Without a file it refuses
    every one."""
    with Path(path or os.devnull).open("wb") as file:

        def export(request: bytes, context: grpc.ServicerContext) -> bytes:
            if path is None:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "no")
            file.write(struct.pack(">I", len(request)) + request)
            return b""

        handlers = {"Export": grpc.unary_unary_rpc_method_handler(export)}
        server = grpc.server(ThreadPoolExecutor(1), options=LIMIT)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(f"127.0.0.1:{port}")
        server.start()
        print("ready", flush=True)
        signal.sigwait([signal.SIGTERM])
        server.stop(1).wait()


@contextmanager
def running(*arguments: str, until: str) -> Iterator[dict[str, str]]:
    """A process that has printed a line that begins so; gives its lines by their first words."""
    with subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = {}
        for line in process.stdout:
            word, _, rest = line.strip().partition(" ")
            said[word] = rest.strip()
            if word == until:
                break
        yield {**said, "pid": str(process.pid)}
        process.terminate()


def server(db: Path, *export: str) -> Any:
    ports = ("--grpc-port", "0", "--http-port", "0")
    return running("-m", "clew", "serve", "--db", str(db), *ports, *export, until="data")


def taking(port: int, path: Path | None) -> Any:
    into = ("--into", str(path)) if path else ()
    return running(__file__, "--sink", str(port), *into, until="ready")


@contextmanager
def target(kind: str, port: int, got: Path) -> Iterator[None]:
    """What is at the port while spans come in."""
    if kind in ("none", "down"):
        yield
    elif kind == "hangs":
        with socket.create_server(("127.0.0.1", port)):
            yield
    else:
        with taking(port, got if kind == "up" else None):
            yield


class Load(NamedTuple):
    """Spans a second, until all are answered, and the seconds of processors that the server used."""

    rate: float
    cpu_s: float


def loaded(said: dict[str, str], requests: Sequence[bytes]) -> Load:
    """Sends them to the server that has said so."""
    cpu_before_s = cpu_s(int(said["pid"]))
    rate = rate_of(said["OTLP/gRPC"], requests)
    return Load(rate, cpu_s(int(said["pid"])) - cpu_before_s)


def cpu_s(pid: int) -> float:
    """Of the process and its children."""
    process = psutil.Process(pid)
    return sum(sum(each.cpu_times()[:2]) for each in (process, *process.children(recursive=True)))


def rate_of(target: str, requests: Sequence[bytes]) -> float:
    """Spans a second, until all are answered."""
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(SENDERS) as senders:
        export = channel.unary_unary(f"/{SERVICE}/Export")
        began = time.perf_counter()
        for _ in senders.map(lambda request: export(request, timeout=120), requests):
            pass
        return len(requests) * REQUEST_SPANS / (time.perf_counter() - began)


def caught_up(api: str, spans: int) -> float:
    """Waits until the target has so many spans; gives the seconds."""
    began = time.perf_counter()
    while True:
        answer = httpx.get(api.replace("/api/runs", "/api/exports"), timeout=120, trust_env=False)
        if answer.json()["exports"][0]["sent"] >= spans:
            return time.perf_counter() - began
        time.sleep(0.2)


def round_of(kind: str, folder: Path, requests: Sequence[bytes]) -> tuple[Load, float | None]:
    """The load and, for a target that comes up, spans a second while it catches up."""
    port, got = free_port(), folder / "got"
    export = () if kind == "none" else ("--export", f"otlp-grpc://127.0.0.1:{port}?signals=traces")
    spans = len(requests) * REQUEST_SPANS
    with target(kind, port, got), server(folder / "x.duckdb", *export) as said:
        load = loaded(said, requests)
        if kind != "down":
            return load, None
        with taking(port, got):
            seconds = caught_up(said["API"], spans)
    committed = ids_committed(folder / "x.duckdb")
    for ids in ids_in(got):
        assert sorted(ids) == sorted(committed[: len(ids)]), "in the order of commits"
        del committed[: len(ids)]
    assert not committed, "every span"
    return load, spans / seconds


def ids_in(path: Path) -> Iterator[list[tuple[str, str]]]:
    """Those of the spans of each request that a sink got, in its order."""
    content = memoryview(path.read_bytes())
    while content:
        [size] = struct.unpack_from(">I", content)
        request = ExportTraceServiceRequest.FromString(content[4 : 4 + size])
        content = content[4 + size :]
        spans = (span for block in request.resource_spans for scope in block.scope_spans for span in scope.spans)
        yield [(span.trace_id.hex(), span.span_id.hex()) for span in spans]


def ids_committed(path: Path) -> list[tuple[str, str]]:
    """Those of the spans in the file, in the order of commits."""
    store = Store.open(str(path))
    in_order = "SELECT CAST(run_id AS TEXT) r, event_id_text(id) e FROM execution_events ORDER BY stored_at_unix_nano, "
    with store.read() as reader:
        rows = reader.rows(text(in_order + "started_at_unix_nano, run_id, id"))
        ids = [(row["r"].replace("-", ""), row["e"]) for row in rows]
    store.close()
    return ids


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sink", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--into", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sink:
        sink(arguments.sink, arguments.into)
        return
    requests = [request_of_runs(f"agents-{number % 5}", 0) for number in range(arguments.spans // REQUEST_SPANS)]
    loads: dict[str, list[Load]] = {kind: [] for kind in KINDS}
    catching_up = []
    for _ in range(arguments.rounds):
        for kind in KINDS:
            with tempfile.TemporaryDirectory() as folder:
                load, caught = round_of(kind, Path(folder), requests)
            loads[kind].append(load)
            catching_up += [caught] if caught else []
    medians = {
        kind: [statistics.median(of_all) for of_all in zip(*all_of, strict=True)] for kind, all_of in loads.items()
    }
    rate, used_s = medians["none"]
    told = {"none_spans_per_s": round(rate), "catching_up_spans_per_s": round(statistics.median(catching_up))}
    for kind in KINDS[1:]:
        told |= {f"{kind}_rate": round(medians[kind][0] / rate, 3), f"{kind}_cpu": round(medians[kind][1] / used_s, 3)}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
