"""Two trees laid beside one another: which event of one is which of the other.

An event is known by its path: its label (name, agent and type), which one it is among its siblings of that label (by
start, then id, as the tree has them), and the same of every event above it. Two events are a pair where their paths are
equal, all the way up; so each has one partner at most, and what hangs from an event without a partner has none.

Pure arithmetic on arrays. Paths are numbered by doubling: who is 2**k above an event is looked up k times, not 2**k
times, so a chain of any depth will do. Numbers stand for equal paths exactly; nothing is hashed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .tree import NONE, Ints, grow


@dataclass(frozen=True)
class Alignment:
    """Every path of the two trees, depth first, parallel arrays: where its event stands in `a` and in `b`, NONE where
    there is none, and how deep. Siblings stand as in `a`; after them those that only `b` has."""

    a: Ints
    b: Ints
    depth: Ints


def align(parents_a: Ints, labels_a: Ints, parents_b: Ints, labels_b: Ints) -> Alignment:
    """The alignment of trees whose events stand in depth-first order; `parents` as `Tree.parents`, labels numbered for
    both together."""
    size_a, size_b = len(parents_a), len(parents_b)
    top = size_a + size_b
    in_b = np.arange(top) >= size_a
    above = np.append(_or(parents_a, top), _or(parents_b + size_a * (parents_b != NONE), top))
    path = _paths(above, np.append(labels_a, labels_b), in_b)
    count = int(path.max(initial=NONE)) + 1
    position_a, position_b, above_path = (np.full(count, NONE) for _ in range(3))
    position_a[path[:size_a]] = np.arange(size_a)
    position_b[path[size_a:]] = np.arange(size_b)
    above_path[path] = np.append(path, NONE)[above]
    rank = np.where(position_a != NONE, position_a, size_a + position_b)
    merged = grow(np.arange(count), above_path, above_path != NONE, rank, rank)
    return Alignment(position_a[merged.ids], position_b[merged.ids], merged.depth)


def label_numbers(*columns: NDArray[np.int64]) -> Ints:
    """One number for each distinct combination of the columns' numbers."""
    numbers = columns[0]
    for column in columns[1:]:
        numbers = _pairs(numbers, column)
    return numbers


def _or(parents: Ints, top: int) -> Ints:
    return np.where(parents < 0, top, parents)


def _paths(above: Ints, labels: Ints, in_b: NDArray[np.bool_]) -> Ints:
    """The number of each event's path, from 0."""
    top = len(above)
    family = above + (in_b & (above == top))
    # After round k a number stands for the 2**k nearest of a path; what is above the top adds nothing.
    number = np.append(_pairs(labels, _occurrence(family, labels)), NONE)
    above = np.append(above, top)
    while (above != top).any():
        number = np.append(_pairs(number[:top], number[above[:top]]), NONE)
        above = above[above]
    return number[:top]


def _occurrence(family: Ints, labels: Ints) -> Ints:
    """How many siblings of the same label stand before each event."""
    together = np.lexsort((np.arange(len(family)), labels, family))
    first = np.append(True, np.diff(family[together]).astype(bool) | np.diff(labels[together]).astype(bool))
    places = np.arange(len(family))
    occurrence = np.empty_like(family)
    occurrence[together] = places - np.maximum.accumulate(np.where(first[: len(family)], places, 0))
    return occurrence


def _pairs(one: Ints, other: Ints) -> Ints:
    """A number for each distinct pair, from 0. Both hold numbers from -1 on, no larger than there are events."""
    pairs = one * (int(other.max(initial=NONE)) + 2) + other + 1
    return np.unique(pairs, return_inverse=True)[1].astype(np.int64)
