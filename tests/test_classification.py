"""What attributes say about an event, in the columns: by the tables of `conventions`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from clew.collector.conventions import (
    AGENT_ROLES,
    DOUBLES,
    EVENT_SUBTYPES,
    EVENT_TYPE_RULES,
    EVENT_TYPES,
    INTEGERS,
    TEXTS,
)
from clew.collector.projection import read_requests
from clew.storage.runs import DEFAULT_SESSION

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=150)
FREE_TEXTS = [name for name in TEXTS if name not in ("agent_role", "event_subtype")]


def value(plain: Any) -> AnyValue:
    match plain:
        case bool():
            return AnyValue(bool_value=plain)
        case int():
            return AnyValue(int_value=plain)
        case float():
            return AnyValue(double_value=plain)
        case bytes():
            return AnyValue(bytes_value=plain)
        case list():
            return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
        case _:
            return AnyValue(string_value=plain)


def classified(*owners: dict[str, Any], **span: Any) -> list[dict[str, Any]]:
    """The events' rows for spans with these attributes, each a run of its own, with the session of the run."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add().scope_spans.add()
    for number, attributes in enumerate(owners, start=1):
        pairs = [KeyValue(key=key, value=value(plain)) for key, plain in attributes.items()]
        block.spans.add(trace_id=number.to_bytes(16, "big"), span_id=b"12345678", attributes=pairs, **span)
    batch = read_requests([request.SerializeToString()]).batch
    assert batch is not None
    sessions = {run["id"]: run["session_id"] for run in batch.runs.to_pylist()}
    rows = batch.events.rows.to_pylist()
    return [row | {"session_id": _unless(sessions[row["run_id"]], DEFAULT_SESSION)} for row in rows]


def _unless(said: str, default: str) -> str | None:
    return None if said == default else said


def one(attributes: dict[str, Any], **span: Any) -> dict[str, Any]:
    [row] = classified(attributes, **span)
    return row


def test_what_nothing_says_is_null() -> None:
    """No attribute: an event of type `info`, and nothing made up."""
    row = one({})
    assert row["event_type"] == "info"
    for name in (*TEXTS, *INTEGERS, *DOUBLES):
        assert row[name] is None or name == "event_subtype"


@pytest.mark.parametrize("column", FREE_TEXTS)
def test_the_first_key_of_a_text_column_wins(column: str) -> None:
    """In the order of the table, not of the span; each key alone fills the column."""
    keys = TEXTS[column]
    for place, key in enumerate(keys):
        later = dict.fromkeys(reversed(keys[place:]), "later")
        assert one(later | {key: "first"})[column] == "first"
        assert one({key: "alone"})[column] == "alone"


@pytest.mark.parametrize("column", [*INTEGERS, *DOUBLES])
def test_the_first_key_of_a_number_column_wins(column: str) -> None:
    """As with texts; whatever the type of the first one."""
    keys = (INTEGERS | DOUBLES)[column]
    for place, key in enumerate(keys):
        later = dict.fromkeys(reversed(keys[place:]), 5)
        for first in (7, 7.0, "7"):
            assert one(later | {key: first})[column] == 7


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        (0, 0),
        (2**63 - 1, 2**63 - 1),
        (12.9, 12),
        ("34", 34),
        ("1e3", 1000),
        ("", None),
        ("many", None),
        ("nan", None),
        (float("nan"), None),
        (float("inf"), None),
        (1e300, None),
        (True, None),
        (b"7", None),
        ([7], None),
    ],
)
def test_a_count_of_tokens_is_a_whole_number_or_nothing(said: Any, understood: int | None) -> None:
    """Numbers as text are understood, what is no number is not, and nothing of it harms the span."""
    assert one({"gen_ai.usage.input_tokens": said})["input_tokens"] == understood


def test_an_empty_text_names_nothing() -> None:
    """An agent, a model, a session without a name are none."""
    row = one(dict.fromkeys((keys[0] for keys in TEXTS.values()), ""))
    assert [row[name] for name in FREE_TEXTS] == [None] * len(FREE_TEXTS)
    assert one({"gen_ai.response.model": "", "gen_ai.request.model": "asked for"})["model"] == "asked for"


def test_a_number_is_a_name_as_well() -> None:
    """Some producers number their sessions."""
    assert one({"session.id": 17})["session_id"] == "17"


@pytest.mark.parametrize("column", ["agent_role", "event_subtype"])
def test_only_known_words_fill_a_column_of_known_words(column: str) -> None:
    """Another word is no role and no subtype; it stays among the attributes."""
    [key] = TEXTS[column]
    for word in {"agent_role": AGENT_ROLES, "event_subtype": EVENT_SUBTYPES}[column]:
        assert one({key: word})[column] == word
    assert one({key: "unheard of"})[column] == one({})[column]


@pytest.mark.parametrize(
    ("end", "code", "status", "subtype"),
    [
        (0, 0, "running", "start"),
        (0, 1, "running", "start"),
        (0, 2, "failed", "error"),
        (5, 0, "completed", "complete"),
        (5, 1, "completed", "complete"),
        (5, 2, "failed", "error"),
    ],
)
def test_the_subtype_follows_the_status(end: int, code: int, status: str, subtype: str) -> None:
    """Unless the span itself says what it is."""
    span = {"end_time_unix_nano": end, "status": Status(code=code)}
    assert (one({}, **span)["status"], one({}, **span)["event_subtype"]) == (status, subtype)
    assert one({"clew.event.subtype": "pending"}, **span)["event_subtype"] == "pending"


def test_every_rule_of_the_table_is_reached() -> None:
    """Each value that a rule knows decides on its own, and gives an event type that exists."""
    for key, meaning in EVENT_TYPE_RULES:
        for said, event_type in {"anything": meaning}.items() if isinstance(meaning, str) else meaning.items():
            assert event_type in EVENT_TYPES
            assert one({key: said})["event_type"] == event_type


def _obvious_type(attributes: dict[str, Any]) -> str:
    for key, meaning in EVENT_TYPE_RULES:
        said = attributes.get(key)
        if isinstance(said, str) and (isinstance(meaning, str) or said in meaning):
            return meaning if isinstance(meaning, str) else meaning[said]
    return "info"


words = sorted({word for _, meaning in EVENT_TYPE_RULES if isinstance(meaning, dict) for word in meaning})
owners = st.dictionaries(
    st.sampled_from(sorted({key for key, _ in EVENT_TYPE_RULES})),
    st.sampled_from(words) | st.sampled_from(["unheard of", "", 7, True, b"TOOL"]),
    max_size=5,
)


@given(batch=st.lists(owners, min_size=1, max_size=6))
@DETERMINISTIC
def test_the_first_rule_that_says_something_decides(batch: list[dict[str, Any]]) -> None:
    """The columns' way and a loop over the rules agree on every span of a batch."""
    assert [row["event_type"] for row in classified(*batch)] == [_obvious_type(attributes) for attributes in batch]


@pytest.mark.parametrize(
    ("attributes", "event_type"),
    [
        ({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, "agent_call"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}, "tool_call"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash"}, "code_exec"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "write_file"}, "file_gen"),
        ({"openinference.span.kind": "LLM", "llm.model_name": "m"}, "agent_call"),
        ({"clew.event.type": "handoff", "gen_ai.operation.name": "chat"}, "handoff"),
        ({"http.request.method": "GET"}, "info"),
    ],
)
def test_spans_as_they_occur(attributes: dict[str, str], event_type: str) -> None:
    """A model call, tools of three kinds, OpenInference, our own word, and what is none of these."""
    assert one(attributes)["event_type"] == event_type


def test_a_span_kind_does_not_make_a_type() -> None:
    """A client span without a word of agents stays `info`."""
    assert one({}, kind=Span.SPAN_KIND_CLIENT)["event_type"] == "info"
