"""What a conversation costs to store.

    python bench/conversation.py --turns 1,50,100,200 --words 400 --others 1000

Each turn is a call to a model: the question, all that was said before, and the answer, as OTel GenAI tells them. Calls
are stored one by one into a fresh file; with --others, so many spans without a conversation come between two calls.
Prints a JSON line for each number of turns: bytes said (every message once), bytes sent (with all repetition), bytes
of the parts that histories are kept as, with their references, and by how much the file is larger than one that holds
the same spans without conversation.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import func, select

from clew.collector.projection import read_requests
from clew.storage import HistoryPart, Store

RUN = bytes(15) + b"\7"
VOCABULARY = [f"{a}{b}{c}" for a in "bdfgklmn" for b in ("a", "e", "io", "ou") for c in ("r", "st", "ve", "lling", "n")]
REQUEST_SPANS = 1_000


def conversation(turns: int, words: int) -> list[dict[str, object]]:
    """Messages of so many words, of user and assistant in turn."""
    chance = random.Random(1)
    return [
        {
            "role": ("user", "assistant")[number % 2],
            "parts": [{"type": "text", "content": " ".join(chance.choices(VOCABULARY, k=words))}],
        }
        for number in range(2 * turns)
    ]


def spans(turns: int, said: list[dict[str, object]], others: int) -> Iterator[Span]:
    """The calls, and others between them; without what was said if `said` is empty."""
    number = 0
    for turn in range(turns):
        yield _span(number := number + 1, f"chat {turn}", _conversation_attributes(said[: 2 * turn + 2]))
        for _ in range(others):
            yield _span(number := number + 1, "work", {"step": f"step {number}"})


def _conversation_attributes(said: list[dict[str, object]]) -> dict[str, str]:
    if not said:
        return {}
    return {"gen_ai.input.messages": json.dumps(said[:-1]), "gen_ai.output.messages": json.dumps(said[-1:])}


def _span(number: int, name: str, attributes: dict[str, str]) -> Span:
    start = 10**18 + number * 10**6
    times = {"start_time_unix_nano": start, "end_time_unix_nano": start + 10**5}
    span = Span(trace_id=RUN, span_id=number.to_bytes(8, "big"), name=name, **times)
    for key, value in {"session.id": "bench", "gen_ai.operation.name": "chat", **attributes}.items():
        span.attributes.add(key=key).value.string_value = value
    return span


def stored(path: Path, given: Iterator[Span]) -> tuple[int, int]:
    """Stores each call by itself, and what comes between two in requests; gives the size of the file and of parts."""
    store = Store.open(str(path))
    waiting: list[Span] = []
    for span in given:
        waiting.append(span)
        if span.name != "work" or len(waiting) == REQUEST_SPANS:
            _store(store, waiting)
            waiting = []
    if waiting:
        _store(store, waiting)
    with store.read() as reader:
        length = func.coalesce(func.sum(func.length(HistoryPart.text)), 0)
        references = func.coalesce(func.sum(func.len(HistoryPart.parts)), 0)
        [row] = reader.rows(select((length + 16 * references).label("bytes")))
    store.close()
    return path.stat().st_size, int(row["bytes"])


def _store(store: Store, waiting: list[Span]) -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add(spans=waiting)
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    store.write(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", default="1,50,100,200", help="numbers of turns, with commas between")
    parser.add_argument("--words", type=int, default=400, help="of a message")
    parser.add_argument("--others", type=int, default=0, help="spans between two calls")
    options = parser.parse_args()
    for turns in map(int, options.turns.split(",")):
        said = conversation(turns, options.words)
        with tempfile.TemporaryDirectory() as folder:
            file_bytes, part_bytes = stored(Path(folder) / "with.duckdb", spans(turns, said, options.others))
            without_bytes, _ = stored(Path(folder) / "without.duckdb", spans(turns, [], options.others))
        calls = (_conversation_attributes(said[: 2 * turn + 2]) for turn in range(turns))
        figures = {
            "turns": turns,
            "said_bytes": sum(len(json.dumps(message)) for message in said),
            "sent_bytes": sum(len(value) for call in calls for value in call.values()),
            "part_bytes": part_bytes,
            "file_bytes": file_bytes,
            "file_bytes_more": file_bytes - without_bytes,
        }
        sys.stdout.write(json.dumps(figures) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
