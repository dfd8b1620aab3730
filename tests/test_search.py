"""Searching over HTTP: what is found, in which order, by pages, while more is written."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import func, literal

from clew.collector.projection import read_requests
from clew.query import search_windows
from clew.query.events import EVENTS
from clew.query.search import search_events, search_runs
from clew.query.search_answers import FoundEvents, FoundRuns
from clew.query.search_parameters import SearchCursor, SearchWanted
from clew.query.search_windows import GROWTH_MAX, RECENT_NS, Between, Effort, Timeline
from clew.storage import EventLink, EventLog, Reader, Store

from .conftest import ApiReader, Rows

SEARCH = "/api/search"
FIRST_ID = 2**64 - 1
START = 1_750_000_000_000_000_000
MANUAL = (Path(__file__).resolve().parent.parent / "docs" / "search.md").read_text()


def _found(page: dict[str, Any]) -> list[tuple[str, int]]:
    return [(event["run"]["id"][0], int(event["id"], 16)) for event in page["events"]]


def test_events_are_found_newest_first(rows: Rows, api_reader: ApiReader) -> None:
    """Across runs by start, then by run and id, falling; each with its run, and counts of its logs and links."""
    for digit, moments in (("a", (5, 7)), ("b", (5, 6))):
        run_id = rows.run(digit * 32, name=f"job {digit}", agent="planner")
        for number, at in enumerate(moments, 1):
            rows.event(run_id, number, at=at, name="fetch")
        rows.event(run_id, 9, at=9, name="other")
    in_a = {"run_id": "a" * 32, "event_started_at_unix_nano": START + 5, "time_unix_nano": START + 5}
    rows.add(EventLog(**in_a, event_id=f"{1:016x}", log_index=0), EventLog(**in_a, event_id=f"{1:016x}", log_index=1))

    page = api_reader.get(SEARCH, FoundEvents, filter="name = fetch")

    assert _found(page) == [("a", 2), ("b", 2), ("b", 1), ("a", 1)]
    assert page["events"][0]["run"] == {"id": "a" * 32, "session_id": "default", "name": "job a", "agent": "planner"}
    assert [(event["log_count"], event["service_name"]) for event in page["events"]] == [
        *[(0, "workshop")] * 3,
        (2, "workshop"),
    ]
    assert (page["next_cursor"], page["searched_to_unix_nano"]) == (None, None)


@pytest.mark.parametrize(
    ("path", "asked", "told_as"),
    [
        ("/api/search", {"since": "-{age}s"}, "events"),
        ("/api/search", {"since": "-{age}s", "for": "runs"}, "runs"),
        ("/api/search", {"filter": "started_at >= -{age}s"}, "events"),
        ("/api/runs", {"since": "-{age}s"}, "runs"),
    ],
)
def test_a_time_before_now_is_the_same_on_every_page(
    rows: Rows, api_client: httpx.Client, path: str, asked: dict[str, str], told_as: str
) -> None:
    """However long somebody takes to turn pages, what was there at first is told."""
    newest = time.time_ns() - START
    for number in range(6):
        at = newest - number
        rows.run(f"{number + 1:032x}", at=at)
        rows.event(f"{number + 1:032x}", 1, at=at)
    told: list[Any] = []
    cursor: dict[str, str] | None = {}
    # Three seconds before all that is there; the last page is asked for four seconds later.
    age = (time.time_ns() - START - newest) // 1_000_000_000 + 3
    asked = {name: said.format(age=age) for name, said in asked.items()}
    while cursor is not None:
        page = api_client.get(path, params={"limit": "2", **asked, **cursor}).raise_for_status().json()
        told += page[told_as]
        cursor = {"cursor": page["next_cursor"]} if page["next_cursor"] else None
        time.sleep(2)
    assert len(told) == 6


def test_a_cursor_of_a_time_that_there_is_not_is_answered(api_client: httpx.Client) -> None:
    """Whoever makes one up gets an answer, not a fault."""
    cursor = f"{START}-{'0' * 32}-{'0' * 16}.9999999999999999999"
    answer = api_client.get("/api/search", params={"since": "-1s", "cursor": cursor})
    assert answer.json()["events"] == []


def test_runs_are_found_newest_first(rows: Rows, api_reader: ApiReader) -> None:
    """Those that have an event that is meant, by pages."""
    for number in range(1, 6):
        run_id = rows.run(f"{number:032x}", at=number // 2)
        rows.event(run_id, 1, at=number // 2, name="fetch" if number != 3 else "plan")
    met = api_reader.all_pages(SEARCH, FoundRuns, "runs", **{"for": "runs", "filter": "name = fetch", "limit": 2})
    assert [int(run["id"], 16) for run in met] == [5, 4, 2, 1]


def test_a_time_range_bounds_what_is_found(rows: Rows, api_reader: ApiReader) -> None:
    """From `since` on, and before `until`, by the start of the event or of the run."""
    for number in range(1, 5):
        rows.event(rows.run(f"{number:032x}", at=number), 1, at=number)
    bounds = {"since": str(START + 2), "until": str(START + 4)}
    events = api_reader.get(SEARCH, FoundEvents, **bounds)["events"]
    runs = api_reader.get(SEARCH, FoundRuns, **bounds, **{"for": "runs"})["runs"]
    assert [int(event["run"]["id"], 16) for event in events] == [3, 2]
    assert [int(run["id"], 16) for run in runs] == [3, 2]


def test_nothing_stored_is_nothing_found(api_reader: ApiReader) -> None:
    """An empty store answers with an empty page."""
    assert api_reader.get(SEARCH, FoundEvents, filter="x") == {
        "events": [],
        "searched_to_unix_nano": None,
        "next_cursor": None,
    }
    assert api_reader.get(SEARCH, FoundRuns, **{"for": "runs"})["runs"] == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("completed_at < -1d", [2]),
        ("completed_at exists", [2]),
        ("not completed_at exists", [1]),
        ("duration < 1ms", [2]),
        ("duration = 0", []),
        ("duration exists", [2]),
        ("duration >= 0", [2]),
        ("not duration > 5ns", [1]),
        ("status_message exists", [2]),
        ('status_message = ""', []),
        ('status_message != "late"', [1]),
    ],
)
def test_an_event_that_has_not_ended_has_no_end(rows: Rows, api_reader: ApiReader, text: str, found: list[int]) -> None:
    """And no duration, though columns say 0; a text that is empty is none, whoever sent it."""
    run_id = rows.run("a" * 32)
    rows.event(run_id, 1, completed_at_unix_nano=0, duration_ns=0, status="running", status_message="")
    rows.event(run_id, 2, status_message="late")
    assert [number for _, number in _found(api_reader.get(SEARCH, FoundEvents, filter=text))] == found


def test_logs_and_links_of_an_event_are_found_whenever_they_came(rows: Rows, api_reader: ApiReader) -> None:
    """A log record may be of another time than its event, within their run; it belongs to it all the same."""
    run_id = rows.run("a" * 32, lasts=1_000)
    event_id = rows.event(run_id, 1, at=500)
    part = {"run_id": run_id, "event_id": event_id}
    log = EventLog(**part, log_index=-5, event_started_at_unix_nano=START + 900, name="late", content="A Zebra")
    rows.add(log, EventLink(**part, link_index=0, event_started_at_unix_nano=START + 500, linked_run_id="c" * 32))
    for text in ("log.name = late", "zebra", f"link.run_id = {'c' * 32}"):
        assert _found(api_reader.get(SEARCH, FoundEvents, filter=text)) == [("a", 1)], text
        assert len(api_reader.get(SEARCH, FoundRuns, **{"for": "runs", "filter": text})["runs"]) == 1, text


@pytest.mark.parametrize(
    ("query", "parameter", "position"),
    [
        ({"filter": "agnet = 1"}, "filter", 0),
        ({"filter": "name = x and ("}, "filter", 14),
        ({"limit": "-1"}, "limit", None),
        ({"cursor": "garbage"}, "cursor", None),
        ({"cursor": "garbage.1750000000000000000"}, "cursor", None),
        ({"cursor": f"9999999999999999999-{'0' * 32}-{'0' * 16}"}, "cursor", None),
        ({"since": "-1h", "until": "-2h"}, "since", None),
        ({"until": "soon"}, "until", None),
        ({"for": "files"}, "for", None),
        ({"q": "x"}, "q", None),
    ],
)
def test_bad_input_is_named(
    api_client: httpx.Client, query: dict[str, str], parameter: str, position: int | None
) -> None:
    """What cannot be read is answered with 400, the parameter, and for a filter the character to blame."""
    answer = api_client.get(SEARCH, params=query)
    error = answer.json()["error"]
    assert (answer.status_code, error["parameter"], error.get("position")) == (400, parameter, position)


def test_a_search_out_of_time_says_where_to_go_on(store: Store, rows: Rows) -> None:
    """With no time at all a page is one window; walking on meets everything once, and gets further back each time."""
    for number in range(1, 8):
        run_id = rows.run(f"{number:032x}", at=10 * number)
        for event in range(1, 4):
            rows.event(run_id, event, at=10 * number + event % 2, name="fetch" if number == 1 else "plan")
    for search, listed, number in ((_events_page, "events", 3), (search_runs, "runs", 1)):
        pages = _walk(store, search, filter="name = fetch", limit=2)
        stops = [int(page["searched_to_unix_nano"]) for page in pages if page["searched_to_unix_nano"]]
        assert len(stops) > 1
        assert stops == sorted(set(stops), reverse=True)
        met = [item["id"] for page in pages for item in page[listed]]
        assert (len(met), len(set(met))) == (number, number)


EVEN = range(0, 10_000 * 7, 7)
TIMES = {
    "evenly": EVEN,
    "one of long ago": (-START + 1, *EVEN),
    "one of times to come": (*EVEN, 10**18),
    "all at once": (7,) * 10_000,
    "half at once": (*EVEN, *(EVEN[-1],) * 10_000),
    "in bursts": [hour * 10**12 + place for hour in range(10) for place in range(1_000)],
    "more and more": [int(1.01**place) for place in range(3_000)],
}


@pytest.mark.parametrize("moments", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("middle", [None, 20_000], ids=["from the end", "from a cursor"])
def test_windows_are_of_a_bounded_number_of_events(store: Store, moments: Sequence[int], middle: int | None) -> None:
    """They are few, cover all of the time that is wanted once, newest first, and each holds GROWTH_MAX times what the
    one before may, the first twice the effort's, or a single instant. It asks little, whenever events were."""
    store.write(read_requests([_spans_at(moments)]).batch)
    cursor = None if middle is None else SearchCursor(started_at_unix_nano=START + middle).text()
    windows, asked = _windows(store, SearchWanted(cursor=cursor), Effort(60, 200))
    wanted = [at for at in moments if middle is None or at < middle]
    held = [sum(first <= START + at <= last for at in wanted) for first, last in windows]
    assert sum(held) == len(wanted)
    assert [first - 1 for first, _ in windows[:-1]] == [last for _, last in windows[1:]]
    instants = [first == last for first, last in windows]
    assert [place for place, count in enumerate(held) if count > 400 * GROWTH_MAX**place and not instants[place]] == []
    assert len(windows) <= 4
    assert asked <= 11


def test_a_window_of_dense_times_holds_enough(store: Store) -> None:
    """Where most events are of late, the first window has about as many as it should, not a share of them."""
    store.write(read_requests([_spans_at((*range(0, 10**6, 1000), *range(10**6, 10**6 + 9000)))]).batch)
    [(first, last), *_], asked = _windows(store, SearchWanted(), Effort(60, 200))
    assert 190 <= last - first < 400
    assert asked <= 5


def test_the_window_of_what_comes_now_takes_one_guess(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """While more comes than came before, the runs of the last seconds tell how much that is."""
    before, now = range(0, 10**12, 10**9), range(10**12, 10**12 + RECENT_NS, 10**6)
    store.write(read_requests([_spans_at((*before, *now))]).batch)
    monkeypatch.setattr(search_windows.time, "time_ns", lambda: START + now.stop)
    [(first, last), *_], asked = _windows(store, SearchWanted(), Effort(60, 200), found=[[1] * 51])
    assert 150 <= (last - first) // now.step < 400
    assert asked == 2


def test_searching_everything_takes_two_windows(store: Store) -> None:
    """Of fifty times what the first window holds, with one look at each window's number of events but the last's."""
    store.write(read_requests([_spans_at(EVEN)]).batch)
    windows, asked = _windows(store, SearchWanted(), Effort(60, 200))
    assert (len(windows), asked) == (2, 2)


def test_the_next_window_is_as_long_as_it_likely_takes(store: Store) -> None:
    """What was found lets expect how much more there is: where a third was found in so many, four times as many."""
    store.write(read_requests([_spans_at(EVEN)]).batch)
    windows, _ = _windows(store, SearchWanted(limit=29), Effort(60, 200), found=[[1] * 10] * 2)
    held = [(last - first) // 7 for first, last in windows]
    assert [round(held[place + 1] / held[place]) for place in range(2)] == [4, 2]


def test_pages_go_on_behind_the_latest_start_there_can_be(store: Store) -> None:
    """Spans whose start was never set to anything sensible hide no other."""
    store.write(read_requests([_spans_at([2**63 + 5 - START] * 3 + [0])]).batch)
    for search, listed, count in ((_events_page, "events", 4), (search_runs, "runs", 1)):
        pages = _walk(store, search, limit=1)
        assert sum(len(page[listed]) for page in pages) == count


def test_keys_that_differ_in_case_alone_harm_no_search(store: Store, api_reader: ApiReader) -> None:
    """A text is looked for beside values within which two keys differ in case alone. These are found by their text, and
    told as they were sent."""
    request = ExportTraceServiceRequest.FromString(_spans(7, 3))
    values = [span.attributes.add(key="k").value for span in request.resource_spans[0].scope_spans[0].spans]
    for owner in (values[0], values[1].array_value.values.add()):
        for number, key in enumerate(("Id", "id"), 1):
            owner.kvlist_value.values.add(key=key).value.int_value = number
    values[2].string_value = "a"
    pair = {"Id": 1, "id": 2}
    store.write(read_requests([request.SerializeToString()]).batch)
    for test, found in (("= a", ["a"]), ("!= a", [pair, [pair]]), ("=~ '.*Id.*id.*'", [pair, [pair]])):
        page = api_reader.get(SEARCH, FoundEvents, filter=f'attributes["k"] {test}')
        assert sorted((event["attributes"]["k"] for event in page["events"]), key=str) == sorted(found, key=str)


@pytest.mark.parametrize("text", ["no such file", "exception.message", "ENOENT"])
def test_words_are_found_in_attributes_of_logs(store: Store, api_reader: ApiReader, text: str) -> None:
    """An exception's message is one, which need not be the event's status."""
    request = ExportTraceServiceRequest.FromString(_spans(7, 2))
    log = request.resource_spans[0].scope_spans[0].spans[1].events.add(name="exception")
    log.attributes.add(key="exception.message").value.string_value = "No such file"
    log.attributes.add(key="codes").value.array_value.values.add().string_value = "enoent"
    store.write(read_requests([request.SerializeToString()]).batch)
    page = api_reader.get(SEARCH, FoundEvents, filter=f'"{text}"')
    assert [event["id"] for event in page["events"]] == [f"{FIRST_ID - 1:016x}"]


def _windows(
    store: Store, wanted: SearchWanted, effort: Effort, found: Sequence[Sequence[int]] = ()
) -> tuple[list[Between], int]:
    """The windows of a search that finds so much in the first ones, then nothing, and how many statements it took to
    find them."""
    windows: list[Between] = []
    timeline = Timeline(EVENTS.c.started_at_unix_nano, func.sum(literal(1)))
    rows = chain(found, repeat([]))
    with store.read() as reader, patch.object(reader, "rows", wraps=reader.rows) as asked:
        timeline.search(reader, wanted, lambda window, _: windows.append(window) or next(rows), effort)
    return windows, asked.call_count


def _spans_at(moments: Sequence[int]) -> bytes:
    """Spans that start at these moments after START, in runs of 16."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number, at in enumerate(moments):
        times = {"start_time_unix_nano": START + at, "end_time_unix_nano": START + at + 10}
        spans.add(trace_id=(1 + number // 16).to_bytes(16), span_id=(1 + number).to_bytes(8), name="work", **times)
    return request.SerializeToString()


def _events_page(reader: Reader, wanted: SearchWanted, effort: Effort) -> dict[str, Any]:
    return dict(json.loads(search_events(reader, wanted, effort)))


def _walk(store: Store, search: Callable[..., dict[str, Any]], **parameters: Any) -> list[dict[str, Any]]:
    pages: list[dict[str, Any]] = []
    while not pages or pages[-1]["next_cursor"]:
        cursor = {"cursor": pages[-1]["next_cursor"]} if pages else {}
        with store.read() as reader:
            pages.append(search(reader, SearchWanted(**parameters, **cursor), Effort(0, 2)))
    return pages


def _spans(run: int, spans_count: int) -> bytes:
    """Spans of a run of their own; starts are shared among runs, ids fall within them."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(spans_count):
        started_at = START + 100 * (number // 3)
        times = {"start_time_unix_nano": started_at, "end_time_unix_nano": started_at + 10}
        spans.add(trace_id=run.to_bytes(16), span_id=(FIRST_ID - number).to_bytes(8), name="work", **times)
    return request.SerializeToString()


def test_pages_walked_while_spans_are_written_hold_each_event_once(server: Any) -> None:
    """Every event that was there at the start is met exactly once, on a real server that stores more spans, older and
    newer than the page, of runs before and behind it, between every two pages."""
    for run in range(10, 15):
        _send(server, run, 30)
    met: list[tuple[str, str]] = []
    wanted: dict[str, Any] = {"filter": "name = work", "limit": 20}
    for run in chain(*zip(range(1, 10), range(15, 24), strict=True)):
        page = httpx.get(f"{server.http_url}{SEARCH}", params=wanted, timeout=60).raise_for_status().json()
        met += [(event["run"]["id"], event["id"]) for event in page["events"]]
        if page["next_cursor"] is None:
            break
        wanted["cursor"] = page["next_cursor"]
        _send(server, run, 12)
    assert page["next_cursor"] is None
    there = {(f"{run:032x}", f"{FIRST_ID - number:016x}") for run in range(10, 15) for number in range(30)}
    assert len(met) == len(set(met))
    assert there < set(met)


def _send(server: Any, run: int, spans: int) -> None:
    headers = {"Content-Type": "application/x-protobuf"}
    httpx.post(f"{server.http_url}/v1/traces", content=_spans(run, spans), headers=headers).raise_for_status()


@pytest.mark.parametrize("text", "".join(re.findall(r"^```\n(.*?)^```", MANUAL, re.DOTALL | re.MULTILINE)).splitlines())
def test_the_manuals_examples_find_something(demo_server: Any, text: str) -> None:
    """Each example of docs/search.md finds events of the demo's run."""
    answer = httpx.get(f"{demo_server.http_url}{SEARCH}", params={"filter": text, "limit": 5})
    assert answer.status_code == 200, answer.text
    assert answer.json()["events"]


@pytest.mark.parametrize("text", re.findall(r"^\| `([^`]+)` \| [^|]*\|$", MANUAL.split("## Fields")[0], re.MULTILINE))
def test_the_manuals_tests_can_be_read(demo_server: Any, text: str) -> None:
    """Each test of the table is a filter."""
    assert httpx.get(f"{demo_server.http_url}{SEARCH}", params={"filter": text}).status_code == 200


def test_spans_are_found_by_the_id_that_was_sent(store: Store) -> None:
    """All that share it; an event's own id is of one."""
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for kind in (2, 3):
        spans.add(trace_id=bytes(15) + b"1", span_id=b"shared-1", kind=kind, start_time_unix_nano=kind)
    store.write(read_requests([built.SerializeToString()]).batch)
    found = {}
    with store.read() as reader:
        for name in ("span_id", "id"):
            wanted = SearchWanted.model_validate({"filter": f"{name} = {b'shared-1'.hex()}"})
            found[name] = len(json.loads(search_events(reader, wanted))["events"])
    assert found == {"span_id": 2, "id": 1}
