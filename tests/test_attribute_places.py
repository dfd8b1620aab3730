"""Where an attribute may be: searches leave compacted events out that cannot have it, and find the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing

import duckdb
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import select, true, update

from clew.collector.projection import read_requests
from clew.query.figures import figures
from clew.query.figures_parameters import FiguresWanted
from clew.query.jaeger.search import TraceSearch, find_traces
from clew.query.search import search_events, search_runs
from clew.query.search_parameters import SearchWanted
from clew.storage import DatabaseSession, ExecutionEvent, Store, attribute_places, may_have_attribute, texts_of
from clew.storage.compacting import PORTION_ROWS
from clew.storage.schema import CompactedPortion

START = 10**18
RUN_EVENTS = 64
PORTIONS = ("early", "early", "late", "late")
REST = 100


@pytest.fixture(scope="module")
def portions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """Four compacted portions, each with a key of its name, and some events of a key that only they have."""
    with closing(Store.open(str(tmp_path_factory.mktemp("portions") / "clew.duckdb"))) as store:
        for place, key in enumerate(PORTIONS):
            _write(store, range(place * PORTION_ROWS, (place + 1) * PORTION_ROWS), key)
        while store.compact():
            pass
        _write(store, range(4 * PORTION_ROWS, 4 * PORTION_ROWS + REST), "new")
        yield store


def _write(store: Store, events: range, key: str) -> None:
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for number in events:
        span = spans.add(
            trace_id=(1 + number // RUN_EVENTS).to_bytes(16, "big"),
            span_id=(1 + number).to_bytes(8, "big"),
            name="step",
            start_time_unix_nano=START + number,
            end_time_unix_nano=START + number + 1,
        )
        span.attributes.add(key="everywhere").value.int_value = number
        span.attributes.add(key=key).value.string_value = f"value {number % 5000}"
    store.write(read_requests([built.SerializeToString()]).batch)


def _places(store: Store, key: str) -> list[int]:
    """The first and last of the events, by number, between which all are that may have the key; and how many may."""
    with store.read() as reader:
        may_have = may_have_attribute(reader, key)
        of_key = select(ExecutionEvent.started_at_unix_nano).where(true() if may_have is None else may_have)
        numbers = [row["started_at_unix_nano"] - START for row in reader.rows(of_key)]
    return [min(numbers), max(numbers), len(numbers)]


LAST = 4 * PORTION_ROWS + REST - 1


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("everywhere", [0, LAST, LAST + 1]),
        ("early", [0, LAST, 2 * PORTION_ROWS + REST]),
        ("late", [2 * PORTION_ROWS, LAST, 2 * PORTION_ROWS + REST]),
        ("new", [4 * PORTION_ROWS, LAST, REST]),
        ("never", [4 * PORTION_ROWS, LAST, REST]),
        ("LATE", [4 * PORTION_ROWS, LAST, REST]),
    ],
)
def test_only_events_that_may_have_it_are_looked_at(portions: Store, key: str, places: Sequence[int]) -> None:
    """Those of portions that have the key, and those that are not compacted."""
    assert _places(portions, key) == places


FILTERS = [
    *(f'attributes["{key}"] = "value 7"' for key in ("early", "late", "new", "never")),
    *(f'attributes["{key}"] exists' for key in ("late", "new", "never")),
    'not attributes["late"] = "value 7"',
    'attributes["late"] =~ "value 77.?" or attributes["early"] in ("value 1", "value 2")',
    'not (attributes["never"] exists or attributes["late"] exists) and attributes["everywhere"] < 100',
    'attributes["gen_ai.input.messages"] exists or attributes["late"] = "value 9"',
    'attributes["late"] exists and not attributes["new"] exists and attributes["everywhere"] < 30000',
]


@pytest.mark.parametrize("filter_text", FILTERS)
def test_the_same_is_found(portions: Store, monkeypatch: pytest.MonkeyPatch, filter_text: str) -> None:
    """Events, runs and figures are those that looking at all events gives."""
    quick = _all_found(portions, filter_text)
    monkeypatch.setattr(attribute_places, "LEFT_OUT_SHARE_MIN", 2)
    assert _places(portions, "never") == [0, LAST, LAST + 1], "all are looked at now"
    assert _all_found(portions, filter_text) == quick


NEW_VALUE = f"value {4 * PORTION_ROWS % 5000}"


@pytest.mark.parametrize("tag", [("late", "value 7"), ("new", NEW_VALUE), ("never", "value 7"), ("error", "true")])
def test_jaeger_finds_the_same(portions: Store, monkeypatch: pytest.MonkeyPatch, tag: tuple[str, str]) -> None:
    """Traces by a tag are those that looking at all events gives."""
    quick = _traces(portions, *tag)
    monkeypatch.setattr(attribute_places, "LEFT_OUT_SHARE_MIN", 2)
    assert _traces(portions, *tag) == quick
    assert bool(quick) == (tag[0] in ("late", "new"))


def _traces(store: Store, key: str, value: str) -> list[object]:
    with store.read() as reader:
        search = TraceSearch(START, START + LAST, tags={key: value}, limit=1_500)
        return [run["id"] for run in find_traces(reader, search)]


def _all_found(store: Store, filter_text: str) -> list[object]:
    wanted = SearchWanted.model_validate({"filter": filter_text, "limit": 500})
    with store.read() as reader:
        events = [event["id"] for event in orjson.loads(search_events(reader, wanted))["events"]]
        runs = [run["id"] for run in search_runs(reader, wanted)["runs"]]
        return [events, runs, figures(reader, FiguresWanted.model_validate({"filter": filter_text}))["events"]]


NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(1 << 63), (1 << 64) - 1) | st.booleans()


@given(st.lists(NUMBERS, min_size=1))
def test_python_writes_numbers_as_the_engine_does(numbers: list[float]) -> None:
    """Whatever compares equal to one reads like one of its texts."""
    engine = duckdb.connect()
    for number in numbers:
        equal = [number, -number] if number == 0 and isinstance(number, float) else [number]
        read = {engine.execute("SELECT ?::VARIANT::VARCHAR", [value]).fetchall()[0][0] for value in equal}
        assert read == texts_of(number)


def test_many_places_are_one_wide_one(portions: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A condition does not grow with the number of portions."""
    monkeypatch.setattr(attribute_places, "RANGES_MAX", 1)
    monkeypatch.setattr(attribute_places, "PLACES_MAX", 1)
    with DatabaseSession(portions.engine) as session:
        first, *_ = session.scalars(select(CompactedPortion).order_by(CompactedPortion.compacted_at_unix_nano))
        keys, first.attribute_keys = first.attribute_keys, ["late"]
        session.commit()
        assert _places(portions, "late") == [0, LAST, LAST + 1]
        first.attribute_keys = keys
        session.commit()


def test_keys_of_what_arrives_compacted_are_known(store: Store) -> None:
    """Searches leave such events out as they do others."""
    store.compacts_arrivals = True
    for place, key in enumerate(PORTIONS):
        _write(store, range(place * PORTION_ROWS, (place + 1) * PORTION_ROWS), key)
    assert _places(store, "late") == [2 * PORTION_ROWS, 4 * PORTION_ROWS - 1, 2 * PORTION_ROWS]
    assert _all_found(store, 'attributes["never"] = "value 7"') == [[], [], 0]


def test_portions_of_unknown_keys_may_have_any(portions: Store) -> None:
    """As those that were compacted before keys were noted, and those of too many keys."""
    with DatabaseSession(portions.engine) as session:
        first, *_ = session.scalars(select(CompactedPortion).order_by(CompactedPortion.compacted_at_unix_nano))
        keys, first.attribute_keys = first.attribute_keys, None
        session.commit()
        assert _places(portions, "never") == [0, LAST, PORTION_ROWS + REST]
        first.attribute_keys = keys
        session.commit()


@pytest.mark.parametrize("whole", [True, False])
def test_an_event_that_is_changed_is_looked_at_anew(store: Store, *, whole: bool) -> None:
    """It may have got attributes that its portion does not know, by its object or by a statement."""
    _write(store, range(PORTION_ROWS), "early")
    store.compact()
    with DatabaseSession(store.engine) as session:
        event = session.scalars(select(ExecutionEvent).where(ExecutionEvent.started_at_unix_nano == START)).one()
        if whole:
            event.attributes = {"added later": "yes"}
        else:
            same = (ExecutionEvent.run_id == event.run_id, ExecutionEvent.id == event.id)
            session.execute(update(ExecutionEvent).where(*same).values({"attributes": {"added later": "yes"}}))
        session.commit()
        assert _all_found(store, 'attributes["added later"] = "yes"')[0] == [event.id]
