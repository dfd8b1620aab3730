"""The filter language: against plain Python over arbitrary events, and what it answers to text that is no filter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid5

import pytest
from duckdb_engine import Dialect
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import select

from clew.collector.intake import Intake
from clew.query.events import EVENTS
from clew.query.filter import DEPTH_MAX, TEXT_LENGTH_MAX, TEXTS_MAX, FilterError, parse
from clew.query.filter_fields import FIELDS
from clew.query.filter_sql import of_events, of_runs
from clew.query.runs import RUNS
from clew.storage import ExecutionEvent, Message, Store

from .any_otlp import DETERMINISTIC
from .conftest import Rows

START = 1_700_000_000_000_000_000
RUNS_KNOWN = [UUID(int=number) for number in (1, 2)]
TEXTS = ["", "a", "b", "ab", "5", "500", "true", "é", "it's", 'a "b"', "a\\b", "a\nb", "A"]
WHOLES = [0, 1, 5, 500, -3, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
DOUBLES = [0.0, -0.0, 0.5, 5.0, 500.0, -3.0, float(2**53), 9.3e18, -1e300]
PATTERNS = ["a", "a.*", ".*b", "5.*", "[0-9]+", "(a|ab)", "true", "", ".*", r"-?\d+", "a.b"]
KEYS = ["k", "http.status_code", 'odd "key"']
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda left, right: left < right,
    "<=": lambda left, right: left <= right,
    ">": lambda left, right: left > right,
    ">=": lambda left, right: left >= right,
}

# --- arbitrary events -------------------------------------------------------------------------------------------------

scalars = (
    st.sampled_from(TEXTS).map(lambda text: AnyValue(string_value=text))
    | st.sampled_from(WHOLES).map(lambda number: AnyValue(int_value=number))
    | st.sampled_from([*DOUBLES, float("nan"), float("inf"), -float("inf")]).map(lambda x: AnyValue(double_value=x))
    | st.booleans().map(lambda flag: AnyValue(bool_value=flag))
)
other_values = st.sampled_from(
    [
        AnyValue(),
        AnyValue(bytes_value=b"a"),
        AnyValue(array_value=ArrayValue(values=[AnyValue(string_value="a")])),
        AnyValue(array_value=ArrayValue(values=[AnyValue(int_value=5), AnyValue(int_value=500)])),
    ]
)
attributes = st.lists(
    st.builds(KeyValue, key=st.sampled_from(KEYS), value=scalars | other_values), max_size=2, unique_by=lambda a: a.key
)
span_events = st.builds(Span.Event, name=st.sampled_from(TEXTS), attributes=attributes)
span_links = st.builds(
    Span.Link,
    trace_id=st.sampled_from([run.bytes for run in RUNS_KNOWN]),
    span_id=st.just(b"\xff" * 8),
    attributes=attributes,
)
spans = st.builds(
    Span,
    name=st.sampled_from(TEXTS),
    kind=st.integers(0, 5),
    start_time_unix_nano=st.integers(START, START + 3),
    attributes=attributes,
    status=st.builds(Status, code=st.integers(0, 2), message=st.sampled_from(TEXTS)),
    events=st.lists(span_events, max_size=2),
    links=st.lists(span_links, max_size=1),
)


@dataclass
class Event:
    """A span and where it came from."""

    span: Span
    resource: Resource
    scope: InstrumentationScope


@st.composite
def events(draw: st.DrawFn) -> Event:
    """An event with or without an agent, tokens and a duration of its own."""
    span = draw(spans)
    span.end_time_unix_nano = span.start_time_unix_nano + draw(st.sampled_from([0, 250_000_000, 250_000_001, 2**40]))
    for key, values in (
        ("gen_ai.agent.name", st.none() | st.sampled_from(TEXTS[1:]).map(lambda text: AnyValue(string_value=text))),
        ("gen_ai.usage.input_tokens", st.none() | st.sampled_from([0, 5, 500]).map(lambda n: AnyValue(int_value=n))),
        ("clew.cost.usd", st.none() | st.sampled_from([0.0, 0.5, 5.0]).map(lambda x: AnyValue(double_value=x))),
    ):
        value = draw(values)
        if value is not None:
            span.attributes.add(key=key, value=value)
    service = draw(st.lists(st.sampled_from(["a", "b"]).map(_service), max_size=1))
    scope = InstrumentationScope(name=draw(st.sampled_from(["a", "b"])), attributes=draw(attributes))
    return Event(span, Resource(attributes=[*service, *draw(attributes)]), scope)


def _service(name: str) -> KeyValue:
    return KeyValue(key="service.name", value=AnyValue(string_value=name))


# --- filters, each as its text and as what it means -------------------------------------------------------------------

Meaning = tuple[str, Callable[[Event], bool]]
Values = Callable[[Event], Iterable[Any]]


def _value(owner: Any, key: str) -> list[Any]:
    """The attribute's value as one item, None for what no test but `exists` sees; no item where there is none."""
    found = [pair.value for pair in owner.attributes if pair.key == key]
    if not found or found[0].WhichOneof("value") is None:
        return []
    kind = found[0].WhichOneof("value")
    return [found[0] if kind in ("bytes_value", "array_value") else getattr(found[0], kind)]


def _said(*texts: str) -> list[str]:
    """Texts of OTLP's own are empty where they are absent."""
    return [text for text in texts if text]


ANY: dict[str, Callable[[str], Values]] = {
    "attributes": lambda key: lambda event: _value(event.span, key),
    "resource": lambda key: lambda event: _value(event.resource, key),
    "resource.attributes": lambda key: lambda event: _value(event.resource, key),
    "scope": lambda key: lambda event: _value(event.scope, key),
    "log": lambda key: lambda event: [value for log in event.span.events for value in _value(log, key)],
    "link": lambda key: lambda event: [value for link in event.span.links for value in _value(link, key)],
}
OF_TEXT: dict[str, Values] = {
    "name": lambda event: _said(event.span.name),
    "agent": lambda event: _said(*_value(event.span, "gen_ai.agent.name")),
    "status_message": lambda event: _said(event.span.status.message),
    "status": lambda event: ["failed" if event.span.status.code == Status.STATUS_CODE_ERROR else "completed"],
    "service": lambda event: _said(*_value(event.resource, "service.name")),
    "scope.name": lambda event: _said(event.scope.name),
    "log.name": lambda event: _said(*(log.name for log in event.span.events)),
}
OF_NUMBER: dict[str, Values] = {
    "input_tokens": lambda event: _value(event.span, "gen_ai.usage.input_tokens"),
    "cost_usd": lambda event: _value(event.span, "clew.cost.usd"),
    "duration_ns": lambda event: [event.span.end_time_unix_nano - event.span.start_time_unix_nano],
    "started_at_unix_nano": lambda event: [event.span.start_time_unix_nano],
}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(value: Any) -> str:
    return _quoted(value) if isinstance(value, str) else str(value).lower()


def _same_type(left: Any, right: Any) -> bool:
    """Texts compare with texts, truth with truth, numbers with numbers of either kind."""
    groups = (str, bool, (int, float))
    return any(isinstance(left, group) and isinstance(right, group) for group in groups) and (
        isinstance(left, bool) == isinstance(right, bool)
    )


def _text(value: Any) -> str | None:
    """What a regular expression sees."""
    if isinstance(value, AnyValue):
        items = [_text_in_list(item) for item in value.array_value.values]
        return f"[{','.join(items)}]" if value.WhichOneof("value") == "array_value" else None
    return value if isinstance(value, str) else str(value).lower()


def _text_in_list(item: AnyValue) -> str:
    return f'"{item.string_value}"' if item.HasField("string_value") else str(item.int_value)


def _equal(left: Any, right: Any) -> bool:
    return bool(_same_type(left, right) and left == right)


def _meaning(text: str, values: Values, test: Callable[[Any], bool]) -> Meaning:
    return text, lambda event: any(test(value) for value in values(event))


def _tests(field: str, values: Values, literals: st.SearchStrategy[Any]) -> st.SearchStrategy[Meaning]:
    """Tests that every field knows."""
    equal = literals.map(lambda v: _meaning(f"{field} = {_literal(v)}", values, lambda x: _equal(x, v)))
    among = st.lists(literals, min_size=1, max_size=3).map(
        lambda vs: _meaning(
            f"{field} in ({', '.join(map(_literal, vs))})", values, lambda x: any(_equal(x, v) for v in vs)
        )
    )
    exists = _meaning(f"{field} exists", values, lambda _: True)
    return equal | among | st.just(exists) | (equal | among).map(_written_as_negation)


def _written_as_negation(meaning: Meaning) -> Meaning:
    text, holds = meaning
    negated = text.replace(" = ", " != ", 1) if " = " in text else text.replace(" in (", " not in (", 1)
    return negated, lambda event: not holds(event)


def _ordered(field: str, values: Values, literals: st.SearchStrategy[Any]) -> st.SearchStrategy[Meaning]:
    return st.tuples(st.sampled_from(list(ORDERS)), literals).map(
        lambda pair: _meaning(
            f"{field} {pair[0]} {_literal(pair[1])}",
            values,
            lambda x: _same_type(x, pair[1]) and ORDERS[pair[0]](x, pair[1]),
        )
    )


def _matched(field: str, values: Values) -> st.SearchStrategy[Meaning]:
    def meaning(pattern: str) -> Meaning:
        def test(value: Any) -> bool:
            text = _text(value)
            return text is not None and re.fullmatch(pattern, text, re.DOTALL | re.ASCII) is not None

        return _meaning(f"{field} =~ {_quoted(pattern)}", values, test)

    return st.sampled_from(PATTERNS).map(meaning)


def _of_any(field: str, values: Values) -> st.SearchStrategy[Meaning]:
    ordered = st.sampled_from(TEXTS) | st.sampled_from(WHOLES) | st.sampled_from(DOUBLES)
    tests = _tests(field, values, ordered | st.booleans())
    return tests | _ordered(field, values, ordered) | _matched(field, values)


def _of_text(field: str, values: Values) -> st.SearchStrategy[Meaning]:
    literals = st.sampled_from(["failed", "completed", "running"] if field == "status" else TEXTS)
    tests = _tests(field, values, literals)
    return tests | _ordered(field, values, literals) | _matched(field, values)


def _of_number(field: str, values: Values) -> st.SearchStrategy[Meaning]:
    literals = st.sampled_from([*WHOLES, *DOUBLES, 250_000_000, START + 1, START + 1.5])
    if field.endswith("_unix_nano"):
        literals = st.integers(START - 1, START + 4)
    if field.endswith("_ns"):
        literals = st.sampled_from([0, 250_000_000, 2**40])
    return _tests(field, values, literals) | _ordered(field, values, literals)


leaves = st.one_of(
    *(_of_any(f"{name}[{_quoted(key)}]", of(key)) for name, of in ANY.items() for key in KEYS),
    *(_of_text(field, values) for field, values in OF_TEXT.items()),
    *(_of_number(field, values) for field, values in OF_NUMBER.items()),
    st.sampled_from(
        [
            ("duration > 250ms", lambda event: _duration(event) > 250_000_000),
            ("kind = CLIENT", lambda event: event.span.kind == Span.SPAN_KIND_CLIENT),
            ("status_code != OK", lambda event: event.span.status.code != Status.STATUS_CODE_OK),
            (f"link.run_id = {RUNS_KNOWN[0].hex}", lambda event: _links_to(event, RUNS_KNOWN[0])),
        ]
    ),
)


def _duration(event: Event) -> int:
    return event.span.end_time_unix_nano - event.span.start_time_unix_nano


def _links_to(event: Event, run_id: UUID) -> bool:
    return any(link.trace_id == run_id.bytes for link in event.span.links)


def _joined(inner: st.SearchStrategy[Meaning]) -> st.SearchStrategy[Meaning]:
    both = st.tuples(inner, inner)
    return (
        inner.map(lambda a: (f"not ({a[0]})", lambda event: not a[1](event)))
        | both.map(lambda pair: (f"({pair[0][0]}) and ({pair[1][0]})", lambda e: pair[0][1](e) and pair[1][1](e)))
        | both.map(lambda pair: (f"({pair[0][0]}) or ({pair[1][0]})", lambda e: pair[0][1](e) or pair[1][1](e)))
    )


filters = st.recursive(leaves, _joined, max_leaves=4)

# --- the promises -----------------------------------------------------------------------------------------------------


@dataclass
class Kept:
    """A store and the way in, which all examples share, each with a run of its own."""

    store: Store
    intake: Intake


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    store = Store.open(str(tmp_path_factory.mktemp("filter") / "store.duckdb"))
    intake = Intake(store)
    yield Kept(store, intake)
    intake.close()
    store.close()


@settings(DETERMINISTIC, max_examples=100)
@given(drawn=st.lists(events(), min_size=1, max_size=5), asked=st.lists(filters, min_size=1, max_size=8))
def test_a_filter_means_what_python_makes_of_it(kept: Kept, drawn: list[Event], asked: list[Meaning]) -> None:
    """Whatever the events say and the filter asks: those are found for which it holds, and no others."""
    run_id = uuid5(UUID(int=7), repr((drawn, [text for text, _ in asked])))
    _store(kept.intake, run_id, drawn)
    for text, holds in asked:
        expected = [number for number, event in enumerate(drawn, 1) if holds(event)]
        assert _found(kept.store, run_id, text) == expected, text


def _store(intake: Intake, run_id: UUID, drawn: list[Event]) -> None:
    request = ExportTraceServiceRequest()
    for number, event in enumerate(drawn, 1):
        event.span.trace_id, event.span.span_id = run_id.bytes, number.to_bytes(8)
        of_scope = request.resource_spans.add(resource=event.resource).scope_spans.add(scope=event.scope)
        of_scope.spans.append(event.span)
    intake.accept(request.SerializeToString()).result(60)


def _found(store: Store, run_id: UUID, text: str) -> list[int]:
    condition = of_events(parse(text))
    with store.read() as reader:
        statement = select(EVENTS.c.id).where(EVENTS.c.run_id == run_id, condition).order_by(EVENTS.c.id)
        return [int(row["id"], 16) for row in reader.rows(statement)]


def _ids(store: Store, text: str) -> list[str]:
    with store.read() as reader:
        found = reader.rows(select(EVENTS.c.id).where(of_events(parse(text))).order_by(EVENTS.c.id))
        return [row["id"][-2:] for row in found]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ["01", "02"]),
        ("name = fetch", ["01"]),
        ("not not name = 'fetch'", ["01"]),
        ("name = fetch or name = plan", ["01", "02"]),
        ("name = fetch or name = plan and status = failed", ["01"]),
        ("(name = fetch or name = plan) AND status = failed", []),
        ("name =~ 'f.*' name !~ 'p.*'", ["01"]),
        ("name =~ etch", []),
        ("model exists", ["02"]),
        ("not model exists", ["01"]),
        ("model != small", ["01"]),
        ("model not in (small, large)", ["01"]),
        ("duration = 10ns and duration < 0.5us", ["01", "02"]),
        ("started_at >= 2025-06-15T15:06:40Z", ["01", "02"]),
        ("started_at >= -1h", []),
        (f"started_at < {Rows.START + 5}", ["01"]),
        ("id = 0000000000000002", ["02"]),
        ("id =~ '0*2'", ["02"]),
        (f"run_id = {'ab' * 16}", ["01", "02"]),
        ("run_id =~ 'abab.*'", ["01", "02"]),
        ("parent_event_id exists", ["02"]),
        ("service = workshop and scope.name = tests", ["01", "02"]),
        ("session = default and run.status = completed and run.duration = 1us", ["01", "02"]),
        ("attributes['tries'] = 3", ["01"]),
        ("attributes['tries'] = 3.0", ["01"]),
        ("attributes['tries'] = '3'", []),
        ("attributes['tries'] in (3, '3')", ["01"]),
        ("attributes['tries'] =~ 3", ["01"]),
        ("attributes['ok'] = true", ["01"]),
        ("attributes['ok'] = 'true'", []),
        ("'1=1' or ''", ["01", "02"]),
        ("ETCH", ["01"]),
        ('"timeout \\"x\\""', ["02"]),
        ("stockholm", ["01"]),
        ("rejected", ["02"]),
        ("0%", []),
    ],
)
def test_what_the_language_says(store: Store, rows: Rows, text: str, found: list[str]) -> None:
    """Precedence, negation, what is missing, each kind of value, and free text."""
    run_id = rows.run("ab" * 16)
    rows.event(run_id, 1, name="fetch", attributes={"tries": 3, "ok": True, "city": "Stockholm"})
    failure = {"status_message": 'Timeout "x"', "model": "small"}
    second = rows.event(run_id, 2, 1, at=5, name="plan", **failure)
    rows.add(Message(run_id=run_id, event_id=second, content="it was REJECTED", time_unix_nano=rows.START))
    assert _ids(store, text) == found


@pytest.mark.parametrize(
    ("text", "position", "told"),
    [
        ("agnet = 1", 0, "agent is one"),
        ("city = Oslo", 0, 'attributes["city"]'),
        ("http.method = GET", 0, 'attributes["http.method"]'),
        ("attributes.http.method = GET", 0, 'attributes["http.method"]'),
        ("resource.host.name = a", 0, 'resource["host.name"]'),
        ("log.exception.type = a", 0, 'log["exception.type"]'),
        ("scope.foo = a", 0, 'scope["foo"]'),
        ("log.nam = a", 0, "log.name is one"),
        ("span.name = a", 0, "; name is one"),
        ("a and unknown_thing = 1", 6, "no field"),
        ("name = ", 7, "a value should be here, not the end"),
        ("name = and", 7, "in quotes it is a text"),
        ("name == x", 5, "write = instead of =="),
        ("name = x && model = y", 9, "write and instead of &&"),
        ("name = x | y", 9, "write or instead of |"),
        ("! x", 0, "write not instead of !"),
        ("(name = x", 9, ") should be here, not the end"),
        ("name = x)", 8, "should be here, not ')'"),
        ('name = "x', 7, "no closing"),
        ("attributes[x] = 1", 11, "key in quotes"),
        ("attributes = 1", 0, "name an attribute"),
        ('name["x"] = 1', 0, "has no attributes"),
        ('attributes["x"]', 15, "`exists` should be here"),
        ("name in x", 8, "( should be here"),
        ("name in ()", 9, "a value should be here"),
        ("duration > 5 parsecs or duration > 5q", 35, "250ms"),
        ("duration >= 1.0000000009s", 12, "whole number of nanoseconds"),
        ("started_at > yesterday", 13, "is not a time"),
        ("id = 12", 5, "16 hex digits"),
        ("run_id = zz", 9, "32 hex digits"),
        ("input_tokens = many", 15, "a whole number"),
        ("input_tokens =~ '1.'", 16, "a whole number"),
        ("kind = ROUND", 7, "SERVER"),
        ("status = error", 9, "status is one of pending, running, completed, failed, skipped, not 'error'"),
        ("name = x and run.status in (completed, done)", 39, "run.status is one of"),
        ("type = llm", 7, "agent_call"),
        ("kind > CLIENT", 5, "has no order"),
        ("run_id > 1", 9, "32 hex digits"),
        ('attributes["x"] > true', 16, "has no order"),
        ('attributes["x"] > 250ms', 18, "no unit"),
        ('attributes["x"] > -1e400', 18, "as large a number"),
        ("name =~ '('", 8, "missing )"),
        ("name =~ '(?<a>x)'", 8, "not a regular expression (RE2): invalid perl operator: (?<"),
        ("duration > 250 ms", 15, "without a space"),
        ("é = 1", 0, "no field"),
        ("~", 0, "quotes"),
        ("not " * (DEPTH_MAX + 1) + "x", 4 * (DEPTH_MAX + 1), "deep"),
        ("x " * (TEXTS_MAX + 1), 2 * TEXTS_MAX, "texts at most"),
        ("x" * (TEXT_LENGTH_MAX + 1), TEXT_LENGTH_MAX, "at most"),
    ],
)
def test_an_error_points_at_the_character(text: str, position: int, told: str) -> None:
    """Text that is no filter is refused with the place of what is wrong, and what would be right."""
    with pytest.raises(FilterError) as refused:
        parse(text)
    assert refused.value.position == position
    assert told in str(refused.value)


@given(
    text=st.text()
    | st.lists(st.sampled_from([*"()[],'\"=!<>~\\", " and ", " not ", " in ", "name", "1h"])).map("".join)
)
@DETERMINISTIC
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    """Parsing ends in a term or in FilterError at a place within the text, never in anything else."""
    assert 0 <= _position_to_blame(text) <= len(text)


def _position_to_blame(text: str) -> int:
    try:
        parse(text)
    except FilterError as error:
        return error.position
    return 0


@given(meaning=filters)
@DETERMINISTIC
def test_nothing_of_a_filter_is_part_of_the_statement(meaning: Meaning) -> None:
    """Filters that differ in values and keys alone are one statement; whatever was written is bound to it."""
    text, _ = meaning
    statement = str(of_events(parse(text)).compile(dialect=Dialect()))
    written = set(re.findall(r'"((?:[^"\\]|\\.)*)"', text))
    assert [value for value in written if len(value) > 1 and value in statement.replace("false", "")] == []
    assert not re.search(r"[0-9]{3}|'", statement)


def test_every_column_can_be_asked_of() -> None:
    """All that an event has is a field, but keys between tables, bytes, and places that only the tree knows."""
    columns = {column.name for column in ExecutionEvent.__table__.columns}
    elsewhere = {"resource_id", "scope_id", "attributes", "otlp_residue", "history_id", "execution_order", "depth"}
    assert columns - set(FIELDS) == elsewhere


def test_runs_are_those_of_the_events_that_are_meant(store: Store, rows: Rows) -> None:
    """A run is meant when one of its events is; one that has no events yet, by what is asked of runs alone."""
    for digit, name in (("a", "fetch"), ("b", "plan")):
        rows.event(rows.run(digit * 32), 1, name=name)
    rows.run("c" * 32)
    for text, found in (("name = plan", "b"), ("not name = plan", "a"), ("run.status = completed", "abc"), ("", "abc")):
        with store.read() as reader:
            ids = [row["id"] for row in reader.rows(select(RUNS.c.id).where(of_runs(parse(text))).order_by(RUNS.c.id))]
        assert ids == [digit * 32 for digit in found], text
