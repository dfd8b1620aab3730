"""What spans bring along: the rows of other tables that they fill, once, in whatever order they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.storage import (
    AgentRun,
    ApprovalRequest,
    Base,
    Branch,
    Checkpoint,
    CostRecord,
    DAGEdge,
    DAGNode,
    EventLog,
    ExecutionEvent,
    File,
    Message,
    Project,
    Row,
    Store,
    Task,
    WorkflowRun,
    WorkflowStep,
)

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=40)
RUN = UUID(int=7)
SESSION = {"session.id": "thesis"}
CHAT = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o", "gen_ai.agent.name": "scout"}

Attributes = dict[str, Any]

example_numbers = count(1)


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """One for all examples, each in runs of its own."""
    store = Store.open(str(tmp_path_factory.mktemp("records") / "clew.duckdb"))
    yield store
    store.close()


def any_value(value: Any) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(any_value, value)))
    kind = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}[type(value)]
    return AnyValue(**{kind: value})


def key_values(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span(
    number: int,
    attributes: Attributes,
    *,
    run: UUID = RUN,
    start: int = 100,
    end: int = 200,
    failed: bool = False,
    says: Sequence[tuple[str, Attributes]] = (),
    links: Sequence[Span.Link] = (),
) -> Span:
    """A span that says these span events, at its start + 1, + 2 ..."""
    return Span(
        trace_id=run.bytes,
        span_id=number.to_bytes(8, "big"),
        name=f"work {number}",
        start_time_unix_nano=start,
        end_time_unix_nano=end,
        status=Status(code=Status.STATUS_CODE_ERROR if failed else Status.STATUS_CODE_UNSET),
        attributes=key_values(attributes),
        events=[
            Span.Event(name=name, time_unix_nano=start + 1 + index, attributes=key_values(said))
            for index, (name, said) in enumerate(says)
        ],
        links=links,
    )


def send(store: Store, *spans: Span) -> None:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add(spans=spans)
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    store.write(batch)


def rows(store: Store, table: type[Base], *columns: str) -> list[Any]:
    """The table's rows, or of these columns tuples, sorted."""
    with store.read() as reader:
        found: Sequence[Row] = reader.rows(select(table.__table__))
    return sorted((tuple(row[name] for name in columns) for row in found), key=repr) if columns else list(found)


def event_id(number: int) -> str:
    return f"{number:016x}"


FILE = ("clew.file", {"file.path": "out/plot.png", "file.size": 7, "clew.file.sha256": "ab"})
EVERYTHING = span(
    1,
    SESSION
    | CHAT
    | {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 2}
    | {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hello"}]}])}
    | {"clew.node.id": "plan", "clew.node.depends_on": ["start"], "clew.step.id": "one", "clew.step.number": 1}
    | {"clew.project.name": "atlas", "clew.task.id": "t1", "clew.task.title": "Map it", "clew.run.mode": "one_shot"},
    says=[
        FILE,
        ("clew.message", {"clew.message.sender": "scout", "clew.message.content": "found it"}),
        ("clew.checkpoint", {"clew.checkpoint.type": "manual", "clew.checkpoint.snapshot": '{"a": 1}'}),
        ("clew.approval", {"clew.approval.id": "a1", "clew.approval.status": "pending"}),
    ],
)
EVERYTHING_ALONE = [FILE, ("clew.checkpoint", {})]
FILLED = (CostRecord, File, Message, Checkpoint, ApprovalRequest, DAGNode, DAGEdge, WorkflowStep, Project, Task)


def test_a_span_sent_again_brings_nothing_twice(store: Store) -> None:
    """In the same group, in a later one, and among new spans."""
    send(store, EVERYTHING, EVERYTHING)
    once = {table: len(rows(store, table)) for table in FILLED}
    assert all(once.values())
    send(store, EVERYTHING)
    send(store, EVERYTHING, span(2, {}))
    assert {table: len(rows(store, table)) for table in FILLED} == once


def test_an_agents_invocation_is_an_agent_run(store: Store) -> None:
    """A model's call is none; a pending copy is a run that goes on, and its end ends that."""
    invoked = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "scout"}
    send(store, span(1, invoked, end=0), span(2, CHAT), span(3, {"gen_ai.operation.name": "invoke_agent"}))
    columns = ("event_id", "agent_name", "status", "started_at_unix_nano", "finished_at_unix_nano")
    assert rows(store, AgentRun, *columns) == [(event_id(1), "scout", "RUNNING", 100, None)]
    send(store, span(1, invoked, end=300, failed=True))
    assert rows(store, AgentRun, *columns) == [(event_id(1), "scout", "FAILED", 100, 300)]


@pytest.mark.parametrize(
    ("said", "cost", "source"),
    [
        ({"clew.cost.usd": 0.5}, 0.5, "reported"),
        ({}, 1000 * 2.5e-6 + 100 * 10e-6, "estimated"),
        ({"gen_ai.usage.cache_read.input_tokens": 400}, 600 * 2.5e-6 + 400 * 1.25e-6 + 100 * 10e-6, "estimated"),
        ({"gen_ai.request.model": "nobody-knows-it"}, None, "estimated"),
    ],
)
def test_a_cost_is_reported_or_estimated(store: Store, said: Attributes, cost: float | None, source: str) -> None:
    """By the producer, else from the tokens, of which cached ones are a part; a model without a price costs nothing
    that is known."""
    used = {"gen_ai.usage.input_tokens": 1000, "gen_ai.usage.output_tokens": 100}
    send(store, span(1, CHAT | used | said))
    [record] = rows(store, CostRecord)
    assert (record["prompt_tokens"], record["completion_tokens"], record["total_tokens"]) == (1000, 100, 1100)
    assert record["cached_tokens"] == said.get("gen_ai.usage.cache_read.input_tokens")
    assert record["cost_usd"] is None if cost is None else float(record["cost_usd"]) == pytest.approx(cost)
    assert (record["source"], record["event_id"]) == (source, event_id(1))
    [event] = rows(store, ExecutionEvent)
    assert event["cost_usd"] == (None if cost is None else pytest.approx(cost))


@pytest.mark.parametrize(("input_tokens", "cost"), [(200_000, 0.25), (200_001, 0.5000025)])
def test_a_price_with_tiers_is_that_of_the_tier(store: Store, input_tokens: int, cost: float) -> None:
    """Past its start a tier's price holds for all tokens of the call."""
    used = {"gen_ai.usage.input_tokens": input_tokens, "gen_ai.usage.output_tokens": 0}
    send(store, span(1, CHAT | used | {"gen_ai.request.model": "gemini-2.5-pro"}))
    [record] = rows(store, CostRecord)
    assert float(record["cost_usd"]) == pytest.approx(cost)


def test_files_hang_on_the_event_that_wrote_or_read_them(store: Store) -> None:
    """Told by a span event, or by the attributes of the span that wrote; without a path there is only the log."""
    used = ("file.used", {"file.path": "in/data.csv"})
    without = ("clew.file", {"file.size": 3})
    wrote = {"clew.event.type": "file_gen", "file.path": "report.md"}
    send(store, span(1, {"clew.node.id": "plan"}, says=[FILE, used, without]), span(2, wrote))
    assert rows(store, File, "file_path", "event_id", "node_id", "file_type", "role", "size_bytes") == [
        ("in/data.csv", event_id(1), "plan", "data", "input", None),
        ("out/plot.png", event_id(1), "plan", "plot", "output", 7),
        ("report.md", event_id(2), None, "other", "output", None),
    ]
    assert len(rows(store, EventLog)) == 3


def conversation(turn: int) -> Attributes:
    """A model's call that repeats all that was said before."""
    said = [
        {"role": ("user", "assistant")[number % 2], "parts": [{"type": "text", "content": f"{number} " + "x" * 500}]}
        for number in range(2 * turn + 2)
    ]
    history, answer = json.dumps(said[:-1]), json.dumps(said[-1:])
    return SESSION | CHAT | {"gen_ai.input.messages": history, "gen_ai.output.messages": answer}


@pytest.mark.parametrize("together", [False, True])
def test_a_message_is_stored_once_in_its_session(store: Store, together: bool) -> None:
    """However often later calls repeat it, in the same run or another, in one group or several."""
    calls = [
        span(turn + 1, conversation(turn), run=UUID(int=1 + turn % 2), start=100 * turn, end=100 * turn + 99)
        for turn in range(20)
    ]
    for group in [calls] if together else [[call] for call in calls]:
        send(store, *group)
    messages = rows(store, Message)
    assert sorted(int(message["content"].split()[0]) for message in messages) == list(range(40))
    said_by = {int(message["content"].split()[0]): message["event_id"] for message in messages}
    assert said_by == {number: event_id(number // 2 + 1) for number in range(40)}


HELLO = {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": [{"type": "text", "content": "hello"}]}])}


@pytest.mark.parametrize(
    ("before", "together", "said_by"),
    [
        ([], [span(1, CHAT | HELLO, end=0), span(1, CHAT | HELLO)], 1),
        ([span(1, CHAT)], [span(1, CHAT | HELLO), span(2, CHAT | HELLO, start=150)], 2),
        ([span(1, CHAT)], [span(1, CHAT | HELLO), span(1, CHAT | HELLO), span(3, CHAT | HELLO), span(2, CHAT)], 3),
    ],
    ids=["a pending copy", "one that came before", "the third"],
)
def test_a_message_stays_where_its_first_sayer_is_not_stored(
    store: Store, before: list[Span], together: list[Span], said_by: int
) -> None:
    """It is the next one's of the same group."""
    for group in filter(None, (before, together)):
        send(store, *group)
    assert rows(store, Message, "content", "event_id") == [("hello", event_id(said_by))]


def test_spans_that_share_an_id_bring_rows_of_their_own(store: Store) -> None:
    """Files and checkpoints of each, with ids of their own, beside others in the same group."""
    client, server = (span(1, {}, start=start, says=EVERYTHING_ALONE) for start in (100, 150))
    send(store, client)
    send(store, server, span(2, {}))
    assert len(rows(store, ExecutionEvent)) == 3
    for table in (File, Checkpoint):
        assert len({row["id"] for row in rows(store, table)}) == 2


def test_the_same_words_in_another_session_are_another_message(store: Store) -> None:
    """Sessions share nothing."""
    said = ("clew.message", {"clew.message.content": "hello"})
    for number, session in enumerate(("a", "b"), start=1):
        send(store, span(number, {"session.id": session}, run=UUID(int=number), says=[said]))
    assert len(rows(store, Message)) == 2


def test_an_approval_waits_until_it_is_resolved(store: Store) -> None:
    """Asked by one span, answered by another, whichever comes first."""
    asked = span(1, {}, says=[("clew.approval", {"clew.approval.id": "a1"})])
    said = {"clew.approval.id": "a1", "clew.approval.status": "approved", "clew.approval.feedback": "go"}
    columns = ("id", "status", "requested_at_unix_nano", "resolved_at_unix_nano", "user_feedback")
    send(store, asked)
    assert rows(store, ApprovalRequest, *columns) == [("a1", "pending", 101, None, None)]
    send(store, span(2, {}, start=500, end=600, says=[("clew.approval", said)]))
    assert rows(store, ApprovalRequest, *columns) == [("a1", "approved", 101, 501, "go")]


def test_a_run_is_what_its_spans_say_of_it(store: Store) -> None:
    """Its project and task are there, and its mode, agent and model."""
    said = {"clew.project.name": "atlas", "clew.task.id": "t1", "clew.task.title": "Map it", "clew.run.task": "Map all"}
    told = {"clew.run.mode": "deep_research", "clew.run.agent": "planner", "clew.run.model": "gpt-4o"}
    send(store, span(2, {}, start=150), span(1, SESSION | said | told))
    [run], [project], [task] = rows(store, WorkflowRun), rows(store, Project), rows(store, Task)
    assert (run["mode"], run["agent"], run["model"], run["task_description"]) == (*told.values(), "Map all")
    assert (run["project_id"], project["name"], project["session_id"]) == (project["id"], "atlas", "thesis")
    assert (run["task_id"], task["title"], task["input_prompt"], task["status"]) == (
        "t1",
        "Map it",
        "Map all",
        "SUCCEEDED",
    )


NODE_SPANS = [
    span(1, {"clew.node.id": "plan", "clew.node.type": "planning"}, start=100, end=0),
    span(1, {"clew.node.id": "plan", "clew.node.type": "planning"}, start=100, end=900),
    span(2, {"clew.node.id": "plan"}, start=200, end=300, failed=True),
    span(
        3,
        {"clew.node.id": "draw", "clew.node.depends_on": ["plan", "draw", "nowhere"]},
        start=1000,
        end=1100,
        failed=True,
    ),
]


@given(order=st.permutations(NODE_SPANS), cut=st.integers(1, 3))
@DETERMINISTIC
def test_the_graph_is_the_same_in_whatever_order_spans_come(shared_store: Store, order: list[Span], cut: int) -> None:
    """A node is as its earliest event, from its first to its last; a dependency that never came waits; one on itself is
    no edge, and marked."""
    number = next(example_numbers)
    run = UUID(int=number << 64)
    for group in (order[:cut], order[cut:]):
        for sent in group:
            sent.trace_id = run.bytes
        send(shared_store, *group)
    nodes = [node for node in rows(shared_store, DAGNode) if node["run_id"] == run.hex]
    assert {n["id"]: (n["status"], n["started_at_unix_nano"], n["completed_at_unix_nano"]) for n in nodes} == {
        "plan": ("completed", 100, 900),
        "draw": ("failed", 1000, 1100),
        "nowhere": ("pending", None, None),
    }
    assert {node["id"]: node["node_type"] for node in nodes} == {
        "plan": "planning",
        "draw": "agent",
        "nowhere": "agent",
    }
    assert [node["meta"] for node in nodes if node["id"] == "draw"] == [{"depends_on_itself": True}]
    edges = [edge for edge in rows(shared_store, DAGEdge) if edge["run_id"] == run.hex]
    told = sorted((edge["from_node_id"], edge["to_node_id"], edge["source"]) for edge in edges)
    assert told == [("nowhere", "draw", "declared"), ("plan", "draw", "declared")]


def test_a_run_is_in_the_state_that_its_root_tells(store: Store) -> None:
    """Though the root has ended, and whatever comes after; a state that is none is not believed."""
    send(store, span(1, {"clew.run.status": "paused"}))
    late = span(2, {})
    late.parent_span_id = (1).to_bytes(8, "big")
    send(store, late)
    assert rows(store, WorkflowRun, "status") == [("paused",)]
    send(store, span(1, {"clew.run.status": "dancing"}, run=UUID(int=8)))
    assert rows(store, WorkflowRun, "status") == [("completed",), ("paused",)]


def test_edges_tell_where_they_come_from(store: Store) -> None:
    """A framework's own graph, and hand-overs between agents."""
    graph = {"gen_ai.workflow.nodes": ["a", "b", "c"], "gen_ai.workflow.edges": ["a -> b", "b -> b", "nonsense"]}
    handoff = {"clew.event.type": "handoff", "gen_ai.agent.name": "planner", "clew.inputs": '{"to": "engineer"}'}
    send(store, span(1, graph), span(2, handoff))
    assert rows(store, DAGEdge, "from_node_id", "to_node_id", "source") == [
        ("a", "b", "workflow"),
        ("planner", "engineer", "handoff"),
    ]
    assert {node["id"] for node in rows(store, DAGNode)} == {"a", "b", "c", "planner", "engineer"}


def test_a_step_lasts_from_its_first_event_to_its_last(store: Store) -> None:
    """And is as its earliest."""
    step = {"clew.step.id": "s", "clew.step.number": 2, "clew.step.progress": 40}
    send(store, span(2, step, start=300, end=400, failed=True))
    send(store, span(1, step | {"clew.step.progress": 100}, start=100, end=500))
    send(store, span(3, {"clew.step.id": "s"}, start=350, end=360, failed=True))
    columns = ("id", "step_number", "status", "started_at_unix_nano", "completed_at_unix_nano", "progress_percentage")
    assert rows(store, WorkflowStep, *columns) == [("s", 2, "completed", 100, 500, 100)]


def test_a_link_of_type_branch_is_a_branch(store: Store) -> None:
    """From the event that it branches from, which another run holds."""
    said = key_values({"clew.link.type": "branch", "clew.branch.name": "b", "clew.branch.hypothesis": "colder"})
    link = Span.Link(trace_id=UUID(int=5).bytes, span_id=(3).to_bytes(8, "big"), attributes=said)
    send(store, span(1, {}, links=[link]))
    assert rows(store, Branch, "parent_run_id", "parent_event_id", "child_run_id", "branch_name", "hypothesis") == [
        (UUID(int=5).hex, event_id(3), RUN.hex, "b", "colder")
    ]


@pytest.mark.parametrize("name", ["clew.file", "clew.message", "clew.checkpoint", "clew.approval"])
@pytest.mark.parametrize("value", [True, 7, 0.5, "", "{", ["x"]])
def test_nonsense_harms_nothing(store: Store, name: str, value: Any) -> None:
    """The span is stored with its log, whatever the values are."""
    keys = ("file.path", "file.size", "clew.message.content", "clew.checkpoint.snapshot", "clew.approval.status")
    more = ("clew.node.id", "clew.node.depends_on", "clew.step.progress", "clew.task.id", "gen_ai.workflow.edges")
    send(store, span(1, dict.fromkeys(more, value), says=[(name, dict.fromkeys(keys, value))]))
    assert len(rows(store, ExecutionEvent)) == len(rows(store, EventLog)) == 1


def test_no_time_breaks_the_view_spans(store: Store) -> None:
    """A time that the engine has no timestamp for is NULL there; times past int64 are stored as its end."""
    send(store, span(1, {}, start=2**63 - 1, end=2**64 - 1), span(2, {}, start=2**63 - 2, end=0))
    with store.engine.connect() as connection:
        assert len(connection.exec_driver_sql("SELECT * FROM spans").all()) == 2
        times = connection.exec_driver_sql("SELECT start_time::VARCHAR, end_time::VARCHAR FROM spans ORDER BY span_id")
        assert times.all() == [(None, None), ("2262-04-11 23:47:16.854775806", None)], "the second has not ended"
