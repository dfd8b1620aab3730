"""What a filter may ask of: every column of events, runs, resources, scopes, logs and links under its name, shorter
names for some, and attributes. Also how a value is read for a field."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from enum import Enum
from functools import cache
from typing import Any
from uuid import UUID

import duckdb
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import BigInteger, Double, func

from ..storage.ids import parse_event_id, parse_run_id
from ..storage.schema.base import HexInt64, HexUuid
from .events import EVENTS, LINKS, LOGS, RESOURCES, SCOPES
from .parameters import parse_instant
from .runs import RUNS

Value = str | bool | int | float | UUID


class Owner(Enum):
    """Whose the field is, seen from an event; and how its name begins."""

    EVENT = ""
    RUN = "run."
    RESOURCE = "resource."
    SCOPE = "scope."
    LOG = "log."
    LINK = "link."


class Kind(Enum):
    """What the field holds, and so how a value for it is written."""

    TEXT = "a text"
    WHOLE = "a whole number"
    NUMBER = "a number"
    DURATION = "a duration such as 250ms, 1.5s, 2m or 1h"
    TIME = "a time such as -1h or 2026-01-31T12:00:00Z"
    RUN_ID = "a run id: 32 hex digits"
    EVENT_ID = "an event id: 16 hex digits"
    ANY = "a text, a number, true or false"


@dataclass(frozen=True)
class Field:
    """A field by its full name. `column` is of the owner's table; `words` are the names of its numbers, where it has
    them, `vocabulary` all texts that it may be, where these are few; `key` that of an attribute within the column."""

    name: str
    owner: Owner
    column: Any
    kind: Kind
    words: tuple[tuple[str, int], ...] = ()
    vocabulary: tuple[str, ...] = ()
    key: str | None = None

    @property
    def is_ordered(self) -> bool:
        """Does it have less and more?"""
        return not self.words and self.kind not in (Kind.RUN_ID, Kind.EVENT_ID)


class UnknownField(ValueError):
    """No field has that name; the message tells what to write. `may_be_text`: it is a word like any other."""

    def __init__(self, message: str, *, may_be_text: bool = False) -> None:
        super().__init__(message)
        self.may_be_text = may_be_text


def field_named(name: str, key: str | None = None) -> Field:
    """The field of that name, or the attribute `key` of what has that name. Raises UnknownField."""
    if key is not None:
        if name not in ATTRIBUTES:
            raise UnknownField(f"{name!r} has no attributes; write {_listed(ATTRIBUTES)} before [")
        return replace(ATTRIBUTES[name], name=f'{name}["{key}"]', key=key)
    if found := FIELDS.get(ALIASES.get(name, name)):
        return found
    if name in ATTRIBUTES:
        raise UnknownField(f'name an attribute: {name}["its.key"]')
    advice = _advice(name[:80])
    may_be_text = "." not in name and "attributes[" in advice
    raise UnknownField(f"there is no field {name[:80]!r}; {advice}", may_be_text=may_be_text)


def read_value(field: Field, text: str, *, quoted: bool) -> Value:
    """The value that `text` is for the field. Raises ValueError, which says what the field holds."""
    if field.words:
        return _word(field, text)
    if field.vocabulary and text not in field.vocabulary:
        raise ValueError(f"{field.name} is one of {', '.join(field.vocabulary)}, not {text[:80]!r}")
    read = _READERS.get(field.kind)
    if field.kind is Kind.TEXT or (field.kind is Kind.ANY and quoted):
        return text
    value = read(text) if read else _unquoted_value(text)
    if value is None:
        raise ValueError(f"{field.name} is {field.kind.value}, not {text[:80]!r}")
    return value


def read_pattern(field: Field, text: str) -> str:
    """The regular expression that `text` is. Raises ValueError where it is none or the field holds no text."""
    if field.kind not in (Kind.TEXT, Kind.ANY, Kind.RUN_ID, Kind.EVENT_ID):
        raise ValueError(f"{field.name} is {field.kind.value}; a regular expression is for texts")
    try:
        _engine().cursor().execute("SELECT regexp_full_match('', $1)", [text])
    except duckdb.InvalidInputException as error:
        reason = str(error).removeprefix("Invalid Input Error: ")
        raise ValueError(f"not a regular expression (RE2): {reason}") from error
    return text


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    """An empty database, to try patterns on: what is a regular expression is the engine's to say."""
    return duckdb.connect(config={"threads": 1})


def _advice(name: str) -> str:
    owner, _, key = name.partition(".")
    names = [*FIELDS, *ALIASES]
    if owner in _OF_EVENTS and key in names:
        return f"{key} is one"
    if owner in ATTRIBUTES and key:
        return _advice_on_attribute(owner, key, [known for known in names if known.startswith(f"{owner}.")])
    near = get_close_matches(name, names, n=1) if not key or owner in _OWNERS else ()
    return f"{near[0]} is one" if near else f'an attribute is written attributes["{name}"]'


def _advice_on_attribute(owner: str, key: str, names: Sequence[str]) -> str:
    near = get_close_matches(f"{owner}.{key}", names, n=1, cutoff=_VERY_NEAR) if "." not in key else ()
    return f"{near[0]} is one" if near else f'an attribute is written {owner}["{key}"]'


_WHOLE = re.compile(r"[-+]?\d{1,300}", re.ASCII)
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d{1,4})?", re.ASCII)
_DURATION = re.compile(r"(\d{1,19})(?:\.(\d{1,19}))?(ns|us|µs|μs|ms|s|m|h|d)", re.ASCII)
_UNITS_NS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3_600 * 10**9,
    "d": 86_400 * 10**9,
}


def _whole(text: str) -> int | None:
    return int(text) if _WHOLE.fullmatch(text) else None


def _number(text: str) -> int | float | None:
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text) if _NUMBER.fullmatch(text) else math.inf
    return number if math.isfinite(number) else None


def _duration(text: str) -> int | None:
    if found := _DURATION.fullmatch(text):
        whole, fraction, unit = found.groups(default="")
        nanoseconds, rest = divmod(int(whole + fraction) * _UNITS_NS[unit], 10 ** len(fraction))
        if rest:
            raise ValueError(f"{text[:80]} is no whole number of nanoseconds, which durations are")
        return nanoseconds
    return _whole(text)


def is_unit(text: str) -> bool:
    """Is it a unit of durations?"""
    return text in _UNITS_NS


def _unquoted_value(text: str) -> Value:
    if text in ("true", "false"):
        return text == "true"
    if _DURATION.fullmatch(text):
        raise ValueError(f"attributes have no unit: write a number, or {text!r} in quotes for the text")
    number = _number(text)
    if number is None and _NUMBER.fullmatch(text):
        raise ValueError(f"no attribute is as large a number; write {text[:80]!r} in quotes for the text")
    return text if number is None else number


def _word(field: Field, text: str) -> int:
    numbers = dict(field.words)
    if text.upper() in numbers:
        return numbers[text.upper()]
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{field.name} is one of {', '.join(numbers)}, not {text[:80]!r}")
    return int(text)


_READERS = {
    Kind.WHOLE: _number,
    Kind.NUMBER: _number,
    Kind.DURATION: _duration,
    Kind.TIME: parse_instant,
    Kind.RUN_ID: parse_run_id,
    Kind.EVENT_ID: parse_event_id,
}

_TABLES = {
    Owner.EVENT: EVENTS,
    Owner.RUN: RUNS,
    Owner.RESOURCE: RESOURCES,
    Owner.SCOPE: SCOPES,
    Owner.LOG: LOGS,
    Owner.LINK: LINKS,
}
# Keys between the tables, what is not a value but a message kept, and places that the tree shows under the same names.
_NOT_ASKED = {
    *("attributes", "otlp", "otlp_residue", "meta", "event_started_at_unix_nano"),
    *("execution_events.resource_id", "execution_events.scope_id", "execution_events.history_id"),
    *("execution_events.execution_order", "execution_events.depth"),
    *("event_logs.run_id", "event_logs.event_id", "event_logs.resource_id", "event_logs.scope_id"),
    *("event_links.run_id", "event_links.event_id"),
    *("resources.id", "scopes.id"),
}
_WORDS = {
    "kind": tuple((name.removeprefix("SPAN_KIND_"), number) for name, number in Span.SpanKind.items()),
    "status_code": tuple((name.removeprefix("STATUS_CODE_"), number) for name, number in Status.StatusCode.items()),
}


def _kind(column: Any) -> Kind:
    if isinstance(column.type, HexUuid):
        return Kind.RUN_ID
    if isinstance(column.type, HexInt64):
        return Kind.EVENT_ID
    if isinstance(column.type, Double):
        return Kind.NUMBER
    if not isinstance(column.type, BigInteger):
        return Kind.TEXT
    if column.name.endswith("_unix_nano"):
        return Kind.TIME
    return Kind.DURATION if column.name.endswith("_ns") else Kind.WHOLE


def _fields() -> Iterator[Field]:
    for owner, table in _TABLES.items():
        for column in table.c:
            if column.name not in _NOT_ASKED and f"{table.name}.{column.name}" not in _NOT_ASKED:
                words, vocabulary = _WORDS.get(column.name, ()), tuple(column.info.get("words", ()))
                yield Field(owner.value + column.name, owner, column, _kind(column), words, vocabulary)
    lasted = func.greatest(0, RUNS.c.completed_at_unix_nano - RUNS.c.started_at_unix_nano, type_=BigInteger)
    sent = func.coalesce(EVENTS.c.otel_span_id, EVENTS.c.id, type_=EVENTS.c.id.type)
    yield Field("span_id", Owner.EVENT, sent, Kind.EVENT_ID)
    yield Field("run.duration_ns", Owner.RUN, lasted, Kind.DURATION)


def _without_unit(name: str) -> str:
    return name.removesuffix("_unix_nano").removesuffix("_ns")


def _listed(names: Mapping[str, Any]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}"


FIELDS: Mapping[str, Field] = {field.name: field for field in _fields()}

# Another name for some; what an answer calls by a name that is none of the event's own columns is here too.
ALIASES: Mapping[str, str] = {
    **{_without_unit(name): name for name in FIELDS if _without_unit(name) != name},
    "agent": "agent_name",
    "role": "agent_role",
    "type": "event_type",
    "subtype": "event_subtype",
    "event_id": "id",
    "trace_id": "run_id",
    "cost": "cost_usd",
    "session": "run.session_id",
    "session_id": "run.session_id",
    "service": "resource.service_name",
    "service_name": "resource.service_name",
    "scope_name": "scope.name",
    "link.run_id": "link.linked_run_id",
    "link.event_id": "link.linked_event_id",
    "link.trace_id": "link.linked_run_id",
    "link.span_id": "link.linked_event_id",
    "log.body": "log.content",
}

# What else an event's own fields may be called by.
_OF_EVENTS = ("span", "event")
_OWNERS = tuple(owner.value.rstrip(".") for owner in Owner if owner.value)
_VERY_NEAR = 0.8

_WITH_ATTRIBUTES = (Owner.RESOURCE, Owner.SCOPE, Owner.LOG, Owner.LINK)
ATTRIBUTES: Mapping[str, Field] = {
    name: Field(name, owner, _TABLES[owner].c.attributes, Kind.ANY)
    for owner in (Owner.EVENT, *_WITH_ATTRIBUTES)
    for name in (f"{owner.value}attributes", owner.value.rstrip("."))
    if name
}
