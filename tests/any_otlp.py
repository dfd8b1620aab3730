"""Arbitrary OTLP: strategies for what all signals are made of, and how what comes back is compared."""

from __future__ import annotations

import math
from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message
from hypothesis import settings
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    EntityRef,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from clew.storage.conventions import DOUBLES, GUARDS, INTEGERS, MEMBERS, SUMS, TEXTS
from clew.storage.event_rules import EVENT_SUBTYPE_RULES, EVENT_TYPE_RULES

DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=60)

texts = st.text(max_size=12) | st.sampled_from(["", "\0", "a\0b", "𝔘𓀀", "é", "\ufeff", "null", "{}"])
known_keys = sorted(
    {key for table in (TEXTS, INTEGERS, DOUBLES) for keys in table.values() for key in keys}
    | {key for sums in SUMS.values() for keys in sums for key in keys}
    | {member.key for members in MEMBERS.values() for member in members}
    | {guard.key for guard in GUARDS.values()}
    | {key for key, _ in (*EVENT_TYPE_RULES, *EVENT_SUBTYPE_RULES)}
    | {"service.name", "event.name", "exception.type"}
)
odd_keys = ["", "a", "A", "a\0", "a\0b", "\0", "é", "É", "a.b", '"', "'"]
keys = st.sampled_from(odd_keys) | texts | st.sampled_from(known_keys)
int64s = st.sampled_from([0, -(2**63), 2**63 - 1, 2**53 + 1]) | st.integers(-(2**63), 2**63 - 1)
uint32s = st.sampled_from([0, 1, 0x301, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
times = st.sampled_from([0, 1, 1_700_000_000_123_456_789, 2**63 - 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
enums = st.integers(0, 6) | st.sampled_from([-1, 99, 2**31 - 1, -(2**31)])
span_ids = st.binary(min_size=8, max_size=8).filter(any)
parent_ids = st.sampled_from([b"", bytes(8), b"\x80" + bytes(7), b"\xff" * 8]) | span_ids


def pairs_of(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[KeyValue]:
    return st.builds(KeyValue, key=keys, value=st.none() | inner, key_strindex=st.just(0) | st.sampled_from([0, 7]))


scalars = st.one_of(
    st.just(AnyValue()),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(
        AnyValue, int_value=st.sampled_from([0, -(2**63), 2**63 - 1, 2**53 + 1]) | st.integers(-(2**63), 2**63 - 1)
    ),
    st.builds(AnyValue, double_value=st.sampled_from([math.nan, math.inf, -math.inf, -0.0, 5e-324]) | st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
    st.builds(AnyValue, string_value_strindex=st.sampled_from([0, 1, -1])),
)


def nested(inner: st.SearchStrategy[AnyValue]) -> st.SearchStrategy[AnyValue]:
    arrays = st.builds(ArrayValue, values=st.lists(inner, max_size=3))
    maps = st.builds(KeyValueList, values=st.lists(pairs_of(inner), max_size=3))
    return st.builds(AnyValue, array_value=arrays) | st.builds(AnyValue, kvlist_value=maps)


values = st.recursive(scalars, nested, max_leaves=6)
attributes = st.lists(pairs_of(values), max_size=4)
plain_attributes = st.lists(
    st.builds(KeyValue, key=st.sampled_from(odd_keys[1:] + known_keys), value=scalars),
    min_size=1,
    max_size=4,
    unique_by=lambda pair: pair.key,
)
entity_refs = st.builds(
    EntityRef,
    schema_url=texts,
    type=texts,
    id_keys=st.lists(texts, max_size=2),
    description_keys=st.lists(texts, max_size=2),
)
resources = st.builds(
    Resource,
    attributes=attributes,
    dropped_attributes_count=uint32s,
    entity_refs=st.lists(entity_refs, max_size=2),
)
scopes = st.builds(
    InstrumentationScope, name=texts, version=texts, attributes=attributes, dropped_attributes_count=uint32s
)


def presence(block: Any, name: str) -> tuple[str, str]:
    """The block's resource or scope and its schema URL, where absent differs from empty."""
    return (text_of(getattr(block, name)) if block.HasField(name) else "absent"), block.schema_url


def text_of(message: Message) -> str:
    """Equal for messages that say the same: OTLP gives the order of attributes no meaning."""
    copy = type(message)()
    copy.CopyFrom(message)
    _sort_attributes(copy)
    return text_format.MessageToString(copy)


def _sort_attributes(message: Message) -> None:
    for field, value in message.ListFields():
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                _sort_attributes(inner)
        if field.message_type is KeyValue.DESCRIPTOR:
            value.sort(key=lambda pair: pair.SerializeToString(deterministic=True))
