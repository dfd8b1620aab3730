"""Whatever OTLP can say comes back equal, however it was grouped and wherever it was read.

Arbitrary requests go through a real intake into a real store; what the store gives back as OTLP is compared with what
protobuf's own parser says of the requests. Of what OTLP gives no meaning to, the order of attributes and how spans were
divided into blocks may differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from clew.collector.intake import Intake
from clew.collector.projection import read_requests
from clew.collector.receiver import Receiver
from clew.collector.signals import TRACES
from clew.exporter.otlp import run_as_otlp
from clew.storage import PreparedBatch, Store, WriteOutcome

from .any_otlp import (
    DETERMINISTIC,
    attributes,
    enums,
    parent_ids,
    plain_attributes,
    presence,
    resources,
    scalars,
    scopes,
    span_ids,
    text_of,
    texts,
    times,
    uint32s,
)

TIMEOUT_S = 60
FREQUENT_OWNERS = 40

# --- arbitrary OTLP ---------------------------------------------------------------------------------------------------

some_ids = st.binary(max_size=20) | st.sampled_from([bytes(8), bytes(16), b"\x80" + bytes(7), b"\xff" * 16])
span_events = st.builds(
    Span.Event, time_unix_nano=times, name=texts, attributes=attributes, dropped_attributes_count=uint32s
)
span_links = st.builds(
    Span.Link,
    trace_id=some_ids,
    span_id=some_ids,
    trace_state=texts,
    attributes=attributes,
    dropped_attributes_count=uint32s,
    flags=uint32s,
)
long_texts = st.builds(lambda unit, times: unit * times, texts, st.integers(100, 1000))
long_values = st.builds(AnyValue, string_value=long_texts) | st.builds(
    lambda members: AnyValue(kvlist_value=KeyValueList(values=members)),
    st.lists(st.builds(KeyValue, key=texts, value=st.builds(AnyValue, string_value=long_texts)), max_size=3),
)
history_keys = [
    "gen_ai.input.messages",
    "gen_ai.output.messages",
    "input.value",
    "llm.input_messages.0.message.content",
]
histories = st.lists(st.builds(KeyValue, key=st.sampled_from(history_keys), value=long_values | scalars), max_size=4)
spans = st.builds(
    Span,
    trace_id=st.sampled_from([b"\x01", b"\x80", b"\xff"]).map(lambda first: first + bytes(15)),
    span_id=span_ids,
    trace_state=texts,
    parent_span_id=parent_ids,
    flags=uint32s,
    name=texts,
    kind=enums,
    start_time_unix_nano=times,
    end_time_unix_nano=times,
    attributes=attributes | st.builds(list.__add__, attributes, histories),
    dropped_attributes_count=uint32s,
    events=st.lists(span_events, max_size=2),
    dropped_events_count=uint32s,
    links=st.lists(span_links, max_size=2),
    dropped_links_count=uint32s,
    status=st.none() | st.builds(Status, message=texts, code=enums),
)
places = st.tuples(st.integers(0, 2), st.integers(0, 1), st.integers(0, 1))


@st.composite
def requests(draw: st.DrawFn) -> list[ExportTraceServiceRequest]:
    """Up to three requests with up to two resources of up to two scopes each; every span's id is its own."""
    drawn = draw(st.lists(spans, max_size=4, unique_by=lambda span: span.span_id))
    if drawn and draw(st.sampled_from([True, False, False])):
        drawn += _crowd(b"a", drawn[0]) + _crowd(b"b", _with(drawn[-1], draw(plain_attributes)))
    blocks: dict[tuple[int, ...], Any] = {}
    built = [ExportTraceServiceRequest() for _ in range(draw(st.integers(1, 3)))]
    for span, place in zip(drawn, draw(st.lists(places, min_size=len(drawn), max_size=len(drawn))), strict=True):
        number = place[0] % len(built)
        of_resource, of_scope = (number, place[1]), (number, *place[1:])
        if of_resource not in blocks:
            resource = draw(st.none() | resources)
            blocks[of_resource] = built[number].resource_spans.add(resource=resource, schema_url=draw(texts))
        if of_scope not in blocks:
            scope = draw(st.none() | scopes)
            blocks[of_scope] = blocks[of_resource].scope_spans.add(scope=scope, schema_url=draw(texts))
        blocks[of_scope].spans.append(span)
    return built


def _with(model: Span, attributes: list[KeyValue]) -> Span:
    span = Span(attributes=attributes, start_time_unix_nano=1)
    span.trace_id = model.trace_id
    return span


def _crowd(name: bytes, model: Span) -> list[Span]:
    """So many spans of the model's shape, under ids of their own: frequent enough to be stored as a shape."""
    crowd = [Span() for _ in range(FREQUENT_OWNERS)]
    for number, span in enumerate(crowd):
        span.CopyFrom(model)
        span.span_id = name + b"-crowd" + bytes([number])
        span.start_time_unix_nano = number
        for pair in span.attributes:
            if pair.value.HasField("string_value"):
                pair.value.string_value += str(number)
    return crowd


# --- what is compared -------------------------------------------------------------------------------------------------

Said = list[tuple[str, str, str, str, str]]


def said_by(traces: ExportTraceServiceRequest | TracesData) -> Said:
    """Every span with its resource, its scope and their schema URLs, as text that is equal where they are."""
    return sorted(
        (text_of(span), *presence(of_resource, "resource"), *presence(of_scope, "scope"))
        for of_resource in traces.resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    )


def stored(store: Store, sent: list[ExportTraceServiceRequest]) -> Said:
    """What the store says of every run that occurs in `sent`."""
    run_ids = {s.trace_id for r in sent for b in r.resource_spans for c in b.scope_spans for s in c.spans}
    said: Said = []
    for run_id in run_ids:
        if len(run_id) == 16 and any(run_id):
            said += said_by(TracesData.FromString(run_as_otlp(store, UUID(bytes=run_id)) or b""))
    return sorted(said)


def in_runs_of_their_own(sent: list[ExportTraceServiceRequest], number: int) -> None:
    """Gives the spans of each example trace ids that no other example has."""
    for request in sent:
        for block in request.resource_spans:
            for scope_block in block.scope_spans:
                for span in scope_block.spans:
                    span.trace_id = span.trace_id[:8] + number.to_bytes(8, "big")


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Whatever is in it in the end, its file opens again."""
    path = str(tmp_path_factory.mktemp("lossless") / "clew.duckdb")
    opened = Store.open(path)
    yield opened
    opened.close()
    Store.open(path).close()


@pytest.fixture(scope="module")
def shared_intake(shared_store: Store) -> Iterator[Intake]:
    intake = Intake(shared_store)
    yield intake
    intake.close()


example_numbers = count(1)


# --- the promises -----------------------------------------------------------------------------------------------------


@given(sent=requests(), together=st.booleans())
@DETERMINISTIC
def test_every_span_comes_back_as_it_was_sent(
    shared_store: Store, shared_intake: Intake, sent: list[ExportTraceServiceRequest], together: bool
) -> None:
    """Arbitrary requests, one by one through the intake or as one group, are read back equal, and nothing else is."""
    in_runs_of_their_own(sent, next(example_numbers))
    payloads = [request.SerializeToString() for request in sent]
    if together:
        batch = read_requests(payloads).batch
        if batch is not None:
            shared_store.write(batch)
    else:
        outcomes = [answer.result(TIMEOUT_S) for answer in [shared_intake.accept(payload) for payload in payloads]]
        assert [(outcome.rejected_spans, outcome.error_message) for outcome in outcomes] == [(0, "")] * len(sent)
    assert stored(shared_store, sent) == sorted(said for request in sent for said in said_by(request))


def _content(batch: PreparedBatch | None) -> str:
    if batch is None:
        return ""
    parts = filter(None, [batch.events, batch.logs, batch.links, batch.resources, batch.scopes])
    said = [(part.rows.to_pydict(), part.expression, part.pairs and part.pairs.to_pydict()) for part in parts]
    return repr([batch.runs.to_pydict(), said])


def _large_group() -> list[ExportTraceServiceRequest]:
    """Requests of many spans with attributes of every kind."""
    kinds = AnyValue(
        kvlist_value=KeyValueList(
            values=[
                KeyValue(key="list", value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="x")]))),
                KeyValue(key="nan", value=AnyValue(double_value=math.nan)),
                KeyValue(key="bytes", value=AnyValue(bytes_value=b"\0\xff")),
            ]
        )
    )
    sent = [ExportTraceServiceRequest() for _ in range(3)]
    for number in range(1200):
        span = Span(trace_id=b"\x07" + bytes(15), span_id=(number + 1).to_bytes(8, "big"), name=f"span {number}")
        span.start_time_unix_nano, span.end_time_unix_nano = 10**18 + number, 10**18 + 2 * number
        span.attributes.add(key="text", value=AnyValue(string_value="x" * 100))
        span.attributes.add(key="nested", value=kinds)
        span.events.add(name="moment", time_unix_nano=number)
        span.links.add(trace_id=span.trace_id, span_id=b"short")
        block = sent[number % 3].resource_spans.add(schema_url="https://example.org")
        block.scope_spans.add().spans.append(span)
    return sent


def test_what_another_process_reads_is_the_same() -> None:
    """A batch comes over the line from the process that receives as it is read here, and its fates are told alike."""
    sent = _large_group()
    sent[1].resource_spans.add().scope_spans.add().spans.add(trace_id=b"short", span_id=bytes(8), name="refused")
    payloads = [request.SerializeToString() for request in sent]
    handed = _Handed()
    with closing(Receiver()) as receiver:
        receiver.store_in(handed)
        outcomes = [receiver.accept(payload, TRACES).result(TIMEOUT_S) for payload in payloads]
    assert [outcome.rejected_spans for outcome in outcomes] == [0, 1, 0]
    assert [_content(batch) for batch in handed.batches] == [_content(read_requests([p]).batch) for p in payloads]


class _Handed:
    """A sink that keeps what it is handed."""

    def __init__(self) -> None:
        self.batches: list[PreparedBatch] = []

    def write(self, batch: PreparedBatch) -> WriteOutcome:
        self.batches.append(batch)
        return WriteOutcome(stored=batch.events.rows.num_rows, repeated=0, replaced=0)


def test_large_requests_come_back_as_they_were_sent(shared_store: Store, shared_intake: Intake) -> None:
    """So do spans with attributes of every kind."""
    sent = _large_group()
    in_runs_of_their_own(sent, next(example_numbers))
    for request in sent:
        assert shared_intake.accept(request.SerializeToString()).result(TIMEOUT_S).rejected_spans == 0
    assert stored(shared_store, sent) == sorted(said for request in sent for said in said_by(request))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A request of which a few bytes were changed, put in or taken out."""
    sent = draw(requests())
    data = bytearray(sent[0].SerializeToString()[:400])
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["change", "put in", "take out", "cut off"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "put in":
                data[at:at] = draw(st.binary(min_size=1, max_size=4))
            case "take out":
                del data[at : at + draw(st.integers(1, 4))]
            case _:
                del data[at:]
    return bytes(data)


@given(request=mutated())
@settings(DETERMINISTIC, max_examples=200)
def test_broken_bytes_are_read_as_protobuf_reads_them(request: bytes) -> None:
    """What protobuf's own parser takes is taken, span for span; what it does not is refused, or mended with a word."""
    reading = read_requests([request])
    [fate] = reading.fates
    try:
        canonical = ExportTraceServiceRequest.FromString(request).SerializeToString()
    except DecodeError:
        assert fate.malformed or fate.warning or reading.batch is None
        return
    assert (fate.malformed, fate.warning) == ("", "")
    again = read_requests([canonical])
    assert again.fates == reading.fates
    assert _content(reading.batch) == _content(again.batch)
