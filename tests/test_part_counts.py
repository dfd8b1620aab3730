"""How many logs and links an event has: what came within its span, and whatever came besides."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import text

from clew.collector.metric_points import read_metric_requests
from clew.query.parameters import TreeWanted
from clew.query.tree_answer import tree_answer
from clew.storage import (
    DatabaseSession,
    EventLink,
    EventLog,
    ExecutionEvent,
    Store,
    WorkflowRun,
    close_database,
    get_db_session,
)

from .log_requests import record, request, send, send_spans

run_numbers = count(1)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(str(tmp_path_factory.mktemp("parts") / "clew.duckdb"))
    yield opened
    opened.close()


def span(run_id: UUID, number: int, *, events: int = 0, links: int = 0, ended: bool = True) -> bytes:
    """A request with this span of the run, which has so many events and links."""
    sent = Span(
        trace_id=run_id.bytes,
        span_id=number.to_bytes(8, "big"),
        name="work",
        start_time_unix_nano=100,
        end_time_unix_nano=200 * ended,
        events=[Span.Event(name="moment", time_unix_nano=place) for place in range(events)],
        links=[Span.Link(trace_id=run_id.bytes, span_id=(place + 1).to_bytes(8, "big")) for place in range(links)],
    )
    block = ExportTraceServiceRequest()
    block.resource_spans.add().scope_spans.add(spans=[sent])
    return block.SerializeToString()


def told(store: Store, run_id: UUID) -> dict[str, tuple[int, int]]:
    """How many logs and links the run's tree says that each event has."""
    with store.read() as reader:
        answer = tree_answer(reader, run_id, TreeWanted())
        assert isinstance(answer, bytes)
    return {event["id"]: (event["log_count"], event["link_count"]) for event in orjson.loads(answer)["events"]}


COUNTED = text("""
    SELECT lpad(lower(hex(e.id)), 16, '0') AS id,
           (SELECT count(*) FROM event_logs l WHERE l.run_id = e.run_id AND l.event_id = e.id) AS logs,
           (SELECT count(*) FROM event_links l WHERE l.run_id = e.run_id AND l.event_id = e.id) AS links
    FROM execution_events e WHERE e.run_id = :run_id
""")


def counted(store: Store, run_id: UUID) -> dict[str, tuple[int, int]]:
    """The same, counted row by row."""
    with store.read() as reader:
        rows = reader.rows(COUNTED.bindparams(run_id=str(run_id)))
    return {row["id"]: (row["logs"], row["links"]) for row in rows}


def are_counted(store: Store, run_id: UUID) -> Any:
    with store.read() as reader:
        [row] = reader.rows(text("SELECT parts_counted FROM workflow_runs WHERE id = :id").bindparams(id=str(run_id)))
    return row["parts_counted"]


spans = st.tuples(st.just("span"), st.integers(1, 3), st.integers(0, 3), st.integers(0, 2), st.booleans())
# Those of event 0 are of no event, but of the run.
records = st.tuples(st.just("record"), st.integers(0, 3), st.integers(0, 5))


@given(sent=st.lists(spans | records, min_size=1, max_size=8).filter(lambda sent: any(s[0] == "span" for s in sent)))
@settings(derandomize=True, database=None, deadline=None, max_examples=60)
def test_the_tree_tells_what_is_stored(shared_store: Store, sent: list[tuple[Any, ...]]) -> None:
    """Spans that are pending, come again or share an id, and log records before or after them, in any order."""
    run_id = UUID(int=next(run_numbers))
    for kind, number, *said in sent:
        if kind == "span":
            events, links, ended = said
            send_spans(shared_store, span(run_id, number, events=events, links=links, ended=ended))
        else:
            event = number.to_bytes(8, "big") if number else b""
            send(shared_store, request(record(f"said {said}", run=run_id, event=event)))
    assert told(shared_store, run_id) == counted(shared_store, run_id)
    assert are_counted(shared_store, run_id) is not any(kind == "record" and number for kind, number, *_ in sent)


def test_a_metric_of_an_event_is_none_of_its_parts(store: Store) -> None:
    """Its exemplar names the run, which stays counted."""
    run_id = UUID(int=7)
    send_spans(store, span(run_id, 1, events=1))
    measured = ExportMetricsServiceRequest()
    gauge = measured.resource_metrics.add().scope_metrics.add().metrics.add(name="tokens").gauge
    gauge.data_points.add(as_int=3, time_unix_nano=50).exemplars.add(
        trace_id=run_id.bytes, span_id=(1).to_bytes(8, "big"), time_unix_nano=150
    )
    store.write(read_metric_requests([measured.SerializeToString()]).batch)
    assert are_counted(store, run_id)


def test_a_run_of_which_it_is_not_known_is_counted(database: str) -> None:
    """As of those that are older than the columns, and more that comes of it changes nothing of that."""
    run_id = UUID(int=1)
    store = Store.open(database)
    send_spans(store, span(run_id, 1, events=2, links=1))
    store.close()
    with get_db_session(database) as session:
        session.execute(text("UPDATE workflow_runs SET parts_counted = NULL"))
        session.execute(text("UPDATE execution_events SET span_event_count = NULL, span_link_count = NULL"))
        session.commit()
    close_database(database)
    store = Store.open(database)
    send_spans(store, span(run_id, 2, events=1))
    assert told(store, run_id) == counted(store, run_id) == {f"{1:016x}": (2, 1), f"{2:016x}": (1, 0)}
    assert are_counted(store, run_id) is None
    store.close()


def test_search_tells_it_too(store: Store, api_client: httpx.Client) -> None:
    """Of events of runs that are counted, and beside those of runs that are not."""
    counted_run, other = UUID(int=1), UUID(int=2)
    send_spans(store, span(counted_run, 1, events=2, links=1))
    for expected in ([(2, 1)], [(1, 2), (2, 1)]):
        found = api_client.get("/api/search", params={"filter": 'name = "work"'}).raise_for_status().json()["events"]
        assert sorted((event["log_count"], event["link_count"]) for event in found) == expected
        send_spans(store, span(other, 1, links=2))
        send(store, request(record(run=other, event=(1).to_bytes(8, "big"))))


@pytest.fixture
def application(database: str) -> Iterator[DatabaseSession]:
    """A session on a file in which two runs have an event with one log and one link each."""
    store = Store.open(database)
    for number in (1, 2):
        send_spans(store, span(UUID(int=number), 1, events=1, links=1))
    store.close()
    with get_db_session(database) as session:
        yield session


def runs_that_are_counted(session: DatabaseSession) -> list[int]:
    return [UUID(run.id).int for run in session.query(WorkflowRun).order_by(WorkflowRun.id) if run.parts_counted]


def test_a_row_written_by_itself_has_its_run_counted(application: DatabaseSession) -> None:
    """A log or a link that an application adds to an event, or takes from it, did not come with the span."""
    log = EventLog(run_id=UUID(int=1).hex, event_id=f"{1:016x}", name="noted")
    application.add(log)
    application.commit()
    assert runs_that_are_counted(application) == [2]
    [link] = application.query(EventLink).filter_by(run_id=UUID(int=2).hex)
    application.delete(link)
    application.commit()
    assert runs_that_are_counted(application) == []


def by_its_id(row: EventLog | ExecutionEvent, run: WorkflowRun) -> None:
    row.run_id = run.id


def by_its_relation(row: EventLog | ExecutionEvent, run: WorkflowRun) -> None:
    row.run = run


def by_that_of_the_run(row: EventLog | ExecutionEvent, run: WorkflowRun) -> None:
    (run.event_logs if isinstance(row, EventLog) else run.execution_events).append(row)


@pytest.mark.parametrize("move", [by_its_id, by_its_relation, by_that_of_the_run])
@pytest.mark.parametrize("kind", [EventLog, ExecutionEvent])
def test_what_changes_its_run_has_both_counted(application: DatabaseSession, kind: Any, move: Any) -> None:
    """A log, or an event, whose logs stay where they were."""
    [row] = application.query(kind).filter_by(run_id=UUID(int=1).hex)
    # Where it goes there is one with its number.
    if kind is ExecutionEvent:
        row.id = f"{9:016x}"
    else:
        row.log_index = 9
    move(row, application.get_one(WorkflowRun, UUID(int=2).hex))
    application.commit()
    assert runs_that_are_counted(application) == []


def test_another_row_changes_nothing_of_it(application: DatabaseSession) -> None:
    """Nor does an entry that belongs to no run."""
    application.add(EventLog(name="of nobody"))
    application.commit()
    assert runs_that_are_counted(application) == [1, 2]
