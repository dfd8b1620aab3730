"""The graph of a run: its nodes in an order in which they can be worked, and the edges between them.

What is put in order is rings: nodes that wait for one another, mostly just one node that does not. Rings form no ring
among themselves, so there is always an order; where edges leave the choice, the declared order decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from heapq import heappop, heappush
from typing import Any
from uuid import UUID

from ..storage import Reader, run_id_text
from .graph_told import Edge, Node, graph_told
from .runs import find_run

Edges = Iterable[tuple[str, str]]


def graph(reader: Reader, run_id: UUID) -> dict[str, Any]:
    """`{"run_id", "nodes", "edges"}`. Raises NotFound, and AnswerTooLarge."""
    run = find_run(reader, run_id)
    nodes, edges = graph_told(reader, run)
    pairs = [(edge["from_node_id"], edge["to_node_id"]) for edge in edges]
    by_id = {node["id"]: node for node in sorted(nodes, key=_declared)}
    order = in_working_order(list(by_id), pairs)
    place = {node_id: index for index, node_id in enumerate(order)}
    return {
        "run_id": run_id_text(run_id),
        "nodes": [_node_json(by_id[node_id], on_cycle=order[node_id]) for node_id in order],
        "edges": [_edge_json(edge) for edge in sorted(edges, key=lambda edge: _between(edge, place))],
    }


def in_working_order(nodes: Sequence[str], edges: Edges) -> dict[str, bool]:
    """The nodes, each after those that edges lead from, otherwise in the order given; and whether each is on a cycle,
    where each comes after only those that are not on it. Edges of nodes that are not given count for nothing."""
    after: dict[str, list[str]] = {node: [] for node in nodes}
    before: dict[str, list[str]] = {node: [] for node in nodes}
    for start, end in edges:
        if start in after and end in after:
            after[start].append(end)
            before[end].append(start)
    rings = _rings(after, before)
    ordered = (rings[number] for number in _ring_order(rings, before))
    return {node: len(ring) > 1 or node in after[node] for ring in ordered for node in ring}


def _rings(after: Mapping[str, list[str]], before: Mapping[str, list[str]]) -> list[list[str]]:
    """The nodes by ring, each ring in the order given, rings by their first node (after Kosaraju: what can be reached
    backwards, from the last that a walk forwards has done with, is a ring)."""
    given = {node: index for index, node in enumerate(after)}
    seen: set[str] = set()
    done = [node for start in after for node in _walk(start, after, seen)]
    seen = set()
    rings = [sorted(_walk(start, before, seen), key=given.__getitem__) for start in reversed(done)]
    return sorted(filter(None, rings), key=lambda ring: given[ring[0]])


def _walk(start: str, following: Mapping[str, list[str]], seen: set[str]) -> Iterator[str]:
    """What can be reached from `start` and is not `seen` yet, each after all that is reached by way of it."""
    path = [(start, iter(following[start]))] if start not in seen else []
    seen.add(start)
    while path:
        node, ways = path[-1]
        way = next((way for way in ways if way not in seen), None)
        if way is None:
            path.pop()
            yield node
        else:
            seen.add(way)
            path.append((way, iter(following[way])))


def _ring_order(rings: Sequence[Sequence[str]], before: Mapping[str, list[str]]) -> Iterator[int]:
    ring_of = {node: number for number, ring in enumerate(rings) for node in ring}
    sorter = TopologicalSorter(
        {
            number: {ring_of[other] for node in ring for other in before[node]} - {number}
            for number, ring in enumerate(rings)
        }
    )
    sorter.prepare()
    ready: list[int] = []
    while sorter.is_active():
        for number in sorter.get_ready():
            heappush(ready, number)
        first = heappop(ready)
        yield first
        sorter.done(first)


def _declared(node: Node) -> tuple[bool, int, bool, int, str]:
    index, started_at = node["order_index"], node["started_at_unix_nano"]
    return index is None, index or 0, started_at is None, started_at or 0, node["id"]


def _between(edge: Edge, place: Mapping[str, int]) -> tuple[int, int, int]:
    start, end = (place.get(edge[name], len(place)) for name in ("from_node_id", "to_node_id"))
    return start, end, edge["id"]


def _node_json(node: Node, *, on_cycle: bool) -> dict[str, Any]:
    times = {name: node[name] for name in ("started_at_unix_nano", "completed_at_unix_nano")}
    return {
        **{name: node[name] for name in ("id", "node_type", "agent", "status", "order_index")},
        **{name: None if time is None else str(time) for name, time in times.items()},
        "event_count": node["event_count"],
        "meta": node["meta"],
        **({"cycle": True} if on_cycle else {}),
    }


def _edge_json(edge: Edge) -> dict[str, Any]:
    return {name: edge[name] for name in ("from_node_id", "to_node_id", "dependency_type", "condition", "source")}
