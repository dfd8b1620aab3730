"""One message in the forms that providers and instrumentations give it, as one form: a role and OTel GenAI's parts.

Forms read: OTel GenAI (`parts`), OpenAI (`content`, `tool_calls`), Anthropic (blocks), Gemini (`contents` of `parts`),
LangChain (`type`, `kwargs`), Vercel's AI SDK (`tool-call` parts), OpenInference and OpenLLMetry after `unfolded`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

KEY_DEPTH_MAX = 12
INDEX_DIGITS_MAX = 9
_JSON_DEPTH_SAFE = 100  # orjson writes 254 levels, reads more

_ROLES = {
    "human": "user",
    "HumanMessage": "user",
    "ai": "assistant",
    "AIMessage": "assistant",
    "AIMessageChunk": "assistant",
    "model": "assistant",
    "SystemMessage": "system",
    "ToolMessage": "tool",
    "function": "tool",
}
_ROLES_BY_TYPE = {*_ROLES, "system", "tool"} - {"model", "function"}
_WRAPPERS = ("message", "prompt", "completion", "kwargs")
_CONVERSATIONS = ("messages", "contents", "choices", "candidates", "output")
_TEXT_TYPES = ("text", "input_text", "output_text")
_CALL_TYPES = ("tool_call", "function", "tool_use", "tool-call", "function_call", "functionCall")
_RESPONSE_TYPES = ("tool_call_response", "tool_result", "tool-result", "function_response", "functionResponse")


@dataclass(frozen=True)
class Form:
    """Who spoke and what: `parts` as OTel GenAI has them, without those that say nothing."""

    role: str
    name: str | None
    parts: list[dict[str, Any]]

    @property
    def content(self) -> str:
        """The text where there is only text, else the parts as canonical JSON. Equal messages have equal content."""
        texts = [part.get("content") for part in self.parts if part.get("type") == "text"]
        if len(texts) == len(self.parts) and all(isinstance(text, str) for text in texts):
            return "\n".join(str(text) for text in texts)
        return orjson.dumps(self.parts, default=str, option=orjson.OPT_SORT_KEYS).decode()


def parsed(value: Any) -> Any:
    """Text that is a JSON object, array or string as the value that it is; everything else as it is, and so what nests
    too deep to be written as JSON again."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("{", "[", '"'):
        return value
    try:
        read = orjson.loads(value)
        if value.count("[") + value.count("{") > _JSON_DEPTH_SAFE and _is_deep(read):
            return value
    except orjson.JSONDecodeError:
        return value
    return read


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_JSON_DEPTH_SAFE):
        level = [inner for outer in level for inner in _items_of(outer) if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _items_of(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def unfolded(attributes: Mapping[str, Any], prefix: str) -> list[Any]:
    """The list that the keys `{prefix}{index}.{member}...` say, nested as they are, in the order of the indexes."""
    tree: dict[str, Any] = {}
    for key, value in attributes.items():
        if key.startswith(prefix):
            _put(tree, key[len(prefix) :].split(".", KEY_DEPTH_MAX), value)
    folded = _lists(tree)
    return folded if isinstance(folded, list) else []


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        inner = tree.setdefault(step, {})
        if not isinstance(inner, dict):
            return
        tree = inner
    tree.setdefault(path[-1], value)


def _lists(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    members = {key: _lists(inner) for key, inner in tree.items()}
    if members and all(key.isascii() and key.isdecimal() and len(key) <= INDEX_DIGITS_MAX for key in members):
        return [members[key] for key in sorted(members, key=int)]
    return members


def messages_in(value: Any, role: str | None) -> list[Form]:
    """The messages that a JSON value holds: a list, one, or an object with messages in it. `role`: whose a text without
    one is; None: what is not told as messages holds none."""
    if isinstance(value, dict):
        system, within = _system_of(value), _conversation_of(value)
        if within is not None:
            return [*system, *messages_in(within, role)]
        value = [value]
    items = value if isinstance(value, list) else [value]
    if len(items) == 1 and isinstance(items[0], list):  # LangChain's batch of one
        items = items[0]
    forms = [_form(item, role) for item in items]
    return [] if None in forms else [form for form in forms if form is not None and form.parts]


def _conversation_of(value: dict[str, Any]) -> Any:
    """The messages within a request or a response, None where this is a message itself."""
    if _role_of(value) is None:
        for name in _CONVERSATIONS:
            if isinstance(value.get(name), list | dict):
                return value[name]
        if "system" in value and isinstance(value.get("prompt"), str):
            return [{"role": "user", "content": value["prompt"]}]
    return None


def _system_of(value: dict[str, Any]) -> list[Form]:
    config = value.get("config")
    said = value.get("system") or (isinstance(config, dict) and config.get("system_instruction"))
    return instructions(said) if said else []


def instructions(value: Any) -> list[Form]:
    """A system message: text, parts, or an object that has them."""
    if isinstance(value, dict):
        value = value.get("parts", [value])
    form = Form("system", None, _parts_of(value))
    return [form] if form.parts else []


def _form(value: Any, role: str | None) -> Form | None:
    if not isinstance(value, dict):
        return None if role is None else Form(role, None, _parts_of(value))
    message = _unwrapped(value)
    said_by = _role_of(message) or role
    if said_by is None:
        return None
    name = message.get("name")
    return Form(_ROLES.get(said_by, said_by), name if isinstance(name, str) else None, _parts_of_message(message))


def _unwrapped(value: dict[str, Any]) -> dict[str, Any]:
    """OpenInference's, OpenAI's and LangChain's envelopes taken off."""
    for name in _WRAPPERS:
        if isinstance(value.get(name), dict) and "role" not in value:
            return value[name]
    content = value.get("content")
    return content if isinstance(content, dict) and "parts" in content and "role" not in value else value


def _role_of(message: dict[str, Any]) -> str | None:
    role, kind = message.get("role"), message.get("type")
    if isinstance(role, str) and role:
        return role
    if isinstance(kind, str) and kind in _ROLES_BY_TYPE:
        return kind
    inner = _unwrapped(message)
    return _role_of(inner) if inner is not message else None


def _parts_of_message(message: dict[str, Any]) -> list[dict[str, Any]]:
    said = [message[name] for name in ("parts", "contents", "content", "text") if message.get(name) not in (None, "")]
    parts = _parts_of(said[0]) if said else []
    answered = message.get("tool_call_id")
    if isinstance(answered, str):
        parts = [_response({"id": answered, "response": _only_text(parts)})]
    calls = parsed(message.get("tool_calls") or message.get("toolCalls"))
    parts += [_call(call) for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []
    if isinstance(message.get("function_call"), dict):
        parts.append(_call(message["function_call"]))
    if message.get("function_call_name"):
        arguments = message.get("function_call_arguments_json")
        parts.append(_call({"name": message["function_call_name"], "arguments": arguments}))
    return parts if parts or said or "role" in message else _parts_of(message)


def _parts_of(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, str) and value.startswith("["):
        blocks = parsed(value)
        if isinstance(blocks, list) and blocks and all(isinstance(item, dict) and "type" in item for item in blocks):
            value = blocks
    items = value if isinstance(value, list) else [value]
    parts = [_part(item) for item in items if item not in (None, "")]
    return [part for part in parts if part.get("type") != "text" or part.get("content") not in (None, "")]


def _part(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"type": "text", "content": value}
    if not isinstance(value, dict):
        return {"type": "json", "content": value}
    value = value["message_content"] if isinstance(value.get("message_content"), dict) else value
    kind = value.get("type")
    if kind in _TEXT_TYPES or (kind is None and "text" in value):
        return {"type": "text", "content": value.get("content", value.get("text"))}
    if kind in _CALL_TYPES:
        return _call(value)
    if kind in _RESPONSE_TYPES:
        return _response(value)
    return _gemini_part(value) or {name: member for name, member in value.items() if member is not None}


def _gemini_part(value: dict[str, Any]) -> dict[str, Any] | None:
    for names, read in ((_CALL_TYPES, _call), (_RESPONSE_TYPES, _response)):
        for name in names:
            if isinstance(value.get(name), dict):
                return read(value[name])
    return None


def _call(value: dict[str, Any]) -> dict[str, Any]:
    value = value["tool_call"] if isinstance(value.get("tool_call"), dict) else value
    function = value["function"] if isinstance(value.get("function"), dict) else value
    return _said(
        type="tool_call",
        id=_first(value, "id", "tool_use_id", "toolCallId", "call_id"),
        name=_first(function, "name", "toolName"),
        arguments=parsed(_first(function, "arguments", "input", "args")),
    )


def _response(value: dict[str, Any]) -> dict[str, Any]:
    return _said(
        type="tool_call_response",
        id=_first(value, "id", "tool_use_id", "toolCallId", "call_id"),
        name=_first(value, "name", "toolName"),
        response=parsed(_first(value, "response", "result", "output", "content")),
    )


def _said(**members: Any) -> dict[str, Any]:
    return {name: member for name, member in members.items() if member is not None}


def _first(value: dict[str, Any], *names: str) -> Any:
    return next((value[name] for name in names if value.get(name) is not None), None)


def _only_text(parts: list[dict[str, Any]]) -> Any:
    """What a tool answered: the text where it is one."""
    return parts[0].get("content") if len(parts) == 1 and parts[0].get("type") == "text" else parts
