"""What a run amounts to, against the same figures reckoned one event at a time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from clew.collector.intake import Intake
from clew.query.statistics import statistics
from clew.storage import Store

START = 1_700_000_000_000_000_000
ABSENT = 99
TYPES = ("agent_call", "tool_call")
AGENTS = (None, "planner", "engineer")
MODELS = (None, "small", "large")

counts = st.none() | st.integers(0, 1000)


@dataclass(frozen=True)
class Event:
    id: int
    parent: int | None
    event_type: str
    agent: str | None
    model: str | None
    input_tokens: int | None
    output_tokens: int | None
    cents: int | None
    duration_ns: int
    failed: bool

    @property
    def reports(self) -> bool:
        return any(value is not None for value in (self.input_tokens, self.output_tokens, self.cents))

    def span(self, run_id: UUID) -> Span:
        span = Span(trace_id=run_id.bytes, span_id=self.id.to_bytes(8), name="work", start_time_unix_nano=START)
        span.end_time_unix_nano = START + self.duration_ns
        span.parent_span_id = b"" if self.parent is None else self.parent.to_bytes(8)
        span.status.code = Status.STATUS_CODE_ERROR if self.failed else Status.STATUS_CODE_UNSET
        for key, value in (
            ("clew.event.type", self.event_type),
            ("gen_ai.agent.name", self.agent),
            ("gen_ai.request.model", self.model),
        ):
            if value is not None:
                span.attributes.add(key=key).value.string_value = value
        for key, count in (
            ("gen_ai.usage.input_tokens", self.input_tokens),
            ("gen_ai.usage.output_tokens", self.output_tokens),
        ):
            if count is not None:
                span.attributes.add(key=key).value.int_value = count
        if self.cents is not None:
            span.attributes.add(key="clew.cost.usd").value.double_value = self.cents / 64
        return span


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    ids = range(1, draw(st.integers(1, 9)) + 1)
    drawn = st.builds(
        Event,
        id=st.just(0),
        parent=st.sampled_from([None, ABSENT, *ids]),
        event_type=st.sampled_from(TYPES),
        agent=st.sampled_from(AGENTS),
        model=st.sampled_from(MODELS),
        input_tokens=counts,
        output_tokens=counts,
        cents=st.none() | st.integers(0, 640),
        duration_ns=st.integers(0, 10**9),
        failed=st.booleans(),
    )
    return [Event(**{**vars(draw(drawn)), "id": event_id}) for event_id in ids]


def counting(events: list[Event]) -> set[int]:
    """The events whose usage counts: they report some, and are not an ancestor of one that does."""
    by_id = {event.id: event for event in events}
    above: set[int] = set()
    for event in filter(lambda event: event.reports, events):
        passed: set[int] = set()
        at = event
        while at.parent in by_id and at.parent not in passed | {at.id}:
            passed.add(at.parent)
            at = by_id[at.parent]
        above |= passed
    return {event.id for event in events if event.reports} - above


def user(event: Event, events: list[Event]) -> str | None:
    """The agent that the event names, or else the nearest of its ancestors."""
    by_id = {event.id: event for event in events}
    for _ in events:
        parent = by_id.get(event.parent) if event.parent is not None else None
        if event.agent is not None or parent is None:
            break
        event = parent
    return event.agent


def usage(events: list[Event]) -> dict[str, object]:
    cents = [event.cents for event in events if event.cents is not None]
    return {
        "events": len(events),
        "input_tokens": sum(event.input_tokens or 0 for event in events),
        "output_tokens": sum(event.output_tokens or 0 for event in events),
        "cost_usd": sum(cents) / 64 if cents else None,
    }


@dataclass
class Recorder:
    """Puts runs into a store and asks for their statistics."""

    store: Store
    intake: Intake
    runs: list[UUID] = field(default_factory=list)

    def statistics(self, events: list[Event]) -> dict[str, object]:
        run_id = uuid4()
        request = ExportTraceServiceRequest()
        scope_spans = request.resource_spans.add().scope_spans.add()
        scope_spans.spans.extend(event.span(run_id) for event in events)
        self.intake.accept(request.SerializeToString()).result(timeout=30)
        with self.store.read() as reader:
            return statistics(reader, run_id)


@pytest.fixture
def recorder(store: Store) -> Iterator[Recorder]:
    intake = Intake(store)
    yield Recorder(store, intake)
    intake.close()


over_one_store = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@over_one_store
@given(events=runs())
def test_usage_is_counted_once(recorder: Recorder, events: list[Event]) -> None:
    """Tokens and cost are those of the reporting events above no other one, in total and by agent, type and model.
    Those of an event that names no agent are its nearest ancestor's."""
    told = recorder.statistics(events)
    counted = [event for event in events if event.id in counting(events)]

    superseded = sum(event.reports for event in events) - len(counted)
    assert told["usage"] == {**usage(counted), "superseded_events": superseded}
    for name, key in (
        ("agent_name", lambda event: user(event, events)),
        ("event_type", attrgetter("event_type")),
        ("model", attrgetter("model")),
    ):
        groups = {key(event) for event in counted}
        rows = {row.pop(name): row for row in told[f"usage_by_{name.removesuffix('_name')}"]}
        assert rows == {group: usage([e for e in counted if key(e) == group]) for group in groups}


@over_one_store
@given(events=runs())
def test_counts_and_durations(recorder: Recorder, events: list[Event]) -> None:
    """The figures by name are what counting and adding up gives; percentiles are durations that occurred."""
    told = recorder.statistics(events)
    lasted = sorted(event.duration_ns for event in events if event.duration_ns)
    agents = Counter(event.agent for event in events if event.agent)

    assert told["total_events"] == len(events)
    assert told["errors"] == sum(event.failed for event in events)
    assert told["event_types"] == Counter(event.event_type for event in events)
    assert told["agents_involved"] == sorted(agents)
    assert told["agent_call_counts"] == agents
    assert told["total_duration_ms"] == pytest.approx(sum(lasted) / 1e6)
    assert told["avg_duration_ms"] == pytest.approx(sum(lasted) / len(lasted) / 1e6 if lasted else 0)
    for percentile in (50, 90, 95, 99):
        nearest = lasted[math.ceil(percentile * len(lasted) / 100) - 1] if lasted else None
        assert told["duration_percentiles_ns"][f"p{percentile}"] == nearest


def test_usage_at_the_end_of_a_deep_chain(recorder: Recorder) -> None:
    """Usage repeated at both ends of a chain of 20,000 events counts once, at its end."""
    ends = (1, 20_000)
    chain = [
        Event(number, number - 1 or None, "agent_call", None, None, 5 if number in ends else None, None, None, 1, False)
        for number in range(1, 20_001)
    ]

    assert recorder.statistics(chain)["usage"] == {**usage(chain[-1:]), "superseded_events": 1}
