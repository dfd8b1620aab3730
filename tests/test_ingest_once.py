"""A span is stored once, however often, in whatever company and after whatever accident it is sent."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import select, text

from clew.collector.intake import Intake
from clew.collector.outcomes import Malformed, Outcome, Unavailable
from clew.collector.projection import read_requests
from clew.storage import (
    Base,
    EventLink,
    EventLog,
    ExecutionEvent,
    Resource,
    Row,
    Scope,
    Session,
    Store,
    WorkflowRun,
    WriteFailed,
    WriteOutcome,
)

RUN = UUID(int=7)
TIMEOUT_S = 30


def span(
    number: int = 1,
    *,
    kind: int = Span.SPAN_KIND_INTERNAL,
    start: int = 100,
    end: int = 200,
    name: str = "work",
    failed: bool = False,
    run: UUID = RUN,
) -> Span:
    """A span with one event and one link, so that parts stored twice show."""
    return Span(
        trace_id=run.bytes,
        span_id=number.to_bytes(8, "big"),
        name=name,
        kind=kind,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        events=[Span.Event(name=f"{name} said")],
        links=[Span.Link(trace_id=run.bytes, span_id=b"neighbor", trace_state=name)],
    )


def request(*spans: Span) -> bytes:
    sent = ExportTraceServiceRequest()
    sent.resource_spans.add().scope_spans.add(spans=spans)
    return sent.SerializeToString()


def send(store: Store, *requests: bytes) -> WriteOutcome:
    """Stores the requests as one group."""
    batch = read_requests(list(requests)).batch
    assert batch is not None
    return store.write(batch)


def rows(store: Store, table: type[Base]) -> Sequence[Row]:
    with store.read() as reader:
        return reader.rows(select(table.__table__))


def names(store: Store) -> list[str]:
    """The stored events' names, after a look at what must always hold."""
    events = rows(store, ExecutionEvent)
    ids = [(event["run_id"], event["id"]) for event in events]
    assert len(set(ids)) == len(ids), "(run_id, id) is a key"
    for part in (EventLog, EventLink):
        assert sorted((row["run_id"], row["event_id"]) for row in rows(store, part)) == sorted(ids)
    for run in rows(store, WorkflowRun):
        of_run = [event for event in events if event["run_id"] == run["id"]]
        assert run["event_count"] == len(of_run)
        assert run["error_count"] == sum(event["status"] == "failed" for event in of_run)
        assert run["started_at_unix_nano"] <= min(event["started_at_unix_nano"] for event in of_run)
        assert run["last_started_at_unix_nano"] >= max(event["started_at_unix_nano"] for event in of_run)
    return sorted(event["name"] for event in events)


def test_a_request_sent_twice_in_one_group_is_stored_once(store: Store) -> None:
    """The copy counts as repeated."""
    sent = request(span(1), span(2, failed=True))
    assert send(store, sent, sent) == WriteOutcome(stored=2, repeated=2, replaced=0)
    assert names(store) == ["work", "work"]


def test_a_request_sent_again_is_stored_once(store: Store) -> None:
    """In a later group too, alone or among new spans."""
    sent = request(span(1), span(2, failed=True))
    send(store, sent)
    assert send(store, sent) == WriteOutcome(stored=0, repeated=2, replaced=0)
    assert send(store, sent, request(span(3, name="new"))) == WriteOutcome(stored=1, repeated=2, replaced=0)
    assert names(store) == ["new", "work", "work"]


def test_a_request_sent_again_after_a_restart_is_stored_once(tmp_path: Path) -> None:
    """What the store knows of its spans is in the file, not in the process."""
    sent = request(span(1), span(2, failed=True))
    for expected in (WriteOutcome(2, 0, 0), WriteOutcome(0, 2, 0)):
        store = Store.open(str(tmp_path / "clew.duckdb"))
        assert send(store, sent) == expected
        assert names(store) == ["work", "work"]
        store.close()


def test_overlapping_batches_add_what_is_new(store: Store) -> None:
    """Batches cut differently the second time, earlier and later spans among them."""
    spans = [span(number, start=1000 - number, failed=number % 3 == 0) for number in range(1, 10)]
    send(store, request(*spans[2:6]))
    assert send(store, request(*spans[0:4])) == WriteOutcome(stored=2, repeated=2, replaced=0)
    assert send(store, request(*spans[4:9]), request(*spans[1:3])) == WriteOutcome(stored=3, repeated=4, replaced=0)
    assert len(names(store)) == len(spans)


@pytest.mark.parametrize("failed", [False, True])
def test_a_finished_span_takes_its_pending_copys_place(store: Store, failed: bool) -> None:
    """A copy without an end goes, with its events and links, when the finished span comes; a later copy changes
    nothing."""
    pending, finished = span(end=0, name="pending"), span(name="finished", failed=failed)
    send(store, request(pending))
    assert [run["status"] for run in rows(store, WorkflowRun)] == ["running"]
    assert send(store, request(finished)) == WriteOutcome(stored=1, repeated=0, replaced=1)
    assert send(store, request(pending)) == WriteOutcome(stored=0, repeated=1, replaced=0)
    assert names(store) == ["finished"]
    assert [run["status"] for run in rows(store, WorkflowRun)] == ["failed" if failed else "completed"]
    assert [row["name"] for row in rows(store, EventLog)] == ["finished said"]
    assert [row["trace_state"] for row in rows(store, EventLink)] == ["finished"]


def test_a_pending_copy_that_has_failed_is_not_counted_twice(store: Store) -> None:
    """An error seen in the pending copy already is one error, not two."""
    send(store, request(span(end=0, name="pending", failed=True)))
    send(store, request(span(name="finished", failed=True)))
    assert names(store) == ["finished"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0), (0, 0, 1, 1)])
def test_a_pending_copy_in_the_same_group_is_dropped(store: Store, order: tuple[int, ...]) -> None:
    """Whichever came first."""
    copies = [request(span(end=0, name="pending")), request(span(name="finished"))]
    assert send(store, *(copies[number] for number in order)).stored == 1
    assert names(store) == ["finished"]


def test_a_pending_copy_that_comes_late_is_dropped(store: Store) -> None:
    """The finished span stays."""
    send(store, request(span(name="finished")))
    assert send(store, request(span(end=0, name="pending"))) == WriteOutcome(stored=0, repeated=1, replaced=0)
    assert names(store) == ["finished"]


@pytest.mark.parametrize("together", [False, True])
def test_distinct_spans_that_share_an_id_are_all_kept(store: Store, together: bool) -> None:
    """Another kind or another start is another span: each has a key of its own and keeps the id it was sent with."""
    requests = [
        request(span(name="client", kind=Span.SPAN_KIND_CLIENT)),
        request(span(name="server", kind=Span.SPAN_KIND_SERVER)),
        request(span(name="later", kind=Span.SPAN_KIND_SERVER, start=150)),
    ]
    for _ in range(2):
        for group in [requests] if together else [[sent] for sent in requests]:
            send(store, *group)
    assert names(store) == ["client", "later", "server"]
    events = rows(store, ExecutionEvent)
    assert {event["otel_span_id"] or event["id"] for event in events} == {f"{1:016x}"}
    assert {event["name"] for event in events if event["otel_span_id"] is None} == {"client"}


def test_a_pending_namesake_is_replaced_under_its_own_key(store: Store) -> None:
    """The finished copy of a span with a derived id takes that id over."""
    send(store, request(span(name="client", kind=Span.SPAN_KIND_CLIENT)))
    send(store, request(span(name="pending", kind=Span.SPAN_KIND_SERVER, end=0)))
    [derived] = [event["id"] for event in rows(store, ExecutionEvent) if event["name"] == "pending"]
    send(store, request(span(name="finished", kind=Span.SPAN_KIND_SERVER)))
    assert names(store) == ["client", "finished"]
    assert [e["id"] for e in rows(store, ExecutionEvent) if e["name"] == "finished"] == [derived]


def test_the_same_span_id_in_another_run_is_another_span(store: Store) -> None:
    """A span id is unique within its run only."""
    assert send(store, request(span(), span(run=UUID(int=8)))).stored == 2
    assert send(store, request(span(run=UUID(int=9)), span())) == WriteOutcome(stored=1, repeated=1, replaced=0)
    assert len(names(store)) == 3


def test_a_transaction_that_fails_leaves_nothing(store: Store) -> None:
    """A table that is gone fails the last step of the write: nothing of the steps before it stays, and once the table
    is back the same spans are stored as if never sent."""
    _run(store, "ALTER TABLE event_links RENAME TO elsewhere")
    sent = request(span(1), span(2, run=UUID(int=8)))
    with pytest.raises(WriteFailed, match="event_links"):
        send(store, sent)
    for table in (ExecutionEvent, EventLog, WorkflowRun, Session, Resource, Scope):
        assert rows(store, table) == []
    _run(store, "ALTER TABLE elsewhere RENAME TO event_links")
    assert send(store, sent) == WriteOutcome(stored=2, repeated=0, replaced=0)
    assert names(store) == ["work", "work"]


def test_a_sender_whose_spans_were_not_stored_is_told_to_come_again(store: Store) -> None:
    """The answer to a failed transaction can be retried, and the retry succeeds once the store does."""
    intake = Intake(store)
    try:
        _run(store, "ALTER TABLE event_links RENAME TO elsewhere")
        with pytest.raises(Unavailable) as refusal:
            intake.accept(request(span())).result(TIMEOUT_S)
        assert refusal.value.retry_after_s
        _run(store, "ALTER TABLE elsewhere RENAME TO event_links")
        assert intake.accept(request(span())).result(TIMEOUT_S) == Outcome(0, "")
    finally:
        intake.close()
    assert names(store) == ["work"]


def test_one_bad_request_harms_no_other(store: Store) -> None:
    """In one group: garbage, text that is not UTF-8, a span without ids, and good ones. Each request has its own fate,
    and every span that can be stored is."""
    not_utf8 = request(span(2, name="????")).replace(b"????", b"\xff\xfe\xff\xfe")
    no_ids = request(Span(name="nobody"), span(3, name="beside nobody"))
    reading = read_requests([request(span(1, name="first")), b"\xff garbage", not_utf8, no_ids, request(span(4))])
    assert [bool(fate.malformed) for fate in reading.fates] == [False, True, False, False, False]
    assert [bool(fate.warning) for fate in reading.fates] == [False, False, True, False, False]
    assert [len(fate.rejections) for fate in reading.fates] == [0, 0, 0, 1, 0]
    assert reading.batch is not None
    store.write(reading.batch)
    assert names(store) == ["beside nobody", "first", "work", "�" * 4]


def test_each_sender_of_a_group_has_its_own_answer(store: Store) -> None:
    """Requests sent at once, good and bad by turns: the bad ones are refused, the good ones stored."""
    intake = Intake(store)
    try:
        answers = [
            intake.accept(request(span(number + 1)) if number % 2 == 0 else b"\xff garbage") for number in range(40)
        ]
        for number, answer in enumerate(answers):
            if number % 2 == 0:
                assert answer.result(TIMEOUT_S) == Outcome(0, "")
            else:
                assert isinstance(answer.exception(TIMEOUT_S), Malformed)
    finally:
        intake.close()
    assert len(names(store)) == 20


def _run(store: Store, statement: str) -> None:
    with store.engine.begin() as connection:
        connection.execute(text(statement))
