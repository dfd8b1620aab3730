"""How long searches over all events take: one attribute, with a value that events have and one that none has, service
and duration, figures by agent and model, with usage and without.

    python bench/search_latency.py --db events.duckdb --events 10000000 --compact
    python bench/search_latency.py --http http://127.0.0.1:4318 --grpc 127.0.0.1:4317 --rate 60000

The first asks a file that no server holds, by SQL on `Store.read()`; --events adds so many to it before, in runs of 32,
and --compact makes all of them quick to search, as a server does when it is idle. The second asks a server over HTTP;
with --rate it asks again beside a writer that sends so many spans a second. Each question is asked --queries times, for
another value each time. Prints percentiles in milliseconds as one JSON line a state.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import httpx
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sender import sending
from sqlalchemy import text

from clew.collector.projection import read_requests
from clew.storage import Store

RUN_EVENTS = 32
REQUEST_EVENTS = 8192
SERVICES, USERS = 5, 5000
AGENTS = ("planner", "engineer", "researcher", "critic")
MODELS = ("gpt-4o", "claude-sonnet-4", "gemini-2.5-pro")

Ask = Callable[[], object]

BY_ATTRIBUTE = text("""
    SELECT run_id, id FROM execution_events WHERE attributes."user.id"::VARCHAR = :user
    ORDER BY started_at_unix_nano DESC LIMIT 50
""")
COUNT_BY_ATTRIBUTE = text('SELECT count(*) FROM execution_events WHERE attributes."user.id"::VARCHAR = :user')
BY_SERVICE = text("""
    SELECT run_id, id FROM execution_events
    WHERE resource_id IN (SELECT id FROM resources WHERE service_name = :service) AND duration_ns > :longer
    ORDER BY started_at_unix_nano DESC LIMIT 50
""")
BY_AGENT = text("""
    SELECT agent_name, model, count(*), count(*) FILTER (status = 'failed'), sum(input_tokens), sum(output_tokens),
           quantile_cont(duration_ns, [0.5, 0.99])
    FROM execution_events GROUP BY ALL
""")


def request(number: int, chance: random.Random) -> ExportTraceServiceRequest:
    """REQUEST_EVENTS spans of one service that start now: agents that call models, one in sixteen in vain."""
    built = ExportTraceServiceRequest()
    block = built.resource_spans.add()
    block.resource.attributes.add(key="service.name").value.string_value = f"agents-{number % SERVICES}"
    spans = block.scope_spans.add().spans
    now = time.time_ns()
    for place in range(REQUEST_EVENTS):
        if place % RUN_EVENTS == 0:
            run_id = os.urandom(16)
        span = spans.add(trace_id=run_id, span_id=os.urandom(8), name="chat", start_time_unix_nano=now + place * 1000)
        span.end_time_unix_nano = span.start_time_unix_nano + chance.randrange(10**6, 10**9)
        span.status.code = 2 if place % 16 == 5 else 0
        said = {"gen_ai.operation.name": "chat", "gen_ai.agent.name": chance.choice(AGENTS)}
        said |= {"gen_ai.request.model": chance.choice(MODELS), "user.id": f"user-{chance.randrange(USERS)}"}
        for key, value in said.items():
            span.attributes.add(key=key).value.string_value = value
        span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = chance.randrange(9000)
    return built


def fill(store: Store, events: int) -> None:
    """Stores at least so many events, by transactions of REQUEST_EVENTS."""
    chance = random.Random(1)
    for number in range(-(-events // REQUEST_EVENTS)):
        store.write(read_requests([request(number, chance).SerializeToString()]).batch)


def of_the_store(store: Store) -> dict[str, Ask]:
    """The questions in SQL."""

    def ask(statement: object, **values: Callable[[], object]) -> Ask:
        def asked() -> object:
            with store.read() as reader:
                return reader.arrow(statement, {name: value() for name, value in values.items()})  # type: ignore[arg-type]

        return asked

    return {
        "attribute": ask(BY_ATTRIBUTE, user=_user),
        "attribute_count": ask(COUNT_BY_ATTRIBUTE, user=_user),
        "service_and_duration": ask(BY_SERVICE, service=_service, longer=lambda: random.randrange(9 * 10**8, 10**9)),
        "by_agent_and_model": ask(BY_AGENT),
    }


def of_the_server(http: httpx.Client) -> dict[str, Ask]:
    """The questions over HTTP."""

    def ask(path: str, parameters: Callable[[], dict[str, str]]) -> Ask:
        return lambda: http.get(path, params=parameters()).raise_for_status()

    return {
        "attribute": ask("/api/search", lambda: {"filter": f'attributes["user.id"] = "{_user()}"'}),
        "attribute_of_no_event": ask("/api/search", lambda: {"filter": f'attributes["user.id"] = "{_user()}x"'}),
        "service_and_duration": ask(
            "/api/search", lambda: {"filter": f'service = "{_service()}" and duration > {random.randrange(900, 999)}ms'}
        ),
        "by_agent_and_model": ask("/api/statistics", lambda: {"group_by": "agent,model"}),
        "by_agent_and_model_without_usage": ask(
            "/api/statistics", lambda: {"group_by": "agent,model", "usage": "false"}
        ),
    }


def _user() -> str:
    return f"user-{random.randrange(USERS)}"


def _service() -> str:
    return f"agents-{random.randrange(SERVICES)}"


def latencies(questions: dict[str, Ask], queries: int) -> dict[str, dict[str, float]]:
    """Percentiles of each question, in milliseconds; asked once before, so that the file is in memory."""
    return {name: _percentiles(sorted(_taken(ask, queries))) for name, ask in questions.items()}


def _taken(ask: Ask, queries: int) -> Iterator[float]:
    ask()
    for _ in range(queries):
        began = time.perf_counter()
        ask()
        yield (time.perf_counter() - began) * 1000


def _percentiles(taken: list[float]) -> dict[str, float]:
    return {f"p{q}_ms": round(taken[min(len(taken) - 1, len(taken) * q // 100)], 1) for q in (50, 99)}


def ask_the_file(arguments: argparse.Namespace) -> None:
    with closing(Store.open(arguments.db)) as store:
        fill(store, arguments.events)
        while arguments.compact and (store.compact() or store.note_texts()):
            pass
        print(json.dumps({"idle": latencies(of_the_store(store), arguments.queries)}))


def ask_the_server(arguments: argparse.Namespace) -> None:
    with httpx.Client(base_url=arguments.http, timeout=60, trust_env=False) as http:
        print(json.dumps({"idle": latencies(of_the_server(http), arguments.queries)}), flush=True)
        if arguments.rate:
            with sending(arguments.grpc, arguments.rate) as beside:
                figures = latencies(of_the_server(http), arguments.queries)
            print(json.dumps({"beside": beside, "ingesting": figures}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--db", help="a file that no server holds")
    where.add_argument("--http", help="a running server")
    parser.add_argument("--events", type=int, default=0, help="add so many to the file before")
    parser.add_argument("--compact", action="store_true", help="compact the file before")
    parser.add_argument("--grpc", default="127.0.0.1:4317")
    parser.add_argument("--rate", type=float, default=0, help="spans a second of the writer beside")
    parser.add_argument("--queries", type=int, default=50)
    arguments = parser.parse_args()
    if arguments.db:
        ask_the_file(arguments)
    else:
        ask_the_server(arguments)


if __name__ == "__main__":
    main()
