"""Which attributes mean what: the map from the conventions in the wild to columns, as tables.

For each column the attribute keys that can fill it, the first that is there wins: `clew.*`, then OTel GenAI in its
generations, OpenInference, OpenLLMetry, Langfuse, MLflow, Vercel's AI SDK, Laminar and the frameworks' own. Attributes
stay stored as they came, so that older events can be read again when the tables grow. `event_rules` holds the tables
of the columns that have a vocabulary, `conversation` reads what was said.
"""

from __future__ import annotations

from typing import NamedTuple

EVENT_TYPES = (
    "agent_call",
    "tool_call",
    "code_exec",
    "file_gen",
    "handoff",
    "approval_requested",
    "state_transition",
    "error",
    "info",
)
EVENT_SUBTYPES = ("start", "complete", "error", "info", "pending", "approved", "rejected")
EVENT_STATUSES = ("pending", "running", "completed", "failed", "skipped")
RUN_STATUSES = ("draft", "planning", "executing", "running", "paused", "waiting_approval", "completed", "failed")
AGENT_ROLES = ("primary", "helper", "validator")
USAGE = ("input_tokens", "output_tokens", "cost_usd")

SPAN_NAME = "(span name)"  # stands where a key does, for the name of the span

TEXTS: dict[str, tuple[str, ...]] = {
    "agent_name": (
        "gen_ai.agent.name",
        "agent.name",
        "agent_name",
        "graph.node.name",
        "graph.node.id",
        "crewai.agent.role",
        "traceloop.entity.name",
        "gen_ai.handoff.from_agent",
        "gen_ai.agent.handoff.source.name",
    ),
    "model": (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.response.model_name",
        "llm.model_name",
        "llm.request.model_name",
        "llm.response.model",
        "llm.request.model",
        "langfuse.observation.model.name",
        "ai.response.model",
        "ai.model.id",
        "embedding.model_name",
        "reranker.model_name",
        "model",
    ),
    "session_id": (
        "gen_ai.conversation.id",
        "session.id",
        "langfuse.session.id",
        "traceloop.association.properties.session_id",
        "traceloop.association.properties.thread_id",
        "lmnr.association.properties.session_id",
        "ai.telemetry.metadata.sessionId",
        "gcp.vertex.agent.session_id",
        "thread_id",
        "mcp.session.id",
    ),
}
# Usage of one call. What is a part of it (cached, reasoning) is not added, what sums up several calls
# (`gen_ai.aggregated_usage.*`) is not read.
INTEGERS: dict[str, tuple[str, ...]] = {
    "input_tokens": (
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.usage.prompt_tokens",
        "llm.token_count.prompt",
        "ai.usage.inputTokens",
        "ai.usage.promptTokens",
        "ai.usage.tokens",
    ),
    "output_tokens": (
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.usage.completion_tokens",
        "llm.token_count.completion",
        "ai.usage.outputTokens",
        "ai.usage.completionTokens",
        "output_tokens",
    ),
}
DOUBLES: dict[str, tuple[str, ...]] = {
    "cost_usd": (
        "clew.cost.usd",
        "gen_ai.usage.cost.amount",
        "gen_ai.usage.cost",
        "operation.cost",
        "llm.cost.total",
        "cost_usd",
    ),
}

# Where no single key says it: the sum of those of these keys that are there; the first sum that is there wins. Claude
# Code counts cached input apart, unlike the other conventions.
SUMS: dict[str, tuple[tuple[str, ...], ...]] = {
    "input_tokens": (("input_tokens", "cache_read_tokens", "cache_creation_tokens"),),
    "cost_usd": (
        ("gen_ai.usage.input_cost", "gen_ai.usage.output_cost"),
        ("llm.cost.prompt", "llm.cost.completion"),
    ),
}

# To whom an agent hands over; clew's own hand-overs say it in `clew.inputs`, as `to`.
RECIPIENTS = ("gen_ai.agent.handoff.target.name", "gen_ai.handoff.to_agent", "gen_ai.transfer.target.name")


class Member(NamedTuple):
    """The value of `key` is JSON (text or structured); wanted is what it holds under `names`: the sum where the column
    is one of numbers, the first of them where it is text. No names: the value itself."""

    key: str
    names: tuple[str, ...] = ()


# Where neither keys nor sums say it.
MEMBERS: dict[str, tuple[Member, ...]] = {
    "model": (Member("mlflow.llm.model"),),
    "session_id": (Member("metadata", ("thread_id", "session_id")),),
    "input_tokens": (
        Member("langfuse.observation.usage_details", ("input",)),
        Member("langfuse.observation.usage_details", ("prompt_tokens",)),
        Member("mlflow.chat.tokenUsage", ("input_tokens",)),
    ),
    "output_tokens": (
        Member("langfuse.observation.usage_details", ("output",)),
        Member("langfuse.observation.usage_details", ("completion_tokens",)),
        Member("mlflow.chat.tokenUsage", ("output_tokens",)),
    ),
    "cost_usd": (
        Member("langfuse.observation.cost_details", ("total",)),
        Member("langfuse.observation.cost_details", ("input", "output")),
        Member("mlflow.llm.cost", ("total_cost",)),
        Member("mlflow.llm.cost", ("input_cost", "output_cost")),
    ),
}


class Guard(NamedTuple):
    """A condition: the attribute `key` (or SPAN_NAME) has the text `pattern`, or begins with it where it ends in `*`;
    or, if `absent_passes`, is not there."""

    key: str
    pattern: str
    absent_passes: bool = False


_CLAUDE_CODE = Guard(SPAN_NAME, "claude_code.*")

# Keys that mean what the tables say only beside something else.
GUARDS: dict[str, Guard] = {
    "graph.node.name": Guard("openinference.span.kind", "AGENT"),
    "graph.node.id": Guard("openinference.span.kind", "AGENT"),
    "traceloop.entity.name": Guard("traceloop.span.kind", "agent"),
    "gen_ai.usage.cost.amount": Guard("gen_ai.usage.cost.currency", "USD", absent_passes=True),
    "model": _CLAUDE_CODE,
    "input_tokens": _CLAUDE_CODE,
    "cache_read_tokens": _CLAUDE_CODE,
    "cache_creation_tokens": _CLAUDE_CODE,
    "output_tokens": _CLAUDE_CODE,
    "cost_usd": _CLAUDE_CODE,
    "decision": _CLAUDE_CODE,
    "tool_name": _CLAUDE_CODE,
}
