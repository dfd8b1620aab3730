"""Figures of any events, against the same reckoned one event at a time."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from clew.query.figures import HISTOGRAM_BOUNDS_NS, figures
from clew.query.figures_answers import Figures
from clew.query.figures_parameters import FiguresWanted, parse_group_by
from clew.query.filter import fields_of, parse
from clew.storage import Store, usage

from .conftest import ApiReader, Rows

RUN, OTHER = "a1" * 16, "b2" * 16
START = Rows.START


@dataclass(frozen=True)
class Event:
    id: int
    parent: int | None
    agent: str | None
    model: str | None
    status: str
    at: int
    duration_ns: int
    input_tokens: int | None


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    ids = range(1, draw(st.integers(1, 8)) + 1)
    drawn = st.builds(
        Event,
        id=st.just(0),
        parent=st.sampled_from([None, 99, *ids]),
        agent=st.sampled_from([None, "planner", "engineer"]),
        model=st.sampled_from([None, "small", "large"]),
        status=st.sampled_from(["completed", "failed"]),
        at=st.integers(0, 5_000_000),
        duration_ns=st.integers(0, 10**9),
        input_tokens=st.none() | st.integers(0, 100),
    )
    return [replace(draw(drawn), id=event_id) for event_id in ids]


def obvious_groups(run: list[Event], meant: list[Event], by: Any) -> dict[Any, dict[str, Any]]:
    """Events, errors, durations and tokens of each group."""
    by_id = {event.id: event for event in run}
    groups: defaultdict[Any, dict[str, Any]] = defaultdict(lambda: {"events": 0, "errors": 0, "lasted": [], "used": 0})
    for event in meant:
        group = groups[by(event, event.agent)]
        group["events"] += 1
        group["errors"] += event.status == "failed"
        group["lasted"] += [event.duration_ns] * (event.duration_ns > 0)
    superseded = {above for event in run if event.input_tokens is not None for above in ancestors(event, by_id)}
    for event in meant:
        if event.input_tokens is not None:
            named = (by_id[above].agent for above in ancestors(event, by_id))
            user = event.agent or next(filter(None, named), None)
            groups[by(event, user)]["used"] += 0 if event.id in superseded else event.input_tokens
    return groups


def ancestors(event: Event, by_id: dict[int, Event]) -> list[int]:
    way: list[int] = []
    parent = event.parent
    while parent in by_id and parent not in way and parent != (way or [event.id])[-1]:
        way.append(parent)
        parent = by_id[parent].parent
    return way


def percentile(lasted: list[int], share: int) -> int | None:
    return sorted(lasted)[math.ceil(share * len(lasted) / 100) - 1] if lasted else None


def store_events(rows: Rows, run_id: str, run: list[Event]) -> None:
    rows.run(run_id, lasts=10_000_000)
    for event in run:
        said = {"agent_name": event.agent, "model": event.model, "status": event.status}
        figures_ = {"duration_ns": event.duration_ns, "input_tokens": event.input_tokens}
        rows.event(run_id, event.id, event.parent, at=event.at, **said, **figures_)


def clear(store: Store) -> None:
    with store.engine.begin() as connection:
        for table in ("execution_events", "workflow_runs"):
            connection.execute(text(f"DELETE FROM {table}"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    run=events(), since=st.none() | st.integers(0, 5_000_000), chosen=st.none() | st.sampled_from(["small", "large"])
)
def test_groups_are_what_counting_gives(
    store: Store, rows: Rows, run: list[Event], since: int | None, chosen: str | None
) -> None:
    """Events, errors, percentiles and tokens by agent and model, whatever is meant; usage counts once over whole runs
    and is put down to the agent at work."""
    clear(store)
    store_events(rows, RUN, run)
    filters = {} if chosen is None else {"filter": f"model = {chosen}"}
    bounds = {} if since is None else {"since": str(START + since)}
    with store.read() as reader:
        told = figures(reader, FiguresWanted(group_by="agent,model", **filters, **bounds))

    meant = [event for event in run if (chosen in (None, event.model)) and event.at >= (since or 0)]
    expected = obvious_groups(run, meant, lambda event, agent: (agent, event.model))
    groups = {(group["group"]["agent"], group["group"]["model"]): group for group in told["groups"]}
    assert told["events"] == len(meant)
    assert {key for key, group in groups.items() if group["events"]} == {
        key for key, group in expected.items() if group["events"]
    }
    for key, group in groups.items():
        assert (group["events"], group["errors"]) == (expected[key]["events"], expected[key]["errors"])
        assert group["usage"]["input_tokens"] == expected[key]["used"]
        for share in (50, 90, 95, 99):
            assert group["duration_ns"][f"p{share}"] == percentile(expected[key]["lasted"], share)
    assert sum(group["usage"]["input_tokens"] for group in told["groups"]) == sum(
        group["used"] for group in expected.values()
    )


@pytest.fixture
def two_runs(rows: Rows) -> Rows:
    """Two runs, a day apart."""
    day = 86_400 * 10**9
    rows.run(RUN, session_id="mine")
    rows.run(OTHER, at=day)
    rows.event(RUN, 1, agent_name="planner", input_tokens=30, cost_usd=0.5)
    rows.event(RUN, 2, 1, name="chat", model="small", input_tokens=10, duration_ns=1_000, attributes={"n": 1})
    rows.event(RUN, 3, 1, name="chat", model="large", input_tokens=20, duration_ns=1_001, attributes={"n": "1"})
    rows.event(OTHER, 4, at=day, name="chat", model="small", status="failed", duration_ns=0, output_tokens=7)
    return rows


def asked(api_reader: ApiReader, **parameters: Any) -> Any:
    return api_reader.get("/api/statistics", Figures, **parameters)


def by(told: Any, name: str) -> dict[Any, Any]:
    return {group["group"][name]: group for group in told["groups"]}


def test_everything_is_one_group(two_runs: Rows, api_reader: ApiReader) -> None:
    """Without fields to group by there is one group of all events; what an agent's span repeats counts once."""
    [told] = asked(api_reader)["groups"]
    assert (told["events"], told["errors"], told["error_rate"]) == (4, 1, 0.25)
    usage = {"events": 3, "superseded_events": 1, "input_tokens": 30, "output_tokens": 7, "cost_usd": None}
    assert told["usage"] == usage
    assert told["duration_ns"]["total"] == 10 + 1_000 + 1_001


def test_usage_can_be_left_out(two_runs: Rows, api_reader: ApiReader) -> None:
    """Without usage the answer says nothing of it."""
    [told] = asked(api_reader, usage=False)["groups"]
    assert "usage" not in told


def test_usage_is_the_agents_at_work(two_runs: Rows, api_reader: ApiReader) -> None:
    """Model calls below an agent's span are its usage, though they are nobody's events."""
    groups = by(asked(api_reader, group_by="agent"), "agent")
    assert groups["planner"]["usage"]["input_tokens"] == 30
    assert groups[None]["events"] == 3
    assert groups[None]["usage"]["output_tokens"] == 7


def test_groups_that_only_used_something_are_told(two_runs: Rows, api_reader: ApiReader) -> None:
    """An agent's usage by a model is a group though no event names both."""
    groups = asked(api_reader, group_by="agent,model")["groups"]
    [told] = [group for group in groups if group["group"] == {"agent": "planner", "model": "large"}]
    assert (told["events"], told["error_rate"], told["usage"]["input_tokens"]) == (0, None, 20)


@pytest.mark.parametrize(
    ("group_by", "counts"),
    [
        ("model", {"small": 2, "large": 1, None: 1}),
        ("name", {"chat": 3, "step 1": 1}),
        ("service", {"workshop": 4}),
        ("scope.name", {"tests": 4}),
        ("session", {"mine": 3, "default": 1}),
        ("kind", {"UNSPECIFIED": 4}),
        ("run_id", {RUN: 3, OTHER: 1}),
        ('attributes["n"]', {1: 1, "1": 1, None: 2}),
    ],
)
def test_events_are_grouped_by_any_field(
    two_runs: Rows, api_reader: ApiReader, group_by: str, counts: dict[Any, int]
) -> None:
    """Fields of events, their runs, resources and scopes, and attributes with their types."""
    told = asked(api_reader, group_by=group_by)
    assert {key: group["events"] for key, group in by(told, group_by).items()} == counts


def test_groups_by_numbers_that_json_has_no_form_for_bear_their_names(rows: Rows, api_reader: ApiReader) -> None:
    """As values of attributes do; within lists too."""
    run_id = rows.run(RUN)
    numbers = ("'NaN'::DOUBLE", "'Infinity'::DOUBLE", "['-Infinity'::DOUBLE]")
    for event, number in enumerate(numbers, 1):
        rows.event(run_id, event)
        with rows.store.engine.begin() as connection:
            said = f"UPDATE execution_events SET attributes = {{'n': {number}}}::VARIANT WHERE id = {event}"
            connection.execute(text(said.replace(":", "\\:")))
    told = asked(api_reader, group_by='attributes["n"]')["groups"]
    values = [group["group"]['attributes["n"]'] for group in told]
    assert sorted(values, key=str) == ["Infinity", "NaN", ["-Infinity"]]


def test_time_buckets_begin_at_multiples(two_runs: Rows, api_reader: ApiReader) -> None:
    """Buckets in order of time; empty ones are left out."""
    day = 86_400 * 10**9
    told = asked(api_reader, every="1d")["groups"]
    first = START // day * day
    assert [(int(group["started_at_unix_nano"]), group["events"]) for group in told] == [(first, 3), (first + day, 1)]
    assert [group["usage"]["input_tokens"] for group in told] == [30, 0]


def test_events_are_filtered(two_runs: Rows, api_reader: ApiReader) -> None:
    """A filter and bounds of time narrow what is counted; not whether an event's usage counts."""
    [told] = asked(api_reader, filter='agent = "planner"')["groups"]
    assert (told["events"], told["usage"]["input_tokens"], told["usage"]["superseded_events"]) == (1, 0, 1)
    assert asked(api_reader, until=str(START + 1))["events"] == 3
    assert asked(api_reader, since=str(START + 1), filter="status = failed")["events"] == 1
    assert asked(api_reader, filter="name = nothing")["groups"][0]["events"] == 0
    assert asked(api_reader, filter="name = nothing", group_by="name")["groups"] == []


def test_histograms_have_logarithmic_buckets(two_runs: Rows, api_reader: ApiReader) -> None:
    """A bucket holds what lasted longer than its beginning, up to its end; moments are in none."""
    [told] = asked(api_reader, filter="name = chat", histogram=True)["groups"]
    assert told["histogram"] == [
        {"over_ns": 0, "until_ns": 1_000, "events": 1},
        {"over_ns": 1_000, "until_ns": 2_000, "events": 1},
    ]


def test_what_lasted_longest_is_in_the_last_bucket(rows: Rows, api_reader: ApiReader) -> None:
    """The last bucket has no end."""
    rows.event(rows.run(RUN), 1, duration_ns=HISTOGRAM_BOUNDS_NS[-1] + 1)
    [told] = asked(api_reader, histogram=True)["groups"]
    assert told["histogram"] == [{"over_ns": HISTOGRAM_BOUNDS_NS[-1], "until_ns": None, "events": 1}]


def test_more_groups_than_the_limit_are_counted(two_runs: Rows, api_reader: ApiReader) -> None:
    """The largest are told, and how many are not; the events of all are counted."""
    told = asked(api_reader, group_by="model", limit=1)
    assert [group["group"] for group in told["groups"]] == [{"model": "small"}]
    assert (told["groups_left_out"], told["events"]) == (2, 4)


def test_a_group_that_only_used_something_is_one_of_the_limit(rows: Rows, api_reader: ApiReader) -> None:
    """It is told like any other, or counted among those left out."""
    run_id = rows.run(RUN)
    rows.event(run_id, 1, name="turn", event_type="agent_call", agent_name="planner")
    rows.event(run_id, 2, 1, name="chat", input_tokens=7)
    used = {"filter": "name = chat", "group_by": "agent", "histogram": True}
    with_events, without = asked(api_reader, **used)["groups"]
    assert (with_events["group"], with_events["usage"]["input_tokens"]) == ({"agent": None}, 0)
    assert (without["group"], without["usage"]["input_tokens"], without["histogram"]) == ({"agent": "planner"}, 7, [])

    told = asked(api_reader, **used, limit=1)
    assert [group["group"] for group in told["groups"]] == [{"agent": None}]
    assert told["groups_left_out"] == 1


def test_groups_that_only_used_something_are_in_order_too(rows: Rows, api_reader: ApiReader) -> None:
    """After those of their time that have events, by name: the same answer has the same order."""
    hour, agents = 3_600 * 10**9, sorted(f"agent {number}" for number in range(40))
    for number, agent in enumerate(reversed(agents)):
        run_id = rows.run(f"{number + 1:032x}", lasts=hour)
        top = rows.event(run_id, 1, event_type="agent_call", agent_name=agent)
        for later in (0, 1):
            rows.event(run_id, 2 + later, int(top, 16), at=later * hour, input_tokens=1)
    told = asked(api_reader, group_by="agent", every="1h", filter="input_tokens exists")["groups"]
    assert [(int(group["started_at_unix_nano"]), group["group"]["agent"]) for group in told] == [
        (bucket, agent) for bucket in (START // hour * hour, START // hour * hour + hour) for agent in (None, *agents)
    ]


def test_runs_are_looked_at_some_at_a_time(
    two_runs: Rows, api_reader: ApiReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Usage is the same however many runs are looked at together, and whether a run is looked at alone."""
    together = asked(api_reader, group_by="agent,model", every="1d")
    for name, most in (("EVENTS_AT_ONCE", 1), ("LONE_RUN_EVENTS", 0)):
        monkeypatch.setattr(usage, name, most)
        assert asked(api_reader, group_by="agent,model", every="1d") == together


@pytest.mark.parametrize("written", ["back\\\\k", 'quote\\"k', "a,b", " k ", "", "ключ"])
def test_keys_are_read_as_filters_read_them(written: str) -> None:
    """With their escapes."""
    [group] = parse_group_by(f'attributes[ "{written}" ]')
    filtered = parse(f'attributes["{written}"] exists')
    assert [group.column] == list(fields_of(filtered))


def test_names_in_keys_may_hold_commas() -> None:
    """Commas part fields, but for those in quotes."""
    fields = parse_group_by("agent , attributes[\"a,b\"],attributes['c']")
    assert [field.name for field in fields] == ["agent", 'attributes["a,b"]', "attributes['c']"]
    assert [field.column.key for field in fields] == [None, "a,b", "c"]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("group_by=nonsense", "there is no field 'nonsense'; an attribute is written attributes[\"nonsense\"]"),
        ("group_by=duration", "nearly each event's own"),
        ("group_by=log.name", "an event has many of log.name"),
        ("group_by=agent,agent", "each once"),
        ("group_by=a,b,c,d,e,f", "there is no field"),
        ("group_by=agent model", "a comma should be here, not 'model'"),
        ("every=0", "from 1ms to 50000d wide"),
        ("every=60000d", "from 1ms to 50000d wide"),
        ("every=sometimes", "every: a time bucket's width is a duration such as"),
        ("limit=100000", "10000"),
        ("filter=agent =", "a value should be here"),
        ("by=agent", "there is no parameter 'by'"),
    ],
)
def test_mistakes_are_told(api_client: httpx.Client, query: str, told: str) -> None:
    """400 and what is wrong with what."""
    response = api_client.get(f"/api/statistics?{query}")
    assert response.status_code == 400
    assert told in response.json()["error"]["message"]
