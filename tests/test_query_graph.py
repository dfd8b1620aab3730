"""The graph of a run over HTTP, the events of its nodes, and its history."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.query import answers
from clew.query import provenance_answers as told
from clew.query.graph import in_working_order
from clew.storage import DAGEdge, DAGNode, EventLink

RUN, OTHER = "a1" * 16, "b2" * 16


def _node(rows: Any, run_id: str, *names: str, **more: Any) -> None:
    for name in names:
        rows.add(DAGNode(run_id=run_id, id=name, **{"node_type": "agent", "status": "completed", **more}))


def _edge(rows: Any, run_id: str, start: str, end: str, **more: Any) -> None:
    said = {"dependency_type": "sequential", "source": "declared", **more}
    rows.add(DAGEdge(run_id=run_id, from_node_id=start, to_node_id=end, **said))


def test_agents_that_hand_over_are_nodes(rows: Any, api_reader: Any) -> None:
    """As they worked; one that works in a node of the graph is that node, and hands over from there."""
    rows.run(RUN)
    _node(rows, RUN, "scout", "critic", status="pending")
    _node(rows, RUN, "draw", agent="critic", started_at_unix_nano=rows.START)
    _edge(rows, RUN, "scout", "critic", source="handoff")
    _edge(rows, RUN, "draw", "critic", source="handoff")
    rows.event(RUN, 1, agent_name="scout")

    graph = api_reader.get(f"/api/runs/{RUN}/graph", told.Graph)

    assert [(node["id"], node["agent"], node["status"], node["event_count"]) for node in graph["nodes"]] == [
        ("scout", "scout", "completed", 1),
        ("draw", "critic", "completed", 0),
    ]
    assert [(edge["from_node_id"], edge["to_node_id"]) for edge in graph["edges"]] == [("scout", "draw")]


def test_a_link_between_nodes_events_is_an_edge(rows: Any, api_reader: Any) -> None:
    """From the node that is linked to; within a node there is none."""
    rows.run(RUN)
    _node(rows, RUN, "load", "draw")
    for number, node in enumerate(["load", "load", "draw"]):
        rows.event(RUN, number + 1, node_id=node)
    for number, linked in ((2, 1), (3, 2)):
        link = {"event_id": f"{number:016x}", "linked_run_id": RUN, "linked_event_id": f"{linked:016x}"}
        at = {"link_index": 0, "event_started_at_unix_nano": rows.START + number}
        rows.add(EventLink(run_id=RUN, **link, **at, flags=0, dropped_attributes_count=0, attributes={}))

    graph = api_reader.get(f"/api/runs/{RUN}/graph", told.Graph)

    edges = [(edge["from_node_id"], edge["to_node_id"], edge["source"]) for edge in graph["edges"]]
    assert edges == [("load", "draw", "link")]


def test_graph_shows_nodes_and_edges(rows: Any, api_reader: Any) -> None:
    """Nodes stand after those they wait for, whatever their names and times, each with how many events it has."""
    rows.run(RUN)
    _node(rows, RUN, "a", "b", agent="planner", status="pending", meta={"why": "test"})
    _node(rows, RUN, "c", started_at_unix_nano=rows.START, completed_at_unix_nano=rows.START + 9, order_index=3)
    _edge(rows, RUN, "c", "b")
    _edge(rows, RUN, "b", "a", dependency_type="conditional", condition="ok", source="workflow")
    for number, node in enumerate(["c", "c", "b", None]):
        rows.event(RUN, number + 1, node_id=node)

    graph = api_reader.get(f"/api/runs/{RUN}/graph", told.Graph)

    assert [(node["id"], node["event_count"]) for node in graph["nodes"]] == [("c", 2), ("b", 1), ("a", 0)]
    assert graph["nodes"][0] == {
        "id": "c",
        "node_type": "agent",
        "agent": None,
        "status": "completed",
        "order_index": 3,
        "started_at_unix_nano": str(rows.START),
        "completed_at_unix_nano": str(rows.START + 9),
        "event_count": 2,
        "meta": None,
    }
    keys = ("from_node_id", "to_node_id", "dependency_type", "condition", "source")
    assert [tuple(edge[key] for key in keys) for edge in graph["edges"]] == [
        ("c", "b", "sequential", None, "declared"),
        ("b", "a", "conditional", "ok", "workflow"),
    ]


def test_graph_marks_cycles(rows: Any, api_reader: Any) -> None:
    """Nodes that wait for themselves are marked; those before and after a cycle are not, and stand before and after."""
    rows.run(RUN)
    _node(rows, RUN, "after", "before", "ring 1", "ring 2", "self")
    for start, end in [("before", "ring 1"), ("ring 1", "ring 2"), ("ring 2", "ring 1"), ("ring 2", "after")]:
        _edge(rows, RUN, start, end)
    _edge(rows, RUN, "self", "self")

    nodes = api_reader.get(f"/api/runs/{RUN}/graph", told.Graph)["nodes"]

    assert [(node["id"], node.get("cycle", False)) for node in nodes] == [
        ("before", False),
        ("ring 1", True),
        ("ring 2", True),
        ("after", False),
        ("self", True),
    ]


_names = st.sampled_from("abcdefgh")


@given(st.permutations("abcdefgh"), st.lists(st.tuples(_names, _names | st.just("absent")), max_size=16))
def test_working_order(nodes: list[str], edges: list[tuple[str, str]]) -> None:
    """Every node once; a node is on a cycle if it can be reached from itself; every edge between nodes that cannot
    reach one another both ways leads forwards."""
    reached = {node: {end for start, end in edges if start == node and end != "absent"} for node in nodes}
    for middle in nodes:
        for start in nodes:
            reached[start] |= reached[middle] if middle in reached[start] else set()

    order = in_working_order(nodes, edges)

    place = {node: index for index, node in enumerate(order)}
    assert sorted(order) == sorted(nodes)
    assert order == {node: node in reached[node] for node in nodes}
    assert all(place[start] < place[end] for start in nodes for end in reached[start] if start not in reached[end])


def test_working_order_follows_the_declared_order_where_it_can() -> None:
    """What waits for nothing stands as declared, and a long chain is no trouble."""
    assert list(in_working_order(["b", "d", "a", "c"], [("c", "d")])) == ["b", "a", "c", "d"]
    chain = [str(number) for number in range(10_000)]
    assert list(in_working_order(chain[::-1], pairwise(chain))) == chain


def test_graph_has_a_limit(rows: Any, api_client: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """More nodes than an answer may hold are refused, not cut off."""
    monkeypatch.setattr("clew.query.graph_told.GRAPH_NODES_MAX", 2)
    rows.run(RUN)
    _node(rows, RUN, "a", "b", "c")

    assert api_client.get(f"/api/runs/{RUN}/graph").json()["error"]["code"] == "answer_too_large"


# Nodes and history.


def test_node_of_the_latest_run_is_meant(rows: Any, api_reader: Any) -> None:
    """Without `run_id` the latest run that has the node answers and says so; with it the run that is named."""
    rows.run(RUN, at=0)
    rows.run(OTHER, at=10)
    rows.run("c3" * 16, at=20)
    for run_id in (RUN, OTHER):
        _node(rows, run_id, "plan/step 1")
        rows.event(run_id, 2, at=11, node_id="plan/step 1")
        rows.event(run_id, 1, at=12, node_id="plan/step 1")
        rows.event(run_id, 3, at=13, node_id="another")
    path = "/api/nodes/plan/step 1/events"

    latest = api_reader.get(path, told.NodeEventPage)
    named = api_reader.get(path, told.NodeEventPage, run_id=RUN, limit=1)

    assert (latest["run_id"], latest["node_id"]) == (OTHER, "plan/step 1")
    assert [int(event["id"], 16) for event in latest["events"]] == [2, 1]
    assert (named["run_id"], [int(event["id"], 16) for event in named["events"]]) == (RUN, [2])
    following = api_reader.get(path, told.NodeEventPage, run_id=RUN, cursor=named["next_cursor"])
    assert [int(event["id"], 16) for event in following["events"]] == [1]


def test_cursor_of_a_node_needs_its_run(rows: Any, api_client: httpx.Client, api_reader: Any) -> None:
    """The next page is of the same run, also when a later run has the node by then: the run has to be named."""
    rows.run(RUN)
    _node(rows, RUN, "n")
    for number in (1, 2):
        rows.event(RUN, number, node_id="n")
    cursor = api_reader.get("/api/nodes/n/events", told.NodeEventPage, limit=1)["next_cursor"]

    refused = api_client.get("/api/nodes/n/events", params={"cursor": cursor})

    assert (refused.status_code, refused.json()["error"]["parameter"]) == (400, "run_id")


def test_history_is_what_was_done(rows: Any, api_reader: Any) -> None:
    """Neither `start` events nor the state changes of nodes are history; those of the run are, and all the rest, by
    start, as /events shows them."""
    rows.run(RUN)
    rows.event(RUN, 1, at=50, event_type="agent_call", event_subtype="complete")
    rows.event(RUN, 2, at=10, event_type="agent_call", event_subtype="start")
    rows.event(RUN, 3, at=20, event_type="state_transition", node_id="n")
    rows.event(RUN, 4, at=30, event_type="state_transition")
    rows.event(RUN, 5, at=40, event_type="tool_call", node_id="n")

    history = api_reader.all_pages(f"/api/runs/{RUN}/history", answers.EventPage, "events", limit=1)
    events = api_reader.get(f"/api/runs/{RUN}/events", answers.EventPage)["events"]

    assert [int(event["id"], 16) for event in history] == [4, 5, 1]
    assert history == [event for event in events if event in history]
    narrowed = api_reader.get(f"/api/runs/{RUN}/history", answers.EventPage, event_type="agent_call")
    assert [int(event["id"], 16) for event in narrowed["events"]] == [1]
