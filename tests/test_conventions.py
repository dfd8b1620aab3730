"""Spans as the frameworks record them, read by the collector: one event of each, and what is known of it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from clew.collector.projection import read_requests
from clew.storage.conversation import inputs_of, messages_of, outputs_of
from clew.storage.runs import DEFAULT_SESSION

SCALARS = {bool: "bool_value", int: "int_value", float: "double_value", str: "string_value"}
TEXTS = ("event_type", "event_subtype", "agent_name", "model", "session_id")
FIGURES = ("input_tokens", "output_tokens", "cost_usd")

Attributes = dict[str, Any]
Told = tuple[str, str, bool]  # role, content, is_output


@dataclass(frozen=True)
class Recorded:
    """A span of some framework, and what is to be known of it; what is not named is not known."""

    name: str
    attributes: Attributes
    event_type: str
    event_subtype: str = "complete"
    agent_name: str | None = None
    model: str | None = None
    session_id: str = DEFAULT_SESSION
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    inputs: Any = None
    outputs: Any = None
    said: list[Told] = field(default_factory=list)


def read(name: str, attributes: Attributes) -> dict[str, Any]:
    """The event's row for a span that took a nanosecond, with the session of its run."""
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(name=name, trace_id=b"1" * 16, span_id=b"1" * 8)
    span.start_time_unix_nano, span.end_time_unix_nano = 1, 2
    span.attributes.extend(pairs(attributes))
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    [row], [run] = batch.events.rows.to_pylist(), batch.runs.to_pylist()
    return row | {"session_id": run["session_id"]}


def pairs(attributes: Attributes) -> list[KeyValue]:
    return [KeyValue(key=key, value=value(plain)) for key, plain in attributes.items()]


def value(plain: Any) -> AnyValue:
    match plain:
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=pairs(plain)))
        case list():
            return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
        case _:
            return AnyValue(**{SCALARS[type(plain)]: plain})


def text(role: str, content: str) -> Attributes:
    return {"role": role, "parts": [{"type": "text", "content": content}]}


UNPRICED = "in-house-1"  # no price list knows it, so that no cost is estimated
ASKED, ANSWERED = [text("user", "Rain?")], [text("assistant", "No.") | {"finish_reason": "stop"}]
RAIN: list[Told] = [("user", "Rain?", False), ("assistant", "No.", True)]
CHAT = [{"role": "user", "content": "Rain?"}]
OPENAI_REQUEST = {"messages": CHAT, "model": "gpt-4o"}
OPENAI_RESPONSE = {"choices": [{"message": {"role": "assistant", "content": "No."}}]}
ADK_QUESTION = {"role": "user", "parts": [{"text": "Rain?"}]}
ADK_REQUEST = {"config": {"system_instruction": "Be brief."}, "contents": [ADK_QUESTION]}

RECORDED = {
    "clew": Recorded(
        "write report",
        {
            "clew.event.type": "file_gen",
            "clew.event.subtype": "pending",
            "clew.inputs": '{"topic": "rain"}',
            "clew.outputs": "report.md",
            "clew.cost.usd": 0.5,
            "gen_ai.agent.name": "writer",
            "session.id": "s-1",
        },
        event_type="file_gen",
        event_subtype="pending",
        agent_name="writer",
        session_id="s-1",
        cost_usd=0.5,
        inputs={"topic": "rain"},
        outputs="report.md",
    ),
    "OTel GenAI, messages as text": Recorded(
        "chat gpt-5",
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-5",
            "gen_ai.response.model": "gpt-5-2026-01-01",
            "gen_ai.conversation.id": "c-1",
            "gen_ai.usage.input_tokens": 120,
            "gen_ai.usage.cache_read.input_tokens": 100,
            "gen_ai.usage.output_tokens": 8,
            "gen_ai.usage.reasoning.output_tokens": 5,
            "gen_ai.usage.cost.amount": 0.002,
            "gen_ai.usage.cost.currency": "USD",
            "gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be brief."}]),
            "gen_ai.input.messages": json.dumps(ASKED),
            "gen_ai.output.messages": json.dumps(ANSWERED),
        },
        event_type="agent_call",
        model="gpt-5-2026-01-01",
        session_id="c-1",
        input_tokens=120,
        output_tokens=8,
        cost_usd=0.002,
        inputs=ASKED,
        outputs=ANSWERED,
        said=[("system", "Be brief.", False), *RAIN],
    ),
    "OTel GenAI, structured messages": Recorded(
        "chat gpt-5",
        {"gen_ai.operation.name": "chat", "gen_ai.input.messages": ASKED, "gen_ai.output.messages": ANSWERED},
        event_type="agent_call",
        inputs=ASKED,
        outputs=ANSWERED,
        said=RAIN,
    ),
    "OTel GenAI before 1.37": Recorded(
        "gen_ai.content.prompt",
        {
            "gen_ai.request.model": UNPRICED,
            "gen_ai.usage.prompt_tokens": 3,
            "gen_ai.usage.completion_tokens": 2,
            "gen_ai.prompt": json.dumps(CHAT),
            "gen_ai.completion": "No.",
        },
        event_type="agent_call",
        model=UNPRICED,
        input_tokens=3,
        output_tokens=2,
        inputs=CHAT,
        outputs="No.",
        said=RAIN,
    ),
    "OTel GenAI tool": Recorded(
        "execute_tool lookup",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "lookup",
            "gen_ai.tool.call.arguments": '{"city": "Oslo"}',
            "gen_ai.tool.call.result": "dry",
        },
        event_type="tool_call",
        inputs={"city": "Oslo"},
        outputs="dry",
    ),
    "OpenInference model": Recorded(
        "ChatCompletion",
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4o",
            "llm.token_count.prompt": 11,
            "llm.token_count.completion": 4,
            "llm.token_count.completion_details.reasoning": 3,
            "llm.cost.prompt": 0.25,
            "llm.cost.completion": 0.5,
            "input.value": '{"messages": []}',
            "llm.input_messages.0.message.role": "user",
            "llm.input_messages.0.message.contents.0.message_content.type": "text",
            "llm.input_messages.0.message.contents.0.message_content.text": "Rain?",
            "llm.output_messages.0.message.role": "assistant",
            "llm.output_messages.0.message.content": "No.",
            "output.value": "No.",
        },
        event_type="agent_call",
        model="gpt-4o",
        input_tokens=11,
        output_tokens=4,
        cost_usd=0.75,
        inputs={"messages": []},
        outputs="No.",
        said=RAIN,
    ),
    "OpenAI Agents SDK, OpenInference": Recorded(
        "Triage",
        {"openinference.span.kind": "AGENT", "graph.node.id": "Triage", "input.value": "Rain?", "output.value": "No."},
        event_type="agent_call",
        agent_name="Triage",
        inputs="Rain?",
        outputs="No.",
    ),
    "OpenAI Agents SDK hand-over": Recorded(
        "handoff",
        {"gen_ai.handoff.from_agent": "Triage", "gen_ai.handoff.to_agent": "Billing"},
        event_type="handoff",
        agent_name="Triage",
    ),
    "OpenLLMetry model": Recorded(
        "openai.chat",
        {
            "llm.request.type": "chat",
            "gen_ai.request.model": UNPRICED,
            "gen_ai.usage.prompt_tokens": 9,
            "gen_ai.usage.completion_tokens": 1,
            "traceloop.association.properties.session_id": "s-3",
            "gen_ai.prompt.0.role": "user",
            "gen_ai.prompt.0.content": '[{"type": "text", "text": "Rain?"}]',
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "No.",
        },
        event_type="agent_call",
        model=UNPRICED,
        session_id="s-3",
        input_tokens=9,
        output_tokens=1,
        inputs=[{"role": "user", "content": '[{"type": "text", "text": "Rain?"}]'}],
        outputs=[{"role": "assistant", "content": "No."}],
        said=RAIN,
    ),
    "OpenLLMetry agent": Recorded(
        "forecaster.agent",
        {
            "traceloop.span.kind": "agent",
            "traceloop.entity.name": "forecaster",
            "traceloop.entity.input": '{"kwargs": {"city": "Oslo"}}',
            "traceloop.entity.output": '"dry"',
        },
        event_type="agent_call",
        agent_name="forecaster",
        inputs={"kwargs": {"city": "Oslo"}},
        outputs="dry",
    ),
    "LangGraph, OpenLLMetry": Recorded(
        "goto",
        {
            "gen_ai.operation.name": "goto",
            "gen_ai.conversation.id": "thread-7",
            "langgraph.command.goto_nodes": ["research", "write"],
        },
        event_type="handoff",
        session_id="thread-7",
    ),
    "LangGraph, OpenInference": Recorded(
        "research",
        {
            "openinference.span.kind": "CHAIN",
            "metadata": '{"langgraph_node": "research", "langgraph_step": 2, "thread_id": "thread-7"}',
            "graph.node.id": "research",
        },
        event_type="agent_call",
        session_id="thread-7",
    ),
    "CrewAI, OpenLLMetry": Recorded(
        "Researcher.agent",
        {"traceloop.span.kind": "agent", "crewai.agent.role": "Researcher"},
        event_type="agent_call",
        agent_name="Researcher",
    ),
    "CrewAI, OpenInference": Recorded(
        "Task._execute_core",
        {"openinference.span.kind": "AGENT", "graph.node.id": "Researcher", "output.value": "found"},
        event_type="agent_call",
        agent_name="Researcher",
        outputs="found",
    ),
    "Pydantic AI agent": Recorded(
        "agent run",
        {
            "agent_name": "weather",
            "final_result": "No.",
            "gen_ai.aggregated_usage.input_tokens": 103,
            "pydantic_ai.all_messages": json.dumps([*ASKED, text("assistant", "No.")]),
        },
        event_type="agent_call",
        agent_name="weather",
        inputs=[*ASKED, text("assistant", "No.")],
        outputs="No.",
        said=RAIN,
    ),
    "Pydantic AI tool that waits for approval": Recorded(
        "execute_tool delete",
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "delete",
            "gen_ai.tool.call.arguments": '{"path": "x"}',
            "pydantic_ai.tool.deferral.name": "ApprovalRequired",
        },
        event_type="approval_requested",
        event_subtype="pending",
        inputs={"path": "x"},
    ),
    "Logfire's pending copy": Recorded(
        "chat gpt-5",
        {
            "logfire.span_type": "pending_span",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "gpt-5",
            "operation.cost": 0.125,
        },
        event_type="agent_call",
        event_subtype="start",
        model="gpt-5",
        cost_usd=0.125,
    ),
    "Langfuse": Recorded(
        "answer",
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "claude-sonnet-5",
            "langfuse.observation.input": json.dumps(CHAT),
            "langfuse.observation.output": "No.",
            "langfuse.observation.usage_details": '{"input": 31, "output": 7, "total": 38}',
            "langfuse.observation.cost_details": '{"input": 0.25, "output": 0.5}',
            "langfuse.session.id": "s-4",
        },
        event_type="agent_call",
        model="claude-sonnet-5",
        session_id="s-4",
        input_tokens=31,
        output_tokens=7,
        cost_usd=0.75,
        inputs=CHAT,
        outputs="No.",
        said=RAIN,
    ),
    "MLflow": Recorded(
        "Completions",
        {
            "mlflow.spanType": '"CHAT_MODEL"',
            "mlflow.llm.model": '"gpt-4o"',
            "mlflow.spanInputs": json.dumps(OPENAI_REQUEST),
            "mlflow.spanOutputs": json.dumps(OPENAI_RESPONSE),
            "mlflow.chat.tokenUsage": '{"input_tokens": 5, "output_tokens": 1, "total_tokens": 6}',
            "mlflow.llm.cost": '{"input_cost": 0.5, "output_cost": 1.0, "total_cost": 1.5}',
        },
        event_type="agent_call",
        model="gpt-4o",
        input_tokens=5,
        output_tokens=1,
        cost_usd=1.5,
        inputs=OPENAI_REQUEST,
        outputs=OPENAI_RESPONSE,
        said=RAIN,
    ),
    "Vercel AI SDK": Recorded(
        "ai.generateText.doGenerate",
        {
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.model.id": UNPRICED,
            "ai.usage.promptTokens": 12,
            "ai.usage.completionTokens": 3,
            "ai.prompt.messages": '[{"role": "user", "content": [{"type": "text", "text": "Rain?"}]}]',
            "ai.response.text": "No.",
        },
        event_type="agent_call",
        model=UNPRICED,
        input_tokens=12,
        output_tokens=3,
        inputs=[{"role": "user", "content": [{"type": "text", "text": "Rain?"}]}],
        outputs="No.",
        said=RAIN,
    ),
    "Vercel AI SDK tool": Recorded(
        "ai.toolCall",
        {
            "ai.operationId": "ai.toolCall",
            "ai.toolCall.name": "lookup",
            "ai.toolCall.args": '{"city": "Oslo"}',
            "ai.toolCall.result": '{"rain": false}',
        },
        event_type="tool_call",
        inputs={"city": "Oslo"},
        outputs={"rain": False},
    ),
    "Claude Code model": Recorded(
        "claude_code.llm_request",
        {
            "span.type": "llm_request",
            "model": UNPRICED,
            "input_tokens": 2,
            "cache_read_tokens": 84562,
            "cache_creation_tokens": 7096,
            "output_tokens": 1200,
            "response.model_output": "No.",
        },
        event_type="agent_call",
        model=UNPRICED,
        input_tokens=91660,
        output_tokens=1200,
        outputs="No.",
        said=[("assistant", "No.", True)],
    ),
    "Claude Code tool": Recorded(
        "claude_code.tool",
        {"span.type": "tool", "tool_name": "Bash", "full_command": "ls", "gen_ai.tool.call.id": "toolu_1"},
        event_type="code_exec",
        inputs="ls",
    ),
    "Claude Code, a person asked": Recorded(
        "claude_code.tool.blocked_on_user",
        {"span.type": "tool.blocked_on_user", "decision": "accept", "source": "user_temporary"},
        event_type="approval_requested",
        event_subtype="approved",
    ),
    "Google ADK model": Recorded(
        "call_llm",
        {
            "gcp.vertex.agent.session_id": "s-7",
            "gcp.vertex.agent.llm_request": json.dumps(ADK_REQUEST),
            "gcp.vertex.agent.llm_response": '{"content": {"role": "model", "parts": [{"text": "No."}]}}',
        },
        event_type="agent_call",
        session_id="s-7",
        inputs=ADK_REQUEST,
        outputs={"content": {"role": "model", "parts": [{"text": "No."}]}},
        said=[("system", "Be brief.", False), *RAIN],
    ),
    "Google ADK tool": Recorded(
        "execute_tool lookup",
        {
            "gcp.vertex.agent.tool_call_args": '{"city": "Oslo"}',
            "gcp.vertex.agent.tool_response": '{"rain": false}',
            "gcp.vertex.agent.llm_request": "{}",
            "gcp.vertex.agent.llm_response": "{}",
        },
        event_type="tool_call",
        inputs={"city": "Oslo"},
        outputs={"rain": False},
    ),
    "AG2 agent": Recorded(
        "invoke_agent critic",
        {
            "ag2.span.type": "agent",
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": "critic",
            "gen_ai.input.messages": json.dumps(ASKED),
            "gen_ai.output.messages": json.dumps(ANSWERED),
        },
        event_type="agent_call",
        agent_name="critic",
        inputs=ASKED,
        outputs=ANSWERED,
        said=RAIN,
    ),
    "AG2 model": Recorded(
        "chat gpt-4o",
        {"ag2.span.type": "llm", "gen_ai.request.model": "gpt-4o", "gen_ai.usage.cost": 0.25},
        event_type="agent_call",
        model="gpt-4o",
        cost_usd=0.25,
    ),
    "AG2 code": Recorded(
        "execute_code executor",
        {"ag2.span.type": "code_execution", "ag2.code_execution.exit_code": 0, "ag2.code_execution.output": "4\n"},
        event_type="code_exec",
        outputs="4\n",
    ),
    "AG2, a person asked": Recorded(
        "await_human_input user",
        {"ag2.span.type": "human_input", "ag2.human_input.prompt": "Go on?", "ag2.human_input.response": "yes"},
        event_type="approval_requested",
        inputs="Go on?",
        outputs="yes",
        said=[("assistant", "Go on?", False), ("user", "yes", True)],
    ),
    "no agent at all": Recorded(
        "GET /orders",
        {"http.request.method": "GET", "model": "T", "input_tokens": 3, "decision": "accept", "tool_name": "bash"},
        event_type="info",
    ),
}
FRAMEWORKS = pytest.mark.parametrize("recorded", RECORDED.values(), ids=RECORDED)


@FRAMEWORKS
def test_a_recorded_span_fills_the_columns(recorded: Recorded) -> None:
    """Kind, agent, model, session, tokens and cost; what the span does not say stays empty."""
    row = read(recorded.name, recorded.attributes)
    known = {name: getattr(recorded, name) for name in (*TEXTS, *FIGURES)}
    assert {name: row[name] for name in known} == known


@FRAMEWORKS
def test_a_recorded_span_tells_what_was_said(recorded: Recorded) -> None:
    """Inputs and outputs as JSON values, messages in plain words where they were plain words."""
    assert inputs_of(recorded.attributes) == recorded.inputs
    assert outputs_of(recorded.attributes) == recorded.outputs
    said = [(message.role, message.content, message.is_output) for message in messages_of(recorded.attributes)]
    assert said == recorded.said
