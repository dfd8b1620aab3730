"""A run's row: what its events make of it, in whatever order they come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, count, permutations
from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.storage import ExecutionEvent, Row, Session, Store, WorkflowRun
from clew.storage.runs import DEFAULT_SESSION, run_deltas

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=100)
RUN = UUID(int=7)
KNOWN_TO_BE_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
PARENT_IS_REMOTE = KNOWN_TO_BE_LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def span(
    number: int,
    *,
    parent: int = 0,
    remote: bool = False,
    start: int = 100,
    end: int = 200,
    name: str = "work",
    failed: bool = False,
    service: str = "",
    **attributes: str,
) -> ResourceSpans:
    """One span; in the attributes' names `__` stands for a dot."""
    sent = Span(
        trace_id=RUN.bytes,
        span_id=number.to_bytes(8, "big"),
        parent_span_id=parent.to_bytes(8, "big") if parent else b"",
        flags=1 | (PARENT_IS_REMOTE if remote else KNOWN_TO_BE_LOCAL),
        name=name,
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        attributes=[_pair(key.replace("__", "."), value) for key, value in attributes.items()],
    )
    block = ResourceSpans(scope_spans=[ScopeSpans(spans=[sent])])
    if service:
        block.resource.attributes.append(_pair("service.name", service))
    return block


def _pair(key: str, value: str) -> KeyValue:
    return KeyValue(key=key, value=AnyValue(string_value=value))


def send(store: Store, *spans: ResourceSpans) -> None:
    """Stores the spans as one group."""
    batch = read_requests([ExportTraceServiceRequest(resource_spans=spans).SerializeToString()]).batch
    assert batch is not None
    store.write(batch)


def run(store: Store, run_id: UUID = RUN) -> Row:
    with store.read() as reader:
        [row] = reader.rows(select(WorkflowRun.__table__).where(WorkflowRun.id == run_id))
        sessions = {session["id"] for session in reader.rows(select(Session.__table__))}
    assert row["session_id"] in sessions
    return row


def test_a_run_is_as_its_root(store: Store) -> None:
    """Name, agent and service are the root's, whatever starts before it."""
    root = span(1, name="root", service="planner", gen_ai__agent__name="Planner")
    send(store, span(2, parent=1, start=50, name="child", service="worker", gen_ai__agent__name="Worker"), root)
    row = run(store)
    assert (row["name"], row["agent"], row["service_name"]) == ("root", "Planner", "planner")
    assert (row["root_event_id"], row["status"]) == (f"{1:016x}", "completed")
    assert (row["started_at_unix_nano"], row["last_started_at_unix_nano"]) == (50, 100)
    assert (row["event_count"], row["error_count"], row["completed_at_unix_nano"]) == (2, 0, 200)


def test_a_root_that_comes_late_names_the_run(store: Store) -> None:
    """Until it comes the run is as its first event and running, for no root has ended."""
    send(store, span(2, parent=1, name="child", service="worker", gen_ai__agent__name="Worker"))
    early = run(store)
    assert (early["name"], early["agent"], early["service_name"]) == ("child", "Worker", "worker")
    assert (early["root_event_id"], early["status"]) == (None, "running")
    send(store, span(1, name="root", service="planner", gen_ai__agent__name="Planner"))
    late = run(store)
    assert (late["name"], late["agent"], late["service_name"]) == ("root", "Planner", "planner")
    assert (late["root_event_id"], late["status"]) == (f"{1:016x}", "completed")


def test_a_run_is_as_its_roots_finished_copy(store: Store) -> None:
    """Which may have another name than the pending one, another agent, and an end that is none of failure."""
    send(store, span(2, parent=1, gen_ai__agent__name="Worker"))
    send(store, span(1, name="GET", end=0, failed=True, service="early"))
    assert run(store)["status"] == "failed"
    send(store, span(1, name="GET /users/{id}", service="planner", gen_ai__agent__name="Planner"))
    row = run(store)
    assert (row["name"], row["agent"], row["service_name"]) == ("GET /users/{id}", "Planner", "planner")
    assert (row["status"], row["event_count"], row["error_count"]) == ("completed", 2, 0)


def test_a_session_that_no_run_takes_is_none(store: Store) -> None:
    """A second session that a run's events name does not come to be."""
    send(store, span(1, session__id="mine"))
    send(store, span(2, parent=1, session__id="another"))
    with store.read() as reader:
        assert [session["id"] for session in reader.rows(select(Session.__table__))] == ["mine"]


def test_what_the_root_does_not_say_others_do(store: Store) -> None:
    """A root without agent or service leaves those of the first event that has one."""
    send(store, span(1, name="root"))
    send(store, span(2, parent=1, service="worker", gen_ai__agent__name="Worker"))
    row = run(store)
    assert (row["name"], row["agent"], row["service_name"]) == ("root", "Worker", "worker")


def test_a_run_without_a_root_keeps_running(store: Store) -> None:
    """Its events may all have ended: what they belong to has not been heard of."""
    send(store, span(2, parent=1), span(3, parent=2, failed=True))
    row = run(store)
    assert (row["status"], row["event_count"], row["error_count"]) == ("running", 2, 1)


@pytest.mark.parametrize(
    ("end", "failed", "status"), [(0, False, "running"), (5, False, "completed"), (5, True, "failed")]
)
def test_a_run_whose_root_is_kept_elsewhere_ends_with_what_came_from_there(
    store: Store, end: int, failed: bool, status: str
) -> None:
    """A gateway passes its trace on and sends its own span to others, or to nobody."""
    send(store, span(2, parent=1, remote=True, end=end, failed=failed), span(3, parent=2))
    assert run(store)["status"] == status


@pytest.mark.parametrize("reverse", [False, True])
def test_a_run_whose_root_is_kept_elsewhere_is_named_by_what_came_from_there(store: Store, reverse: bool) -> None:
    """Also where what that did came before, as it does from SDKs that send spans as they end."""
    spans = [span(3, parent=2, name="inner", start=50, service="db"), span(2, parent=1, remote=True, name="POST /chat")]
    for sent in spans[::-1] if reverse else spans:
        send(store, sent)
    assert (run(store)["name"], run(store)["service_name"]) == ("POST /chat", "db")


def test_what_came_from_elsewhere_is_as_its_finished_copy(store: Store) -> None:
    for sent in (span(2, parent=1, remote=True, end=0, failed=True), span(2, parent=1, remote=True)):
        send(store, sent)
    assert (run(store)["status"], run(store)["error_count"]) == ("completed", 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("root_end", "status"), [(0, "running"), (900, "completed")])
def test_a_root_outweighs_what_came_from_elsewhere(store: Store, reverse: bool, root_end: int, status: str) -> None:
    """Another process's part of the run has failed, which its caller may have made good; nothing is decided by it."""
    spans = [span(2, parent=1, remote=True, failed=True), span(1, end=root_end)]
    for sent in spans[::-1] if reverse else spans:
        send(store, sent)
    assert run(store)["status"] == status


@pytest.mark.parametrize(
    ("roots", "status"),
    [
        ([{"end": 0}], "running"),
        ([{}], "completed"),
        ([{"failed": True}], "failed"),
        ([{"failed": True, "end": 0}], "failed"),
        ([{"end": 0}, {}], "completed"),
        ([{}, {"failed": True}], "failed"),
        ([{"failed": True}, {"end": 0}], "failed"),
    ],
)
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_status_is_the_roots(
    store: Store, roots: list[dict[str, Any]], status: str, together: bool, reverse: bool
) -> None:
    """Failed when a root has failed, else completed when one has ended, in any order."""
    spans = [span(number, **said) for number, said in enumerate(roots, start=1)]
    spans.append(span(9, parent=1, failed=status == "completed"))
    spans = spans[::-1] if reverse else spans
    for group in [spans] if together else [[sent] for sent in spans]:
        send(store, *group)
    assert run(store)["status"] == status


@pytest.mark.parametrize(("root_end", "status"), [(0, "paused"), (900, "completed")])
def test_what_an_event_says_of_its_run_holds_until_the_root_has_ended(store: Store, root_end: int, status: str) -> None:
    """That it comes before the root changes nothing."""
    send(store, span(2, parent=1, clew__run__status="paused"))
    send(store, span(1, end=root_end))
    assert run(store)["status"] == status


def test_a_finished_copy_leaves_what_is_said_of_the_run(store: Store) -> None:
    """Of an event that decides nothing."""
    send(store, span(1, end=0, clew__run__status="paused"), span(2, parent=1, end=0, failed=True))
    send(store, span(2, parent=1))
    assert (run(store)["status"], run(store)["error_count"]) == ("paused", 0)


@pytest.mark.parametrize("key", ["session.id", "gen_ai.conversation.id"])
@pytest.mark.parametrize("late", [False, True])
def test_a_run_belongs_to_the_session_that_is_named_first(store: Store, key: str, late: bool) -> None:
    """A session that is named late takes the run out of `default`; a second one does not take it away."""
    if late:
        send(store, span(1))
        assert run(store)["session_id"] == DEFAULT_SESSION
    send(store, span(2, parent=1, start=101, **{key: "mine"}))
    send(store, span(3, parent=1, start=102, **{key: "another"}), span(4, parent=1))
    assert run(store)["session_id"] == "mine"


def test_a_resource_names_the_session_where_the_span_does_not(store: Store) -> None:
    """`session.id` on the resource holds for all its spans."""
    block = span(1)
    block.resource.attributes.append(_pair("session.id", "of the resource"))
    send(store, block)
    assert run(store)["session_id"] == "of the resource"


@pytest.mark.parametrize("beside", [(), (2,)])
def test_a_span_that_is_not_stored_says_nothing_of_its_run(store: Store, beside: tuple[int, ...]) -> None:
    """One that came before and says otherwise this time is dropped, and the run is as what is stored of it; what came
    beside is told."""
    send(store, span(1, end=0), span(3, parent=1, end=150))
    before = run(store)
    again = span(3, parent=1, end=900, name="other", service="s", session__id="other", gen_ai__agent__name="Other")
    send(store, again, *(span(number, parent=1, end=170) for number in beside))
    after = run(store)
    grown = {"event_count": 2 + len(beside), "completed_at_unix_nano": 170 if beside else 150}
    touched = ("revision", "usage_revision") if beside else ()
    assert {name: value for name, value in after.items() if name not in touched} == {
        name: value for name, value in (dict(before) | grown).items() if name not in touched
    }


def test_a_span_that_comes_twice_in_a_group_is_told_once(store: Store) -> None:
    """The second does not count, in a run that nobody has heard of."""
    send(store, span(1, parent=9), span(1, parent=9, end=900, failed=True, session__id="other"))
    row = run(store)
    assert (row["event_count"], row["error_count"], row["completed_at_unix_nano"]) == (1, 0, 200)
    assert row["session_id"] == DEFAULT_SESSION


def test_a_runs_root_is_an_event_of_it(store: Store) -> None:
    """Where it shares a span id with an event that was there before, it is known by the id it was given."""
    send(store, span(1, parent=9, start=50))
    send(store, span(1, name="root"))
    with store.read() as reader:
        [root] = reader.rows(select(ExecutionEvent.id).where(ExecutionEvent.name == "root"))
    assert run(store)["root_event_id"] == root["id"] != f"{1:016x}"


# --- by order and by model --------------------------------------------------------------------------------------------


run_numbers = count(1000)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(str(tmp_path_factory.mktemp("runs") / "clew.duckdb"))
    yield opened
    opened.close()


def in_a_run_of_their_own(*spans: ResourceSpans) -> UUID:
    run_id = UUID(int=next(run_numbers))
    for sent in spans:
        sent.scope_spans[0].spans[0].trace_id = run_id.bytes
    return run_id


def test_the_order_of_batches_does_not_matter(shared_store: Store) -> None:
    """A run of one root that names all there is comes out the same, however its events are ordered."""
    parts = [
        span(1, name="root", service="s", gen_ai__agent__name="Root", session__id="mine", end=900),
        span(2, parent=1, start=40, failed=True, gen_ai__agent__name="Other", service="t"),
        span(3, parent=2, start=300, end=1000),
        span(4, parent=7, start=7, end=0),
    ]
    rows = []
    for order in permutations(parts):
        run_id = in_a_run_of_their_own(*order)
        for part in order:
            send(shared_store, part)
        rows.append({**run(shared_store, run_id), "id": None})
    assert all(row == rows[0] for row in rows)
    assert (rows[0]["name"], rows[0]["agent"], rows[0]["status"]) == ("root", "Root", "completed")


names = st.none() | st.sampled_from(["a", "b", "c"])
events = st.fixed_dictionaries(
    {
        "run_id": st.sampled_from([bytes(15) + b"\1", b"\xff" * 16, bytes(15) + b"\2"]),
        "parent_event_id": st.none() | st.integers(1, 3),
        "flags": st.sampled_from([0, 1, 0x100, 0x101, 0x200, 0x300, 0x301]),
        "session_id": names,
        "name": st.sampled_from(["", "x", "y"]),
        "agent_name": names,
        "service_name": names,
        "status": st.sampled_from(["running", "completed", "failed"]),
        "started_at_unix_nano": st.sampled_from([0, 1, 5, 2**63 - 1]) | st.integers(0, 2**63 - 1),
        "completed_at_unix_nano": st.sampled_from([0, 7, 2**63 - 1]),
    }
)


def _obvious_delta(run_id: bytes, of_run: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `run_deltas` is to say of a run."""
    in_order = sorted(of_run, key=lambda event: event["started_at_unix_nano"])
    roots = [event for event in in_order if event["parent_event_id"] is None]
    decisive = roots or [event for event in in_order if event["flags"] in (0x300, 0x301)]
    preferred = decisive + [event for event in in_order if event not in decisive]
    ends = {event["status"] for event in decisive}
    return {
        "id": run_id,
        "session_id": _first(in_order, "session_id") or DEFAULT_SESSION,
        "name": preferred[0]["name"],
        "agent": _first(preferred, "agent_name"),
        "service_name": _first(preferred, "service_name"),
        "status": next((status for status in ("failed", "completed") if status in ends), "running"),
        "root_event_id": roots[0]["id"] if roots else None,
        "started_at_unix_nano": in_order[0]["started_at_unix_nano"],
        "last_started_at_unix_nano": in_order[-1]["started_at_unix_nano"],
        "completed_at_unix_nano": max(event["completed_at_unix_nano"] for event in of_run),
        "event_count": len(of_run),
        "error_count": sum(event["status"] == "failed" for event in of_run),
        "parts_counted": True,
    }


def _first(of_run: Sequence[dict[str, Any]], name: str) -> Any:
    return next((event[name] for event in of_run if event[name] is not None), None)


@given(batch=st.lists(events, min_size=1, max_size=15))
@settings(DETERMINISTIC, max_examples=200)
def test_deltas_are_what_an_obvious_model_says(batch: list[dict[str, Any]]) -> None:
    """The columns' arithmetic and a loop over events agree on every run."""
    for number, event in enumerate(batch, start=1):
        event["id"] = number
    types = {"run_id": pa.binary(16)} | dict.fromkeys(("session_id", "agent_name", "service_name"), pa.string())
    columns = {name: pa.array([event[name] for event in batch], types.get(name)) for name in batch[0]}
    columns["parent_event_id"] = columns["parent_event_id"].cast(pa.int64())
    said = {row["id"]: row for row in run_deltas(pa.table(columns)).to_pylist()}
    run_ids = {event["run_id"] for event in batch}
    assert said == {
        run_id: _obvious_delta(run_id, [event for event in batch if event["run_id"] == run_id]) for run_id in run_ids
    }


parts = st.lists(
    st.tuples(
        st.sampled_from(["root", "remote", "local"]),
        st.sampled_from([0, 60]),
        st.booleans(),
        st.integers(0, 50),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=10,
)


@given(said=parts)
@settings(DETERMINISTIC, max_examples=40)
def test_status_bounds_and_counts_do_not_depend_on_batches(
    shared_store: Store, said: list[tuple[str, int, bool, int, int]]
) -> None:
    """However a run's events are dealt to batches, these are what the events as a whole say."""
    batches: dict[int, list[ResourceSpans]] = {}
    for number, (kind, end, failed, start, batch) in enumerate(said, start=1):
        parent = 0 if kind == "root" else 99
        sent = span(number, parent=parent, remote=kind == "remote", start=start, end=end, failed=failed)
        batches.setdefault(batch, []).append(sent)
    run_id = in_a_run_of_their_own(*chain(*batches.values()))
    for spans in batches.values():
        send(shared_store, *spans)
    row = run(shared_store, run_id)
    roots, entries = ([part for part in said if part[0] == kind] for kind in ("root", "remote"))
    ended = "completed" if any(end for _, end, *_ in roots or entries) else "running"
    assert row["status"] == ("failed" if any(failed for _, _, failed, *_ in roots or entries) else ended)
    assert row["event_count"] == len(said)
    assert row["error_count"] == sum(failed for _, _, failed, _, _ in said)
    starts = [start for _, _, _, start, _ in said]
    assert (row["started_at_unix_nano"], row["last_started_at_unix_nano"]) == (min(starts), max(starts))
    assert row["completed_at_unix_nano"] == max(end for _, end, _, _, _ in said)
