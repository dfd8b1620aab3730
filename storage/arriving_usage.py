"""Whose usage counts in runs that arrive whole, worked out over a batch's columns before it is stored.

Short runs mostly come in one batch. What `usage` would find once they are stored is found here for a fraction of that
time, and is stored with the events. It holds where the run is new; of one that was there before, or is written to
later, `counting` does all events anew. Runs that repeat a span id, and those with ways up of more than LEVELS_MAX
levels, are left to it as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .conventions import USAGE

LEVELS_MAX = 64

NOWHERE = -1
# The first revision of a run.
_NEW = 0
_SPREAD = np.uint64(0x9E3779B97F4A7C15)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


class ArrivingUsage(NamedTuple):
    """`usage_counts` and `usage_agent_name` of each event; `usage_revision` of each run, in the order in which they
    first occur among the events: null for those that are left to `counting`."""

    usage_counts: pa.Array
    usage_agent_name: pa.ChunkedArray
    usage_revision: pa.Array


def arriving_usage(events: pa.Table) -> ArrivingUsage:
    """What `usage.usage_of` says, were the `events` all that there are of their runs."""
    runs = events["run_id"].combine_chunks().dictionary_encode()
    codes = runs.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    tree = _Tree(events, codes)
    reporting = np.flatnonzero(np.any([events[name].is_valid().to_numpy() for name in USAGE], axis=0))
    above, deep = _above(tree, reporting, len(codes))
    users, deeper = _users(tree, reporting, events["agent_name"].is_valid().to_numpy())
    is_left = np.zeros(len(runs.dictionary), dtype=bool)
    is_left[codes[np.concatenate((tree.repeated, deep, deeper))]] = True
    is_told = np.zeros(len(codes), dtype=bool)
    is_told[reporting] = ~is_left[codes[reporting]]
    return ArrivingUsage(
        pa.array(~above, mask=~is_told),
        events["agent_name"].take(pa.array(users, mask=~is_told | (users == NOWHERE))),
        pa.array(np.full(len(is_left), _NEW), mask=is_left),
    )


class _Tree:
    """Finds the rows of parents. `repeated`: rows of events that share run and span id with another, or seem to."""

    def __init__(self, events: pa.Table, codes: Ints) -> None:
        self._codes, self._ids = codes, events["id"].to_numpy()
        self._parent_ids = events["parent_event_id"].fill_null(0).to_numpy()
        self._has_parent = events["parent_event_id"].is_valid().to_numpy()
        keys = self._keys(np.arange(len(codes)), self._ids)
        self._order = np.argsort(keys)
        self._sorted = keys[self._order]
        self.repeated = self._order[1:][self._sorted[1:] == self._sorted[:-1]]

    def parents(self, rows: Ints) -> Ints:
        """NOWHERE for those whose parent is not here or is itself."""
        wanted = self._parent_ids[rows]
        keys = self._keys(rows, wanted)
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self._order) - 1)
        found = self._order[places]
        is_it = (self._sorted[places] == keys) & (self._codes[found] == self._codes[rows])
        is_it &= self._has_parent[rows] & (self._ids[found] == wanted) & (found != rows)
        return np.where(is_it, found, NOWHERE)

    def _keys(self, rows: Ints, ids: Ints) -> npt.NDArray[np.uint64]:
        """One number for a run and a span id, which others may have by chance."""
        return ids.view(np.uint64) ^ (self._codes[rows].view(np.uint64) * _SPREAD)


def _above(tree: _Tree, reporting: Ints, events: int) -> tuple[Bools, Ints]:
    """Which of so many events have one below them that reports usage; and rows from which it is still a way up."""
    above = np.zeros(events, dtype=bool)
    reached = reporting
    for _ in range(LEVELS_MAX):
        parents = tree.parents(reached)
        reached = np.unique(parents[parents != NOWHERE])
        reached = reached[~above[reached]]
        above[reached] = True
        if not len(reached):
            break
    return above, reached


def _users(tree: _Tree, reporting: Ints, is_named: Bools) -> tuple[Ints, Ints]:
    """For each event that reports usage the row that names its agent, itself or its nearest ancestor; and the rows for
    which it is still a way up."""
    users = np.full(len(is_named), NOWHERE)
    waiting, at = reporting, reporting
    for _ in range(LEVELS_MAX):
        found = is_named[at]
        users[waiting[found]] = at[found]
        parents = tree.parents(at[~found])
        waiting, at = waiting[~found][parents != NOWHERE], parents[parents != NOWHERE]
        if not len(waiting):
            break
    return users, waiting
