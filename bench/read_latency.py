"""How long a whole run takes to read over HTTP, idle and while spans are being written.

    python bench/read_latency.py --http http://127.0.0.1:4318 --grpc 127.0.0.1:4317 --events 1000000

Sends runs of 32 events, --events in all, to a server that may hold others already. Then reads the trees of random runs
of all that are there, one after the other, first with nothing else going on, then beside a writer that sends --rate
spans a second. Prints percentiles in milliseconds as one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RUN_EVENTS = 32
REQUEST_RUNS = 16


def request_of_runs() -> bytes:
    """A serialised request of REQUEST_RUNS runs that start now."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for _ in range(REQUEST_RUNS):
        run_id, root = os.urandom(16), os.urandom(8)
        now = time.time_ns()
        for number in range(RUN_EVENTS):
            span = spans.add(trace_id=run_id, span_id=os.urandom(8) if number else root, name=f"step {number}")
            span.parent_span_id = root if number else b""
            span.start_time_unix_nano, span.end_time_unix_nano = now + number * 1000, now + 10**6
            for key in ("gen_ai.agent.name", "gen_ai.request.model", "user.id", "session.id"):
                attribute = span.attributes.add(key=key)
                attribute.value.string_value = f"{key} {random.randrange(100)}"
    return request.SerializeToString()


class Writer:
    """Sends requests of runs."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.insecure_channel(target, options=[("grpc.max_send_message_length", 64 << 20)])
        self._export = self._channel.unary_unary(EXPORT)

    def send(self, _: int = 0) -> None:
        self._export(request_of_runs(), timeout=60)

    def fill(self, events: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(self.send, range(events // (REQUEST_RUNS * RUN_EVENTS))))

    def keep_sending(self, spans_per_s: float, over: threading.Event) -> None:
        pause = REQUEST_RUNS * RUN_EVENTS / spans_per_s
        while not over.wait(pause):
            self.send()


def known_runs(http: str, most: int) -> list[str]:
    """The ids of the newest `most` runs."""
    run_ids: list[str] = []
    cursor = {}
    with httpx.Client(base_url=http, timeout=60) as client:
        while len(run_ids) < most:
            page = client.get("/api/runs", params={"limit": 1000, **cursor}).raise_for_status().json()
            run_ids += [run["id"] for run in page["runs"]]
            if not page["next_cursor"]:
                break
            cursor = {"cursor": page["next_cursor"]}
    return run_ids


def read_trees(http: str, run_ids: list[str], reads: int) -> dict[str, float]:
    """Percentiles, in milliseconds, of reading one tree after the other."""
    taken = []
    with httpx.Client(base_url=http, timeout=60) as client:
        for run_id in random.choices(run_ids, k=reads):
            began = time.perf_counter()
            tree = client.get(f"/api/runs/{run_id}/tree").raise_for_status().json()
            taken.append((time.perf_counter() - began) * 1000)
            assert tree["event_count"] == len(tree["events"]) > 0
    taken.sort()
    return {f"p{q}_ms": round(taken[min(reads - 1, reads * q // 100)], 1) for q in (50, 90, 99, 100)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--http", default="http://127.0.0.1:4318")
    parser.add_argument("--grpc", default="127.0.0.1:4317")
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=200_000, help="read from this many of the newest runs")
    parser.add_argument("--reads", type=int, default=500)
    parser.add_argument("--rate", type=float, default=10_000, help="spans a second of the writer beside")
    arguments = parser.parse_args()
    writer = Writer(arguments.grpc)
    writer.fill(arguments.events)
    run_ids = known_runs(arguments.http, arguments.runs)
    print(json.dumps({"runs": len(run_ids), "idle": read_trees(arguments.http, run_ids, arguments.reads)}))
    over = threading.Event()
    beside = threading.Thread(target=writer.keep_sending, args=(arguments.rate, over))
    beside.start()
    try:
        figures = read_trees(arguments.http, run_ids, arguments.reads)
    finally:
        over.set()
        beside.join()
    print(json.dumps({"spans_per_s_beside": arguments.rate, "ingesting": figures}))


if __name__ == "__main__":
    main()
