"""What a batch says about its runs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

DEFAULT_SESSION = "default"
# OTLP's SpanFlags: the sender knows whether the parent is another process's, and it is.
PARENT_IS_REMOTE = 0x300

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def run_deltas(events: pa.Table) -> pa.Table:
    """One row per run of `events`, with the columns of `schema.WorkflowRun` (`id` as 16 bytes): what the run's row is
    to become where there is none, and by what it grows where there is one."""
    runs = events["run_id"].combine_chunks().dictionary_encode()
    codes = runs.indices.to_numpy(zero_copy_only=False)
    started = events["started_at_unix_nano"].to_numpy()
    status = events["status"].to_numpy(zero_copy_only=False)
    grouped = _Grouped(codes, len(runs.dictionary), started)
    is_root = events["parent_event_id"].is_null().to_numpy()
    root_at = grouped.first(is_root)
    # A run whose root is kept elsewhere, by a gateway say, is as what came in from there.
    decides = is_root | (_is_entry(events["flags"]) & (root_at == NOWHERE)[codes])
    failed = status == "failed"
    return pa.table(
        {
            "id": runs.dictionary,
            "session_id": _taken(events["session_id"], grouped.first(_given(events["session_id"]))).fill_null(
                DEFAULT_SESSION
            ),
            "name": _taken(
                events["name"], _or(grouped.first(decides), grouped.first(np.ones(len(started), dtype=bool)))
            ),
            "agent": _of_decisive_or_first(events["agent_name"], grouped, decides),
            "service_name": _of_decisive_or_first(events["service_name"], grouped, decides),
            "status": _status(grouped, decides & failed, decides & (status == "completed")),
            "root_event_id": _taken(events["id"], root_at),
            "started_at_unix_nano": grouped.min(started),
            "last_started_at_unix_nano": grouped.max(started),
            "completed_at_unix_nano": grouped.max(events["completed_at_unix_nano"].to_numpy()),
            "event_count": grouped.count(np.ones(len(started), dtype=bool)),
            "error_count": grouped.count(failed),
            "parts_counted": pa.repeat(True, len(runs.dictionary)),
        }
    )


def mentioned_runs(records: pa.Table, *, are_logs: bool) -> pa.Table:
    """Like `run_deltas`, of the runs that records belong to which are no events: when they were met
    (`met_at_unix_nano`), and what their `session_id` and `service_name` say. Log records of an event are counted with
    those that came within its span."""
    records = records.filter(records["run_id"].is_valid())
    runs = records["run_id"].combine_chunks().dictionary_encode()
    met = records["met_at_unix_nano"].to_numpy()
    count = len(runs.dictionary)
    grouped = _Grouped(runs.indices.to_numpy(zero_copy_only=False), count, met)
    none = pa.array(np.zeros(count, dtype=np.int64))
    return pa.table(
        {
            "id": runs.dictionary,
            "session_id": _taken(records["session_id"], grouped.first(_given(records["session_id"]))).fill_null(
                DEFAULT_SESSION
            ),
            "name": pa.nulls(count, pa.string()),
            "agent": pa.nulls(count, pa.string()),
            "service_name": _taken(records["service_name"], grouped.first(_given(records["service_name"]))),
            "status": pa.array(["running"] * count, pa.string()),
            "root_event_id": pa.nulls(count, pa.int64()),
            "started_at_unix_nano": grouped.min(met),
            "last_started_at_unix_nano": grouped.max(met),
            "completed_at_unix_nano": none,
            "event_count": none,
            "error_count": none,
            "parts_counted": grouped.count(_given(records["event_id"]) & are_logs) == 0,
        }
    )


NOWHERE = -1


class _Grouped:
    """Rows sorted by run, and within a run by start."""

    def __init__(self, codes: npt.NDArray[np.int32], count: int, started: Ints) -> None:
        self._order = np.lexsort((started, codes))
        self._codes = codes[self._order]
        self._starts = np.searchsorted(self._codes, np.arange(count))
        self._count = count

    def min(self, values: Ints) -> Ints:
        return np.minimum.reduceat(values[self._order], self._starts)

    def max(self, values: Ints) -> Ints:
        return np.maximum.reduceat(values[self._order], self._starts)

    def count(self, flags: Bools) -> Ints:
        return np.add.reduceat(flags[self._order].astype(np.int64), self._starts)

    def first(self, flags: Bools) -> Ints:
        """Per run its first row that is flagged, NOWHERE where none is."""
        found = np.full(self._count, NOWHERE, dtype=np.int64)
        flagged = np.flatnonzero(flags[self._order])[::-1]
        found[self._codes[flagged]] = self._order[flagged]
        return found


def _is_entry(flags: pa.ChunkedArray) -> Bools:
    return (flags.to_numpy() & PARENT_IS_REMOTE) == PARENT_IS_REMOTE


def _given(column: pa.ChunkedArray) -> Bools:
    return column.is_valid().to_numpy()


def _or(rows: Ints, otherwise: Ints) -> Ints:
    return np.where(rows == NOWHERE, otherwise, rows)


def _of_decisive_or_first(column: pa.ChunkedArray, grouped: _Grouped, decides: Bools) -> pa.ChunkedArray:
    given = _given(column)
    return _taken(column, _or(grouped.first(given & decides), grouped.first(given)))


def _taken(column: pa.ChunkedArray, rows: Ints) -> pa.ChunkedArray:
    return column.take(pa.array(rows, mask=rows == NOWHERE))


def _status(grouped: _Grouped, failed: Bools, completed: Bools) -> pa.Array:
    """A run has failed when an event that decides has, and is completed when one has ended; until then it runs."""
    number = np.where(grouped.count(failed) > 0, 2, np.where(grouped.count(completed) > 0, 1, 0))
    return pa.array(["running", "completed", "failed"]).take(pa.array(number))
