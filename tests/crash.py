"""Kills a server in the middle of a load, again and again, and counts what it had acknowledged.

    python tests/crash.py --rounds 20

Each round starts a real `clew serve` on the same file, sends spans from several threads, kills the server with SIGKILL,
looks for every span ever acknowledged, restarts the server, sends the round's spans again, and looks again: each must
be there exactly once. A process of the server's that outlives it counts as a failure too. Exits 1 on any.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psutil
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import text

from clew.storage import Store

SENDERS = 8
SPANS_PER_REQUEST = 200
LOAD_S = (0.2, 1.5)
READY_S = 60.0
CHILDREN_END_S = 10.0

SpanKey = tuple[str, str]


@dataclass
class Memory:
    """What the senders have sent, by request number, and which requests were acknowledged."""

    sent: dict[int, ExportTraceServiceRequest] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)

    def acknowledged_spans(self) -> Counter[SpanKey]:
        return Counter(key for number in self.acknowledged for key in _keys(self.sent[number]))


class Server(NamedTuple):
    """A `clew serve` that is ready."""

    process: subprocess.Popen[str]
    target: str

    def kill(self) -> list[int]:
        """SIGKILL, as a power cut would; returns the processes of the server's that outlive it."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait()
        _, alive = psutil.wait_procs(children, CHILDREN_END_S)
        return [child.pid for child in alive]

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait()


def start(db: Path) -> Server:
    """Starts a server on `db`. Raises RuntimeError when it does not get ready."""
    arguments = ["serve", "--db", str(db), "--grpc-port", "0", "--http-port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "clew", *arguments], stdout=subprocess.PIPE, text=True, cwd=db.parent
    )
    assert process.stdout
    target = ""
    for line in process.stdout:
        word, _, rest = line.strip().partition(" ")
        target = rest.strip() if word == "OTLP/gRPC" else target
        if word == "data":
            return Server(process, target)
    raise RuntimeError(f"the server ended with code {process.wait()} before it was ready")


def request(number: int) -> ExportTraceServiceRequest:
    """Spans of two runs, one of which the neighbouring requests have as well; every fifth span has events."""
    built = ExportTraceServiceRequest()
    block = built.resource_spans.add().scope_spans.add()
    for place in range(SPANS_PER_REQUEST):
        run = 1 + number // 8 if place % 2 else (1 << 40) + number
        block.spans.add(
            trace_id=run.to_bytes(16, "big"),
            span_id=(number * SPANS_PER_REQUEST + place + 1).to_bytes(8, "big"),
            name=f"request {number}",
            start_time_unix_nano=10**18 + number,
            end_time_unix_nano=10**18 + number + place,
            attributes=[KeyValue(key="place", value=AnyValue(int_value=place))],
            events=[Span.Event(name="moment")] * (place % 5 == 0),
        )
    return built


def load(server: Server, memory: Memory, numbers: range, stop: threading.Event) -> None:
    """Sends the requests of these numbers, one after the other, until told to stop or cut off."""
    with grpc.insecure_channel(server.target) as channel:
        export = TraceServiceStub(channel).Export
        for number in numbers:
            if stop.is_set():
                return
            memory.sent[number] = request(number)
            try:
                answer: ExportTraceServiceResponse = export(memory.sent[number], timeout=READY_S)
            except grpc.RpcError:
                return
            if not answer.partial_success.rejected_spans:
                memory.acknowledged.add(number)


def cut_off(server: Server, memory: Memory, first: int, load_s: float) -> list[int]:
    """Loads the server for so long, kills it; returns the processes that outlive it."""
    stop = threading.Event()
    senders = [
        threading.Thread(target=load, args=(server, memory, range(first + number, first + 10**6, SENDERS), stop))
        for number in range(SENDERS)
    ]
    for sender in senders:
        sender.start()
    time.sleep(load_s)
    left_over = server.kill()
    stop.set()
    for sender in senders:
        sender.join()
    return left_over


def send_again(server: Server, memory: Memory) -> None:
    """Sends everything again, acknowledged or not; raises grpc.RpcError when the server does not take it."""
    with grpc.insecure_channel(server.target) as channel:
        stub = TraceServiceStub(channel)
        for number, again in memory.sent.items():
            stub.Export(again, timeout=READY_S, wait_for_ready=True)
            memory.acknowledged.add(number)


class Stored(NamedTuple):
    """The spans in the file and how often each is there, the runs that count wrongly, the logs without an event."""

    spans: Counter[SpanKey]
    miscounted: list[Any]
    orphaned: list[Any]


def look(db: Path) -> Stored:
    store = Store.open(str(db))
    try:
        with store.read() as reader:
            spans = reader.arrow(text("SELECT trace_id, span_id FROM spans")).to_pydict()
            counted = Counter(zip(spans["trace_id"], spans["span_id"], strict=True))
            return Stored(counted, list(reader.rows(text(_MISCOUNTED))), list(reader.rows(text(_ORPHANED))))
    finally:
        store.close()


_MISCOUNTED = """
    SELECT r.id, r.event_count, count(e.id) FROM workflow_runs r LEFT JOIN execution_events e ON e.run_id = r.id
    GROUP BY ALL HAVING r.event_count <> count(e.id)
"""
_ORPHANED = """
    SELECT l.run_id, l.event_id FROM event_logs l
    ANTI JOIN execution_events e ON e.run_id = l.run_id AND e.id = l.event_id
"""


def _keys(sent: ExportTraceServiceRequest) -> list[SpanKey]:
    return [
        (span.trace_id.hex(), span.span_id.hex())
        for block in sent.resource_spans
        for scope_block in block.scope_spans
        for span in scope_block.spans
    ]


def faults(db: Path, memory: Memory) -> list[str]:
    """What is wrong with the file, in words."""
    stored = look(db)
    found = {
        "acknowledged spans are lost": list(memory.acknowledged_spans() - stored.spans),
        "spans are stored more than once": [key for key, times in stored.spans.items() if times > 1],
        "runs count their events wrongly": stored.miscounted,
        "logs have no event": stored.orphaned,
    }
    return [f"{len(those)} {what}, such as {those[0]}" for what, those in found.items() if those]


def round_of(db: Path, memory: Memory, number: int, load_s: float) -> list[str]:
    """Load, kill, look, restart, send everything again, look; what went wrong."""
    new = Memory()
    said = [f"process {pid} outlives its server" for pid in cut_off(start(db), new, number * 10**6, load_s)]
    memory.sent.update(new.sent)
    memory.acknowledged.update(new.acknowledged)
    said += faults(db, memory)
    restarted = start(db)
    send_again(restarted, new)
    memory.acknowledged.update(new.acknowledged)
    code = restarted.stop()
    if code:
        said.append(f"the restarted server ended with code {code}")
    return said + faults(db, memory)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the times at which the server is killed")
    options = parser.parse_args(arguments)
    moments = random.Random(options.seed)
    memory, failed = Memory(), 0
    with tempfile.TemporaryDirectory(prefix="clew-crash-") as folder, suppress(KeyboardInterrupt):
        for number in range(options.rounds):
            load_s = moments.uniform(*LOAD_S)
            said = round_of(Path(folder) / "clew.duckdb", memory, number, load_s)
            failed += bool(said)
            verdict = "; ".join(said) or "all there, once"
            spans = len(memory.acknowledged) * SPANS_PER_REQUEST
            print(f"round {number + 1}: killed after {load_s:.2f} s, {spans} spans acknowledged so far: {verdict}")
    print(
        f"{failed} of {options.rounds} rounds lost or repeated something" if failed else "nothing lost, nothing twice"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
