"""What attributes say about an event, in the columns: by the tables of `conventions` and `event_rules`."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from clew.collector.projection import read_requests
from clew.storage.conventions import (
    AGENT_ROLES,
    DOUBLES,
    EVENT_SUBTYPES,
    EVENT_TYPES,
    GUARDS,
    INTEGERS,
    MEMBERS,
    SPAN_NAME,
    SUMS,
    TEXTS,
    Member,
)
from clew.storage.event_rules import (
    AGENT_ROLE_RULES,
    EVENT_SUBTYPE_RULES,
    EVENT_TYPE_RULES,
    Meaning,
    Rules,
)
from clew.storage.runs import DEFAULT_SESSION

WORDED = {
    "event_type": (EVENT_TYPE_RULES, EVENT_TYPES),
    "event_subtype": (EVENT_SUBTYPE_RULES, EVENT_SUBTYPES),
    "agent_role": (AGENT_ROLE_RULES, AGENT_ROLES),
}
SCALARS = {
    bool: "bool_value",
    int: "int_value",
    float: "double_value",
    str: "string_value",
    bytes: "bytes_value",
}
DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=150)


def value(plain: Any) -> AnyValue:
    match plain:
        case dict():
            pairs = [KeyValue(key=key, value=value(item)) for key, item in plain.items()]
            return AnyValue(kvlist_value=KeyValueList(values=pairs))
        case list():
            return AnyValue(array_value=ArrayValue(values=[value(item) for item in plain]))
        case _:
            return AnyValue(**{SCALARS[type(plain)]: plain})


def classified(*owners: dict[str, Any], **span: Any) -> list[dict[str, Any]]:
    """The events' rows for spans with these attributes (SPAN_NAME: their names), each a run of its own, with the
    session of the run."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add().scope_spans.add()
    for number, attributes in enumerate(owners, start=1):
        pairs = [KeyValue(key=key, value=value(plain)) for key, plain in attributes.items() if key != SPAN_NAME]
        ids = {"trace_id": number.to_bytes(16, "big"), "span_id": b"12345678"}
        block.spans.add(**ids, name=attributes.get(SPAN_NAME, ""), attributes=pairs, **span)
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


def passing(*keys: str) -> dict[str, str]:
    """What the guards of these keys want to see beside them."""
    return {GUARDS[key].key: GUARDS[key].pattern.replace("*", "any") for key in keys if key in GUARDS}


def test_what_nothing_says_is_null() -> None:
    """No attribute: an event of type `info`, and nothing made up."""
    row = one({})
    assert row["event_type"] == "info"
    assert {row[name] for name in (*TEXTS, *INTEGERS, *DOUBLES, "agent_role")} == {None}


@pytest.mark.parametrize("column", TEXTS)
def test_the_first_key_of_a_text_column_wins(column: str) -> None:
    """In the order of the table, not of the span; each key alone fills the column."""
    keys = TEXTS[column]
    for place, key in enumerate(keys):
        later = passing(*keys[place:]) | dict.fromkeys(reversed(keys[place:]), "later")
        assert one(later | {key: "first"})[column] == "first"
        assert one(passing(key) | {key: "alone"})[column] == "alone"


@pytest.mark.parametrize("column", [*INTEGERS, *DOUBLES])
def test_the_first_key_of_a_number_column_wins(column: str) -> None:
    """As with texts; whatever the type of the first one."""
    keys = (INTEGERS | DOUBLES)[column]
    for place, key in enumerate(keys):
        later = passing(*keys[place:]) | dict.fromkeys(reversed(keys[place:]), 5)
        for first in (7, 7.0, "7"):
            assert one(later | {key: first})[column] == 7


@pytest.mark.parametrize(
    ("said", "understood"),
    [
        (0, 0),
        (2**53 - 1, 2**53 - 1),
        (2**53, None),
        (2**63 - 1, None),
        (-1, None),
        ("-1", None),
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
    assert [row[name] for name in TEXTS] == [None] * len(TEXTS)
    assert one({"gen_ai.response.model": "", "gen_ai.request.model": "asked for"})["model"] == "asked for"


def test_a_number_is_a_name_as_well() -> None:
    """Some producers number their sessions."""
    assert one({"session.id": 17})["session_id"] == "17"


@pytest.mark.parametrize("key", GUARDS)
def test_a_guarded_key_counts_only_beside_its_condition(key: str) -> None:
    """A key too plain to mean the same everywhere says nothing on anybody else's span."""
    nothing = one({GUARDS[key].key: "else"})
    row = one({GUARDS[key].key: "else", key: "17"})
    assert [row[name] for name in (*TEXTS, *INTEGERS, *DOUBLES)] == [None] * (len(TEXTS) + len(INTEGERS) + len(DOUBLES))
    assert [row[name] for name in WORDED] == [nothing[name] for name in WORDED]


def test_an_amount_in_another_currency_is_no_dollars() -> None:
    """Without a currency it is taken for dollars."""
    for currency, dollars in ({}, 2.5), ({"gen_ai.usage.cost.currency": "USD"}, 2.5):
        assert one({"gen_ai.usage.cost.amount": 2.5} | currency)["cost_usd"] == dollars
    assert one({"gen_ai.usage.cost.amount": 2.5, "gen_ai.usage.cost.currency": "EUR"})["cost_usd"] is None


@pytest.mark.parametrize("column", SUMS)
def test_a_sum_stands_where_no_single_key_does(column: str) -> None:
    """It is of those summands that are there, whatever their types; the first sum that has one wins."""
    [single, *_] = (INTEGERS | DOUBLES)[column]
    for place, keys in enumerate(SUMS[column]):
        later = {key: 90 for summands in SUMS[column][place + 1 :] for key in summands}
        all_of_it = passing(*keys) | later | dict(zip(keys, (1, 2.0, "4"), strict=False))
        assert one(all_of_it)[column] == (3 if len(keys) == 2 else 7)
        assert one(passing(*keys) | later | {keys[-1]: 5})[column] == 5
        assert one(all_of_it | {single: 40})[column] == 40


@pytest.mark.parametrize(
    ("column", "member"), [(name, member) for name, members in MEMBERS.items() for member in members]
)
def test_a_member_of_json_stands_where_no_key_does(column: str, member: Member) -> None:
    """The sum of the members that are there, or the first text, whether the JSON is text or structured."""
    names = member.names or ("",)
    for value in ("several", "words") if column in TEXTS else (3, 4):
        inner = dict.fromkeys(names, value) if member.names else value
        expected = value if column in TEXTS else value * len(names)
        assert one({member.key: json.dumps(inner)})[column] == expected
        if member.names:
            assert one({member.key: inner})[column] == expected
        assert one({member.key: json.dumps(inner), first_key(column): 1})[column] in (1, "1")


@pytest.mark.parametrize("column", MEMBERS)
@pytest.mark.parametrize("said", ["{", "[]", "null", '"text"', '{"input": []}', '{"total": true}', "", 7, b"{}", ["a"]])
def test_json_of_another_shape_says_nothing(column: str, said: Any) -> None:
    """It harms neither the span nor its neighbours."""
    keys = {member.key for member in MEMBERS[column] if member.names}
    good = {first_key(column): 5}
    rows = classified(dict.fromkeys(keys, said), good)
    assert [row[column] for row in rows] == [None, "5" if column in TEXTS else 5]


def first_key(column: str) -> str:
    return (TEXTS | INTEGERS | DOUBLES)[column][0]


def test_only_known_words_fill_a_column_of_known_words() -> None:
    """Another type is `info` whatever else is there, another subtype or role is none; what was said stays among the
    attributes."""
    for key, column, words, otherwise in (
        ("clew.event.type", "event_type", EVENT_TYPES, "info"),
        ("clew.event.subtype", "event_subtype", EVENT_SUBTYPES, None),
        ("clew.agent.role", "agent_role", AGENT_ROLES, None),
    ):
        for word in words:
            assert one({key: word})[column] == word
        assert one({key: "unheard of", "gen_ai.operation.name": "chat"})[column] == otherwise


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


@pytest.mark.parametrize("column", WORDED)
def test_every_rule_of_the_table_is_reached(column: str) -> None:
    """Each value that a rule knows decides on its own, and gives a word of the vocabulary."""
    rules, vocabulary = WORDED[column]
    for key, meaning in rules:
        for said, word in {"anything": meaning}.items() if isinstance(meaning, str) else meaning.items():
            assert word in vocabulary or word == ""
            assert one(passing(key) | {key: said.replace("*", "any")})[column] == (word or None)


def _obvious_word(rules: Rules, attributes: dict[str, Any], otherwise: str) -> str | None:
    for key, meaning in rules:
        if key in attributes and _guard_passes(key, attributes):
            word = _obvious_meaning(meaning, attributes[key])
            if word is not None:
                return word or None
    return otherwise


def _guard_passes(key: str, attributes: dict[str, Any]) -> bool:
    guard = GUARDS.get(key)
    return guard is None or fnmatchcase(str(attributes.get(guard.key, "")), guard.pattern)


def _obvious_meaning(meaning: Meaning, said: Any) -> str | None:
    if isinstance(meaning, str):
        return meaning
    if not isinstance(said, str):
        return None
    patterns = (word for pattern, word in meaning.items() if pattern.endswith("*") and fnmatchcase(said, pattern))
    return meaning.get(said, next(patterns, None))


all_rules = [rule for rules, _ in WORDED.values() for rule in rules]
words = sorted({word.replace("*", "any") for _, meaning in all_rules if isinstance(meaning, dict) for word in meaning})
owners = st.dictionaries(
    st.sampled_from(sorted({key for key, _ in all_rules} - {SPAN_NAME})),
    st.sampled_from(words) | st.sampled_from(["unheard of", "", 7, True, b"TOOL"]),
    max_size=5,
)
named_owners = st.builds(lambda name, owner: {SPAN_NAME: name, **owner}, st.sampled_from(["", *words]), owners)


@given(batch=st.lists(named_owners, min_size=1, max_size=6))
@DETERMINISTIC
def test_the_first_rule_that_says_something_decides(batch: list[dict[str, Any]]) -> None:
    """The columns' way and a loop over the rules agree on every span of a batch."""
    rows = classified(*batch)
    for column, otherwise in (("event_type", "info"), ("event_subtype", "start")):
        expected = [_obvious_word(WORDED[column][0], attributes, otherwise) for attributes in batch]
        assert [row[column] for row in rows] == expected


@pytest.mark.parametrize(
    ("attributes", "event_type"),
    [
        ({"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, "agent_call"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search"}, "tool_call"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "bash"}, "code_exec"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "write_file"}, "file_gen"),
        ({"openinference.span.kind": "LLM", "llm.model_name": "m"}, "agent_call"),
        ({"clew.event.type": "handoff", "gen_ai.operation.name": "chat"}, "handoff"),
        ({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "transfer_to_billing"}, "handoff"),
        ({SPAN_NAME: "handoff to Billing", "openinference.span.kind": "TOOL"}, "handoff"),
        ({"ag2.span.type": "speaker_selection", "ag2.speaker_selection.selected": "critic"}, "handoff"),
        ({"http.request.method": "GET"}, "info"),
    ],
)
def test_spans_as_they_occur(attributes: dict[str, str], event_type: str) -> None:
    """A model call, tools of three kinds, OpenInference, our own word, hand-overs, and what is none of these."""
    assert one(attributes)["event_type"] == event_type


def test_a_span_kind_does_not_make_a_type() -> None:
    """A client span without a word of agents stays `info`."""
    assert one({}, kind=Span.SPAN_KIND_CLIENT)["event_type"] == "info"
