"""The graph as its rows tell it, and as the run's events do: agents that hand over to one another are nodes, and a link
from one node's event to another's is an edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import and_, func, select

from ..storage import DAGEdge, DAGNode, Reader, Row
from .errors import AnswerTooLarge
from .events import EVENTS, LINKS, of_run

GRAPH_NODES_MAX = 10_000
GRAPH_EDGES_MAX = 100_000

NODES: Any = DAGNode.__table__
EDGES: Any = DAGEdge.__table__

Node = Mapping[str, Any]
Edge = Mapping[str, Any]


def graph_told(reader: Reader, run: Row) -> tuple[list[Node], list[Edge]]:
    """The run's nodes, with `event_count`, and its edges, each once. Raises AnswerTooLarge."""
    counts = _event_counts(reader, run)
    nodes: list[Node] = [
        node | {"event_count": counts.get(node["id"], 0)}
        for node in _rows(reader, run, NODES, GRAPH_NODES_MAX, "nodes")
    ]
    edges = [*_rows(reader, run, EDGES, GRAPH_EDGES_MAX, "edges"), *_edges_of_links(reader, run)]
    node_of_agent = _nodes_of_agents(nodes)
    agents = _agents(reader, run) if any(node["started_at_unix_nano"] is None for node in nodes) else {}
    nodes = [_as_agent(node, agents) for node in nodes if node["id"] not in node_of_agent]
    return nodes, _each_once(edges, node_of_agent)


def _rows(reader: Reader, run: Row, table: Any, most: int, what: str) -> list[dict[str, Any]]:
    rows = reader.rows(select(table).where(table.c.run_id == run["id"]).limit(most + 1))
    if len(rows) > most:
        raise AnswerTooLarge(
            f"the graph has more than {most:,} {what}; ask for GET /api/runs/{{run_id}}/events instead"
        )
    return [dict(row) for row in rows]


def _event_counts(reader: Reader, run: Row) -> dict[str, int]:
    of_nodes = (of_run(EVENTS, run), EVENTS.c.node_id.is_not(None))
    counted = select(EVENTS.c.node_id, func.count().label("events")).where(*of_nodes).group_by(EVENTS.c.node_id)
    return {row["node_id"]: row["events"] for row in reader.rows(counted)}


def _edges_of_links(reader: Reader, run: Row) -> list[dict[str, Any]]:
    """A link leads from the later event to the one that it builds on."""
    later, earlier = EVENTS.alias(), EVENTS.alias()
    of_link = and_(LINKS.c.run_id == later.c.run_id, LINKS.c.event_id == later.c.id)
    of_linked = and_(LINKS.c.linked_run_id == earlier.c.run_id, LINKS.c.linked_event_id == earlier.c.id)
    found = (
        select(earlier.c.node_id.label("from_node_id"), later.c.node_id.label("to_node_id"))
        .select_from(LINKS.join(later, of_link).join(earlier, of_linked))
        .where(of_run(LINKS, run, start="event_started_at_unix_nano"), of_run(later, run), of_run(earlier, run))
        .where(earlier.c.node_id != later.c.node_id)
        .distinct()
        .limit(GRAPH_EDGES_MAX)
    )
    told = {"dependency_type": "sequential", "condition": None, "source": "link", "id": 0}
    return [dict(row) | told for row in reader.rows(found)]


def _nodes_of_agents(nodes: Iterable[Node]) -> dict[str, str]:
    """What hand-overs call by its agent's name is the node that the agent works in, where that is one."""
    known = {node["id"]: node for node in nodes}
    works_in: dict[str, list[str]] = {}
    for node in nodes:
        if node["agent"] and node["started_at_unix_nano"] is not None:
            works_in.setdefault(node["agent"], []).append(node["id"])
    return {
        agent: places[0]
        for agent, places in works_in.items()
        if len(places) == 1 and agent in known and known[agent]["started_at_unix_nano"] is None
    }


def _agents(reader: Reader, run: Row) -> dict[str, Row]:
    """When each agent of the run worked, and how its first event ended."""
    started = EVENTS.c.started_at_unix_nano
    first = select(
        EVENTS.c.agent_name,
        func.min(started).label("started_at_unix_nano"),
        func.nullif(func.max(EVENTS.c.completed_at_unix_nano), 0).label("completed_at_unix_nano"),
        func.arg_min(EVENTS.c.status, started).label("status"),
        func.count().label("event_count"),
    ).where(of_run(EVENTS, run), EVENTS.c.agent_name.is_not(None))
    return {row["agent_name"]: row for row in reader.rows(first.group_by(EVENTS.c.agent_name))}


def _as_agent(node: Node, agents: Mapping[str, Row]) -> Node:
    if node["started_at_unix_nano"] is not None or node["id"] not in agents:
        return node
    agent = agents[node["id"]]
    times = ("started_at_unix_nano", "completed_at_unix_nano", "status", "event_count")
    return {**node, "agent": node["id"], **{name: agent[name] for name in times}}


def _each_once(edges: Iterable[Edge], names: Mapping[str, str]) -> list[Edge]:
    """The edges with their ends renamed, without those that thereby lead from a node to itself."""
    distinct: dict[tuple[str, str, str], Edge] = {}
    for edge in edges:
        ends = {end: names.get(edge[end], edge[end]) for end in ("from_node_id", "to_node_id")}
        if edge["from_node_id"] == edge["to_node_id"] or len(set(ends.values())) == 2:
            distinct.setdefault((*ends.values(), edge["source"]), {**edge, **ends})
    return list(distinct.values())
