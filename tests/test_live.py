"""GET /api/live: runs and events as they are committed, taken up again where they were lost."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pydantic import TypeAdapter

from clew.collector.projection import read_requests
from clew.query import answers, live, live_api
from clew.query.live import LiveCursor
from clew.storage import Store

START = 1_750_000_000_000_000_000
RUN = UUID(int=7)


@dataclass(frozen=True)
class Told:
    """One message of a stream; `id` is empty where it has none."""

    event: str
    id: str
    data: Any


def _messages(lines: Iterator[str]) -> Iterator[Told]:
    """The messages of a stream, heartbeats (an id alone) too."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            data = json.loads(fields["data"]) if "data" in fields else None
            yield Told(fields.get("event", ""), fields.get("id", ""), data)
            fields = {}


@contextmanager
def _following(client: httpx.Client, last: str | None = None, **parameters: str) -> Iterator[Iterator[Told]]:
    """What a stream tells, once it has begun."""
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", "/api/live", params=parameters, headers=headers, timeout=20) as response:
        assert response.status_code == 200, response.read()
        yield _messages(response.iter_lines())


def _begun(told: Iterator[Told]) -> str:
    """The id from which the stream goes on; so what is committed from now on will be told."""
    beginning = next(told)
    assert (beginning.event, beginning.data) == ("", None)
    return beginning.id


def _events(told: Iterator[Told], count: int) -> list[Told]:
    return list(islice((message for message in told if message.event == "event"), count))


def _names(events: Sequence[Told]) -> list[str]:
    return [event.data["name"] for event in events]


def _span(number: int, *, run: UUID = RUN, ended: bool = True, **said: str) -> Span:
    start = START + number
    span = Span(trace_id=run.bytes, span_id=number.to_bytes(8, "big"), name=f"step {number}")
    span.start_time_unix_nano, span.end_time_unix_nano = start, start + 10 if ended else 0
    for key, value in said.items():
        span.attributes.add(key=key).value.string_value = value
    return span


def _request(*spans: Span) -> bytes:
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add(spans=spans)
    return request.SerializeToString()


def _commit(store: Store, *spans: Span) -> None:
    """Stores the spans in one commit."""
    batch = read_requests([_request(*spans)]).batch
    assert batch is not None
    store.write(batch)


def _send(url: str, *spans: Span) -> None:
    headers = {"content-type": "application/x-protobuf"}
    httpx.post(f"{url}/v1/traces", content=_request(*spans), headers=headers, trust_env=False).raise_for_status()


def test_commits_are_told_in_order(store: Store, api_client: httpx.Client) -> None:
    """Events come commit by commit, within a commit by start; those from before the stream do not come."""
    _commit(store, _span(1))
    with _following(api_client) as told:
        _begun(told)
        _commit(store, _span(5), _span(4))
        _commit(store, _span(3))
        assert _names(_events(told, 3)) == ["step 4", "step 5", "step 3"]


def test_an_event_looks_as_it_does_elsewhere(store: Store, api_client: httpx.Client) -> None:
    """But for its place in the tree, which still grows, and with the run it belongs to."""
    with _following(api_client) as told:
        _begun(told)
        _commit(store, _span(1, city="Knossos"))
        [event] = _events(told, 1)
    [shown] = api_client.get(f"/api/runs/{RUN.hex}/events").json()["events"]
    unknown = dict.fromkeys(("depth", "execution_order", "self_time_ns", "child_count"))
    run = {"id": RUN.hex, "session_id": "default", "name": "step 1", "agent": None}
    assert event.data == {**shown, **unknown, "run": run}


def test_a_run_is_told_before_its_events(store: Store, api_client: httpx.Client) -> None:
    """As /api/runs shows it at that moment, and without an id: whoever is cut off then gets it again."""
    with _following(api_client) as told:
        _begun(told)
        _commit(store, _span(1))
        run, event = islice(told, 2)
        assert (run.event, run.id, event.event) == ("run", "", "event")
        assert run.data == api_client.get(f"/api/runs/{RUN.hex}").json()
        assert TypeAdapter(answers.Run).validate_python(run.data)


def test_an_open_event_comes_again_when_it_ends(store: Store, api_client: httpx.Client) -> None:
    """A pending copy is told, and what takes its place is told too; a repetition is not."""
    with _following(api_client) as told:
        _begun(told)
        _commit(store, _span(1, ended=False))
        [pending] = _events(told, 1)
        _commit(store, _span(1))
        _commit(store, _span(1))
        _commit(store, _span(2))
        ended, other = _events(told, 2)
    assert [(event.data["name"], event.data["status"]) for event in (pending, ended, other)] == [
        ("step 1", "running"),
        ("step 1", "completed"),
        ("step 2", "completed"),
    ]


def test_a_stream_is_taken_up_at_any_event(store: Store, api_client: httpx.Client) -> None:
    """With each of the ids as `Last-Event-ID`: what follows it comes, once and in the same order, also in the middle
    of a commit and of a page, and with events of one start in it."""
    runs = [UUID(int=number) for number in (3, 1, 2)]
    for _ in range(2):
        _commit(store, *(_span(number % 4 + 1, run=run) for run in runs for number in range(4)))
        runs = [UUID(int=run.int + 10) for run in runs]
    _commit(store, *(_span(number, run=UUID(int=number % 40 + 100)) for number in range(1, 150)))
    everything = 2 * 12 + 149
    with _following(api_client, since="0") as told:
        events = _events(told, everything)
    assert len({event.id for event in events}) == everything
    for place in [*range(30), 99, 100, 101, everything - 2]:
        with _following(api_client, last=events[place].id) as told:
            assert _events(told, everything - place - 1) == events[place + 1 :]


def test_whoever_has_all_is_told_only_what_comes(store: Store, api_client: httpx.Client) -> None:
    """The last id, and the id of a stream that has told nothing, are places to go on from too."""
    _commit(store, _span(1))
    with _following(api_client, since="0") as told:
        [event] = _events(told, 1)
    with _following(api_client) as told:
        nothing_yet = _begun(told)
    _commit(store, _span(2))
    for last in (event.id, nothing_yet):
        with _following(api_client, last=last) as told:
            assert _names(_events(told, 1)) == ["step 2"]


def test_a_filter_says_which_events(store: Store, api_client: httpx.Client) -> None:
    """Only what it means is told, now and from the past, and of no other run; a stream that told nothing for long
    goes on after what it has looked at."""
    _commit(store, _span(1), _span(2, run=UUID(int=8)))
    with _following(api_client, since="0", filter='name in ("step 2", "step 4")') as told:
        first = _events(told, 1)
        _commit(store, _span(3), _span(4))
        assert _names(first + _events(told, 1)) == ["step 2", "step 4"]
    with _following(api_client, since="0", run_id=UUID(int=8).hex) as told:
        _commit(store, _span(5))
        _commit(store, _span(6, run=UUID(int=8)))
        messages = list(islice(told, 5))
    assert [message.event for message in messages] == ["", "run", "event", "run", "event"]
    assert {message.data["run"]["id"] for message in messages if message.event == "event"} == {UUID(int=8).hex}


def test_since_is_when_it_was_committed(store: Store, api_client: httpx.Client) -> None:
    """Events of long ago that come now are new."""
    _commit(store, _span(1))
    between = store.commits.last + 1
    _commit(store, _span(2))
    for since, count in (("-1h", 2), (str(between), 1), ("0", 2)):
        with _following(api_client, since=since) as told:
            assert _names(_events(told, count))[-1] == "step 2"


def test_a_stream_of_all_there_ever_was_is_taken_up(api_client: httpx.Client) -> None:
    """Before anything is told of it."""
    with _following(api_client, since="1970-01-01T00:00:00Z") as told:
        begun = _begun(told)
    with _following(api_client, last=begun) as told:
        assert _begun(told) == begun


@pytest.mark.parametrize(
    ("parameters", "last", "message"),
    [
        ({"filter": "name ="}, None, "filter: "),
        ({"run_id": "xyz"}, None, "run_id: "),
        ({"since": "yesterday"}, None, "since: "),
        ({}, "42-nonsense", "Last-Event-ID: "),
        ({"agent": "x"}, None, "there is no parameter 'agent'"),
    ],
)
def test_what_cannot_be_followed_is_refused(
    api_client: httpx.Client, parameters: dict[str, str], last: str | None, message: str
) -> None:
    """Before the stream begins, in the one shape of errors."""
    answer = api_client.get("/api/live", params=parameters, headers={"Last-Event-ID": last} if last else {})
    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith(message)


def test_a_place_in_the_future_is_a_gap(store: Store, api_client: httpx.Client) -> None:
    """An id later than the clock cannot be of this database: the client is told, and the stream begins now."""
    _commit(store, _span(1))
    with _following(api_client, last=str(1 << 62)) as told:
        gap = next(told)
        assert gap.event == "gap"
        assert "may be missing" in gap.data["message"]
        _begun(told)
        _commit(store, _span(2))
        assert _names(_events(told, 1)) == ["step 2"]


def test_nothing_is_told_before_it_is_committed(store: Store, api_client: httpx.Client) -> None:
    """Whatever the stream tells, somebody who asks then finds."""
    with _following(api_client) as told:
        _begun(told)
        for number in range(1, 20):
            _commit(store, _span(number))
            [event] = _events(told, 1)
            found = api_client.get(f"/api/runs/{RUN.hex}/events/{event.data['id']}")
            assert found.status_code == 200


def test_a_flood_is_told_whole(store: Store, api_client: httpx.Client) -> None:
    """Several clients, each cut off again and again while commits pour in, get every event once and in one order."""
    commits, spans_each = 60, 25

    def write() -> None:
        for commit in range(commits):
            numbers = range(commit * spans_each + 1, (commit + 1) * spans_each + 1)
            _commit(store, *(_span(number, run=UUID(int=number % 30 + 1)) for number in numbers))

    def follow(told_ids: list[str]) -> None:
        last = "0"
        while len(told_ids) < commits * spans_each:
            with _following(api_client, last=last) as told:
                for event in _events(told, min(170, commits * spans_each - len(told_ids))):
                    told_ids.append(event.data["run"]["id"] + event.data["id"])
                    last = event.id

    orders: list[list[str]] = [[], [], []]
    threads = [threading.Thread(target=follow, args=(order,)) for order in orders]
    threads.append(threading.Thread(target=write))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(set(orders[0])) == len(orders[0]) == commits * spans_each
    assert orders[0] == orders[1] == orders[2]


def test_a_restart_is_no_gap(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """A client that comes back to another process, after one was killed even, goes on where it was."""
    server = start_server("--db", str(tmp_path / "clew.duckdb"))
    _send(server.http_url, _span(1), _span(2))
    with httpx.Client(base_url=server.http_url, trust_env=False) as client, _following(client, since="0") as told:
        first, _ = _events(told, 2)
    for number in (signal.SIGTERM, signal.SIGKILL):
        server.restart(number)
    _send(server.http_url, _span(3))
    with httpx.Client(base_url=server.http_url, trust_env=False) as client, _following(client, first.id) as told:
        messages = list(islice(told, 4))
    assert [message.event for message in messages] == ["", "run", "event", "event"]
    assert _names(messages[2:]) == ["step 2", "step 3"]


def test_streams_end_when_the_server_does(server: Any) -> None:
    """It does not wait for those who watch until its grace is over: then their streams would be cut off, not ended."""
    with httpx.Client(base_url=server.http_url, trust_env=False) as client, _following(client) as told:
        _begun(told)
        server.process.send_signal(signal.SIGTERM)
        assert list(told) == []
    assert server.stop() == 0


def test_a_client_that_does_not_read_holds_nobody_up(store: Store, api_client: httpx.Client) -> None:
    """Commits and others' streams go on; when it reads, it gets everything in order."""
    with _following(api_client) as stuck, _following(api_client) as told:
        _begun(stuck)
        _begun(told)
        for number in range(1, 61):  # 6 MB: more than the buffers on the way hold
            _commit(store, _span(number, letter="x" * 100_000))
        assert len(_events(told, 60)) == 60
        assert _names(_events(stuck, 60)) == [f"step {number}" for number in range(1, 61)]


def test_the_number_of_streams_is_limited(api_client: httpx.Client) -> None:
    """One more than may be is refused with a word on it; a place that is given up is free again."""
    with ExitStack() as open_streams:
        opened = [open_streams.enter_context(_following(api_client)) for _ in range(live_api.STREAMS_MAX)]
        assert all(_begun(told) for told in opened)
        refused = api_client.get("/api/live")
        assert refused.status_code == 503
        assert "32 live streams are open" in refused.json()["error"]["message"]
        assert api_client.get("/api/runs").status_code == 200, "other questions find their place"
    deadline = time.monotonic() + 30
    while (answer := _status(api_client)) == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert answer == 200


def _status(client: httpx.Client) -> int:
    with client.stream("GET", "/api/live") as response:
        return response.status_code


def test_a_quiet_stream_shows_that_it_lives(
    store: Store, api_client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A heartbeat tells no event, but moves the client's place past what the filter passed over."""
    monkeypatch.setattr(live_api, "HEARTBEAT_S", 0.2)
    with _following(api_client, filter='name = "nothing"') as told:
        before = _begun(told)
        _commit(store, _span(1))
        after = next(message for message in told if message.id != before)
    assert (after.event, after.data) == ("", None)
    assert int(after.id) == store.commits.last


@settings(max_examples=50)
@given(
    st.builds(
        LiveCursor,
        st.integers(0, 2**63 - 1),
        st.none()
        | st.tuples(st.integers(0, 2**63 - 1), st.uuids(), st.integers(1, 2**63 - 1) | st.integers(-(2**63), -1)),
    )
)
def test_a_cursor_is_read_as_it_was_written(cursor: LiveCursor) -> None:
    """Its text says all of it."""
    assert LiveCursor.parse(cursor.text()) == cursor


def test_pages_are_bounded(store: Store) -> None:
    """However much waits; together they are everything."""
    _commit(store, *(_span(number, run=UUID(int=number % 50 + 1)) for number in range(1, 301)))
    cursor, sizes = LiveCursor(0), []
    is_full = True
    while is_full:
        with store.read() as reader:
            page = live.live_page(reader, cursor, store.commits.last, ())
        assert len(page.events) <= live.PAGE_EVENTS
        sizes.append(len(page.events))
        cursor, is_full = page.next, page.is_full
    assert sum(sizes) == 300
    assert cursor == LiveCursor(store.commits.last)
