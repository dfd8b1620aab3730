"""Which texts attributes are: searches for one leave out what is known not to have it, and find the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import delete, select, true

from clew.collector.projection import read_requests
from clew.query.figures import figures
from clew.query.figures_parameters import FiguresWanted
from clew.query.jaeger.search import TraceSearch, find_traces
from clew.query.search import search_events, search_runs
from clew.query.search_parameters import SearchWanted
from clew.storage import (
    DatabaseSession,
    ExecutionEvent,
    Store,
    Upkeep,
    attribute_places,
    may_have_attribute,
    text_filters,
)
from clew.storage.bloom import TEXT_BYTES_MAX
from clew.storage.compacting import KEYS_MAX, PORTION_ROWS
from clew.storage.text_filters import VALUES_AT_ONCE

START = 10**18
RUN_EVENTS = 64
PORTIONS = 5
LAST = PORTIONS * PORTION_ROWS - 1
Said = str | bool | int | float
LONG = "x" * (TEXT_BYTES_MAX + 1)


def _write(store: Store, portion: int, said: dict[str, Said]) -> None:
    """PORTION_ROWS events. Each has a number, a text that no other one has, and a word of its portion; the first one
    what is `said` besides."""
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for number in range(portion * PORTION_ROWS, (portion + 1) * PORTION_ROWS):
        span = spans.add(
            trace_id=(1 + number // RUN_EVENTS).to_bytes(16, "big"),
            span_id=(1 + number).to_bytes(8, "big"),
            name="step",
            start_time_unix_nano=START + number,
            end_time_unix_nano=START + number + 1,
        )
        attributes: dict[str, Said] = {"number": number, "own": f"own {number}", "word": f"word {portion}"}
        for key, value in {**attributes, **said}.items():
            setattr(span.attributes.add(key=key).value, VALUES[type(value)], value)
        said = {}
    store.write(read_requests([built.SerializeToString()]).batch)


VALUES = {str: "string_value", bool: "bool_value", int: "int_value", float: "double_value"}


def _upkeep(store: Store) -> None:
    while store.compact() or store.note_texts():
        pass


SAID: dict[int, dict[str, Said]] = {
    1: {
        "mixed": "12",
        "ratio": 0.1,
        "zero": -0.0,
        "flag": True,
        "long": LONG,
        "": "nameless",
        'a "quoted" key': "here",
        "gen_ai.input.messages": "hello",
    },
    2: {"mixed": 12.0, "ratio": 1e300, "zero": 0, "big": 2**53 + 1, "flag": "true"},
    3: {"mixed": 12, "big": float(2**53), "ratio": -3, "zero": 0.0, "ümläut": "größe", "number": "own 5"},
}


@pytest.fixture(scope="module")
def noted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """PORTIONS compacted portions whose texts are noted."""
    with closing(Store.open(str(tmp_path_factory.mktemp("noted") / "clew.duckdb"))) as store:
        for portion in range(PORTIONS):
            _write(store, portion, SAID.get(portion, {}))
        _upkeep(store)
        yield store


def _portions(store: Store, key: str, *texts: str) -> list[int]:
    """The portions of which events are looked at."""
    with store.read() as reader:
        may_have = may_have_attribute(reader, key, texts)
        meant = select(ExecutionEvent.started_at_unix_nano).where(true() if may_have is None else may_have)
        return sorted({(row["started_at_unix_nano"] - START) // PORTION_ROWS for row in reader.rows(meant)})


ALL = list(range(PORTIONS))


@pytest.mark.parametrize(
    ("key", "texts", "portions"),
    [
        ("word", ["word 2"], [2]),
        ("word", ["word 4", "word 0", "word 9"], [0, 4]),
        ("word", ["word"], []),
        ("own", ["own 1"], [0]),
        ("own", [f"own {LAST}"], [PORTIONS - 1]),
        ("word", ["own 1"], []),
        ("mixed", ["12"], [1, 3]),
        ("mixed", ["12.0"], [2]),
        ("ratio", ["0.1"], [1]),
        ("big", ["9007199254740993"], [2]),
        ("number", ["own 5"], [3]),
        ("ümläut", ["größe"], [3]),
        ('a "quoted" key', ["here"], [1]),
        ("", ["nameless"], [1]),
        ("no such", ["word 2"], []),
        ("long", [LONG], [1]),
        ("word", [LONG, "word 2"], ALL),
    ],
)
def test_only_portions_with_the_text_are_looked_at(
    noted: Store, key: str, texts: list[str], portions: list[int]
) -> None:
    """Texts longer than TEXT_BYTES_MAX are looked for wherever their key is."""
    assert _portions(noted, key, *texts) == portions


VALUES_SAID = ("12", "12.0", "0.1", "1e300", "-3", "0", "9007199254740992", "9007199254740993", "true", "false")

FILTERS = [
    'attributes["word"] = "word 2"',
    'attributes["own"] = "own 9000"',
    'attributes["own"] in ("own 1", "own 30000", "nowhere")',
    'attributes["own"] in ("own 1", 12)',
    'attributes["mixed"] = "12"',
    'attributes["mixed"] = 12',
    'attributes["mixed"] in (12, "12")',
    'attributes["number"] = 12',
    'attributes["number"] = "12"',
    *(f'attributes["{key}"] = {value}' for key in ("mixed", "ratio", "zero", "big", "flag") for value in VALUES_SAID),
    'attributes["number"] = "own 5"',
    f'attributes["long"] = "{LONG}"',
    'attributes["gen_ai.input.messages"] = "hello"',
    'not attributes["word"] = "word 2" and attributes["number"] < 20000',
    'attributes["word"] = "word 2" or attributes["own"] = "own 1"',
    'not (attributes["word"] in ("word 0", "word 1", "word 2") or attributes["own"] = "own 30000")',
    'attributes["word"] != "word 2"',
    'attributes["word"] =~ "word 2"',
    'attributes["word"] >= "word 4"',
]


@pytest.fixture
def looking_at_all(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on nothing is left out."""
    return lambda: monkeypatch.setattr(attribute_places, "LEFT_OUT_SHARE_MIN", 2)


@pytest.mark.parametrize("filter_text", FILTERS)
def test_the_same_is_found(noted: Store, looking_at_all: Callable[[], None], filter_text: str) -> None:
    """Events, runs and figures are those that looking at all events gives."""
    quick = _all_found(noted, filter_text)
    looking_at_all()
    assert _portions(noted, "word", "word 2") == ALL
    assert _all_found(noted, filter_text) == quick


def _all_found(store: Store, filter_text: str) -> list[object]:
    wanted = SearchWanted.model_validate({"filter": filter_text, "limit": 500})
    with store.read() as reader:
        events = [event["id"] for event in orjson.loads(search_events(reader, wanted))["events"]]
        runs = [run["id"] for run in search_runs(reader, wanted)["runs"]]
        return [events, runs, figures(reader, FiguresWanted.model_validate({"filter": filter_text}))["events"]]


TAGS = [
    *(("word", "word 2"), ("mixed", "12"), ("mixed", "12.0"), ("number", "12"), ("own", "nowhere")),
    *(("zero", "0"), ("zero", "0.0"), ("big", "9007199254740992"), ("ratio", "1e300"), ("flag", "true")),
]


@pytest.mark.parametrize("tag", TAGS)
def test_jaeger_finds_the_same(noted: Store, looking_at_all: Callable[[], None], tag: tuple[str, str]) -> None:
    """What Jaeger writes as the text of a tag may be a number."""
    quick = _traces(noted, *tag)
    looking_at_all()
    assert _traces(noted, *tag) == quick
    assert bool(quick) == (tag[1] != "nowhere")


def _traces(store: Store, key: str, value: str) -> list[object]:
    with store.read() as reader:
        search = TraceSearch(START, START + LAST, tags={key: value}, limit=1_500)
        return [run["id"] for run in find_traces(reader, search)]


def test_places_far_apart_are_told_one_by_one(noted: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where they are more than RANGES_MAX; where they are more than PLACES_MAX, as one wide place."""
    far_apart = ["word 0", "word 2", "word 4"]
    monkeypatch.setattr(attribute_places, "RANGES_MAX", 2)
    assert _portions(noted, "word", *far_apart) == [0, 2, 4]
    monkeypatch.setattr(attribute_places, "PLACES_MAX", 2)
    assert _portions(noted, "word", *far_apart) == ALL


def test_what_is_not_noted_yet_may_be_anything(store: Store) -> None:
    """The newest portion is noted first; what is not compacted is always looked at."""
    for portion in range(3):
        _write(store, portion, {})
    while store.compact():
        pass
    assert _portions(store, "word", "nowhere") == [0, 1, 2]
    assert (store.unnoted(), store.note_texts(), store.unnoted()) == (3, 1, 2)
    assert _portions(store, "word", "nowhere") == [0, 1]
    _upkeep(store)
    _write(store, 3, {})
    assert (_portions(store, "word", "nowhere"), store.note_texts(), store.unnoted()) == ([3], 0, 0)


def test_every_key_of_many_is_noted(store: Store) -> None:
    """They are read some at a time."""
    keys_at_once = VALUES_AT_ONCE // PORTION_ROWS
    _write(store, 0, {f"key {number}": f"text {number}" for number in range(2 * keys_at_once + 1)})
    _upkeep(store)
    for number in (0, keys_at_once - 1, keys_at_once, 2 * keys_at_once):
        assert _portions(store, f"key {number}", f"text {number}") == [0]
        assert _portions(store, f"key {number}", f"text {number + 1}") == []


def test_many_events_that_arrived_at_once_are_read_by_few_keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Down to one; what is noted is the same."""
    store.compacts_arrivals = True
    _write(store, 0, {})
    monkeypatch.setattr(text_filters, "VALUES_AT_ONCE", 1)
    assert store.note_texts() == 1
    assert [_portions(store, key, "word 0") for key in ("word", "own", "number")] == [[0], [], []]


def test_a_portion_without_events_is_noted(store: Store) -> None:
    """Its runs were deleted; others are noted after it."""
    for portion in range(2):
        _write(store, portion, {})
    while store.compact():
        pass
    with DatabaseSession(store.engine) as session:
        session.execute(delete(ExecutionEvent).where(ExecutionEvent.started_at_unix_nano >= START + PORTION_ROWS))
        session.commit()
    assert (store.note_texts(), store.note_texts(), store.unnoted()) == (1, 1, 0)


def test_portions_of_too_many_keys_are_left(store: Store) -> None:
    """They are not compacted either, and looked at each time."""
    _write(store, 0, {f"key {number}": "text" for number in range(KEYS_MAX)})
    _upkeep(store)
    assert store.unnoted() == 0
    assert _portions(store, "key 1", "nowhere") == [0]


def test_an_idle_store_is_noted(store: Store) -> None:
    """By itself, once it is compacted."""
    _write(store, 0, {})
    with closing(Upkeep(store, idle_s=3600)) as upkeep:
        while upkeep._portion():
            pass
    assert _portions(store, "word", "nowhere") == []


def test_what_arrives_compacted_is_noted(store: Store) -> None:
    """A portion is what came at once."""
    store.compacts_arrivals = True
    for portion in range(2):
        _write(store, portion, {})
    assert (store.note_texts(), store.note_texts(), store.note_texts()) == (1, 1, 0)
    assert _portions(store, "word", "word 1") == [1]
