"""Who calls whom, over a real server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from clew.query.figures_answers import Dependencies
from clew.storage import Resource, Store

from .conftest import ApiReader, Rows
from .test_records import send, span

RUN, LATER = "a1" * 16, "b2" * 16
HOUR = 3_600 * 10**9


@pytest.fixture
def two_runs(rows: Rows) -> Rows:
    """Runs in which a planner calls an engineer, by a tool that names no agent and directly."""
    for run_id, at in ((RUN, 0), (LATER, HOUR)):
        rows.run(run_id, at=at)
        rows.event(run_id, 1, at=at, agent_name="planner")
        rows.event(run_id, 2, 1, at=at + 1)
        rows.event(run_id, 3, 2, at=at + 2, agent_name="engineer", duration_ns=100)
        rows.event(run_id, 4, 3, at=at + 3, agent_name="engineer")
        rows.event(run_id, 5, 1, at=at + 4, agent_name="engineer", status="failed")
    return rows


def edges(api_reader: ApiReader, **parameters: Any) -> list[tuple[str, str, int]]:
    told = api_reader.get("/api/calls", Dependencies, **parameters)
    return [(edge["caller"], edge["callee"], edge["calls"]) for edge in told["edges"]]


def test_agents_call_agents(two_runs: Rows, api_reader: ApiReader) -> None:
    """An event whose nearest named one above names another agent is a call; what an agent does itself is none."""
    told = api_reader.get("/api/calls", Dependencies)
    counts = {"calls": 4, "errors": 2, "runs": 2, "duration_ns": 220}
    assert told["edges"] == [{"caller": "planner", "callee": "engineer", **counts}]
    assert told["nodes"] == [
        {"name": "engineer", "events": 6, "errors": 2},
        {"name": "planner", "events": 2, "errors": 0},
    ]


def test_calls_of_a_window(two_runs: Rows, api_reader: ApiReader) -> None:
    """Calls that started in it, whenever their caller did."""
    assert edges(api_reader, since=str(Rows.START + HOUR)) == [("planner", "engineer", 2)]
    assert edges(api_reader, since=str(Rows.START + 3), until=str(Rows.START + HOUR)) == [("planner", "engineer", 1)]
    assert edges(api_reader, since=str(Rows.START + 2 * HOUR)) == []


def test_services_call_services(rows: Rows, api_reader: ApiReader) -> None:
    """Services are those of the events' resources."""
    rows.event(rows.run(RUN), 1)
    rows.add(Resource(id=2, service_name="search", dropped_attributes_count=0, attributes={}))
    rows.event(RUN, 2, 1, resource_id=2)
    rows.event(RUN, 3, 2, resource_id=1)
    assert edges(api_reader, of="services") == [("search", "workshop", 1), ("workshop", "search", 1)]


def test_odd_trees_end(rows: Rows, api_reader: ApiReader) -> None:
    """Rings, orphans and events that are their own parents call nobody, or those they hang from."""
    rows.run(RUN)
    rows.event(RUN, 1, 2)
    rows.event(RUN, 2, 1)
    rows.event(RUN, 3, 1, agent_name="planner")
    rows.event(RUN, 4, 99, agent_name="planner")
    rows.event(RUN, 5, 5, agent_name="engineer")
    rows.event(RUN, 6, 7, agent_name="planner")
    rows.event(RUN, 7, 6, agent_name="engineer")
    assert edges(api_reader) == [("engineer", "planner", 1), ("planner", "engineer", 1)]


def test_what_is_left_out_is_counted(rows: Rows, api_reader: ApiReader) -> None:
    """The busiest are told, and how many are not."""
    rows.run(RUN)
    for number, agent in enumerate(("planner", "engineer", "writer"), start=1):
        rows.event(RUN, number, number - 1 or None, agent_name=agent)
    told = api_reader.get("/api/calls", Dependencies, limit=1)
    assert (len(told["nodes"]), told["nodes_left_out"], len(told["edges"]), told["edges_left_out"]) == (1, 2, 1, 1)


@pytest.mark.parametrize("query", ["of=runs", "since=yesterday", "limit=0", "to=x"])
def test_mistakes_are_told(api_client: httpx.Client, query: str) -> None:
    """The parameter to blame is named."""
    response = api_client.get(f"/api/calls?{query}")
    assert (response.status_code, response.json()["error"]["parameter"]) == (400, query.split("=", maxsplit=1)[0])


@pytest.mark.parametrize(
    "said",
    [
        {"attributes": {"clew.inputs": '{"to": "engineer"}'}},
        {"attributes": {"gen_ai.agent.handoff.target.name": "engineer", "clew.inputs": "{"}},
        {"attributes": {"gen_ai.handoff.to_agent": "", "gen_ai.transfer.target.name": "engineer"}},
        {"name": "handoff to engineer"},
    ],
)
@pytest.mark.parametrize("sender", ["planner", None])
def test_a_handover_is_a_call(rows: Rows, api_reader: ApiReader, said: dict[str, Any], sender: str | None) -> None:
    """From its agent, or the nearest above it, to whom it names in whatever convention; what that one does below it is
    the same call, and what comes after it hangs elsewhere."""
    rows.run(RUN)
    rows.event(RUN, 1, agent_name="planner")
    rows.event(RUN, 2, 1, agent_name=sender, event_type="handoff", **said)
    rows.event(RUN, 3, 1 if sender is None else 2, agent_name="planner" if sender is None else "engineer")
    rows.event(RUN, 4, agent_name="engineer")
    assert edges(api_reader) == [("planner", "engineer", 1)]


def test_a_long_handover_is_a_call(store: Store, api_reader: ApiReader) -> None:
    """What it says is kept apart from the event, and found there."""
    said = json.dumps({"to": "engineer", "reason": "draw " * 1_000})
    send(store, span(1, {"clew.event.type": "handoff", "gen_ai.agent.name": "planner", "clew.inputs": said}))
    assert edges(api_reader) == [("planner", "engineer", 1)]


def test_handovers_to_nobody(rows: Rows, api_reader: ApiReader) -> None:
    """A hand-over that names nobody, itself, or nothing readable is no call, and none between services."""
    rows.run(RUN)
    for number, inputs in enumerate(('{"to": "planner"}', "{}", "[", '{"to": ""}', '"engineer"'), start=1):
        rows.event(RUN, number, agent_name="planner", event_type="handoff", attributes={"clew.inputs": inputs})
    assert edges(api_reader) == []
    rows.event(RUN, 9, event_type="handoff", name="handoff to engineer")
    assert edges(api_reader) == edges(api_reader, of="services") == []
