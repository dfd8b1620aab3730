"""The tree of a run: from the links between events to the order in which they are shown.

Pure arithmetic on arrays, one element an event: no recursion, so a chain of any depth will do, and nothing is ever left
out. An event whose parent is absent is shown as an extra root (orphan). Events that are their own ancestors (cycle) are
shown too: their ring is cut at its earliest event, which becomes an extra root.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

NONE = -1


@dataclass(frozen=True)
class Tree:
    """The events of a run in depth-first order: an event's position in these arrays is its execution order.

    Siblings stand by start, then id (as an unsigned number, so as its hex text); roots before orphans and cut rings.
    `self_time_ns` is the event's duration less the time covered by its children, never negative.
    """

    ids: Ints
    depth: Ints
    child_count: Ints
    self_time_ns: Ints
    orphan: Bools
    cycle: Bools

    def positions(self, ids: Ints) -> Ints:
        """Where each of `ids` stands in depth-first order; NONE for one that is not in the tree."""
        return _look_up(self.ids, ids)

    def subtree(self, position: int) -> slice:
        """The stretch of the depth-first order that holds the event at `position` and all below it."""
        outside = np.flatnonzero(self.depth[position + 1 :] <= self.depth[position])
        return slice(position, position + 1 + int(outside[0]) if outside.size else len(self.ids))

    def path_up(self, position: int) -> Ints:
        """Where the event at `position` stands, the event it hangs from, and so on to the top."""
        depth_before = self.depth[position::-1]
        least = np.minimum.accumulate(depth_before)
        return position - np.flatnonzero(np.append(True, depth_before[1:] < least[:-1]))

    def parents(self) -> Ints:
        """Where the event stands that each event hangs from; NONE for those at the top."""
        positions = np.arange(len(self.ids))
        # Each depth's events in their order: the last one less deep that came before an event is its parent.
        by_depth = np.lexsort((positions, self.depth))
        places = self.depth[by_depth] * len(self.ids) + by_depth
        before = np.searchsorted(places, (self.depth - 1) * len(self.ids) + positions) - 1
        return np.where(self.depth > 0, by_depth[np.maximum(before, 0)], NONE)

    def root_count(self, part: slice = slice(None)) -> int:
        """How many events stand at the top of `part`, orphans and cut rings not among them."""
        depth = self.depth[part]
        top = depth == (depth[0] if depth.size else 0)
        return int(np.count_nonzero(top & ~self.orphan[part] & ~self.cycle[part]))


def grow(ids: Ints, parent_ids: Ints, has_parent: Bools, started_at: Ints, completed_at: Ints) -> Tree:
    """The tree of the events given as parallel arrays in any order; times in nanoseconds.

    `parent_ids` counts only where `has_parent`. An event that ends before it starts lasts no time.
    """
    in_time = np.lexsort((ids.view(np.uint64), started_at))
    ids, parent_ids, has_parent = ids[in_time], parent_ids[in_time], has_parent[in_time]
    started_at = started_at[in_time]
    completed_at = np.maximum(started_at, completed_at[in_time])

    parent = np.where(has_parent, _look_up(ids, parent_ids), NONE)
    orphan = has_parent & (parent == NONE)
    cycle = _on_a_ring(parent)
    cuts = _earliest_of_each_ring(parent, cycle)
    parent[cuts] = NONE
    extra = orphan.copy()
    extra[cuts] = True

    order, depth = _walk(parent, extra)
    children = np.bincount(parent[parent != NONE], minlength=len(ids)).astype(np.int64)
    self_time = completed_at - started_at - _covered_by_children(parent, started_at, completed_at)
    return Tree(ids[order], depth, children[order], self_time[order], orphan[order], cycle[order])


def _look_up(ids: Ints, wanted: Ints) -> Ints:
    if not ids.size:
        return np.full(len(wanted), NONE, dtype=np.int64)
    by_id = np.argsort(ids, kind="stable")
    found = by_id[np.minimum(np.searchsorted(ids, wanted, sorter=by_id), len(ids) - 1)]
    return np.where(ids[found] == wanted, found, NONE)


def _on_a_ring(parent: Ints) -> Bools:
    # After at least as many steps up as there are events, an event has left the top (outside) or is on a ring;
    # and every event of a ring is where another one arrives.
    outside = len(parent)
    arrived = np.append(np.where(parent == NONE, outside, parent), outside)
    steps = 1
    while steps < outside and (arrived != outside).any():
        arrived = arrived[arrived]
        steps *= 2
    ring = np.zeros(outside + 1, dtype=np.bool_)
    ring[arrived] = True
    return ring[:outside]


def _earliest_of_each_ring(parent: Ints, cycle: Bools) -> list[int]:
    earliest: list[int] = []
    seen: set[int] = set()
    for event in np.flatnonzero(cycle).tolist():
        if event in seen:
            continue
        earliest.append(event)
        while event not in seen:
            seen.add(event)
            event = int(parent[event])  # noqa: PLW2901 - the walk round the ring ends where the loop began
    return earliest


def _walk(parent: Ints, extra: Bools) -> tuple[Ints, Ints]:
    """The depth-first order, and the depth of each event in that order."""
    top = len(parent)
    above = np.where(parent == NONE, top, parent)
    # Last sibling first: a stack hands them out the other way round.
    siblings = np.lexsort((-np.arange(top), ~extra, above))
    first = np.searchsorted(above[siblings], np.arange(top + 2)).tolist()
    families, parents = siblings.tolist(), above.tolist()
    depth_of = [NONE] * (top + 1)
    order: list[int] = []
    stack = families[first[top] :]
    while stack:
        event = stack.pop()
        depth_of[event] = depth_of[parents[event]] + 1
        order.append(event)
        stack += families[first[event] : first[event + 1]]
    in_order = np.array(order, dtype=np.int64)
    return in_order, np.array(depth_of, dtype=np.int64)[in_order]


def _covered_by_children(parent: Ints, started_at: Ints, completed_at: Ints) -> Ints:
    """For each event, how many of its nanoseconds lie within at least one of its children."""
    child = np.flatnonzero(parent != NONE)
    child = child[np.argsort(parent[child], kind="stable")]
    family = parent[child]
    begin = np.clip(started_at[child], started_at[family], completed_at[family])
    end = np.clip(completed_at[child], started_at[family], completed_at[family])
    seen_until = np.maximum(begin, _latest_end_before(family, begin, end))
    covered = np.zeros(len(parent), dtype=np.int64)
    np.add.at(covered, family, np.maximum(0, end - seen_until))
    return covered


def _latest_end_before(family: Ints, begin: Ints, end: Ints) -> Ints:
    """The latest end among a child's earlier siblings; its own begin where it is the first."""
    if not family.size:
        return end
    # A running maximum within each family: ends are replaced by their ranks, and a later family outranks all before.
    ends, rank = np.unique(end, return_inverse=True)
    running = np.maximum.accumulate(family * len(ends) + rank)
    before = np.append(begin[:1], ends[running[:-1] % len(ends)])
    first_of_family = np.append(True, family[1:] != family[:-1])
    return np.where(first_of_family, begin, before)
