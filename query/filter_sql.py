"""A filter as SQL: `of_events` is the condition over `execution_events`, `of_runs` that over `workflow_runs`.

What a user wrote is bound, never part of the statement. Texts of attributes are compared as texts. Their numbers are
compared as DuckDB compares VARIANTs: by type first, true and false before whole numbers (exactly) before doubles. So
every comparison of these is a range or two in which no value of another type lies. Minima and maxima that are stored
serve for both.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    Double,
    Text,
    Uuid,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
    tuple_,
    type_coerce,
)

from ..storage import Reader, histories_that_say, may_be_history, may_have_attribute, may_have_bytes, texts_of
from . import filter as meant
from .events import EVENTS, LINKS, LOGS, RESOURCES, SCOPES, among_events, json_text
from .filter import Order, Term
from .filter_fields import Field, Kind, Owner, Value
from .histories import value_apart
from .messages import MESSAGES
from .runs import RUNS

Condition = ColumnElement[bool]
Between = tuple[int, int]
Texts = tuple[str, ...]

_INT64 = (-(1 << 63), (1 << 63) - 1)
_VARIANT_WHOLE = (-(1 << 63), (1 << 64) - 1)
_ALL: Condition = true()


@dataclass(frozen=True)
class Where:
    """What a caller knows of where things are, so that they are looked for nowhere else.

    `events_where`: a condition that is true for every event that is looked at. `parts_between`: the time bounds
    (nanoseconds) of all their runs; logs and links of these events are looked for between them only. `may_have`: a
    condition that is true for every event that has an attribute of a key, one that reads like one of the texts if any
    are given; None where nothing is known of it.
    `may_have_bytes`: whether an event may have bytes under a key."""

    events_where: Condition = _ALL
    parts_between: Between = _INT64
    may_have: Callable[[str, Texts | None], Condition | None] = lambda _key, _texts: None
    may_have_bytes: Callable[[str], bool] = lambda _key: True

    @classmethod
    def known_to(cls, reader: Reader) -> Where:
        """What the store knows of attributes; each key is asked for once."""
        return cls(
            may_have=cache(partial(may_have_attribute, reader)),
            may_have_bytes=cache(partial(may_have_bytes, reader)),
        )


ANYWHERE = Where()


def of_events(term: Term, where: Where = ANYWHERE) -> Condition:
    """The condition over EVENTS that is true for the events that are meant, and false or NULL for all others."""
    return _condition(term, lambda leaf, is_needed: _of_event(leaf, where, is_needed))


def of_runs(term: Term, where: Where = ANYWHERE) -> Condition:
    """The condition over RUNS that is true for the runs that have an event that is meant. A term that asks of nothing
    but the run is asked of the run, whatever events it has."""
    if all(field is not None and field.owner is Owner.RUN for field in meant.fields_of(term)):
        return _condition(term, lambda leaf, _: _test(leaf))
    matching: Condition = RUNS.c.id.in_(select(EVENTS.c.run_id).where(where.events_where, of_events(term, where)))
    return matching


def asks_of_parts(term: Term) -> bool:
    """Does the condition look at logs or links, so that `parts_between` spares it much?"""
    return any(field is None or field.owner in (Owner.LOG, Owner.LINK) for field in meant.fields_of(term))


def _condition(term: Term, of_leaf: Callable[[Any, bool], Condition], is_needed: bool = True) -> Condition:
    """`of_leaf` is told whether its condition is needed: whether what does not meet it cannot meet the whole."""
    match term:
        case meant.Every(terms):
            return and_(true(), *(_condition(inner, of_leaf, is_needed) for inner in terms))
        case meant.Either(terms):
            return or_(false(), *(_condition(inner, of_leaf, False) for inner in terms))
        case meant.Not(inner):
            return not_(func.coalesce(_condition(inner, of_leaf, False), false()))
    return of_leaf(term, is_needed)


def _of_event(leaf: Any, where: Where, is_needed: bool) -> Condition:
    if isinstance(leaf, meant.Text):
        return _says(leaf.text, where.parts_between)
    field: Field = leaf.field
    if field.owner is Owner.EVENT and field.kind is Kind.ANY:
        return _of_event_attribute(field.key or "", leaf, where, is_needed)
    return _owned(field.owner, _test(leaf), where.parts_between)


def _owned(owner: Owner, test: Condition, parts_between: Between) -> Condition:
    """The test of an owner's row, asked of the event."""
    match owner:
        case Owner.EVENT:
            return test
        case Owner.RUN:
            found: Condition = EVENTS.c.run_id.in_(select(RUNS.c.id).where(test))
        case Owner.RESOURCE:
            found = EVENTS.c.resource_id.in_(select(RESOURCES.c.id).where(test))
        case Owner.SCOPE:
            found = EVENTS.c.scope_id.in_(select(SCOPES.c.id).where(test))
        case Owner.LOG:
            found = _has(LOGS, LOGS.c.event_started_at_unix_nano.between(*parts_between), test)
        case Owner.LINK:
            found = _has(LINKS, LINKS.c.event_started_at_unix_nano.between(*parts_between), test)
    return found


def _has(table: Any, *tests: Condition) -> Condition:
    found: Condition = tuple_(EVENTS.c.run_id, EVENTS.c.id).in_(
        select(table.c.run_id, table.c.event_id).where(table.c.event_id.is_not(None), *tests)
    )
    return found


def _says(text: str, parts_between: Between) -> Condition:
    """Free text: in the event's name, status message and attributes, its logs' names, contents and attributes, its
    messages. What repeats a conversation is not looked through where messages are what is new in it."""
    as_json = json.dumps(text, ensure_ascii=False)[1:-1]
    of_log = (_contains(LOGS.c.name, text), _contains(LOGS.c.content, text))
    in_logs = or_(*of_log, _contains(json_text(LOGS.c.attributes), as_json))
    return or_(
        _contains(EVENTS.c.name, text),
        _contains(EVENTS.c.status_message, text),
        _contains(json_text(EVENTS.c.attributes), as_json),
        _owned(Owner.LOG, in_logs, parts_between),
        _has(MESSAGES, _contains(MESSAGES.c.content, text)),
        and_(histories_that_say(as_json), not_(_has(MESSAGES))),
    )


def _contains(column: ColumnElement[Any], text: str) -> Condition:
    return func.contains(func.lower(column), func.lower(literal(text, Text)))


def _test(leaf: Any, may_be_bytes: Callable[[], bool] = lambda: True) -> Condition:
    field: Field = leaf.field
    if field.kind is Kind.ANY:
        value = func.variant_extract(field.column, literal(field.key, Text))
        return _test_of_variant(value, leaf, may_be_bytes)
    column = type_coerce(field.column, _TYPES[field.kind])
    match leaf:
        case meant.Exists():
            return _is_there(column, field)
        case meant.Matches(_, pattern):
            return _where_there(column, field, _full_match(_AS_TEXT[field.kind](column), pattern))
        case meant.Among(_, values):
            return or_(false(), *(_equals(column, field, value) for value in values))
    return _in_order(column, field, leaf.order, leaf.value)


def _where_there(column: ColumnElement[Any], field: Field, test: Condition) -> Condition:
    """The test of a column in which a text that is absent stands as an empty one, which it may hold for."""
    return and_(test, _is_there(column, field)) if field.kind is Kind.TEXT else test


def _equals(column: ColumnElement[Any], field: Field, value: Value) -> Condition:
    if not isinstance(value, int | float):
        return column == value if value != "" else false()
    low, high = (_in_order(column, field, order, value) for order in (Order.AT_LEAST, Order.AT_MOST))
    return and_(low, high)


def _in_order(column: ColumnElement[Any], field: Field, order: Order, value: Any) -> Condition:
    match field.kind:
        case Kind.TEXT:
            test = _COMPARE[order](column, literal(value, Text))
            return _where_there(column, field, test) if _COMPARE[order]("", value) else test
        case Kind.NUMBER:
            return _between(column, _doubles(order, value), Double)
    between = _between(column, _wholes(order, value, _INT64), BigInteger)
    # Nothing has been said of the end of an event that has not ended: both columns are 0.
    may_be_open = _is_of_end(field) and _COMPARE[order](0, value)
    return and_(between, _HAS_ENDED) if may_be_open else between


def _is_there(column: ColumnElement[Any], field: Field) -> Condition:
    """OTLP's texts are empty where they are absent; an event that has not ended has no end and no duration."""
    if _is_of_end(field):
        return _HAS_ENDED
    return column != literal("", Text) if field.kind is Kind.TEXT else column.is_not(None)


def _is_of_end(field: Field) -> bool:
    return field.column is EVENTS.c.completed_at_unix_nano or field.column is EVENTS.c.duration_ns


def _of_event_attribute(key: str, leaf: Any, where: Where, is_needed: bool) -> Condition:
    tested = _test(leaf, partial(where.may_have_bytes, key))
    may_have = where.may_have(key, _texts_of(leaf))
    if not may_be_history(key):
        return _where_it_may_be(may_have, tested, where, is_needed)
    in_history = and_(EVENTS.c.history_id.is_not(None), _test_of_variant(value_apart(key), leaf))
    return or_(_where_it_may_be(may_have, tested, where, is_needed=False), in_history)


def _where_it_may_be(may_have: Condition | None, tested: Condition, where: Where, is_needed: bool) -> Condition:
    if may_have is None:
        return tested
    if is_needed:
        return and_(may_have, tested)
    return among_events(where.events_where, may_have, tested)


def _texts_of(leaf: Any) -> Texts | None:
    """How what is meant reads as a text; None where it may be anything."""
    if not isinstance(leaf, meant.Among):
        return None
    return tuple(sorted(text for value in leaf.values for form in _forms(value) for text in texts_of(form)))


def _test_of_variant(
    value: ColumnElement[Any], leaf: Any, may_be_bytes: Callable[[], bool] = lambda: True
) -> Condition:
    match leaf:
        case meant.Exists():
            return value.is_not(None)
        case meant.Matches(_, pattern):
            return _full_match(_variant_text(value), pattern)
        case meant.Among(_, values):
            return _is_one_of(value, values, may_be_bytes)
        case meant.Compared(_, order, str() as said):
            return _of_text(value, lambda text: _COMPARE[order](text, literal(said, Text)))
    wholes = _between(value, _wholes(leaf.order, leaf.value, _VARIANT_WHOLE), BigInteger)
    return or_(wholes, _between(value, _doubles(leaf.order, leaf.value), Double))


def _is_one_of(value: ColumnElement[Any], said: tuple[Any, ...], may_be_bytes: Callable[[], bool]) -> Condition:
    texts = [text for text in said if isinstance(text, str)]
    others = [literal(form) for other in said if not isinstance(other, str) for form in _forms(other)]
    if not texts:
        return value.in_(others)
    may_be_other = any(OTHERS_READ.match(text) for text in texts) or may_be_bytes()
    is_text = _of_text(value, lambda text: text.in_(texts)) if may_be_other else cast(value, Text).in_(texts)
    return or_(is_text, value.in_(others)) if others else is_text


def _of_text(value: ColumnElement[Any], test: Callable[[ColumnElement[str]], Condition]) -> Condition:
    """Is the value a text for which the test holds? Tested first as a text whatever it is, four times as fast as by
    comparing VARIANTs; what type it is, bytes and numbers reading alike, is asked only where that holds. Even so, that
    it is asked takes half as long again, whatever it is asked of."""
    holds = test(cast(value, Text))
    return and_(holds, case((holds, func.variant_typeof(value) == "VARCHAR")))


# What numbers, truths, lists and maps read like. Other texts only bytes may read like.
OTHERS_READ = re.compile(r"[-\d\[{]|(?:true|false|null|nan|inf)\Z", re.IGNORECASE)


def _forms(value: Any) -> list[Any]:
    """What equals the value: a number as a whole one and as a double, where it is exactly that."""
    if isinstance(value, bool | str):
        return [value]
    whole = [int(value)] if value == int(value) and _VARIANT_WHOLE[0] <= value <= _VARIANT_WHOLE[1] else []
    return [*whole, *([float(value)] if float(value) == value else [])]


def _variant_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """A text as it is, anything else as JSON; bytes have no text."""
    of_type = func.variant_typeof(value)
    return case((of_type == "VARCHAR", cast(value, Text)), (of_type != "BLOB", cast(cast(value, JSON), Text)))


def _full_match(text: ColumnElement[Any], pattern: str) -> Condition:
    return func.regexp_full_match(text, literal(pattern, Text), "s")


def _between(column: ColumnElement[Any], bounds: tuple[Any, Any], of_type: Any) -> Condition:
    first, last = bounds
    return column.between(literal(first, of_type), literal(last, of_type)) if first <= last else false()


def _wholes(order: Order, number: float, limits: Between) -> Between:
    """The whole numbers within the limits that are in this order to the number."""
    first, last = limits
    match order:
        case Order.AT_LEAST:
            return max(first, math.ceil(number)), last
        case Order.MORE:
            return max(first, math.floor(number) + 1), last
        case Order.AT_MOST:
            return first, min(last, math.floor(number))
    return first, min(last, math.ceil(number) - 1)


def _doubles(order: Order, number: float) -> tuple[float, float]:
    """The doubles that are in this order to the number: NaN is none of them."""
    near = float(number)
    match order:
        case Order.AT_LEAST:
            return (near if near >= number else math.nextafter(near, math.inf)), math.inf
        case Order.MORE:
            return (near if near > number else math.nextafter(near, math.inf)), math.inf
        case Order.AT_MOST:
            return -math.inf, (near if near <= number else math.nextafter(near, -math.inf))
    return -math.inf, (near if near < number else math.nextafter(near, -math.inf))


_HAS_ENDED: Condition = EVENTS.c.completed_at_unix_nano != 0

_COMPARE: dict[Order, Callable[[Any, Any], Condition]] = {
    Order.LESS: lambda left, right: left < right,
    Order.AT_MOST: lambda left, right: left <= right,
    Order.MORE: lambda left, right: left > right,
    Order.AT_LEAST: lambda left, right: left >= right,
}

# Bound values are compared as what is stored, not as the text that Python has for it.
_TYPES: dict[Kind, Any] = {
    Kind.TEXT: Text(),
    Kind.NUMBER: Double(),
    Kind.RUN_ID: Uuid(),
    **dict.fromkeys((Kind.WHOLE, Kind.DURATION, Kind.TIME, Kind.EVENT_ID), BigInteger()),
}

_AS_TEXT: dict[Kind, Callable[[ColumnElement[Any]], ColumnElement[Any]]] = {
    Kind.TEXT: lambda column: column,
    Kind.RUN_ID: lambda column: func.replace(cast(column, Text), "-", ""),
    Kind.EVENT_ID: lambda column: func.lpad(func.lower(func.to_hex(column)), 16, "0"),
}
