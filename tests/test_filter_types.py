"""Texts of attributes against values of other types that read alike, however the engine keeps them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import duckdb
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.query.events import EVENTS
from clew.query.filter import parse
from clew.query.filter_sql import OTHERS_READ, Where, of_events
from clew.storage import Store, may_have_bytes
from clew.storage.attribute_places import RESIDUES_MAX
from clew.storage.compacting import PORTION_ROWS

START = 1_700_000_000_000_000_000
ALIKE: dict[str, tuple[str | int | bool | bytes | list[int] | None, ...]] = {
    "texts": ("5", "true", "[5]", "a", "ab", "", "é"),
    "whole numbers": (5, 4, 500),
    "truths": (True, False),
    "bytes": (b"5", b"true", b"[5]", b"a", b"ab", b"", "é".encode()),
    "lists": ([5],),
    "nothing": (None,),
}


@pytest.mark.parametrize("most", ALIKE)
@pytest.mark.parametrize("without", ["nothing", "bytes"])
@pytest.mark.parametrize("compacted", [False, True], ids=["as it came", "compacted"])
def test_what_reads_like_a_text_is_none(store: Store, most: str, without: str, *, compacted: bool) -> None:
    """The text "5" is neither the number, nor the bytes, nor the list; whatever type most values of the attribute have,
    and so however the engine keeps them; also where there are no bytes, so that types are not always asked for."""
    rare = [value for name, values in ALIKE.items() if name != without for value in values]
    values = [
        rare[place // 9 % len(rare)] if place % 9 == 0 else _of(ALIKE[most], place) for place in range(PORTION_ROWS)
    ]
    store.write(read_requests([_spans_of(values)]).batch)
    assert not compacted or store.compact() == PORTION_ROWS
    with store.read() as reader:
        assert may_have_bytes(reader, "k") == any(isinstance(value, bytes) for value in values)
    texts = {number: value for number, value in enumerate(values, 1) if isinstance(value, str)}
    for text, holds in (
        ("= '5'", lambda value: value == "5"),
        ("= 'true'", lambda value: value == "true"),
        ("= '[5]'", lambda value: value == "[5]"),
        ("= ''", lambda value: value == ""),
        ("= 'é'", lambda value: value == "é"),
        ("= 'nowhere'", lambda _: False),
        ("in ('a', '5', 'nowhere')", lambda value: value in ("a", "5")),
        ("< 'a'", lambda value: value < "a"),
        (">= 'a'", lambda value: value >= "a"),
    ):
        found = {number for number, value in texts.items() if holds(value)}
        assert _numbers(store, f"attributes['k'] {text}") == found, text
        everything = set(range(1, PORTION_ROWS + 1))
        assert _numbers(store, f"not attributes['k'] {text}") == everything - found, text
    fives = {number for number, value in enumerate(values, 1) if value in (5, "5") and value is not True}
    assert _numbers(store, "attributes['k'] in ('5', 5)") == fives


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("DOUBLE", [0.5, -0.5, 1e300, -1e-300, 5e-324, math.inf, -math.inf, math.nan, -0.0, 1e20, 12345678.9]),
        ("BIGINT", [0, 7, -7, 2**63 - 1, -(2**63)]),
        ("BOOLEAN", [True, False]),
        ("VARCHAR[]", [[], ["a"], ["a", "b"]]),
        ("JSON", ["{}", '{"a": 1}', "[]", '["a"]', '[{"a": null}]', "[[1]]"]),
    ],
)
def test_nothing_but_texts_and_bytes_reads_like_other_texts(kind: str, values: list[Any]) -> None:
    """By which texts are told that another type may read like; the engine writes them all."""
    with closing(duckdb.connect()) as connection:
        for value in values:
            [[text]] = connection.execute(f"SELECT ?::{kind}::VARIANT::VARCHAR", [value]).fetchall()
            assert OTHERS_READ.match(text), text


@pytest.mark.parametrize(
    ("text", "may_have_bytes", "asks"),
    [
        ("user-7", False, False),
        ("user-7", True, True),
        ("7", False, True),
        ("True", False, True),
        ("trues", False, False),
    ],
)
def test_types_are_asked_for_only_where_another_may_read_alike(text: str, *, may_have_bytes: bool, asks: bool) -> None:
    """Asking has the engine read the attribute of every event once more."""
    where = Where(may_have_bytes=lambda _key: may_have_bytes)
    for filter_text in (f"attributes['k'] = '{text}'", f"attributes['k'] in ('a', '{text}')"):
        assert ("variant_typeof" in str(of_events(parse(filter_text), where))) == asks


def _of(values: Sequence[Any], place: int) -> Any:
    return values[place % len(values)]


def _spans_of(values: Sequence[Any]) -> bytes:
    """A span for each value, which is its attribute `k`."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, value in enumerate(values, 1):
        span = spans.add(trace_id=b"r" * 16, span_id=number.to_bytes(8), name="work", start_time_unix_nano=START)
        if value is not None:
            span.attributes.add(key="k", value=_any_value(value))
    return request.SerializeToString()


def _any_value(value: Any) -> AnyValue:
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=map(_any_value, value)))
    names = {str: "string_value", bool: "bool_value", int: "int_value", bytes: "bytes_value"}
    return AnyValue(**{names[type(value)]: value})


def _numbers(store: Store, text: str) -> set[int]:
    with store.read() as reader:
        meant = of_events(parse(text), Where.known_to(reader))
        return {int(row["id"], 16) for row in reader.rows(select(EVENTS.c.id).where(meant))}


def test_bytes_may_be_among_much_that_is_inexact(store: Store) -> None:
    """Attributes are not looked through without end: where many events say what columns cannot, some may be bytes."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(1, RESIDUES_MAX + 1):
        span = spans.add(trace_id=b"r" * 16, span_id=number.to_bytes(8), name="work", start_time_unix_nano=START)
        span.attributes.add(key="k").value.string_value = "a"
        span.attributes.add(key="k").value.string_value = "given twice"
        if number == 2:
            store.write(read_requests([request.SerializeToString()]).batch)
            with store.read() as reader:
                assert not may_have_bytes(reader, "k")
    store.write(read_requests([request.SerializeToString()]).batch)
    with store.read() as reader:
        assert may_have_bytes(reader, "k")
