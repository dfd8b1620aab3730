"""The queue, the group and the answer: nothing that was taken is lost, whatever becomes of the sender."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from clew.collector.intake import LARGE_BYTES, Intake
from clew.collector.outcomes import Busy, Outcome
from clew.storage import Store

from .conftest import Gate

TIMEOUT_S = 60
DONE = Outcome(0, "")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def intake(gate: Gate, registry: CollectorRegistry) -> Iterator[Intake]:
    intake = Intake(gate, registry=registry)
    yield intake
    gate.open.set()
    intake.close()


def request(number: int, *, spans: int = 1, bytes_min: int = 0) -> bytes:
    """Spans of a run of their own; the last bears enough text to make the request this large."""
    built = ExportTraceServiceRequest()
    block = built.resource_spans.add().scope_spans.add()
    for place in range(1, spans + 1):
        block.spans.add(trace_id=(number + 1).to_bytes(16, "big"), span_id=place.to_bytes(8, "big"), name="work")
    block.spans[-1].attributes.append(KeyValue(key="text", value=AnyValue(string_value="x" * bytes_min)))
    return built.SerializeToString()


def large(number: int) -> bytes:
    """A request that is worth reading while another is stored."""
    return request(number, spans=100, bytes_min=LARGE_BYTES)


def stored(store: Store) -> int:
    with store.read() as reader:
        [row] = reader.rows(text("SELECT count(*) AS events FROM execution_events"))
        return int(row["events"])


def test_an_answer_is_a_commit(store: Store, intake: Intake) -> None:
    """When the future resolves, a read sees the spans."""
    assert intake.accept(request(1)).result(TIMEOUT_S) == DONE
    assert stored(store) == 1


def test_no_answer_before_the_commit(store: Store, gate: Gate, intake: Intake) -> None:
    """While the store is at it, the sender waits."""
    gate.open.clear()
    answer = intake.accept(request(1))
    assert gate.reached.wait(TIMEOUT_S)
    assert not answer.done()
    gate.open.set()
    assert answer.result(TIMEOUT_S) == DONE


def test_what_waits_becomes_one_group(store: Store, gate: Gate, intake: Intake, registry: CollectorRegistry) -> None:
    """Small requests that come while one is being stored are committed together, whatever came before."""
    for numbers in (range(50), range(50, 100)):
        gate.open.clear()
        gate.reached.clear()
        first = intake.accept(request(numbers[0]))
        assert gate.reached.wait(TIMEOUT_S)
        answers = [intake.accept(request(number)) for number in numbers[1:30]]
        time.sleep(0.1)  # whoever would not wait for the rest takes them now
        answers += [intake.accept(request(number)) for number in numbers[30:]]
        gate.open.set()
        assert [answer.result(TIMEOUT_S) for answer in [first, *answers]] == [DONE] * 50
    assert registry.get_sample_value("clew_commit_seconds_count") == 4
    assert stored(store) == 100


def test_a_full_queue_takes_nothing(store: Store, gate: Gate, registry: CollectorRegistry) -> None:
    """Busy, at once and with a time to come again; what was taken before is stored, what was refused is not; and there
    is room again afterwards."""
    taken = request(1)
    intake = Intake(gate, registry=registry, queue_bytes_max=2 * len(taken))
    gate.open.clear()
    answers = [intake.accept(taken), intake.accept(request(2))]
    with pytest.raises(Busy) as refusal:
        intake.accept(request(3))
    assert refusal.value.retry_after_s
    assert registry.get_sample_value("clew_requests_busy_total") == 1
    gate.open.set()
    assert [answer.result(TIMEOUT_S) for answer in answers] == [DONE] * 2
    assert stored(store) == 2
    intake.close()
    assert registry.get_sample_value("clew_queue_bytes") == 0


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits(store: Store, gate: Gate) -> None:
    """Or it could never be sent."""
    intake = Intake(gate, queue_bytes_max=1)
    try:
        assert intake.accept(large(1)).result(TIMEOUT_S) == DONE
    finally:
        intake.close()


def test_closing_finishes_what_was_taken(store: Store, gate: Gate) -> None:
    """Every request taken is stored and answered before `close` returns; from then on none is taken."""
    intake = Intake(gate)
    gate.open.clear()
    answers = [intake.accept(large(number) if number % 3 == 0 else request(number)) for number in range(12)]
    closing = threading.Thread(target=intake.close)
    closing.start()
    gate.open.set()
    closing.join(TIMEOUT_S)
    assert [answer.result(0) for answer in answers] == [DONE] * 12
    assert stored(store) == 4 * 100 + 8
    with pytest.raises(Busy):
        intake.accept(request(99))


def test_a_sender_that_gives_up_harms_nobody(store: Store, gate: Gate, intake: Intake) -> None:
    """Its future is cancelled while it waits: its spans are stored all the same, the others are answered."""
    gate.open.clear()
    answers = [intake.accept(request(number)) for number in range(9)]
    assert gate.reached.wait(TIMEOUT_S)
    assert all(answer.cancel() for answer in answers[::2])
    gate.open.set()
    assert [answer.result(TIMEOUT_S) for answer in answers[1::2]] == [DONE] * 4
    assert intake.accept(request(9)).result(TIMEOUT_S) == DONE
    assert stored(store) == 10


def test_spans_are_counted_by_what_became_of_them(store: Store, intake: Intake, registry: CollectorRegistry) -> None:
    """Stored, repeated, rejected: as the metrics have it."""
    bad = ExportTraceServiceRequest()
    bad.resource_spans.add().scope_spans.add().spans.add(name="nobody")
    for body in (request(1, spans=3), request(1, spans=4), bad.SerializeToString()):
        intake.accept(body).result(TIMEOUT_S)
    counted = {
        outcome: registry.get_sample_value("clew_spans_total", {"outcome": outcome})
        for outcome in ("stored", "repeated", "rejected")
    }
    assert counted == {"stored": 4, "repeated": 3, "rejected": 1}


def test_rejected_spans_are_counted_and_some_are_named(store: Store, intake: Intake) -> None:
    """The count is exact; the message names the first few and says how many more there are."""
    bad = ExportTraceServiceRequest()
    block = bad.resource_spans.add().scope_spans.add()
    for number in range(20):
        block.spans.add(name=f"nobody {number}")
    outcome = intake.accept(bad.SerializeToString()).result(TIMEOUT_S)
    assert outcome.rejected_spans == 20
    assert "nobody 0" in outcome.error_message
    assert "15 more" in outcome.error_message


def test_an_empty_request_succeeds(store: Store, intake: Intake) -> None:
    """OTLP allows it, with and without blocks."""
    with_blocks = ExportTraceServiceRequest()
    with_blocks.resource_spans.add().scope_spans.add()
    for body in (b"", with_blocks.SerializeToString()):
        assert intake.accept(body).result(TIMEOUT_S) == DONE
    assert stored(store) == 0
