"""Which spans are the same span: checked against a slow and obvious model, over several batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.storage import ExecutionEvent, Store, WorkflowRun, WriteOutcome

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=60)


@dataclass(frozen=True)
class Sent:
    """A span as it is sent; `name` tells one sending from another."""

    run: int
    span_id: int
    kind: int
    start: int
    end: int
    failed: bool
    name: str = ""

    @property
    def same(self) -> tuple[int, int, int, int]:
        return self.run, self.span_id, self.kind, self.start


class Model:
    """What is to be stored: of every distinct span the first finished copy, or the first of all."""

    def __init__(self) -> None:
        self.stored: dict[tuple[int, int, int, int], Sent] = {}

    def write(self, batch: list[Sent]) -> WriteOutcome:
        before = dict(self.stored)
        for span in batch:
            known = self.stored.get(span.same)
            if known is None or (not known.end and span.end):
                self.stored[span.same] = span
        new = sum(before.get(same) != span for same, span in self.stored.items())
        replaced = sum(before[same] != self.stored[same] for same in before)
        return WriteOutcome(stored=new, repeated=len(batch) - new, replaced=replaced)


spans = st.builds(
    Sent,
    run=st.integers(0, 1),
    span_id=st.sampled_from([1, 2, 2**63, 2**64 - 1]),
    kind=st.integers(1, 2),
    start=st.sampled_from([0, 5, 2**63 - 1]),
    end=st.sampled_from([0, 7]),
    failed=st.booleans(),
)
histories = st.lists(st.lists(spans, min_size=1, max_size=12), min_size=1, max_size=5)
example_numbers = count(1)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(str(tmp_path_factory.mktemp("identity") / "clew.duckdb"))
    yield opened
    opened.close()


def _named(history: list[list[Sent]]) -> list[list[Sent]]:
    return [
        [replace(span, name=f"{number}.{place}") for place, span in enumerate(batch)]
        for number, batch in enumerate(history)
    ]


def _write(store: Store, batch: list[Sent], run_ids: list[UUID]) -> WriteOutcome:
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add().scope_spans.add()
    for span in batch:
        block.spans.add(
            trace_id=run_ids[span.run].bytes,
            span_id=span.span_id.to_bytes(8, "big"),
            name=span.name,
            kind=span.kind,
            start_time_unix_nano=span.start,
            end_time_unix_nano=span.end,
            status=Status(code=Status.STATUS_CODE_ERROR if span.failed else Status.STATUS_CODE_UNSET),
        )
    read = read_requests([request.SerializeToString()]).batch
    assert read is not None
    return store.write(read)


def _as_text(span_id: int) -> str:
    return f"{span_id:016x}"


@given(history=histories)
@DETERMINISTIC
def test_the_store_keeps_what_an_obvious_model_keeps(shared_store: Store, history: list[list[Sent]]) -> None:
    """After every batch: the outcome, the stored copies, their keys, the span ids and the runs' counts."""
    number = next(example_numbers)
    run_ids = [UUID(int=number << 64 | run) for run in (1, 2)]
    model = Model()
    for batch in _named(history):
        assert _write(shared_store, batch, run_ids) == model.write(batch)
        with shared_store.read() as reader:
            events = reader.rows(select(ExecutionEvent.__table__).where(ExecutionEvent.run_id.in_(run_ids)))
            runs = reader.rows(select(WorkflowRun.__table__).where(WorkflowRun.id.in_(run_ids)))
        kept = model.stored.values()
        assert sorted(event["name"] for event in events) == sorted(span.name for span in kept)
        span_id_of = {event["name"]: event["otel_span_id"] or event["id"] for event in events}
        assert span_id_of == {span.name: _as_text(span.span_id) for span in kept}
        keys = Counter((event["run_id"], event["id"]) for event in events)
        assert set(keys.values()) == {1}
        for span in kept:
            assert keys[run_ids[span.run].hex, _as_text(span.span_id)] == 1, "one of the spans has the id that was sent"
        assert {run["id"]: (run["event_count"], run["error_count"]) for run in runs} == {
            run_ids[run].hex: (
                sum(span.run == run for span in kept),
                sum(span.run == run and span.failed for span in kept),
            )
            for run in {span.run for span in kept}
        }


@given(batch=st.lists(spans, min_size=1, max_size=12))
@DETERMINISTIC
def test_keys_stay_when_spans_are_sent_again(shared_store: Store, batch: list[Sent]) -> None:
    """Sent again in another order, the same spans have the same keys: files and messages may point at them."""
    number = next(example_numbers)
    run_ids = [UUID(int=number << 64 | run) for run in (1, 2)]

    def keys() -> set[tuple[str, str, int, int]]:
        with shared_store.read() as reader:
            statement = select(ExecutionEvent.__table__).where(ExecutionEvent.run_id.in_(run_ids))
            return {(e["run_id"], e["id"], e["kind"], e["started_at_unix_nano"]) for e in reader.rows(statement)}

    [named] = _named([batch])
    _write(shared_store, named, run_ids)
    before = keys()
    _write(shared_store, named[::-1], run_ids)
    assert keys() == before


def _signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number
