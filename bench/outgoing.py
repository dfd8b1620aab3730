"""How fast stored spans become OTLP requests again, beside how fast they are stored.

    python bench/outgoing.py --spans 200000

Stores spans of an agent's run through the intake, into a file of its own, and walks on behind them as a worker that
sends them on does, in turns: so both rates are from one run, and whatever else the machine does slows both. Prints the
rates, in spans a second, and their ratio as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from clew.collector.intake import Intake
from clew.exporter.outgoing import Position, Signal, outgoing
from clew.storage import Store

REQUEST_SPANS = 500
RUN_SPANS = 20
AGENTS = ("planner", "engineer", "researcher", "critic")
MODELS = ("gpt-4o", "claude-sonnet-4", "gemini-2.5-pro")


def says(number: int) -> dict[str, str | int | float | bool | list[str]]:
    """The attributes of a turn of an agent, a model call, a tool call or a database call."""
    common = {"session.id": f"session-{random.randrange(200)}", "user.id": f"user-{random.randrange(5000)}"}
    of_kind: tuple[dict[str, str | int | float | bool | list[str]], ...] = (
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": random.choice(AGENTS)},
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": random.choice(MODELS),
            "gen_ai.usage.input_tokens": random.randrange(1, 9000),
            "gen_ai.usage.output_tokens": random.randrange(1, 2000),
            "gen_ai.request.temperature": random.random(),
            "gen_ai.response.finish_reasons": ["stop"],
        },
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "search",
            "gen_ai.tool.call.arguments": json.dumps({"q": f"term {random.randrange(10**6)}"}),
        },
        {
            "db.system.name": "postgresql",
            "db.query.text": f"select * from orders where id = {random.randrange(10**7)}",
            "server.port": 5432,
        },
    )
    return {**of_kind[number % 4], **common, "retry": random.random() < 0.05}


def any_value(value: str | float | bool | list[str]) -> AnyValue:
    match value:
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case str():
            return AnyValue(string_value=value)
    return AnyValue(array_value=ArrayValue(values=map(any_value, value)))


def request_of_runs(service: str, wide: int) -> bytes:
    """A serialised request of REQUEST_SPANS spans, RUN_SPANS a run, with `wide` attributes more each; one of 16 has a
    span event."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    block.resource.attributes.add(key="service.name", value=AnyValue(string_value=service))
    spans = block.scope_spans.add().spans
    now = time.time_ns()
    for number in range(REQUEST_SPANS):
        if number % RUN_SPANS == 0:
            run_id, parent = os.urandom(16), b""
        span = spans.add(trace_id=run_id, span_id=os.urandom(8), parent_span_id=parent, name=f"step {number % 40}")
        parent = parent or span.span_id
        span.kind, span.start_time_unix_nano, span.end_time_unix_nano = 1 + number % 3, now + number, now + 10**6
        more = {f"app.field_{place}": f"value {random.randrange(1000)}" for place in range(wide)}
        for key, value in {**says(number), **more}.items():
            span.attributes.add(key=key, value=any_value(value))
        if number % 16 == 5:
            span.status.code, span.status.message = 2, "tool failed"
            moment = Span.Event(name="exception", time_unix_nano=now + number)
            moment.attributes.add(key="exception.type", value=AnyValue(string_value="TimeoutError"))
            span.events.append(moment)
    return request.SerializeToString()


def stored_in(intake: Intake, requests: list[bytes]) -> float:
    """Seconds until all are answered."""
    began = time.perf_counter()
    for answer in [intake.accept(request) for request in requests]:
        answer.result(60)
    return time.perf_counter() - began


def walked_in(store: Store, after: Position) -> tuple[float, int, int, Position]:
    """Seconds to get to the end, the spans and bytes on the way, and where that is."""
    spans = size = 0
    began = time.perf_counter()
    while True:
        with store.read() as reader:
            portion = outgoing(reader, Signal.TRACES, after)
        if portion is None:
            return time.perf_counter() - began, spans, size, after
        spans, size, after = spans + portion.records, size + len(portion.request), portion.position


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--wide", type=int, default=0, help="so many attributes more for each span")
    arguments = parser.parse_args()
    count = max(1, arguments.spans // arguments.rounds // REQUEST_SPANS)
    ingest_s = encode_s = 0.0
    spans = size = 0
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(str(Path(folder) / "clew.duckdb"))
        intake = Intake(store)
        after = Position.at(0)
        for _ in range(arguments.rounds):
            requests = [request_of_runs(f"agents-{number % 5}", arguments.wide) for number in range(count)]
            ingest_s += stored_in(intake, requests)
            seconds, walked, octets, after = walked_in(store, after)
            encode_s, spans, size = encode_s + seconds, spans + walked, size + octets
        intake.close()
        store.close()
    assert spans == arguments.rounds * count * REQUEST_SPANS, "every span goes on once"
    rates = {"ingest_spans_per_s": spans / ingest_s, "encode_spans_per_s": spans / encode_s}
    told = {"spans": spans, "bytes_a_span": size / spans, **rates, "encode_by_ingest": ingest_s / encode_s}
    print(json.dumps({name: round(figure, 2) for name, figure in told.items()}))


if __name__ == "__main__":
    main()
