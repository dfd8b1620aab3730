"""What goes on to other backends: everything, in the order of commits, equal to what came in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import ColumnElement, Integer, cast, text

from clew.collector.log_records import read_log_requests
from clew.collector.metric_points import read_metric_requests
from clew.collector.projection import read_requests
from clew.exporter.outgoing import Outgoing, Position, Signal, outgoing, waiting
from clew.storage import ExecutionEvent, Store

from . import test_compacting, test_ingest_metrics, test_lossless, test_lossless_logs
from .any_otlp import DETERMINISTIC, int64s
from .log_requests import record, send
from .log_requests import request as log_request

START = 10**18
BEGINNING = Position.at(0)
REQUESTS = {
    Signal.TRACES: ExportTraceServiceRequest,
    Signal.LOGS: ExportLogsServiceRequest,
    Signal.METRICS: ExportMetricsServiceRequest,
}


def commit(store: Store, *spans: Span) -> int:
    """Stores the spans in one commit; returns its stamp."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add(spans=spans)
    store.write(read_requests([request.SerializeToString()]).batch)
    return store.commits.last


def span(number: int, *, run: int = 1, start: int | None = None, ended: bool = True, **said: AnyValue) -> Span:
    began = START + number if start is None else start
    return Span(
        trace_id=run.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        name=f"span {number}",
        start_time_unix_nano=began,
        end_time_unix_nano=began + 1 if ended else 0,
        attributes=[KeyValue(key=key, value=value) for key, value in said.items()],
    )


def portions(
    store: Store,
    signal: Signal = Signal.TRACES,
    after: Position = BEGINNING,
    *,
    where: ColumnElement[bool] | None = None,
    **limits: int,
) -> Iterator[Outgoing]:
    """All that is there behind `after`, portion by portion, each read anew."""
    while True:
        with store.read() as reader:
            portion = outgoing(reader, signal, after, where=where, **limits)
        if portion is None:
            return
        assert portion.position > after
        after = portion.position
        yield portion


def spans_in(portion: Outgoing) -> list[Span]:
    request = ExportTraceServiceRequest.FromString(portion.request)
    return [each for block in request.resource_spans for scope in block.scope_spans for each in scope.spans]


def names(store: Store, **limits: int) -> list[str]:
    return [each.name for portion in portions(store, **limits) for each in spans_in(portion)]


def left(store: Store, after: Position, signal: Signal = Signal.TRACES) -> int:
    with store.read() as reader:
        return waiting(reader, signal, after)


# --- equal to what came in --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(str(tmp_path_factory.mktemp("outgoing") / "clew.duckdb"))
    yield opened
    opened.close()


example_numbers = count(1)
portion_sizes = st.sampled_from([1, 7, 8192])


@given(sent=test_lossless.requests(), records_max=portion_sizes)
@settings(DETERMINISTIC, max_examples=25)
def test_spans_go_as_they_came(shared_store: Store, sent: list[ExportTraceServiceRequest], records_max: int) -> None:
    """Arbitrary spans, with all they have, leave equal in every field, under the resource and scope they came under;
    each once, and nothing else."""
    test_lossless.in_runs_of_their_own(sent, next(example_numbers))
    after = Position.at(shared_store.commits.last)
    batch = read_requests([request.SerializeToString() for request in sent]).batch
    if batch is not None:
        shared_store.write(batch)
    said = [
        each
        for portion in portions(shared_store, after=after, records_max=records_max)
        for each in test_lossless.said_by(ExportTraceServiceRequest.FromString(portion.request))
    ]
    assert sorted(said) == sorted(each for request in sent for each in test_lossless.said_by(request))


@given(sent=test_lossless_logs.log_requests(), records_max=portion_sizes)
@DETERMINISTIC
def test_log_records_go_as_they_came(
    shared_store: Store, sent: list[ExportLogsServiceRequest], records_max: int
) -> None:
    """So do log records, of a run or of none."""
    number = next(example_numbers)
    test_lossless_logs.of_their_own(sent, number)
    after = Position.at(shared_store.commits.last)
    batch = read_log_requests([request.SerializeToString() for request in sent]).batch
    if batch is not None:
        shared_store.write(batch)
    said = [
        each
        for portion in portions(shared_store, Signal.LOGS, after, records_max=records_max)
        for each in test_lossless_logs.said_by(ExportLogsServiceRequest.FromString(portion.request), number)
    ]
    assert sorted(said) == sorted(each for r in sent for each in test_lossless_logs.said_by(r, number))


@given(drawn=st.lists(test_ingest_metrics.blocks, min_size=1, max_size=2), records_max=portion_sizes)
@DETERMINISTIC
def test_points_go_as_they_came(
    shared_store: Store, drawn: list[test_ingest_metrics.ResourceMetrics], records_max: int
) -> None:
    """So do points of all shapes, each in a metric of its own."""
    example = f"{next(example_numbers)} "
    sent = ExportMetricsServiceRequest(resource_metrics=drawn)
    for block in sent.resource_metrics:
        for scope_block in block.scope_metrics:
            for metric in scope_block.metrics:
                metric.name = example + metric.name
    after = Position.at(shared_store.commits.last)
    batch = read_metric_requests([sent.SerializeToString()]).batch
    if batch is not None:
        shared_store.write(batch)
    said = [
        each
        for portion in portions(shared_store, Signal.METRICS, after, records_max=records_max)
        for each in test_ingest_metrics.said_by(ExportMetricsServiceRequest.FromString(portion.request), example)
    ]
    expected = test_ingest_metrics.said_by(sent, example)
    assert (set(said), len(said)) == (expected, len(expected))


values = st.recursive(
    st.builds(AnyValue, string_value=st.text(max_size=80))
    | st.builds(AnyValue, int_value=int64s)
    | st.builds(AnyValue, double_value=st.floats(allow_nan=False, allow_infinity=False))
    | st.builds(AnyValue, bool_value=st.booleans()),
    lambda inner: (
        st.builds(lambda items: AnyValue(array_value=ArrayValue(values=items)), st.lists(inner, max_size=4))
        | st.builds(
            lambda items: AnyValue(
                kvlist_value=KeyValueList(values=[KeyValue(key=key, value=value) for key, value in items.items()])
            ),
            st.dictionaries(st.text(st.characters(exclude_characters="\0"), max_size=5), inner, max_size=3),
        )
    ),
    max_leaves=8,
)


@given(said=st.lists(st.dictionaries(st.sampled_from("abcdefgh"), values), min_size=1, max_size=40), wide=st.booleans())
@DETERMINISTIC
def test_what_columns_can_say_is_said_by_columns(
    shared_store: Store, said: list[dict[str, AnyValue]], wide: bool
) -> None:
    """Values of every type, alone, in frequent shapes and among thousands of bytes."""
    run = next(example_numbers) << 64
    filling = {"filling": AnyValue(string_value="x" * 70_000)} if wide else {}
    spans = [span(number, run=run, **each, **filling) for number, each in enumerate(said, start=1)]
    after = Position.at(shared_store.commits.last)
    commit(shared_store, *spans)
    [portion] = portions(shared_store, after=after)
    assert list(map(test_lossless.text_of, spans_in(portion))) == list(map(test_lossless.text_of, spans))


def test_attributes_of_hundreds_of_keys(store: Store) -> None:
    """More keys, and larger values, than one byte counts."""
    said = {f"key {number}": AnyValue(string_value="v" * number) for number in range(700)}
    nested = AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key=key, value=value) for key, value in said.items()]))
    numbers = AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=number) for number in range(700)]))
    sent = [span(1, **said), span(2, nested=nested), span(3, numbers=numbers), span(4)]
    commit(store, *sent)
    [portion] = portions(store)
    assert list(map(test_lossless.text_of, spans_in(portion))) == list(map(test_lossless.text_of, sent))


def test_an_integer_that_otlp_cannot_say_goes_as_the_nearest_double(store: Store) -> None:
    """A repository may have written it; the feed does not stop at it."""
    commit(store, span(1), span(2))
    with store.engine.begin() as connection:
        connection.execute(
            text(
                """UPDATE execution_events SET attributes = '{"n": 18446744073709551615}'::JSON::VARIANT WHERE id = 1"""
            )
        )
    [portion] = portions(store)
    first, second = spans_in(portion)
    assert first.attributes[0].value.double_value == 2.0**64
    assert second.name == "span 2"


# --- in order, each once ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("records_max", [1, 7, 8192])
def test_each_span_goes_once_in_the_order_of_commits(store: Store, records_max: int) -> None:
    """Within a commit by start, run and id, also where starts or ids are the same."""
    commit(store, *(span(number, run=run, start=START) for number in (3, 1, 2) for run in (2, 1)))
    commit(store, span(9), span(8))
    commit(store, *(span(number, run=3) for number in range(1, 20)))
    expected = ["span 1", "span 2", "span 3"] * 2 + ["span 8", "span 9"] + [f"span {n}" for n in range(1, 20)]
    assert names(store, records_max=records_max) == expected


@pytest.mark.parametrize("records_max", [1, 7, 8192])
def test_nothing_is_left_out_while_others_write(store: Store, records_max: int) -> None:
    """Whoever walks on while commits come gets each span once, and in their order."""
    commits = 40
    done = threading.Event()

    def write() -> None:
        for number in range(commits):
            commit(store, *(span(5 * number + place) for place in (5, 4, 3, 2, 1)))
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    walked: list[str] = []
    after = BEGINNING
    while not done.is_set() or left(store, after):
        for portion in portions(store, after=after, records_max=records_max):
            walked += [each.name for each in spans_in(portion)]
            after = portion.position
    writer.join()
    assert walked == [f"span {number}" for number in range(1, 5 * commits + 1)]


@pytest.mark.parametrize("signal", [Signal.LOGS, Signal.METRICS])
@pytest.mark.parametrize("records_max", [1, 3])
def test_other_signals_go_in_the_order_of_commits(store: Store, signal: Signal, records_max: int) -> None:
    """Commit by commit, each record once, also where times are the same."""
    if signal is Signal.LOGS:
        for commit_number in (2, 1):
            send(store, log_request(*(record(f"{commit_number} {n}", run=None) for n in range(5))))
    else:
        for name in ("2", "1"):
            metrics = test_ingest_metrics.gauge(*range(5), name=name)
            store.write(read_metric_requests([test_ingest_metrics.request(metrics)]).batch)
    walked = [
        each
        for portion in portions(store, signal, records_max=records_max)
        for each in _commits_named(signal, portion.request)
    ]
    assert walked == ["2"] * 5 + ["1"] * 5


def _commits_named(signal: Signal, request: bytes) -> list[str]:
    if signal is Signal.LOGS:
        logs = ExportLogsServiceRequest.FromString(request).resource_logs
        return [r.body.string_value[0] for block in logs for scope in block.scope_logs for r in scope.log_records]
    metrics = ExportMetricsServiceRequest.FromString(request).resource_metrics
    return [metric.name for block in metrics for scope in block.scope_metrics for metric in scope.metrics]


def test_an_open_span_goes_again_when_it_has_ended(store: Store) -> None:
    """Its end is a commit of its own, so whoever has passed the open one gets to it."""
    stamp = commit(store, span(1, ended=False), span(2))
    [first] = portions(store)
    commit(store, span(1))
    [second] = portions(store, after=first.position)
    assert [each.end_time_unix_nano for each in spans_in(second)] == [START + 2]
    assert first.position.stamp == stamp < second.position.stamp
    assert names(store) == ["span 2", "span 1"], "nothing of the open one is left to go"


def test_what_was_stored_before_stamps_were_kept_does_not_go(store: Store) -> None:
    """It is history."""
    commit(store, span(1))
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE execution_events SET stored_at_unix_nano = NULL"))
    commit(store, span(2))
    assert names(store) == ["span 2"]
    assert left(store, BEGINNING) == 1


def test_positions_hold_while_rows_are_moved(store: Store) -> None:
    """Compacting between two portions changes nothing of what comes."""
    spans = range(test_compacting.PORTION_ROWS + 100)
    test_compacting.write(store, spans)
    walk = portions(store, records_max=1000)
    walked = [each.name for each in spans_in(next(walk))]
    assert store.compact() == test_compacting.PORTION_ROWS
    for portion in walk:
        walked += [each.name for each in spans_in(portion)]
    assert walked == [f"event {number}" for number in spans]


def test_compacted_spans_go_as_they_came(store: Store) -> None:
    """Attributes that lie in typed columns are said like others."""
    spans = range(test_compacting.PORTION_ROWS)
    test_compacting.write(store, spans)
    assert store.compact() == test_compacting.PORTION_ROWS
    sent = ExportTraceServiceRequest.FromString(test_compacting.request(spans))
    said = [test_lossless.text_of(each) for portion in portions(store) for each in spans_in(portion)]
    assert said == [test_lossless.text_of(each) for each in sent.resource_spans[0].scope_spans[0].spans]


# --- how much ---------------------------------------------------------------------------------------------------------


def test_a_portion_has_as_many_bytes_as_it_may(store: Store) -> None:
    """Never more, but for a span that has more alone, which goes alone."""
    large = AnyValue(string_value="x" * 20_000)
    commit(store, *(span(number) for number in range(1, 6)))
    commit(store, span(6, text=large), span(7), *(span(number, text=large) for number in (8, 9)))
    found = list(portions(store, bytes_max=10_000))
    assert [portion.records for portion in found] == [5, 1, 1, 1, 1]
    assert [len(portion.request) > 10_000 for portion in found] == [False, True, False, True, True]


@given(sizes=st.lists(st.integers(0, 900), min_size=1, max_size=30), bytes_max=st.integers(300, 3000))
@DETERMINISTIC
def test_limits_of_bytes_hold(shared_store: Store, sizes: list[int], bytes_max: int) -> None:
    """Whatever the sizes of spans, resources included."""
    run = next(example_numbers) << 64
    request = ExportTraceServiceRequest()
    for number, size in enumerate(sizes, start=1):
        block = request.resource_spans.add()
        block.resource.attributes.add(key="host", value=AnyValue(string_value=f"{size % 5}" * 50))
        block.scope_spans.add(spans=[span(number, run=run, text=AnyValue(string_value="x" * size))])
    after = Position.at(shared_store.commits.last)
    shared_store.write(read_requests([request.SerializeToString()]).batch)
    found = list(portions(shared_store, after=after, bytes_max=bytes_max))
    assert sum(portion.records for portion in found) == len(sizes)
    assert all(len(portion.request) <= bytes_max or portion.records == 1 for portion in found)


def test_records_are_counted(store: Store) -> None:
    """How many wait behind a position; none behind the last one."""
    commit(store, *(span(number) for number in range(1, 6)))
    send(store, log_request(record("a"), record("b")))
    first, *_, last = portions(store, records_max=2)
    assert (first.records, left(store, BEGINNING), left(store, first.position), left(store, last.position)) == (
        2,
        5,
        3,
        0,
    )
    assert left(store, BEGINNING, Signal.LOGS) == 2
    assert left(store, Position.at(store.commits.last), Signal.LOGS) == 0


def test_a_filter_lets_some_spans_pass(store: Store) -> None:
    """The others neither go nor count; logs of theirs do not come with others."""
    sent = [span(number) for number in range(1, 8)]
    for each in sent:
        each.events.add(name=f"of {each.name}")
    commit(store, *sent)
    where = ExecutionEvent.__table__.c.name.in_(["span 3", "span 5", "span 6"])
    found = list(portions(store, where=where, records_max=2))
    assert [[each.events[0].name for each in spans_in(portion)] for portion in found] == [
        ["of span 3", "of span 5"],
        ["of span 6"],
    ]
    with store.read() as reader:
        assert waiting(reader, Signal.TRACES, found[0].position, where=where) == 1


def test_what_cannot_be_read_together_is_read_by_few(store: Store) -> None:
    """After a portion that could not be read the next one is small, and then they are as before."""
    commit(store, *(span(number) for number in range(1, 201)))
    where = cast(ExecutionEvent.__table__.c.name, Integer) > 0
    with pytest.raises(duckdb.ConversionException):
        next(portions(store, where=where))
    with store.engine.begin() as connection:
        connection.execute(text("UPDATE execution_events SET name = 7"))
    assert [portion.records for portion in portions(store, where=where)] == [32, 168]


# --- positions --------------------------------------------------------------------------------------------------------

positions = st.builds(
    Position,
    st.integers(0, 2**63 - 1),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.binary(min_size=16, max_size=16).map(bytes.hex),
    int64s,
)


@given(position=positions)
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    """Its text says all of it."""
    assert Position.parse(position.text()) == position


@pytest.mark.parametrize("said", ["", "7", "1.2.3.4", f"{2**63}.0.{'0' * 32}.{'0' * 16}", f"1.2.{'A' * 32}.{'0' * 16}"])
def test_other_text_is_no_position(said: str) -> None:
    """And is refused."""
    with pytest.raises(ValueError, match="not a position"):
        Position.parse(said)


def test_stamps_of_all_signals_rise_over_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log record's commit counts, though the clock is put back: what comes later goes later."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    send(store, log_request(record("before", run=None)))
    last = store.commits.last
    store.close()
    monkeypatch.setattr("time.time_ns", lambda: 1)
    reopened = Store.open(path)
    send(reopened, log_request(record("after", run=None)))
    assert [portion.position.stamp for portion in portions(reopened, Signal.LOGS, records_max=1)] == [last, last + 1]
    reopened.close()
