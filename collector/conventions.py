"""Which attributes mean what: the map from the conventions in the wild to columns, as a table.

For each column the attribute keys that can fill it, the first that is there wins: `clew.*`, then OTel GenAI in its
generations, then OpenInference. Attributes stay stored as they came, so that older events can be read again when the
table grows.
"""

from __future__ import annotations

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
AGENT_ROLES = ("primary", "helper", "validator")

TEXTS: dict[str, tuple[str, ...]] = {
    "agent_name": ("gen_ai.agent.name", "agent.name"),
    "agent_role": ("clew.agent.role",),
    "model": (
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.response.model_name",
        "llm.model_name",
        "embedding.model_name",
    ),
    "session_id": ("gen_ai.conversation.id", "session.id"),
    "event_subtype": ("clew.event.subtype",),
}
INTEGERS: dict[str, tuple[str, ...]] = {
    "input_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt"),
    "output_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion"),
}
DOUBLES: dict[str, tuple[str, ...]] = {
    "cost_usd": (
        "clew.cost.usd",
        "gen_ai.usage.cost.amount",
        "gen_ai.usage.cost",
        "operation.cost",
        "llm.cost.total",
    ),
}

_CODE_TOOLS = ("python", "code_interpreter", "bash", "shell", "execute_code", "run_code")
_FILE_TOOLS = ("Write", "Edit", "MultiEdit", "NotebookEdit", "write_file", "save_file")

# (attribute key, event type by value, or one event type for any value); the first rule that says something decides.
EVENT_TYPE_RULES: tuple[tuple[str, dict[str, str] | str], ...] = (
    ("clew.event.type", {name: name for name in EVENT_TYPES}),
    ("gen_ai.tool.name", dict.fromkeys(_CODE_TOOLS, "code_exec") | dict.fromkeys(_FILE_TOOLS, "file_gen")),
    (
        "openinference.span.kind",
        {
            "AGENT": "agent_call",
            "LLM": "agent_call",
            "CHAIN": "agent_call",
            "EMBEDDING": "agent_call",
            "RETRIEVER": "agent_call",
            "TOOL": "tool_call",
        },
    ),
    (
        "gen_ai.operation.name",
        {
            "invoke_agent": "agent_call",
            "create_agent": "agent_call",
            "invoke_workflow": "agent_call",
            "chat": "agent_call",
            "generate_content": "agent_call",
            "text_completion": "agent_call",
            "conversation": "agent_call",
            "plan": "agent_call",
            "embeddings": "agent_call",
            "retrieval": "agent_call",
            "execute_tool": "tool_call",
            "create_memory": "tool_call",
            "update_memory": "tool_call",
            "upsert_memory": "tool_call",
            "search_memory": "tool_call",
            "delete_memory": "tool_call",
            "execute_code": "code_exec",
            "handoff": "handoff",
            "goto": "handoff",
            "await_human_input": "approval_requested",
        },
    ),
    ("mcp.method.name", {"tools/call": "tool_call", "elicitation/create": "approval_requested"}),
    ("gen_ai.tool.name", "tool_call"),
    ("gen_ai.tool.call.id", "tool_call"),
    ("gen_ai.request.model", "agent_call"),
)
