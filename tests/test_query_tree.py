"""The arithmetic of trees, against an obvious builder."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clew.query.tree import NONE, Tree, grow

# Both signs and both extremes: ids are unsigned outside, signed in columns.
IDS = (1, 2, 3, 7, 2**63 - 1, -(2**63), -7, -2, -1)
ABSENT = 99

times = st.integers(0, 12)


@dataclass(frozen=True)
class Event:
    id: int
    parent: int | None
    started_at: int
    completed_at: int

    @property
    def key(self) -> tuple[int, int]:
        return self.started_at, self.id % 2**64

    @property
    def moments(self) -> set[int]:
        return set(range(self.started_at, self.completed_at))


@dataclass
class Line:
    """What a tree says about one event."""

    id: int
    depth: int
    child_count: int
    self_time_ns: int
    orphan: bool
    cycle: bool


@st.composite
def runs(draw: st.DrawFn) -> list[Event]:
    ids = draw(st.lists(st.sampled_from(IDS), unique=True))
    parents = st.sampled_from([None, ABSENT, *ids])
    return [Event(event_id, draw(parents), draw(times), draw(times)) for event_id in ids]


def obvious_lines(events: list[Event]) -> list[Line]:
    """The tree by the definitions, one event at a time."""
    by_id = {event.id: event for event in events}
    rings = {event.id: ring_of(event, by_id) for event in events}
    cuts = {min((by_id[member] for member in ring), key=lambda event: event.key).id for ring in rings.values() if ring}
    parents = {event.id: None if event.id in cuts else event.parent for event in events}
    orphans = {event.id for event in events if event.parent is not None and event.parent not in by_id}
    lines: list[Line] = []

    def show(event: Event, depth: int) -> None:
        children = sorted((child for child in events if parents[child.id] == event.id), key=lambda child: child.key)
        uncovered = event.moments - set().union(*(child.moments for child in children))
        lines.append(Line(event.id, depth, len(children), len(uncovered), event.id in orphans, bool(rings[event.id])))
        for child in children:
            show(child, depth + 1)

    tops = [event for event in events if parents[event.id] not in by_id]
    for top in sorted(tops, key=lambda event: (event.id in orphans | cuts, event.key)):
        show(top, 0)
    return lines


def ring_of(event: Event, by_id: dict[int, Event]) -> set[int]:
    """The events between this one and itself; empty where it is not its own ancestor."""
    passed, at = set(), event.parent
    while at in by_id and at not in passed:
        passed.add(at)
        at = by_id[at].parent
    return passed if event.id in passed and at == event.parent else set()


def grown(events: list[Event]) -> Tree:
    return grow(
        np.array([event.id for event in events], dtype=np.int64),
        np.array([event.parent or 0 for event in events], dtype=np.int64),
        np.array([event.parent is not None for event in events], dtype=np.bool_),
        np.array([event.started_at for event in events], dtype=np.int64),
        np.array([event.completed_at for event in events], dtype=np.int64),
    )


def lines_of(tree: Tree) -> list[Line]:
    columns = (tree.ids, tree.depth, tree.child_count, tree.self_time_ns, tree.orphan, tree.cycle)
    return [Line(*values) for values in zip(*(column.tolist() for column in columns), strict=True)]


@given(runs())
def test_tree_is_what_the_definitions_say(events: list[Event]) -> None:
    """Order, depth, children, self time, orphans and cycles are those of the obvious builder, whatever the links."""
    assert lines_of(grown(events)) == obvious_lines(events)


@given(runs(), st.randoms(use_true_random=False))
def test_order_of_arrival_does_not_matter(events: list[Event], random: object) -> None:
    """The same events in any order are the same tree."""
    shuffled = list(events)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    assert lines_of(grown(shuffled)) == lines_of(grown(events))


@given(runs())
def test_subtree_is_the_event_and_all_below_it(events: list[Event]) -> None:
    """A subtree is the stretch from an event to the next one that is not deeper."""
    tree = grown(events)
    lines = obvious_lines(events)
    for position, line in enumerate(lines):
        below = [later.depth > line.depth for later in lines[position + 1 :]]
        length = 1 + (below.index(False) if False in below else len(below))

        assert tree.subtree(position) == slice(position, position + length)


@given(runs())
def test_positions_find_every_event_and_nothing_else(events: list[Event]) -> None:
    """An event's position is where it stands in depth-first order; what is not there has none."""
    tree = grown(events)

    assert tree.positions(tree.ids).tolist() == list(range(len(events)))
    assert tree.positions(np.array([ABSENT])).tolist() == [NONE]


def test_chain_of_a_hundred_thousand() -> None:
    """A chain 100,000 deep is walked without recursion."""
    tree = grown([Event(number, number - 1 or None, number, 200_000) for number in range(1, 100_001)])

    assert tree.depth.tolist() == list(range(100_000))
    assert tree.self_time_ns.tolist() == [1] * 99_999 + [100_000]
    assert tree.root_count() == 1


def test_ring_of_a_hundred_thousand() -> None:
    """A ring of 100,000 is cut once, at its earliest event, and shown whole."""
    tree = grown([Event(number, number - 1 or 100_000, number, number) for number in range(1, 100_001)])

    assert tree.ids.tolist() == list(range(1, 100_001))
    assert tree.depth.tolist() == list(range(100_000))
    assert tree.cycle.all()
    assert tree.root_count() == 0


def test_self_time_at_the_limits_of_time() -> None:
    """Times at the far end of 64 bits neither overflow nor lose nanoseconds."""
    end = 2**63 - 1
    tree = grown([Event(1, None, 0, end), Event(2, 1, 1, end - 5), Event(3, 1, 0, end - 2)])

    assert tree.self_time_ns.tolist() == [2, end - 2, end - 6]


@given(runs())
def test_way_up_passes_those_an_event_is_below(events: list[Event]) -> None:
    """From an event to the top: itself, then each event whose subtree holds it, the nearest first."""
    tree = grown(events)
    everyone = range(len(tree.ids))
    for position in everyone:
        holding = [other for other in everyone if other <= position < tree.subtree(other).stop]
        assert tree.path_up(position).tolist() == holding[::-1]
