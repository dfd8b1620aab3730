"""Instrumentations as they are installed, driven offline, their spans read by the collector."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from clew.collector.projection import read_requests
from clew.storage.conversation import inputs_of, messages_of, outputs_of


def recording(provider: Any) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def read(exporter: InMemorySpanExporter) -> tuple[list[dict[str, Any]], list[dict[str, Any]], str]:
    """The events' rows in the order of their ends, the attributes of each, and the session of their only run."""
    spans = exporter.get_finished_spans()
    batch = read_requests([encode_spans(spans).SerializeToString()]).batch
    assert batch is not None
    [run] = batch.runs.to_pylist()
    return batch.events.rows.to_pylist(), [dict(span.attributes or {}) for span in spans], run["session_id"]


def test_pydantic_ai() -> None:
    """An agent calls a tool: two calls of the model and one of the tool within the agent's, one conversation."""
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="needs the development dependency pydantic-ai-slim")
    capabilities = pytest.importorskip("pydantic_ai.capabilities")
    instrumented = pytest.importorskip("pydantic_ai.models.instrumented")
    model = pytest.importorskip("pydantic_ai.models.test").TestModel()
    provider = TracerProvider()
    exporter = recording(provider)
    settings = instrumented.InstrumentationSettings(tracer_provider=provider)
    instrumentation = capabilities.Instrumentation(settings=settings)
    agent = pydantic_ai.Agent(model, name="weather", instructions="Be brief.", capabilities=[instrumentation])

    @agent.tool_plain
    def lookup(city: str) -> str:
        return f"{city} is dry"

    agent.run_sync("Rain?")
    rows, attributes, session = read(exporter)
    asked, called, answered, whole = range(4)
    assert [row["event_type"] for row in rows] == ["agent_call", "tool_call", "agent_call", "agent_call"]
    assert {row["agent_name"] for row in rows} == {"weather"}
    assert session == attributes[whole]["gen_ai.conversation.id"]
    assert [row["model"] for row in rows] == ["test", None, "test", None]
    assert [row["input_tokens"] is None for row in rows] == [False, True, False, True]
    assert inputs_of(attributes[called]) == {"city": "a"}
    assert outputs_of(attributes[called]) == "a is dry"
    assert outputs_of(attributes[whole]) == {"lookup": "a is dry"}
    first, second, everything = (messages_of(attributes[row]) for row in (asked, answered, whole))
    assert [(message.role, message.content) for message in first[:2]] == [("system", "Be brief."), ("user", "Rain?")]
    history = [(message.role, message.content) for message in first]
    assert [(message.role, message.content) for message in second][: len(history)] == history
    assert [(message.content, message.is_output) for message in everything] == [
        (message.content, message.is_output) for message in second
    ]


def test_openinference() -> None:
    """Session, agent, model, messages, tokens as OpenInference's own helpers write them."""
    openinference = pytest.importorskip(
        "openinference.instrumentation", reason="needs the development dependency openinference-instrumentation"
    )
    provider = openinference.TracerProvider()
    exporter = recording(provider)
    tracer = provider.get_tracer("test")
    with (
        openinference.using_session("s-1"),
        tracer.start_as_current_span("turn", openinference_span_kind="agent") as turn,
    ):
        turn.set_attributes({"agent.name": "weather", **openinference.get_input_attributes({"city": "Oslo"})})
        with tracer.start_as_current_span("chat", openinference_span_kind="llm") as call:
            call.set_attributes(
                openinference.get_llm_attributes(
                    model_name="gpt-4o",
                    input_messages=[{"role": "user", "content": "Rain?"}],
                    output_messages=[{"role": "assistant", "content": "No."}],
                    token_count={"prompt": 5, "completion": 2, "total": 7},
                )
            )
    [call_row, turn_row], [call_attributes, turn_attributes], session = read(exporter)
    assert session == "s-1"
    assert (turn_row["event_type"], turn_row["agent_name"]) == ("agent_call", "weather")
    assert inputs_of(turn_attributes) == {"city": "Oslo"}
    assert (call_row["event_type"], call_row["model"]) == ("agent_call", "gpt-4o")
    assert (call_row["input_tokens"], call_row["output_tokens"]) == (5, 2)
    assert [(message.role, message.content, message.tokens) for message in messages_of(call_attributes)] == [
        ("user", "Rain?", None),
        ("assistant", "No.", 2),
    ]
