"""`clew.run` and `clew.record`: what an application records arrives as it was said."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import clew as package
from clew import record

WAIT_S = 30


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    """The exporter of a tracer provider that the application has set."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # `set_tracer_provider` cannot be undone
    return exporter


def _tree(server: Any, run_id: str) -> Any:
    return httpx.get(f"{server.http_url}/api/runs/{run_id}/tree").raise_for_status().json()


def _event(server: Any, run_id: str, event_id: str) -> Any:
    return httpx.get(f"{server.http_url}/api/runs/{run_id}/events/{event_id}").raise_for_status().json()


def _logs(server: Any, run_id: str, event_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [(log["name"], log["attributes"]) for log in _event(server, run_id, event_id)["logs"]]


def _outline(tree: dict[str, Any]) -> list[str]:
    return [f"{'  ' * event['depth']}{event['name']} [{event['event_type']}]" for event in tree["events"]]


def _span(exporter: InMemorySpanExporter, name: str) -> ReadableSpan:
    [span] = [span for span in exporter.get_finished_spans() if span.name == name]
    return span


def test_the_tree_of_a_run_with_everything(server: Any, tmp_path: Path) -> None:
    """Every call becomes an event of its type in its place, with its agent; the run is whole and completed."""
    with package.run("Why did they leave?", workflow="churn", session="anna", endpoint=server.grpc_target) as run:
        with run.node("plan", node_type="planning"), run.step(1, "ask"), run.agent_call("planner") as planner:
            with planner.chat("gpt-5") as chat:
                chat.usage(input_tokens=120, output_tokens=30, cost_usd=0.25)
            with planner.approval("deploy?") as approval:
                approval.resolve("approved")
            planner.handoff("engineer", reason="the plan is good")
        with (
            run.node("build", depends_on=["plan"]),
            run.agent_call("engineer", model="codestral-2", role="helper") as engineer,
        ):
            with engineer.tool_call("search"):
                pass
            with engineer.code_exec("python", "print(1)") as code:
                code.exit_code(0)
    tree = _tree(server, run.run_id)
    assert _outline(tree) == [
        "invoke_workflow churn [agent_call]",
        "  node plan [info]",
        "    step 1 ask [info]",
        "      invoke_agent planner [agent_call]",
        "        chat gpt-5 [agent_call]",
        "        approval deploy? [approval_requested]",
        "        handoff engineer [handoff]",
        "  node build [info]",
        "    invoke_agent engineer [agent_call]",
        "      execute_tool search [tool_call]",
        "      execute_tool python [code_exec]",
    ]
    assert (tree["roots"], tree["orphans"], tree["run"]["status"]) == (1, 0, "completed")
    assert (tree["run"]["session_id"], tree["run"]["error_count"]) == ("anna", 0)
    by_name = {event["name"]: event for event in tree["events"]}
    assert {event["agent_name"] for event in tree["events"]} == {None, "planner", "engineer"}
    assert by_name["approval deploy?"]["event_subtype"] == "approved"
    assert by_name["chat gpt-5"]["kind"] == "CLIENT"
    assert [by_name["chat gpt-5"][name] for name in ("input_tokens", "output_tokens", "cost_usd")] == [120, 30, 0.25]
    assert [by_name["invoke_agent engineer"][name] for name in ("agent_role", "model")] == ["helper", "codestral-2"]


def test_what_is_said_of_a_run(memory: InMemorySpanExporter) -> None:
    """A run's settings are attributes of its first span, its session of every span."""
    with (
        package.run(
            *("Why?",),
            workflow="churn",
            mode="one_shot",
            agent="planner",
            model="gpt-5",
            session="anna",
            project="brief",
            task_id="T-1",
        ) as run,
        run.tool_call("search"),
    ):
        pass
    assert _span(memory, "invoke_workflow churn").attributes == {
        "session.id": "anna",
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "churn",
        "clew.run.task": "Why?",
        "clew.run.mode": "one_shot",
        "clew.run.agent": "planner",
        "clew.run.model": "gpt-5",
        "clew.run.status": "completed",
        "clew.project.name": "brief",
        "clew.task.id": "T-1",
        "clew.task.title": "Why?",
    }
    assert _span(memory, "execute_tool search").attributes == {
        "session.id": "anna",
        "clew.event.type": "tool_call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "search",
    }


def test_nodes_and_steps(memory: InMemorySpanExporter) -> None:
    """A node tells its type, order and what it waits for, a step its number and progress; all within tell which."""
    with (
        package.run("t") as run,
        run.node("build", node_type="agent", depends_on=["plan"], order=2) as node,
        node.step(3, "compile", inputs={"a": 1}) as step,
        step.tool_call("cc"),
    ):
        step.progress(50)
    assert _span(memory, "node build").attributes == {
        "clew.node.id": "build",
        "clew.node.type": "agent",
        "clew.node.order": 2,
        "clew.node.depends_on": ("plan",),
    }
    assert _span(memory, "step 3 compile").attributes == {
        "clew.node.id": "build",
        "clew.step.id": "step_3",
        "clew.step.number": 3,
        "clew.step.progress": 50,
        "clew.inputs": '{"a":1}',
    }
    within = _span(memory, "execute_tool cc").attributes
    assert within
    assert (within["clew.node.id"], within["clew.step.id"]) == ("build", "step_3")
    assert "clew.node.type" not in within


def test_inputs_and_outputs(memory: InMemorySpanExporter) -> None:
    """A tool's and code's go by OTel's names, an agent's by clew's; text stays text, the rest is JSON."""
    with package.run("t") as run, run.agent_call("a", inputs={"goal": "grün"}) as call:
        with call.tool_call("search", inputs={"q": [1, None]}, call_id="c1") as tool:
            tool.outputs({"hits": 2})
        with call.code_exec("python", "1/0") as code:
            code.outputs("ZeroDivisionError")
            code.exit_code(1)
        call.outputs("done")
    agent, tool_span, code_span = (
        dict(_span(memory, name).attributes or {})
        for name in ("invoke_agent a", "execute_tool search", "execute_tool python")
    )
    assert (agent["clew.inputs"], agent["clew.outputs"]) == ('{"goal":"grün"}', "done")
    assert tool_span["gen_ai.tool.call.id"] == "c1"
    assert tool_span["gen_ai.tool.call.arguments"] == '{"q":[1,null]}'
    assert tool_span["gen_ai.tool.call.result"] == '{"hits":2}'
    assert code_span["gen_ai.tool.call.arguments"] == '{"code":"1/0"}'
    assert (code_span["process.exit.code"], code_span["clew.event.subtype"]) == (1, "error")
    assert _span(memory, "execute_tool python").status.description == "exit code 1"


def test_files_messages_and_checkpoints(server: Any, tmp_path: Path) -> None:
    """They are logs of the event that they were said in; size and digest come from the file where it is there."""
    written = tmp_path / "notes.md"
    written.write_bytes(b"three stores")
    with package.run("t", endpoint=server.grpc_target) as run, run.agent_call("a") as call:
        call.file(written, file_type="data")
        call.file("/nowhere/in.csv", role="input", size_bytes=7)
        call.message("hello", sender="a", recipient="b", tokens=2)
        event_id = call.id
    assert _logs(server, run.run_id, event_id) == [
        (
            "clew.file",
            {
                "file.path": str(written),
                "file.size": 12,
                "clew.file.type": "data",
                "clew.file.role": "output",
                "clew.file.sha256": hashlib.sha256(b"three stores").hexdigest(),
            },
        ),
        ("clew.file", {"file.path": "/nowhere/in.csv", "file.size": 7, "clew.file.role": "input"}),
        (
            "clew.message",
            {
                "clew.message.sender": "a",
                "clew.message.recipient": "b",
                "clew.message.content": "hello",
                "clew.message.tokens": 2,
            },
        ),
    ]


def test_a_checkpoint_does_not_wait_for_its_run(memory: InMemorySpanExporter) -> None:
    """It is an ended event with the snapshot while the run and the step that it is of are still open."""
    with package.run("t") as run, run.step(2):
        run.checkpoint({"n": 1}, "step_complete", path="ctx.pkl")
        [span] = memory.get_finished_spans()
    assert span.attributes == {"clew.step.id": "step_2", "clew.event.type": "info"}
    assert [(event.name, event.attributes) for event in span.events] == [
        (
            "clew.checkpoint",
            {
                "clew.checkpoint.type": "step_complete",
                "clew.checkpoint.path": "ctx.pkl",
                "clew.checkpoint.snapshot": '{"n":1}',
            },
        )
    ]


@pytest.mark.parametrize(
    ("status", "subtype"),
    [("approved", "approved"), ("rejected", "rejected"), ("modified", "approved"), (None, "pending")],
)
def test_an_approval_tells_its_question_and_its_answer(
    memory: InMemorySpanExporter, status: str | None, subtype: str
) -> None:
    """It is pending from the start, and then what was answered; one without an answer stays pending."""
    with package.run("t") as run, run.approval("deploy?", context={"to": "prod"}, approval_id="q1") as approval:
        if status:
            approval.resolve(status, feedback="go on", resolution="with care")
    span = _span(memory, "approval deploy?")
    asked = {"clew.approval.id": "q1", "clew.approval.status": "pending"}
    answered = {
        "clew.approval.id": "q1",
        "clew.approval.status": status,
        "clew.approval.resolution": "with care",
        "clew.approval.feedback": "go on",
    }
    assert [dict(event.attributes or {}) for event in span.events] == ([asked, answered] if status else [asked])
    assert span.attributes == {
        "clew.event.type": "approval_requested",
        "clew.event.subtype": subtype,
        "clew.inputs": '{"request":"deploy?","context":{"to":"prod"}}',
    }


def test_a_handoff_names_both_sides(memory: InMemorySpanExporter) -> None:
    """The agent that hands over is the event's agent; the reason is its message to the other."""
    with package.run("t") as run, run.agent_call("planner") as call:
        call.handoff("engineer", reason="draw it")
    span = _span(memory, "handoff engineer")
    assert span.attributes
    assert span.attributes["gen_ai.agent.name"] == "planner"
    assert json.loads(str(span.attributes["clew.inputs"])) == {"to": "engineer", "reason": "draw it"}
    assert [dict(event.attributes or {}) for event in span.events] == [
        {
            "clew.message.sender": "planner",
            "clew.message.recipient": "engineer",
            "clew.message.content": "draw it",
        }
    ]


@pytest.mark.parametrize(
    ("states", "at_the_end"),
    [((), "completed"), (("paused",), "paused"), (("paused", "executing"), "completed"), (("failed",), "failed")],
)
def test_a_run_ends_in_the_state_it_was_brought_to(
    memory: InMemorySpanExporter, states: tuple[str, ...], at_the_end: str
) -> None:
    """Transitions are events that do not wait for the run; a run at work ends completed, one that waits waits."""
    before = "executing"
    with package.run("t") as run:
        for state in states:
            run.state_transition(before, state, reason="so")
            before = state
        told = memory.get_finished_spans()
    assert [(span.attributes or {})["clew.run.status"] for span in told] == list(states)
    assert [(span.events[0].attributes or {})["clew.state_transition.to"] for span in told] == list(states)
    assert (_span(memory, "invoke_workflow").attributes or {})["clew.run.status"] == at_the_end


def test_a_branch_is_a_run_that_links_to_where_it_left(server: Any) -> None:
    """A branch is a trace of its own in the same session, linked to the event that it tries another way from."""
    with package.run("t", session="anna", endpoint=server.grpc_target) as run:
        with run.agent_call("planner") as call:
            from_event = call.id
        with (
            run.branch("by week", hypothesis="weeks tell more", from_event=from_event) as branch,
            branch.tool_call("x"),
        ):
            run.message("the first run goes on")
    tree = _tree(server, branch.run_id)
    assert branch.run_id != run.run_id
    assert (tree["run"]["event_count"], tree["orphans"], tree["run"]["session_id"]) == (2, 0, "anna")
    [link] = _event(server, branch.run_id, branch.id)["links"]
    assert (link["linked_run_id"], link["linked_event_id"]) == (run.run_id, from_event)
    assert link["attributes"] == {
        "clew.link.type": "branch",
        "clew.branch.name": "by week",
        "clew.branch.hypothesis": "weeks tell more",
    }


def test_an_exception_is_recorded_and_goes_on(server: Any) -> None:
    """Every scope that it leaves has failed with its message; the application gets the exception itself."""
    raised = TimeoutError("no answer")
    with (
        pytest.raises(TimeoutError) as caught,
        package.run("t", endpoint=server.grpc_target) as run,
        run.tool_call("query") as tool,
    ):
        raise raised
    assert caught.value is raised
    tree = _tree(server, run.run_id)
    assert tree["run"]["status"] == "failed"
    assert [(event["status"], event["event_subtype"], event["status_message"]) for event in tree["events"]] == [
        ("failed", "error", "TimeoutError: no answer")
    ] * 2
    [(name, exception)] = _logs(server, run.run_id, tool.id)
    assert (name, exception["exception.type"]) == ("exception", "TimeoutError")
    assert tree["events"][0]["attributes"]["clew.run.status"] == "failed"


@pytest.mark.parametrize(("code", "status"), [(0, "completed"), (None, "completed"), (3, "failed")])
def test_leaving_by_exit_is_no_failure(memory: InMemorySpanExporter, code: int | None, status: str) -> None:
    """`sys.exit()` inside a run ends it well; only an exit code says otherwise."""
    with pytest.raises(SystemExit), package.run("t"):
        sys.exit(code)
    assert (_span(memory, "invoke_workflow").attributes or {})["clew.run.status"] == status


def test_async_scopes_nest_by_task(server: Any) -> None:
    """Tasks that run at the same time do not get into one another's spans."""

    async def turn(run: Any, name: str, meet: asyncio.Barrier) -> None:
        async with run.agent_call(name):
            await meet.wait()
            async with run.tool_call(f"of-{name}"):
                await meet.wait()

    async def work() -> str:
        async with package.run("t", endpoint=server.grpc_target) as run:
            meet = asyncio.Barrier(2)
            await asyncio.gather(turn(run, "a", meet), turn(run, "b", meet))
        return run.run_id

    tree = _tree(server, asyncio.run(work()))
    names = {event["id"]: event["name"] for event in tree["events"]}
    parents = {event["name"]: names.get(event["parent_event_id"]) for event in tree["events"]}
    assert parents == {
        "invoke_workflow": None,
        "invoke_agent a": "invoke_workflow",
        "invoke_agent b": "invoke_workflow",
        "execute_tool of-a": "invoke_agent a",
        "execute_tool of-b": "invoke_agent b",
    }


def test_a_scope_is_the_parent_in_another_thread(memory: InMemorySpanExporter) -> None:
    """A thread has no open span: what it opens from a scope is that scope's child, with its agent."""

    def work() -> None:
        with call.tool_call("outer") as outer, outer.tool_call("inner"):
            pass

    with package.run("t") as run, run.agent_call("a") as call:
        thread = Thread(target=work)
        thread.start()
        thread.join(WAIT_S)
    outer, inner = _span(memory, "execute_tool outer"), _span(memory, "execute_tool inner")
    assert (outer.parent, inner.parent) == (_span(memory, "invoke_agent a").context, outer.context)
    assert (inner.attributes or {})["gen_ai.agent.name"] == "a"


def test_plain_spans_and_scopes_nest_in_one_another(memory: InMemorySpanExporter) -> None:
    """A run joins the request around it; a library's span is within its scope and around what is opened in it."""
    tracer = trace.get_tracer_provider().get_tracer("library")
    with (
        tracer.start_as_current_span("request"),
        package.run("t") as run,
        run.agent_call("a") as call,
        tracer.start_as_current_span("library"),
        call.tool_call("x"),
    ):
        pass
    chain = ["execute_tool x", "library", "invoke_agent a", "invoke_workflow", "request"]
    spans = [_span(memory, name) for name in chain]
    assert [span.parent for span in spans] == [*(span.context for span in spans[1:]), None]


def test_any_backend_can_read_it(memory: InMemorySpanExporter) -> None:
    """Spans and span events with attributes of OTel's primitive types: nothing else, none open, none invalid."""
    with (
        package.run("t", session="s") as run,
        run.node("n", depends_on=["m"]),
        run.agent_call("a", inputs={"x": 1}) as call,
    ):
        call.message({"role": "user"}, tokens=2**70)
        call.usage(input_tokens=1, cost_usd=0.1)
        call.handoff("b")
        run.checkpoint({"when": Path("x"), 3: {1}})
    spans = memory.get_finished_spans()
    assert len(spans) == 5
    owners = [owner for span in spans for owner in (span, *span.events)]
    values = [value for owner in owners for value in (owner.attributes or {}).values()]
    assert {type(value) for value in values} <= {str, int, float, bool, tuple}
    assert {type(item) for value in values if isinstance(value, tuple) for item in value} == {str}
    assert all(span.context and span.context.is_valid and span.end_time for span in spans)


def test_texts_have_a_size(memory: InMemorySpanExporter) -> None:
    """A text longer than TEXT_MAX is cut and named; one of just that length is whole."""
    with package.run("t") as run, run.agent_call("a", inputs="x" * record.TEXT_MAX) as call:
        call.outputs("y" * (record.TEXT_MAX + 1))
        call.checkpoint("z" * (record.SNAPSHOT_MAX + 1))
    span = _span(memory, "invoke_agent a")
    assert span.attributes
    assert span.attributes["clew.inputs"] == "x" * record.TEXT_MAX
    assert span.attributes["clew.outputs"] == "y" * record.TEXT_MAX
    assert span.attributes["clew.truncated"] == ("clew.outputs",)
    [snapshot] = [event.attributes or {} for event in _span(memory, "checkpoint manual").events]
    assert len(str(snapshot["clew.checkpoint.snapshot"])) == record.SNAPSHOT_MAX
    assert snapshot["clew.truncated"] == ("clew.checkpoint.snapshot",)


def test_a_span_has_a_size(memory: InMemorySpanExporter) -> None:
    """Once a span and its span events have SPAN_TEXT_MAX characters, only short texts are whole; its status is."""
    with package.run("t") as run:
        for _ in range(2 * record.SPAN_TEXT_MAX // record.TEXT_MAX):
            run.message("x" * record.TEXT_MAX)
    span = _span(memory, "invoke_workflow")
    events = span.events
    contents = [str((event.attributes or {})["clew.message.content"]) for event in events]
    whole = record.SPAN_TEXT_MAX // record.TEXT_MAX
    assert [len(content) for content in contents[:whole]] == [record.TEXT_MAX] * whole
    assert {len(content) for content in contents[whole + 1 :]} == {record.SHORT_TEXT}
    assert (span.attributes or {})["clew.run.status"] == "completed"
    assert (events[-1].attributes or {})["clew.truncated"] == ("clew.message.content",)


@pytest.mark.parametrize(
    ("misuse", "told"),
    [
        (lambda run: run.agent_call("a", role="boss"), "unknown role 'boss'; known are primary, helper, validator"),
        (lambda run: run.file("f", role="made"), "unknown role 'made'; known are output, input"),
        (lambda run: run.file(""), "file() needs its path"),
        (lambda run: run.message(None), "message() needs its content"),
        (lambda run: run.agent_call(""), "agent_call() needs its agent"),
        (lambda run: run.checkpoint({}, "weekly"), "unknown checkpoint_type 'weekly'; known are step_complete"),
        (lambda run: run.state_transition("executing", "napping"), "unknown to_state 'napping'; known are draft"),
        (lambda run: run.branch("b", from_event="xyz"), "an event id of 16 hex digits"),
        (lambda run: run.approval("q").resolve("pending"), "unknown status 'pending'; known are approved, rejected"),
        (lambda run: run.step(1).progress(101), "a percentage from 0 to 100, not 101"),
        (lambda _: package.run(""), "run() needs its task"),
    ],
)
def test_misuse_is_told(memory: InMemorySpanExporter, misuse: Callable[[Any], Any], told: str) -> None:
    """A value that says nothing is refused at once, with what would do."""
    with package.run("t") as run, pytest.raises(ValueError, match=re.escape(told)):
        misuse(run)


def test_a_scope_is_used_inside_its_with(memory: InMemorySpanExporter) -> None:
    """Before it there is no span to say something of, and there is one `with` for each scope."""
    with package.run("t") as run:
        call = run.agent_call("a")
        with pytest.raises(RuntimeError, match="not open; write `with"):
            call.message("m")
        with call:
            pass
        with pytest.raises(RuntimeError, match="opened before"):
            call.__enter__()
