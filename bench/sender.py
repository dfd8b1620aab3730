"""Sends runs to a server at a steady rate, from a process of its own: whoever measures beside it is not held up.

    python bench/sender.py --grpc 127.0.0.1:4317 --rate 50000

Requests hold REQUEST_RUNS runs of RUN_EVENTS spans, alike but for ids and times, and cost next to nothing to make.
IN_FLIGHT_MAX of them wait for their answer at most. Ends when its input does, and prints how many spans a second were
answered.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
RUN_EVENTS = 32
REQUEST_RUNS = 16
IN_FLIGHT_MAX = 32
TEMPLATES = 16

# What stands in a template for the first half of run ids, and for when spans start and end.
_RUN, _START, _END = b"\x01run id\x02", 0x1234_5678_9ABC_DEF1, 0x1234_5678_9ABC_DEF2


def template(number: int) -> bytes:
    """A serialised request for `fresh`: agents that call models and tools; one span in 16 fails, with an event."""
    chance = random.Random(number)
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    block.resource.attributes.add(key="service.name").value.string_value = f"agents-{number % 5}"
    spans = block.scope_spans.add().spans
    for place in range(REQUEST_RUNS * RUN_EVENTS):
        run, step = divmod(place, RUN_EVENTS)
        span = spans.add(trace_id=_RUN + run.to_bytes(8, "big"), span_id=(place + 1).to_bytes(8, "big"))
        span.parent_span_id = (run * RUN_EVENTS + 1).to_bytes(8, "big") if step else b""
        span.start_time_unix_nano, span.end_time_unix_nano = _START, _END
        kind = ("invoke_agent", "chat", "execute_tool", "query")[step % 4]
        said = {"gen_ai.operation.name": kind, "user.id": f"user-{chance.randrange(5000)}", "session.id": f"s-{run}"}
        said |= {"gen_ai.agent.name": chance.choice(("planner", "engineer"))} if kind == "invoke_agent" else {}
        said |= {"gen_ai.request.model": chance.choice(("gpt-4o", "claude-sonnet-4"))} if kind == "chat" else {}
        span.name = kind
        for key, value in said.items():
            span.attributes.add(key=key).value.string_value = value
        if kind == "chat":
            span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = chance.randrange(9000)
        if step % 16 == 5:
            span.status.code = 2
            span.events.add(name="exception", time_unix_nano=_END)
    return request.SerializeToString()


def fresh(request: bytes) -> bytes:
    """The template as runs of their own that start now."""
    now = time.time_ns()
    for mark, value in ((_START, now), (_END, now + 10**6 * random.randrange(1, 1000))):
        request = request.replace(mark.to_bytes(8, "little"), value.to_bytes(8, "little"))
    return request.replace(_RUN, os.urandom(8))


@contextmanager
def sending(target: str, rate: float) -> Iterator[dict[str, float]]:
    """Sends so many spans a second meanwhile; afterwards `spans_per_s` of what it gives is how many were answered."""
    command = [sys.executable, __file__, "--grpc", target, "--rate", str(rate)]
    answered: dict[str, float] = {}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sender:
        yield answered
        answered |= json.loads(sender.communicate()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", default="127.0.0.1:4317")
    parser.add_argument("--rate", type=float, default=10_000, help="spans a second")
    arguments = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    print(json.dumps({"spans_per_s": round(_send(arguments.grpc, arguments.rate, over))}))


def _send(target: str, rate: float, over: threading.Event) -> float:
    templates = [template(number) for number in range(TEMPLATES)]
    in_flight = threading.Semaphore(IN_FLIGHT_MAX)
    answers: list[grpc.Future] = []
    began = time.perf_counter()
    with grpc.insecure_channel(target) as channel:
        export = channel.unary_unary(EXPORT)
        while not over.wait(max(0, began + len(answers) * REQUEST_RUNS * RUN_EVENTS / rate - time.perf_counter())):
            in_flight.acquire()
            answers.append(export.future(fresh(templates[len(answers) % TEMPLATES]), timeout=60))
            answers[-1].add_done_callback(lambda _: in_flight.release())
        for answer in answers:
            answer.result()
    return len(answers) * REQUEST_RUNS * RUN_EVENTS / (time.perf_counter() - began)


if __name__ == "__main__":
    main()
