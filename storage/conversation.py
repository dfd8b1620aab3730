"""What was said: the messages, the inputs and the outputs of one event, out of its attributes in every convention.

`attributes` is a plain mapping whose values are as JSON has them. Text that is JSON is read as JSON, text that is none
stands for itself; nothing here raises. `message_forms` knows the forms of one message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from .conventions import GUARDS, INTEGERS, TEXTS
from .message_forms import Form, instructions, messages_in, parsed, unfolded

MESSAGES_MAX = 10_000


class _Source(NamedTuple):
    """Where messages may be: at a key; at the keys `{key}{index}.…` where it ends in a dot; or, as one message, at
    `keys`, each a member. `role` as in `messages_in`."""

    key: str
    role: str | None = None
    keys: Mapping[str, str] = {}


_SYSTEM = "gen_ai.system_instructions"
# The first source that holds messages wins.
_INPUTS = (
    _Source("gen_ai.input.messages", "user"),
    _Source("llm.input_messages.", "user"),
    _Source("llm.prompts.", "user"),
    _Source("pydantic_ai.all_messages", "user"),
    _Source("all_messages_events", "user"),
    _Source("ai.prompt.messages", "user"),
    _Source("ai.prompt", "user"),
    _Source("gcp.vertex.agent.llm_request"),
    _Source("langfuse.observation.input"),
    _Source("mlflow.spanInputs"),
    _Source("lmnr.span.input"),
    _Source("gen_ai.prompt.", "user"),
    _Source("gen_ai.prompt", "user"),
    _Source("ag2.human_input.prompt", "assistant"),
    _Source("user_prompt", "user"),
)
_OUTPUTS = (
    _Source("gen_ai.output.messages", "assistant"),
    _Source("llm.output_messages.", "assistant"),
    _Source("llm.choices.", "assistant"),
    _Source("", "assistant", {"ai.response.text": "content", "ai.response.toolCalls": "tool_calls"}),
    _Source("ai.response.object", "assistant"),
    _Source("gcp.vertex.agent.llm_response"),
    _Source("langfuse.observation.output"),
    _Source("mlflow.spanOutputs"),
    _Source("lmnr.span.output"),
    _Source("gen_ai.completion.", "assistant"),
    _Source("gen_ai.completion", "assistant"),
    _Source("ag2.human_input.response", "user"),
    _Source("response.model_output", "assistant"),
)
# In a conversation plain text is an answer too.
_ANSWERS = tuple(source._replace(role="assistant") for source in _OUTPUTS if source.role is None)
# These hold the answer as well, as the last message.
_WHOLE_CONVERSATIONS = ("pydantic_ai.all_messages", "all_messages_events")

_SAID_AT = (_SYSTEM, *(key for source in (*_INPUTS, *_OUTPUTS) for key in (source.key, *source.keys) if key))
CONVERSATION_KEYS: tuple[str, ...] = tuple(key for key in _SAID_AT if not key.endswith("."))
CONVERSATION_PREFIXES: tuple[str, ...] = tuple(key for key in _SAID_AT if key.endswith("."))
_KEYS = frozenset(CONVERSATION_KEYS)

# OTel GenAI's events about messages, by the role that an event of this name has by itself.
_ROLE_OF_EVENT = {
    "gen_ai.system.message": "system",
    "gen_ai.user.message": "user",
    "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool",
    "gen_ai.choice": "assistant",
    "gen_ai.content.prompt": "user",
    "gen_ai.content.completion": "assistant",
    "gen_ai.client.inference.operation.details": None,
}
MESSAGE_EVENTS: tuple[str, ...] = tuple(_ROLE_OF_EVENT)
_ANSWER_EVENTS = ("gen_ai.choice", "gen_ai.content.completion")
_EVENT_MEMBERS = ("role", "name", "content", "id", "tool_calls", "message")

INPUT_KEYS: tuple[str, ...] = (
    "clew.inputs",
    "gen_ai.input.messages",
    "gen_ai.tool.call.arguments",
    "input.value",
    "traceloop.entity.input",
    "langfuse.observation.input",
    "mlflow.spanInputs",
    "pydantic_ai.all_messages",
    "all_messages_events",
    "ai.prompt.messages",
    "ai.prompt",
    "ai.toolCall.args",
    "ai.values",
    "ai.value",
    "gcp.vertex.agent.tool_call_args",
    "gcp.vertex.agent.llm_request",
    "lmnr.span.input",
    "genkit:input",
    "gen_ai.task.input",
    "gen_ai.retrieval.query.text",
    "ag2.human_input.prompt",
    "tool_arguments",
    "tool_input",
    "full_command",
    "user_prompt",
    "new_context",
    "langfuse.trace.input",
    "gen_ai.prompt",
)
OUTPUT_KEYS: tuple[str, ...] = (
    "clew.outputs",
    "gen_ai.output.messages",
    "gen_ai.tool.call.result",
    "output.value",
    "traceloop.entity.output",
    "langfuse.observation.output",
    "mlflow.spanOutputs",
    "final_result",
    "ai.response.text",
    "ai.response.object",
    "ai.response.toolCalls",
    "ai.toolCall.result",
    "gcp.vertex.agent.tool_response",
    "gcp.vertex.agent.llm_response",
    "lmnr.span.output",
    "genkit:output",
    "gen_ai.task.output",
    "gen_ai.retrieval.documents",
    "ag2.code_execution.output",
    "ag2.human_input.response",
    "tool_response",
    "response.model_output",
    "langfuse.trace.output",
    "gen_ai.completion",
)
_AGENT_KEYS = tuple(key for key in TEXTS["agent_name"] if key not in GUARDS)
_MODEL_KEYS = tuple(key for key in TEXTS["model"] if key not in GUARDS)
_TOKEN_KEYS = tuple(key for key in INTEGERS["output_tokens"] if key not in GUARDS)
# What `messages_of` looks at besides: whoever decodes attributes for it alone needs no others.
CONVERSATION_CONTEXT_KEYS: tuple[str, ...] = (*_AGENT_KEYS, *_MODEL_KEYS, *_TOKEN_KEYS)
_NOTHING = (None, "", "<REDACTED>")


@dataclass(frozen=True)
class SaidMessage:
    """One message. `content` is its text, or the canonical JSON of its parts where it is more than text. `sender` is
    known by name or not at all, `recipient` is the agent, the model or the tool that was spoken to."""

    role: str
    sender: str | None
    recipient: str | None
    content: str
    is_output: bool
    tokens: int | None


def messages_of(attributes: Mapping[str, Any]) -> list[SaidMessage]:
    """The messages that went in, in order, then those that came out, history included; the newest MESSAGES_MAX."""
    telling = {key: said for key, said in attributes.items() if key in _KEYS or key.startswith(CONVERSATION_PREFIXES)}
    inputs, outputs = _first_said(telling, _INPUTS), _first_said(telling, _OUTPUTS)
    if not outputs and inputs and not telling.keys().isdisjoint(_WHOLE_CONVERSATIONS):
        inputs, outputs = _without_answer(inputs)
    if inputs and not outputs:
        outputs = _first_said(telling, _ANSWERS)
    system = instructions(parsed(telling.get(_SYSTEM)))
    inputs = [form for form in system if form not in inputs] + inputs
    outputs = outputs[-MESSAGES_MAX:]
    inputs = inputs[max(0, len(inputs) + len(outputs) - MESSAGES_MAX) :]
    return _told(attributes, inputs, outputs)


def messages_of_event(name: str, body: str | None, attributes: Mapping[str, Any]) -> list[SaidMessage]:
    """The messages that a span event or log record of one of the names MESSAGE_EVENTS tells, by its attributes or, as
    text or JSON, its body."""
    told, role = messages_of(attributes), _ROLE_OF_EVENT[name]
    if told or role is None:
        return told
    value = parsed(body) if body else parsed(attributes.get("gen_ai.event.content"))
    if value in _NOTHING:
        value = {member: parsed(attributes[member]) for member in _EVENT_MEMBERS if member in attributes}
    forms = messages_in(value, role)
    is_answer = name in _ANSWER_EVENTS
    return _told(attributes, [] if is_answer else forms, forms if is_answer else [])


def inputs_of(attributes: Mapping[str, Any]) -> Any | None:
    """What went in, as JSON: arguments, messages, a prompt. None where nothing says."""
    return _first_value(attributes, INPUT_KEYS, _INPUTS)


def outputs_of(attributes: Mapping[str, Any]) -> Any | None:
    """What came out, as `inputs_of`."""
    return _first_value(attributes, OUTPUT_KEYS, _OUTPUTS)


def _first_value(attributes: Mapping[str, Any], keys: tuple[str, ...], sources: tuple[_Source, ...]) -> Any | None:
    for key in keys:
        if attributes.get(key) not in _NOTHING:
            return parsed(attributes[key])
    indexed = (unfolded(attributes, source.key) for source in sources if source.key.endswith("."))
    return next((items for items in indexed if items), None)


def _first_said(attributes: Mapping[str, Any], sources: tuple[_Source, ...]) -> list[Form]:
    for source in sources:
        forms = messages_in(value, source.role) if (value := _value_at(attributes, source)) not in _NOTHING else []
        if forms:
            return forms
    return []


def _value_at(attributes: Mapping[str, Any], source: _Source) -> Any:
    if source.key in _KEYS:
        return parsed(attributes.get(source.key))
    if source.keys:
        members = {name: attributes[key] for key, name in source.keys.items() if attributes.get(key) not in _NOTHING}
        return {"role": source.role, **members} if members else None
    return unfolded(attributes, source.key)


def _without_answer(conversation: list[Form]) -> tuple[list[Form], list[Form]]:
    last = len(conversation) - (conversation[-1].role == "assistant")
    return conversation[:last], conversation[last:]


def _told(attributes: Mapping[str, Any], inputs: list[Form], outputs: list[Form]) -> list[SaidMessage]:
    agent, model = _named(attributes, _AGENT_KEYS), _named(attributes, _MODEL_KEYS)
    tokens = _tokens(attributes) if len(outputs) == 1 else None
    told = []
    for form, is_output in [*((form, False) for form in inputs), *((form, True) for form in outputs)]:
        answers = form.role == "assistant"
        told.append(
            SaidMessage(
                role=form.role,
                sender=form.name or (agent if answers else None),
                recipient=_tool_called(form) if answers else agent or model,
                content=form.content,
                is_output=is_output,
                tokens=tokens if is_output else None,
            )
        )
    return told


def _named(attributes: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    return next((value for key in keys if isinstance(value := attributes.get(key), str) and value), None)


def _tokens(attributes: Mapping[str, Any]) -> int | None:
    return next((value for key in _TOKEN_KEYS if type(value := attributes.get(key)) is int), None)


def _tool_called(form: Form) -> str | None:
    names = (part.get("name") for part in form.parts if part.get("type") == "tool_call")
    return next((name for name in names if isinstance(name, str)), None)
