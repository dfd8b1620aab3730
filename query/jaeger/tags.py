"""Tags: the key and text that Jaeger searches spans by.

A tag matches a span where the key has that value among the attributes of the span, its resource, its scope, one of its
events or one of its links. The value is given as text, and whatever Jaeger writes as that text has it: a number, true
and false, a list as JSON, bytes in base64. Some keys are no attributes in OTLP, but Jaeger shows them as tags; they are
found as such, too.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import JSON, ColumnElement, Text, and_, cast, false, func, literal, not_, or_, select, tuple_

from ...storage import Reader, may_be_history, may_have_attribute, texts_of
from ..events import EVENTS, LINKS, LOGS, RESOURCES, SCOPES, among_events
from ..histories import value_apart
from .services import kind_number

_STATUS_CODES = {"UNSET": 0, "OK": 1, "ERROR": 2}
_WHOLE = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,400}(\.\d{1,400})?([eE][-+]?\d{1,3})?", re.ASCII)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}", re.ASCII)
_NO_NUMBERS_OF_JSON = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_LISTS_AND_MAPS = {"[", "{"}
_INT64_END = 1 << 63
_BOOLEANS = {"true": True, "1": True, "t": True, "false": False, "0": False, "f": False}


@dataclass(frozen=True)
class Searched:
    """The events that are searched: those that start from `first` to `last` (ns since 1970, both included)."""

    reader: Reader
    first: int
    last: int


def matches_tag(searched: Searched, key: str, text: str) -> ColumnElement[bool]:
    """Does an event, one of those that are searched, have the tag?"""
    shown_as_tag = _SHOWN_AS_TAGS.get(key)
    condition = shown_as_tag(text, searched) if shown_as_tag else None
    if condition is not None and key == "error":  # which says of every span that it has failed or not
        return condition
    return or_(false() if condition is None else condition, _among_attributes(searched, key, text))


def _among_attributes(searched: Searched, key: str, text: str) -> ColumnElement[bool]:
    resource: ColumnElement[bool] = _has(RESOURCES.c.attributes, key, text)
    if key.startswith("resource."):
        resource = or_(resource, _has(RESOURCES.c.attributes, key.removeprefix("resource."), text))
    log = _has(LOGS.c.attributes, key, text)
    if key == "event":  # what Jaeger calls the name of a span's event
        log = or_(log, LOGS.c.name == text)
    return or_(
        _event_has(searched, key, text),
        EVENTS.c.resource_id.in_(select(RESOURCES.c.id).where(resource)),
        EVENTS.c.scope_id.in_(select(SCOPES.c.id).where(_has(SCOPES.c.attributes, key, text))),
        _has_part(searched, LOGS, and_(LOGS.c.log_index >= 0, log)),
        _has_part(searched, LINKS, _has(LINKS.c.attributes, key, text)),
    )


def _event_has(searched: Searched, key: str, text: str) -> ColumnElement[bool]:
    has = _has(EVENTS.c.attributes, key, text)
    in_time = EVENTS.c.started_at_unix_nano.between(searched.first, searched.last)
    may_have = may_have_attribute(searched.reader, key, _texts(text))
    if may_have is not None:
        has = among_events(in_time, may_have, has)
    if not may_be_history(key):
        return has
    return or_(has, among_events(in_time, EVENTS.c.history_id.is_not(None), _is(value_apart(key), text)))


def _has_part(searched: Searched, table: Any, condition: ColumnElement[bool]) -> ColumnElement[bool]:
    """Does a row of `table`, logs or links, that belongs to the event meet the condition?"""
    in_time = table.c.event_started_at_unix_nano.between(searched.first, searched.last)
    owners = select(table.c.run_id, table.c.event_id).where(in_time, condition)
    return tuple_(EVENTS.c.run_id, EVENTS.c.id).in_(owners)


def _has(attributes: ColumnElement[Any], key: str, text: str) -> ColumnElement[bool]:
    return _is(func.variant_extract(attributes, literal(key, Text)), text)


def _is(value: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    has: ColumnElement[bool] = value.in_([literal(form) for form in _forms(text)])
    if text[:1] in _LISTS_AND_MAPS:
        has = or_(has, cast(cast(value, JSON), Text) == _compact(text))
    # A key that is not there makes a comparison neither true nor false, which `not` would keep.
    return func.coalesce(has, false())


def _forms(text: str) -> list[str | bool | int | float | bytes]:
    """Every value that Jaeger writes as this text: the engine compares them by type."""
    forms: list[str | bool | int | float | bytes] = [text]
    if text in {"true", "false"}:
        forms.append(text == "true")
    if _NUMBER.fullmatch(text):
        forms.append(float(text))
    if text in _NO_NUMBERS_OF_JSON:
        forms.append(_NO_NUMBERS_OF_JSON[text])
    if _WHOLE.fullmatch(text) and -_INT64_END <= int(text) < _INT64_END:
        forms.append(int(text))
    if _BASE64.fullmatch(text) and len(text) % 4 == 0:
        forms.append(b64decode(text))
    return forms


def _texts(text: str) -> set[str] | None:
    """How the engine writes every such value; None where it may be bytes, a list or a map."""
    forms = [form for form in _forms(text) if not isinstance(form, bytes)]
    if text[:1] in _LISTS_AND_MAPS or len(forms) < len(_forms(text)):
        return None
    return {said for form in forms for said in texts_of(form)}


def _compact(text: str) -> str:
    try:
        return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS).decode()
    except orjson.JSONDecodeError:
        return text


def _error(text: str, searched: Searched) -> ColumnElement[bool] | None:
    wanted = _BOOLEANS.get(text.lower())
    if wanted is None:
        return None
    failed = or_(EVENTS.c.status_code == _STATUS_CODES["ERROR"], _event_has(searched, "error", "true"))
    return failed if wanted else not_(failed)


def _kind(text: str, _: Searched) -> ColumnElement[bool] | None:
    kind = kind_number(text)
    return None if kind is None else EVENTS.c.kind == kind


def _status(text: str, _: Searched) -> ColumnElement[bool] | None:
    code = _STATUS_CODES.get(text.upper())
    return None if code is None else EVENTS.c.status_code == code


def _scope_is(column: str) -> Callable[[str, Searched], ColumnElement[bool]]:
    return lambda text, _: EVENTS.c.scope_id.in_(select(SCOPES.c.id).where(SCOPES.c[column] == text))


_SHOWN_AS_TAGS: dict[str, Callable[[str, Searched], ColumnElement[bool] | None]] = {
    "error": _error,
    "span.kind": _kind,
    "span.status": _status,
    "otel.status_code": _status,
    "otel.status_description": lambda text, _: EVENTS.c.status_message == text,
    "w3c.tracestate": lambda text, _: EVENTS.c.trace_state == text,
    "scope.name": _scope_is("name"),
    "scope.version": _scope_is("version"),
    "otel.scope.name": _scope_is("name"),
    "otel.scope.version": _scope_is("version"),
}
