"""Two trees laid beside one another, against paths written out."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clew.query.alignment import Alignment, align, label_numbers
from clew.query.tree import NONE

# A tree in depth-first order: each event's parent (NONE at the top) and its label.
Events = list[tuple[int, int]]
Path = tuple[tuple[int, int], ...]


@st.composite
def trees(draw: st.DrawFn) -> Events:
    """Any tree of few labels: each event hangs from the one before it, or from one of those above that."""
    events: Events = []
    way: list[int] = []
    for position in range(draw(st.integers(0, 12))):
        del way[draw(st.integers(0, len(way))) :]
        events.append((way[-1] if way else NONE, draw(st.integers(0, 2))))
        way.append(position)
    return events


def columns(events: Events) -> tuple[np.ndarray, np.ndarray]:
    parents = np.array([parent for parent, _ in events], dtype=np.int64)
    return parents, np.array([label for _, label in events], dtype=np.int64)


def aligned(a: Events, b: Events) -> Alignment:
    return align(*columns(a), *columns(b))


def paths(events: Events) -> list[Path]:
    """Of each event the labels from the top, each with how many siblings of that label were before."""
    met: Counter[tuple[int, int]] = Counter()
    told: list[Path] = []
    for parent, label in events:
        above = told[parent] if parent != NONE else ()
        told.append((*above, (label, met[parent, label])))
        met[parent, label] += 1
    return told


@given(trees(), trees())
def test_pairs_are_the_events_of_equal_paths(a: Events, b: Events) -> None:
    """Every event occurs once: beside the event of the same path, or alone where the other tree has none."""
    there_a = {path: position for position, path in enumerate(paths(a))}
    there_b = {path: position for position, path in enumerate(paths(b))}
    expected = {(there_a.get(path, NONE), there_b.get(path, NONE)) for path in there_a.keys() | there_b.keys()}

    told = aligned(a, b)
    assert sorted(zip(told.a.tolist(), told.b.tolist(), strict=True)) == sorted(expected)


@given(trees(), trees())
def test_order_is_depth_first_and_that_of_a(a: Events, b: Events) -> None:
    """What hangs from an event follows it, one deeper; events of `a` keep their order, and so do those of `b` that
    only `b` has; among siblings those come last."""
    told = aligned(a, b)
    of_a, of_b = paths(a), paths(b)
    met = [of_a[at] if at != NONE else of_b[bt] for at, bt in zip(told.a, told.b, strict=True)]

    assert told.depth.tolist() == [len(path) - 1 for path in met]
    assert all(not path[:-1] or path[:-1] in met[:place] for place, path in enumerate(met))
    assert told.a[told.a != NONE].tolist() == list(range(len(a)))
    for place, (path, at) in enumerate(zip(met, told.a, strict=True)):
        later_siblings = [told.a[n] for n in range(place + 1, len(met)) if met[n][:-1] == path[:-1]]
        assert at != NONE or all(sibling == NONE for sibling in later_siblings)


@given(trees())
def test_a_tree_is_like_itself(a: Events) -> None:
    """Beside itself every event is its own partner."""
    told = aligned(a, a)
    assert told.a.tolist() == told.b.tolist() == list(range(len(a)))


def test_chains_of_a_hundred_thousand() -> None:
    """Chains that differ in their last event only are aligned down to it."""
    chain = [(number - 1, 0) for number in range(100_000)]
    told = aligned(chain, [*chain[:-1], (99_998, 1)])
    assert told.a.tolist() == [*range(100_000), NONE]
    assert told.b.tolist() == [*range(99_999), NONE, 99_999]


def test_labels_are_equal_where_all_columns_are() -> None:
    """A label stands for one combination of names."""
    numbers = label_numbers(np.array([0, 0, 1, 0]), np.array([0, 1, 0, 0]), np.array([0, -1, 0, 0])).tolist()
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 3
