"""What kind of event it is: for each column that has a vocabulary, which attributes decide the word.

A rule is an attribute key (or SPAN_NAME) and what it means: a word for any value at all, or words by value. A value
that ends in `*` stands for all that begin so, exact values come first. The first rule that says something decides; an
empty word says that nothing fits. The evidence is ordered from the special to the general: clew's own word, what makes
a call an approval, a hand-over, code or a file, then what each convention calls its spans, then what is only a hint.
"""

from __future__ import annotations

from .conventions import AGENT_ROLES, EVENT_SUBTYPES, EVENT_TYPES, SPAN_NAME

Meaning = dict[str, str] | str
Rules = tuple[tuple[str, Meaning], ...]

NONE_FITS = ""

_SPECIAL_TOOLS = (
    dict.fromkeys(
        ("python", "code_interpreter", "bash", "Bash", "shell", "execute_code", "run_code"),
        "code_exec",
    )
    | dict.fromkeys(("Write", "Edit", "MultiEdit", "NotebookEdit", "write_file", "save_*"), "file_gen")
    | {"transfer_to_*": "handoff"}
)
_OPERATIONS = (
    dict.fromkeys(
        (
            "invoke_agent",
            "create_agent",
            "invoke_workflow",
            "chat",
            "generate_content",
            "text_completion",
            "completion",
            "generate",
            "llm_request",
            "conversation",
            "initiate_chats",
            "plan",
            "execute_task",
            "embeddings",
            "retrieval",
            "vector_db_retrieve",
        ),
        "agent_call",
    )
    | dict.fromkeys(
        (
            "execute_tool",
            "create_memory_store",
            "delete_memory_store",
            "create_memory",
            "update_memory",
            "upsert_memory",
            "search_memory",
            "delete_memory",
        ),
        "tool_call",
    )
    | {"execute_code": "code_exec", "await_human_input": "approval_requested"}
    | dict.fromkeys(("handoff", "goto", "speaker_selection"), "handoff")
)
_AG2 = {
    "conversation": "agent_call",
    "multi_conversation": "agent_call",
    "agent": "agent_call",
    "llm": "agent_call",
    "tool": "tool_call",
    "code_execution": "code_exec",
    "human_input": "approval_requested",
    "speaker_selection": "handoff",
}
_LANGFUSE = dict.fromkeys(("agent", "generation", "chain", "retriever", "embedding"), "agent_call") | {
    "tool": "tool_call"
}
_OPENINFERENCE = dict.fromkeys(("AGENT", "LLM", "CHAIN", "EMBEDDING", "RETRIEVER", "RERANKER"), "agent_call") | {
    "TOOL": "tool_call"
}
_MLFLOW = dict.fromkeys(
    ("AGENT", "LLM", "CHAT_MODEL", "CHAIN", "WORKFLOW", "TASK", "EMBEDDING", "RETRIEVER", "RERANKER"), "agent_call"
) | {"TOOL": "tool_call", "MEMORY": "tool_call"}
_CLAUDE_CODE = {
    "interaction": "agent_call",
    "llm_request": "agent_call",
    "tool": "tool_call",
    "tool.blocked_on_user": "approval_requested",
}
_TRACELOOP = dict.fromkeys(("agent", "workflow", "task"), "agent_call") | {"tool": "tool_call", "handoff": "handoff"}
_AGENTOPS = dict.fromkeys(("session", "workflow", "task", "agent", "llm", "chain"), "agent_call") | {
    "tool": "tool_call"
}
_VERCEL = {
    "ai.generate*": "agent_call",
    "ai.stream*": "agent_call",
    "ai.embed*": "agent_call",
    "ai.toolCall": "tool_call",
}


EVENT_TYPE_RULES: Rules = (
    ("clew.event.type", {name: name for name in EVENT_TYPES} | {"*": "info"}),
    ("pydantic_ai.tool.deferral.name", "approval_requested"),
    ("gen_ai.agent.decision.outcome", "approval_requested"),
    ("pxi.approval.decision", "approval_requested"),
    ("mcp.method.name", {"elicitation/create": "approval_requested"}),
    ("gen_ai.transfer.target.name", "handoff"),
    ("gen_ai.handoff.to_agent", "handoff"),
    ("gen_ai.agent.handoff.target.name", "handoff"),
    ("langgraph.command.goto_node", "handoff"),
    ("langgraph.command.goto_nodes", "handoff"),
    (SPAN_NAME, {"handoff to *": "handoff"}),
    ("gen_ai.tool.name", _SPECIAL_TOOLS),
    ("tool.name", _SPECIAL_TOOLS),
    ("ai.toolCall.name", _SPECIAL_TOOLS),
    ("tool_name", _SPECIAL_TOOLS),
    ("gen_ai.action.file_path", "file_gen"),
    ("ag2.span.type", _AG2),
    ("langfuse.observation.type", _LANGFUSE),
    ("openinference.span.kind", _OPENINFERENCE),
    ("gen_ai.operation.name", _OPERATIONS),
    # MLflow writes each value as JSON: a text comes in quotes.
    ("mlflow.spanType", _MLFLOW | {f'"{kind}"': event_type for kind, event_type in _MLFLOW.items()}),
    ("span.type", _CLAUDE_CODE),
    (SPAN_NAME, {f"claude_code.{kind}": event_type for kind, event_type in _CLAUDE_CODE.items()}),
    ("traceloop.span.kind", _TRACELOOP),
    ("agentops.span.kind", _AGENTOPS),
    ("lmnr.span.type", {"LLM": "agent_call", "TOOL": "tool_call"}),
    ("genkit:metadata:subtype", {"model": "agent_call", "flow": "agent_call", "tool": "tool_call"}),
    ("ai.operationId", _VERCEL),
    ("mcp.method.name", {"tools/call": "tool_call"}),
    ("gcp.vertex.agent.tool_call_args", "tool_call"),
    ("gcp.vertex.agent.llm_request", "agent_call"),
    ("gen_ai.tool.name", "tool_call"),
    ("gen_ai.tool.call.id", "tool_call"),
    ("gen_ai.context.checkpoint_id", "state_transition"),
    ("gen_ai.checkpoint.id", "state_transition"),
    ("process.exit.code", "code_exec"),
    ("process.command_line", "code_exec"),
    ("gen_ai.request.model", "agent_call"),
    ("gen_ai.response.model", "agent_call"),
    ("llm.request.type", "agent_call"),
    ("llm.model_name", "agent_call"),
    ("embedding.model_name", "agent_call"),
    ("langfuse.observation.model.name", "agent_call"),
    ("ai.model.id", "agent_call"),
    (SPAN_NAME, {"agent run": "agent_call"}),
)
# Where none of these says something, the status does: `start`, `complete` or `error`.
EVENT_SUBTYPE_RULES: Rules = (
    ("clew.event.subtype", {name: name for name in EVENT_SUBTYPES} | {"*": NONE_FITS}),
    ("logfire.span_type", {"pending_span": "start"}),
    (
        "gen_ai.agent.decision.outcome",
        {"allow": "approved", "block": "rejected", "review": "pending", "escalate": "pending", "defer": "pending"},
    ),
    ("pxi.approval.decision", {"approved": "approved", "rejected": "rejected"}),
    (
        "decision",
        {"accept": "approved", "approve": "approved", "reject": "rejected", "deny": "rejected"},
    ),
    ("pydantic_ai.tool.deferral.name", "pending"),
    ("langfuse.observation.level", {"ERROR": "error"}),
)
AGENT_ROLE_RULES: Rules = (("clew.agent.role", {name: name for name in AGENT_ROLES}),)
