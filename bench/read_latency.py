"""How long a whole run takes to read over HTTP, idle and while spans are being written.

    python bench/read_latency.py --http http://127.0.0.1:4318 --grpc 127.0.0.1:4317 --events 1000000

Sends runs of 32 events, --events in all, to a server that may hold others already. Then reads the trees of random runs
of all that are there, one after the other, first with nothing else going on, then beside a writer that sends --rate
spans a second. Prints percentiles in milliseconds as one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
from sender import EXPORT, REQUEST_RUNS, RUN_EVENTS, fresh, sending, template


def fill(target: str, events: int) -> None:
    """Sends at least so many spans, as fast as they are taken."""
    request = template(0)
    with grpc.insecure_channel(target) as channel, ThreadPoolExecutor(8) as pool:
        export = channel.unary_unary(EXPORT)
        requests = range(-(-events // (REQUEST_RUNS * RUN_EVENTS)))
        list(pool.map(lambda _: export(fresh(request), timeout=60), requests))


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
    fill(arguments.grpc, arguments.events)
    run_ids = known_runs(arguments.http, arguments.runs)
    print(json.dumps({"runs": len(run_ids), "idle": read_trees(arguments.http, run_ids, arguments.reads)}))
    with sending(arguments.grpc, arguments.rate) as beside:
        figures = read_trees(arguments.http, run_ids, arguments.reads)
    print(json.dumps({"beside": beside, "ingesting": figures}))


if __name__ == "__main__":
    main()
