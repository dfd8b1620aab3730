"""Usage that is written down, on arrival or later, is what would be worked out, whatever comes in between."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import text

from clew.collector.projection import read_requests
from clew.query.figures import figures
from clew.query.figures_parameters import FiguresWanted
from clew.storage import PreparedBatch, Store, Upkeep, counting
from clew.storage.arriving_usage import LEVELS_MAX
from clew.storage.counting import count_portion

from . import log_requests

START = 10**18
DEADLINE_S = 60

Spans = list[tuple[int, int | None, str | None, int | None]]  # number, parent, agent, input tokens

spans_said = (st.sampled_from([None, "planner", "engineer"]), st.none() | st.integers(0, 100))
spans = st.lists(
    st.tuples(st.integers(1, 9), st.none() | st.integers(1, 9), *spans_said),
    min_size=1,
    max_size=6,
    unique_by=lambda span: span[0],
)


branching = st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, 3, 99]), *spans_said), min_size=1, max_size=8)


def trees(drawn: list[tuple[int | None, str | None, int | None]]) -> Spans:
    """Spans none of which is above itself; parents are some way before them, or nowhere."""
    places = [None if back is None else number - back for number, (back, _, _) in enumerate(drawn, 1)]
    parents = [place if place is None or place > 0 else 99 for place in places]
    return [
        (n, None if p == n else p, agent, tokens)
        for n, (p, (_, agent, tokens)) in enumerate(zip(parents, drawn, strict=True), 1)
    ]


def send(store: Store, some: Spans, *, run: int = 1, counted: bool = False) -> None:
    """Stores these spans of a run in one transaction, and nothing of their usage unless it is to be `counted`."""
    batch = read_requests([request(some, run)]).batch
    store.write(batch if counted else uncounted(batch))


def uncounted(batch: PreparedBatch) -> PreparedBatch:
    """The batch with nothing worked out of its usage."""
    told = ["usage_counts", "usage_agent_name"]
    names = [name for name in batch.events.names if name not in told]
    events = replace(batch.events, rows=batch.events.rows.drop_columns(told), names=names)
    runs = batch.runs.drop_columns("usage_revision")
    return replace(batch, events=events, runs=runs.append_column("usage_revision", pa.nulls(len(runs), pa.int64())))


def request(some: Spans, run: int) -> bytes:
    built = ExportTraceServiceRequest()
    block = built.resource_spans.add().scope_spans.add()
    for number, parent, agent, tokens in some:
        span = block.spans.add(trace_id=run.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="step")
        span.parent_span_id = b"" if parent is None else parent.to_bytes(8, "big")
        span.start_time_unix_nano = span.end_time_unix_nano = START + number
        if agent is not None:
            span.attributes.add(key="gen_ai.agent.name").value.string_value = agent
        if tokens is not None:
            span.attributes.add(key="gen_ai.usage.input_tokens").value.int_value = tokens
    return built.SerializeToString()


def used(store: Store) -> Any:
    with store.read() as reader:
        groups = figures(reader, FiguresWanted.model_validate({"group_by": "run_id,agent"}))["groups"]
        return sorted((str(group["group"]), group["usage"]) for group in groups)


def written_down(store: Store, *, run: int | None = None) -> list[Any]:
    """What is written of the events, by their number, where it holds; of one run's, if told."""
    question = """
        SELECT e.id, usage_counts, usage_agent_name FROM execution_events e JOIN workflow_runs r ON r.id = e.run_id
        WHERE r.usage_revision = r.revision AND usage_counts IS NOT NULL AND r.id = coalesce(CAST(:run AS UUID), r.id)
        ORDER BY e.id
    """
    run_id = None if run is None else str(UUID(int=run))
    with store.read() as reader:
        return [tuple(row.values()) for row in reader.rows(text(question).bindparams(run=run_id))]


def count_all(store: Store) -> None:
    while store.count_usage():
        pass


@settings(max_examples=8, deadline=None)
@given(portions=st.lists(st.tuples(spans, st.integers(1, 2), st.booleans()), min_size=1, max_size=4))
def test_answers_are_the_same_before_and_after(
    tmp_path_factory: pytest.TempPathFactory, portions: list[tuple[Spans, int, bool]]
) -> None:
    """Whatever of two runs is counted, on arrival or before more of them comes, the figures are those of nothing being
    counted."""
    folder = tmp_path_factory.mktemp("counted")
    with closing(Store.open(str(folder / "a"))) as counted, closing(Store.open(str(folder / "b"))) as plain:
        for some, run, is_counted in portions:
            send(plain, some, run=run)
            send(counted, some, run=run, counted=True)
            if is_counted:
                count_all(counted)
            assert used(counted) == used(plain)
        count_all(counted)
        assert used(counted) == used(plain)
        assert counted.count_usage() == 0


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    with closing(Store.open(str(tmp_path_factory.mktemp("shared") / "clew.duckdb"))) as store:
        yield store


_NEXT_RUN = count(1)


@settings(max_examples=60, deadline=None)
@given(drawn=branching)
def test_runs_that_arrive_whole_are_counted(shared_store: Store, drawn: list[Any]) -> None:
    """What is stored with them is what counting later writes down."""
    whole, later = next(_NEXT_RUN), next(_NEXT_RUN)
    send(shared_store, trees(drawn), run=whole, counted=True)
    assert shared_store.count_usage() == 0
    send(shared_store, trees(drawn), run=later)
    assert shared_store.count_usage() == 1
    assert written_down(shared_store, run=whole) == written_down(shared_store, run=later)


@pytest.mark.parametrize(
    "unclear",
    [
        [(1, None, "planner", None), (2, 1, None, 3), (2, 1, "engineer", 4)],
        [(1, 2, None, None), (2, 1, None, 3)],
        [
            (1, None, "planner", None),
            *((n, n - 1, None, None) for n in range(2, LEVELS_MAX + 2)),
            (99, LEVELS_MAX + 1, None, 1),
        ],
    ],
    ids=["a span id twice", "a ring", "deep"],
)
def test_what_is_not_clear_on_arrival_is_counted_later(store: Store, unclear: Spans) -> None:
    """Beside another run that is."""
    batch = read_requests([request(unclear, 1), request([(1, None, "planner", 50)], 2)]).batch
    store.write(batch)
    assert written_down(store) == [(1, True, "planner")]
    count_all(store)
    assert len(written_down(store)) > 1


def test_log_records_of_a_run_change_no_usage(store: Store) -> None:
    """What holds of its events holds when records of it come beside; what does not hold does not then either."""
    send(store, [(1, None, "planner", 50)], run=log_requests.RUN.int, counted=True)
    log_requests.send(store, log_requests.request(log_requests.record()))
    assert written_down(store) == [(1, True, "planner")]
    send(store, [(2, 1, None, 30)], run=log_requests.RUN.int, counted=True)
    log_requests.send(store, log_requests.request(log_requests.record("more")))
    assert written_down(store) == []


def test_spans_after_log_records_of_their_run_are_counted_later(store: Store) -> None:
    """The run is there before them."""
    log_requests.send(store, log_requests.request(log_requests.record()))
    send(store, [(1, None, "planner", 50)], run=log_requests.RUN.int, counted=True)
    assert written_down(store) == []
    count_all(store)
    assert written_down(store) == [(1, True, "planner")]


def test_each_event_says_whether_it_counts_and_for_whom(store: Store) -> None:
    """The agent's sum does not, its call does, for the agent."""
    send(store, [(1, None, "planner", 50), (2, 1, None, 30), (3, 1, None, None)])
    count_all(store)
    assert written_down(store) == [(1, False, "planner"), (2, True, "planner")]


def test_what_comes_meanwhile_is_not_passed_over(store: Store) -> None:
    """A run that is written to while its usage is worked out is worked out again."""
    send(store, [(1, None, "planner", 50)])
    with store.read() as reader:
        portion = count_portion(reader)
    send(store, [(2, 1, None, 30)])
    store._writer.write_usage(portion)
    assert written_down(store) == []
    count_all(store)
    assert written_down(store) == [(1, False, "planner"), (2, True, "planner")]


def test_long_runs_are_left_out(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written down of them, also where it was while they were short; they are told the same."""
    monkeypatch.setattr(counting, "_OLDEST", counting._oldest(events_max=2))
    send(store, [(1, None, "planner", 50)])
    count_all(store)
    send(store, [(2, 1, None, 30), (3, None, None, 1)])
    count_all(store)
    assert written_down(store) == []
    assert [usage["input_tokens"] for _, usage in used(store)] == [30, 1]


def test_portion_after_portion(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a portion, each run is in one of them."""
    monkeypatch.setattr(counting, "PORTION_EVENTS", 1)
    for run in range(1, 4):
        send(store, [(1, None, "planner", 50), (2, 1, None, 30)], run=run)
    assert [store.count_usage() for _ in range(4)] == [1, 1, 1, 0]
    assert len(written_down(store)) == 6


def test_a_store_counts_by_itself(store: Store) -> None:
    """Once writes leave it time."""
    send(store, [(1, None, "planner", 50), (2, 1, None, 30)])
    done, patience = Event(), DEADLINE_S
    with closing(Upkeep(store, idle_s=0.01)):
        while not written_down(store) and patience > 0:
            patience -= done.wait(0.05) or 0.05
    assert len(written_down(store)) == 2


def test_a_fault_does_not_end_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails for want of memory is told, and done another time."""
    send(store, [(1, None, "planner", 50)])
    with closing(Upkeep(store, idle_s=DEADLINE_S)) as upkeep, monkeypatch.context() as fault:
        fault.setattr(counting, "PORTION_EVENTS", object())
        assert (upkeep._step(), written_down(store)) == (DEADLINE_S, [])
        assert "nothing is lost" in caplog.text
        fault.undo()
        upkeep._step()
    assert len(written_down(store)) == 1


def test_counting_outlives_the_process(tmp_path: Path) -> None:
    """What was written down holds after the file was closed and opened."""
    path = str(tmp_path / "clew.duckdb")
    with closing(Store.open(path)) as store:
        send(store, [(1, None, "planner", 50)])
        count_all(store)
    with closing(Store.open(path)) as store:
        assert (store.count_usage(), len(written_down(store))) == (0, 1)
