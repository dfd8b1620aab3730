"""The critical path, against one walked by the definitions, moment by moment."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from clew.query.critical_path import CriticalPath, critical_path
from clew.query.figures_answers import CriticalPathAnswer
from clew.query.tree import NONE, Tree, grow

from .conftest import ApiReader, Rows

times = st.integers(0, 20)


@dataclass(frozen=True)
class Event:
    id: int
    parent: int | None
    started_at: int
    completed_at: int


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    """Events of any times under any parents: orphans, rings, children before, beside and after their parents."""
    ids = range(1, draw(st.integers(1, 12)) + 1)
    return [Event(event_id, draw(st.sampled_from([None, 99, *ids])), draw(times), draw(times)) for event_id in ids]


def path_of(events: list[Event], first: int, last: int) -> tuple[Tree, CriticalPath]:
    columns = [np.array([getattr(event, name) for event in events]) for name in ("id", "started_at", "completed_at")]
    ids, started_at, completed_at = columns
    parents = np.array([event.parent or 0 for event in events])
    tree = grow(ids, parents, np.array([event.parent is not None for event in events]), started_at, completed_at)
    order = np.argsort(tree.positions(ids))
    return tree, critical_path(tree.parents(), started_at[order], completed_at[order], first, last)


def owners(path: CriticalPath, first: int, last: int) -> list[int]:
    """Whose each nanosecond is."""
    moments = [NONE] * (last - first)
    for position, begin, end in zip(path.positions, path.started_at, path.completed_at, strict=True):
        moments[begin - first : end - first] = [int(position)] * int(end - begin)
    return moments


def obvious_owners(parents: list[int], spans: list[tuple[int, int]], first: int, last: int) -> list[int]:
    """Whose each nanosecond is, by the three rules of the definition."""
    spans = [(start, max(start, end)) for start, end in spans]

    def nearest_above(event: int, moment: int) -> int:
        above = parents[event]
        while above != NONE and spans[above][1] < moment:
            above = parents[above]
        return above

    def waits(event: int) -> int:
        return nearest_above(event, spans[event][1])

    def waited_for(at: int, now: int) -> int:
        candidates = [event for event, (start, end) in enumerate(spans) if start < end and waits(event) == at]
        running = [event for event in candidates if at == NONE and spans[event][0] < now <= spans[event][1]]
        if running:
            return min(running, key=lambda event: (spans[event][0], -spans[event][1], event))
        ended = [event for event in candidates if spans[event][1] <= now]
        return min(ended, key=lambda event: (-spans[event][1], spans[event][0], event), default=NONE)

    moments = [NONE] * (last - first)
    at, now = NONE, last
    while now > first:
        before = waited_for(at, now)
        onward, since = before, min(now, spans[before][1])
        if before == NONE:
            begun_under = (nearest_above(at, spans[at][0]), min(now, spans[at][0])) if at != NONE else (NONE, first)
            onward, since = begun_under
        for moment in range(max(since, first), now):
            moments[moment - first] = at if at != NONE and spans[at][0] <= moment < spans[at][1] else NONE
        at, now = onward, since
    return moments


@given(runs(), times, times)
def test_path_is_what_the_definition_says(events: list[Event], first: int, last: int) -> None:
    """Every nanosecond belongs to whom the definition gives it, whatever the tree and the bounds."""
    tree, path = path_of(events, first, max(first, last))
    spans = {event.id: (event.started_at, event.completed_at) for event in events}
    in_order = [spans[int(event_id)] for event_id in tree.ids]

    told = owners(path, first, max(first, last))
    assert told == obvious_owners(tree.parents().tolist(), in_order, first, max(first, last))


@given(runs(), times, times)
def test_steps_cover_the_run(events: list[Event], first: int, last: int) -> None:
    """A step begins where the one before ended, from the run's start to its end; none is empty or repeats an event."""
    last = max(first, last)
    _, path = path_of(events, first, last)

    bounds = [first, *path.completed_at.tolist()]
    assert path.started_at.tolist() == bounds[:-1]
    assert bounds[-1] == last
    assert (path.completed_at > path.started_at).all()
    assert (path.positions[1:] != path.positions[:-1]).all()


@given(runs())
def test_parents_are_those_of_the_tree(events: list[Event]) -> None:
    """An event's parent stands where the way up from it leads first."""
    tree, _ = path_of(events, 0, 0)
    ways = [tree.path_up(position).tolist() for position in range(len(events))]
    assert tree.parents().tolist() == [way[1] if len(way) > 1 else NONE for way in ways]


@pytest.mark.parametrize(
    ("events", "steps"),
    [
        pytest.param(
            [Event(1, None, 0, 100), Event(2, 1, 10, 40), Event(3, 1, 40, 90)],
            [(1, 0, 10), (2, 10, 40), (3, 40, 90), (1, 90, 100)],
            id="one after the other",
        ),
        pytest.param(
            [Event(1, None, 0, 100), Event(2, 1, 10, 50), Event(3, 1, 10, 90)],
            [(1, 0, 10), (3, 10, 90), (1, 90, 100)],
            id="side by side: the one that ended last",
        ),
        pytest.param(
            [Event(1, None, 0, 10), Event(2, 1, 5, 30)], [(1, 0, 5), (2, 5, 30)], id="a child outlasts its parent"
        ),
        pytest.param(
            [Event(1, None, 0, 10), Event(2, 1, 20, 100), Event(3, 1, 102, 200), Event(4, 1, 202, 300)],
            [
                (1, 0, 10),
                (None, 10, 20),
                (2, 20, 100),
                (None, 100, 102),
                (3, 102, 200),
                (None, 200, 202),
                (4, 202, 300),
            ],
            id="work that goes on after its parent ended",
        ),
        pytest.param(
            [Event(1, None, 0, 40), Event(2, 1, 0, 10), Event(3, 2, 5, 30)],
            [(2, 0, 5), (3, 5, 30), (1, 30, 40)],
            id="what outlasts its parent is waited for above",
        ),
        pytest.param(
            [Event(1, None, 0, 10), Event(2, 1, 20, 30)],
            [(1, 0, 10), (None, 10, 20), (2, 20, 30)],
            id="a child starts after its parent ended",
        ),
        pytest.param(
            [Event(1, None, 0, 10), Event(2, None, 20, 30)],
            [(1, 0, 10), (None, 10, 20), (2, 20, 30)],
            id="two roots and nobody between",
        ),
        pytest.param(
            [Event(1, None, 0, 25), Event(2, None, 20, 30)], [(1, 0, 20), (2, 20, 30)], id="two roots that overlap"
        ),
    ],
)
def test_examples(events: list[Event], steps: list[tuple[int | None, int, int]]) -> None:
    """What a reader expects of everyday shapes."""
    tree, path = path_of(events, 0, max(event.completed_at for event in events))
    ids = [None if position == NONE else int(tree.ids[position]) for position in path.positions]
    assert list(zip(ids, path.started_at.tolist(), path.completed_at.tolist(), strict=True)) == steps


def test_a_chain_of_a_hundred_thousand() -> None:
    """Each event of a chain was at work before its child started and after it ended."""
    depth = 100_000
    chain = [Event(number, number - 1 or None, number, 2 * depth - number) for number in range(1, depth)]
    _, path = path_of(chain, 1, 2 * depth - 1)
    assert path.positions.tolist() == [*range(depth - 1), *range(depth - 3, -1, -1)]


def test_a_hundred_thousand_that_outlast_one_another() -> None:
    """A chain in which each event outlasts its parent is passed once, from the last to end to the first to start."""
    depth = 100_000
    chain = [Event(number, number - 1 or None, number, number + depth) for number in range(1, depth + 1)]
    _, path = path_of(chain, 1, 2 * depth)
    assert path.positions.tolist() == list(range(depth))


RUN = "a1" * 16


def told_path(api_reader: ApiReader, **parameters: int) -> dict:
    return api_reader.get(f"/api/runs/{RUN}/critical-path", CriticalPathAnswer, **parameters)


def test_contributions_add_up_to_the_duration(rows: Rows, api_reader: ApiReader) -> None:
    """Events by contribution, agents and types by theirs, steps in order of time; with nobody's time they add up."""
    rows.run(RUN, lasts=1_000)
    rows.event(RUN, 1, agent_name="planner", completed_at_unix_nano=Rows.START + 900, duration_ns=900)
    engineer = {"agent_name": "engineer", "event_type": "tool_call"}
    rows.event(RUN, 2, 1, at=100, completed_at_unix_nano=Rows.START + 700, duration_ns=600, **engineer)
    told = told_path(api_reader)

    assert (told["duration_ns"], told["nobody_ns"]) == (1_000, 100)
    assert [(event["id"], event["contribution_ns"]) for event in told["events"]] == [
        (f"{2:016x}", 600),
        (f"{1:016x}", 300),
    ]
    assert told["by_agent"] == [
        {"agent_name": "engineer", "contribution_ns": 600},
        {"agent_name": "planner", "contribution_ns": 300},
    ]
    assert [total["event_type"] for total in told["by_event_type"]] == ["tool_call", "info"]
    assert [(step["event_id"], step["duration_ns"]) for step in told["steps"]] == [
        (f"{1:016x}", 100),
        (f"{2:016x}", 600),
        (f"{1:016x}", 200),
        (None, 100),
    ]


def test_what_names_no_agent_is_put_down_to_the_one_at_work(rows: Rows, api_reader: ApiReader) -> None:
    """Model and tool calls seldom name theirs: it is the nearest above, as for usage."""
    rows.run(RUN, lasts=100)
    rows.event(RUN, 1, completed_at_unix_nano=Rows.START + 100)
    rows.event(RUN, 2, 1, agent_name="engineer", at=10, completed_at_unix_nano=Rows.START + 90)
    rows.event(RUN, 3, 2, at=20, completed_at_unix_nano=Rows.START + 70)
    rows.event(RUN, 4, 3, at=30, completed_at_unix_nano=Rows.START + 60)
    assert told_path(api_reader)["by_agent"] == [
        {"agent_name": "engineer", "contribution_ns": 80},
        {"agent_name": None, "contribution_ns": 20},
    ]


def test_the_largest_are_told(rows: Rows, api_reader: ApiReader) -> None:
    """With a limit the largest contributions and the longest steps; how many there are in all is said."""
    rows.run(RUN, lasts=30)
    for number in (1, 2, 3):
        rows.event(RUN, number, at=10 * (number - 1), completed_at_unix_nano=Rows.START + 10 * number - number)
    told = told_path(api_reader, limit=1)
    assert (told["event_count"], told["step_count"]) == (3, 6)
    assert [event["contribution_ns"] for event in told["events"]] == [9]
    assert [step["duration_ns"] for step in told["steps"]] == [9]


def test_what_has_not_ended_runs_until_the_last_end(rows: Rows, api_reader: ApiReader) -> None:
    """Of a run that goes on the path leads to the last end there is; an event without end is at work until then."""
    rows.run(RUN, status="running")
    with rows.store.engine.begin() as connection:
        connection.execute(text("UPDATE workflow_runs SET completed_at_unix_nano = 0"))
    rows.event(RUN, 1, completed_at_unix_nano=0, duration_ns=0, status="running")
    rows.event(RUN, 2, 1, at=10)
    told = told_path(api_reader)
    assert [(event["id"], event["contribution_ns"]) for event in told["events"]] == [
        (f"{1:016x}", 10),
        (f"{2:016x}", 10),
    ]


def test_a_run_without_events_has_nobody(rows: Rows, api_reader: ApiReader) -> None:
    """All its time is nobody's."""
    rows.run(RUN, lasts=1_000)
    told = told_path(api_reader)
    assert (told["events"], told["duration_ns"], told["nobody_ns"]) == ([], 1_000, 1_000)


def test_no_such_run(api_client: httpx.Client) -> None:
    """404."""
    assert api_client.get(f"/api/runs/{RUN}/critical-path").status_code == 404
