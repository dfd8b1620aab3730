"""What was said in one event: messages, inputs and outputs out of its attributes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.storage.conversation import (
    CONVERSATION_CONTEXT_KEYS,
    CONVERSATION_KEYS,
    CONVERSATION_PREFIXES,
    INPUT_KEYS,
    MESSAGES_MAX,
    OUTPUT_KEYS,
    SaidMessage,
    inputs_of,
    messages_of,
    outputs_of,
)

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=200)
CALL = '[{"arguments":{"city":"Oslo"},"id":"c1","name":"lookup","type":"tool_call"}]'
ANSWER = '[{"id":"c1","response":"dry","type":"tool_call_response"}]'

# The same call of a tool and its answer, as each convention tells them.
TOOL_USE: dict[str, list[Any]] = {
    "OTel GenAI": [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "lookup", "arguments": {"city": "Oslo"}}],
            "finish_reason": "tool_call",
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "dry"}]},
    ],
    "OTel GenAI before 1.38": [
        {
            "role": "assistant",
            "parts": [{"type": "tool_call", "id": "c1", "name": "lookup", "arguments": '{"city": "Oslo"}'}],
        },
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "dry"}]},
    ],
    "OpenAI": [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "lookup", "arguments": '{"city":"Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "dry"},
    ],
    "Anthropic": [
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "c1", "name": "lookup", "input": {"city": "Oslo"}}],
        },
        {"role": "tool", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "dry"}]},
    ],
    "Vercel AI SDK": [
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": ""},
                {"type": "tool-call", "toolCallId": "c1", "toolName": "lookup", "input": {"city": "Oslo"}},
            ],
        },
        {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "c1", "output": "dry"}]},
    ],
    "Gemini": [
        {"role": "model", "parts": [{"function_call": {"id": "c1", "name": "lookup", "args": {"city": "Oslo"}}}]},
        {"role": "tool", "parts": [{"function_response": {"id": "c1", "response": "dry"}}]},
    ],
    "LangChain": [
        {
            "lc": 1,
            "id": ["langchain", "schema", "messages", "AIMessage"],
            "kwargs": {
                "type": "ai",
                "content": "",
                "tool_calls": [{"id": "c1", "name": "lookup", "args": {"city": "Oslo"}, "type": "tool_call"}],
            },
        },
        {"lc": 1, "kwargs": {"type": "tool", "tool_call_id": "c1", "content": "dry"}},
    ],
}


def told(attributes: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(message.role, message.content, message.is_output) for message in messages_of(attributes)]


@pytest.mark.parametrize("messages", TOOL_USE.values(), ids=TOOL_USE)
def test_equal_messages_have_equal_content_in_every_form(messages: list[Any]) -> None:
    """A tool's call and its answer are the same whoever tells them, and whether as an answer or as history."""
    question = {"role": "user", "content": "Rain?"}
    history = told({"gen_ai.input.messages": json.dumps([question, *messages])})
    assert history == [("user", "Rain?", False), ("assistant", CALL, False), ("tool", ANSWER, False)]
    assert told({"gen_ai.output.messages": messages[:1]}) == [("assistant", CALL, True)]


def test_flattened_messages_are_told_like_any_other() -> None:
    """OpenInference's and OpenLLMetry's indexed keys, in the order of the numbers, not of the keys."""
    call = {"id": "c1", "function.name": "lookup", "function.arguments": '{"city": "Oslo"}'}
    openinference = {f"llm.output_messages.0.message.tool_calls.0.tool_call.{key}": said for key, said in call.items()}
    assert told(openinference | {"llm.output_messages.0.message.role": "assistant"}) == [("assistant", CALL, True)]
    openllmetry = {"gen_ai.completion.0.tool_calls.0.name": "lookup", "gen_ai.completion.0.tool_calls.0.id": "c1"}
    openllmetry |= {"gen_ai.completion.0.tool_calls.0.arguments": '{"city": "Oslo"}'}
    assert told(openllmetry | {"gen_ai.completion.0.role": "assistant"}) == [("assistant", CALL, True)]
    many = {f"gen_ai.prompt.{number}.content": str(number) for number in (10, 9, 2, 0)}
    assert [content for _, content, _ in told(many)] == ["0", "2", "9", "10"]
    assert told({"llm.prompts.0.prompt.text": "Rain?", "llm.choices.0.completion.text": "No."}) == [
        ("user", "Rain?", False),
        ("assistant", "No.", True),
    ]


def test_messages_name_who_spoke_to_whom() -> None:
    """The agent answers, it or the model is asked, a tool is called; the only answer cost the call's output tokens."""
    attributes = {
        "gen_ai.agent.name": "critic",
        "gen_ai.request.model": "m",
        "gen_ai.usage.output_tokens": 8,
        "gen_ai.input.messages": [{"role": "user", "name": "Ann", "content": "Rain?"}],
        "gen_ai.output.messages": [TOOL_USE["OTel GenAI"][0]],
    }
    assert messages_of(attributes) == [
        SaidMessage("user", "Ann", "critic", "Rain?", is_output=False, tokens=None),
        SaidMessage("assistant", "critic", "lookup", CALL, is_output=True, tokens=8),
    ]
    assert attributes.keys() <= {*CONVERSATION_KEYS, *CONVERSATION_CONTEXT_KEYS}
    del attributes["gen_ai.agent.name"]
    assert [message.recipient for message in messages_of(attributes)] == ["m", "lookup"]


def test_a_message_of_several_texts_is_text() -> None:
    """One line each; anything else among the parts makes it JSON."""
    texts = [{"type": "text", "content": "Rain?"}, {"type": "text", "content": "Snow?"}]
    image = {"type": "uri", "uri": "a.png", "modality": "image"}
    assert told({"gen_ai.input.messages": [{"role": "user", "parts": texts}]}) == [("user", "Rain?\nSnow?", False)]
    [(_, content, _)] = told({"gen_ai.input.messages": [{"role": "user", "parts": [texts[0], image]}]})
    assert json.loads(content) == [texts[0], image]


@pytest.mark.parametrize("broken", ['[{"role": "user", "content": ', "[" * 300 + "]" * 300, '{"a":' * 3000 + "1"])
@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("gen_ai.input.messages", "user"),
        ("ai.prompt", "user"),
        ("gen_ai.system_instructions", "system"),
        ("gen_ai.output.messages", "assistant"),
        ("response.model_output", "assistant"),
    ],
)
def test_text_that_is_no_json_is_one_message(key: str, role: str, broken: str) -> None:
    """Cut off or nested too deep: it is kept as it is, said by whom the key is about."""
    assert told({key: broken}) == [(role, broken, key in OUTPUT_KEYS)]


def test_an_answer_in_plain_text_belongs_to_the_conversation_it_answers() -> None:
    """Langfuse and MLflow write answers as text; without messages before it, text is no message but a value."""
    asked = {"mlflow.spanInputs": '{"messages": [{"role": "user", "content": "Rain?"}]}'}
    assert told(asked | {"mlflow.spanOutputs": '"No."'}) == [("user", "Rain?", False), ("assistant", "No.", True)]
    assert told({"mlflow.spanInputs": '{"city": "Oslo"}', "mlflow.spanOutputs": '"dry"'}) == []


def test_what_was_redacted_was_not_said() -> None:
    """Claude Code puts a word in the place of what it hides."""
    attributes = {"user_prompt": "<REDACTED>", "response.model_output": "<REDACTED>"}
    assert (messages_of(attributes), inputs_of(attributes), outputs_of(attributes)) == ([], None, None)


def test_clew_messages_are_somebody_elses() -> None:
    """A `clew.message` and the inputs of an event are no conversation with a model."""
    assert messages_of({"clew.message.content": "hello", "clew.inputs": "[]", "clew.outputs": '{"role": "x"}'}) == []


def test_the_newest_messages_count_when_there_are_too_many() -> None:
    """No event has more than MESSAGES_MAX; the answers stay."""
    asked = [{"role": "user", "content": str(number)} for number in range(MESSAGES_MAX + 5)]
    messages = messages_of({"gen_ai.input.messages": asked, "gen_ai.completion": "No."})
    assert len(messages) == MESSAGES_MAX
    assert (messages[0].content, messages[-2].content, messages[-1].content) == ("6", str(MESSAGES_MAX + 4), "No.")


@pytest.mark.parametrize(("keys", "read"), [(INPUT_KEYS, inputs_of), (OUTPUT_KEYS, outputs_of)], ids=["in", "out"])
def test_the_first_key_with_a_value_is_what_went_in_or_out(keys: tuple[str, ...], read: Any) -> None:
    """Clew's own first, then in the order of the table; JSON text is the value that it is."""
    assert keys[0].startswith("clew.")
    for place, key in enumerate(keys):
        later = dict.fromkeys(keys[place + 1 :], "later")
        assert read(later | {key: '{"n": [1]}'}) == {"n": [1]}
        assert read(later | {key: "plain"}) == "plain"
        assert read({key: {"n": 1}}) == {"n": 1}
        assert read({key: ""}) is None


MEMBERS = (
    *("role", "content", "parts", "type", "text", "name", "id", "arguments", "input", "system", "config", "kwargs"),
    *("tool_calls", "tool_call", "tool_call_id", "function", "function_call", "prompt", "message"),
    *("messages", "contents", "choices", "output"),
)
WORDS = ("user", "assistant", "tool", "ai", "text", "tool_use", "function", "tool_result")
scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    scalars | st.text(max_size=5) | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(MEMBERS), inner, max_size=4),
    max_leaves=12,
)
indexed = st.sampled_from(["0", "1", "0.message", "0.role", "0.message.role", "0.message.content", "x", "0.0.0", ""])
any_keys = st.sampled_from(CONVERSATION_KEYS) | st.builds(str.__add__, st.sampled_from(CONVERSATION_PREFIXES), indexed)


@given(attributes=st.dictionaries(any_keys, json_values | json_values.map(json.dumps), max_size=5))
@DETERMINISTIC
def test_no_shape_of_attributes_raises(attributes: dict[str, Any]) -> None:
    """Whatever stands at the keys, what comes of it is messages with text, and values that can be written as JSON."""
    for message in messages_of(attributes):
        assert isinstance(message.content, str)
        assert isinstance(message.role, str)
        assert message.role
    json.dumps([inputs_of(attributes), outputs_of(attributes)], allow_nan=False)
