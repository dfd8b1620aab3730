"""When are two spans the same span?

A span is the same when run, span id, kind and start time agree: sent again it is stored once; arriving finished after
a pending copy (no end time) it takes that copy's place. Distinct spans of a run that share a span id, as some
instrumentations make for the two sides of a call, are all kept: the first has the span id as its event id, a later one
an id derived from what tells it apart. So (run_id, id) is a true key.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Ints = npt.NDArray[np.int64]

STORED = -1


@dataclass
class _Known:
    """A span met so far under a span id: in the store (row STORED) or in this batch."""

    kind: int
    started_at: int
    finished: bool
    event_id: int
    row: int


@dataclass
class Settlement:
    """What becomes of a batch's rows: `keep` says which are stored, `ids` their event ids; `replaced` are stored
    events (run id as 16 bytes, event id) to delete, each with its successor in the batch."""

    keep: npt.NDArray[np.bool_]
    ids: Ints
    replaced: list[tuple[bytes, int]] = field(default_factory=list)


def settle(events: pa.Table, stored: pa.Table | None) -> Settlement:
    """Decides about every row of `events` (run_id, id, kind, started_at_unix_nano, completed_at_unix_nano).

    `stored` has the events in the store that share run and span id with a row: run_id (16 bytes), id, span_id, kind,
    started_at_unix_nano, completed_at_unix_nano; None where there can be none.
    """
    span_ids = events["id"].to_numpy()
    settlement = Settlement(keep=np.ones(len(span_ids), dtype=bool), ids=span_ids.copy())
    contested = _contested_rows(events, stored)
    if len(contested):
        _settle_rows(settlement, events.take(pa.array(contested)), contested, _known_spans(stored))
    return settlement


def _contested_rows(events: pa.Table, stored: pa.Table | None) -> Ints:
    """The rows whose run and span id occur more than once in the batch, or in the store."""
    runs = events["run_id"].combine_chunks().dictionary_encode()
    codes, span_ids = runs.indices.to_numpy(zero_copy_only=False), events["id"].to_numpy()
    order = np.lexsort((codes, span_ids))
    same = (codes[order][1:] == codes[order][:-1]) & (span_ids[order][1:] == span_ids[order][:-1])
    contested = np.zeros(len(span_ids), dtype=bool)
    contested[order[1:][same]] = contested[order[:-1][same]] = True
    if stored is not None and stored.num_rows:
        contested |= np.isin(span_ids, stored["span_id"].to_numpy())
    return np.flatnonzero(contested)


def _known_spans(stored: pa.Table | None) -> dict[tuple[bytes, int], list[_Known]]:
    known: dict[tuple[bytes, int], list[_Known]] = {}
    for row in stored.to_pylist() if stored is not None else ():
        span = _Known(row["kind"], row["started_at_unix_nano"], row["completed_at_unix_nano"] != 0, row["id"], STORED)
        known.setdefault((row["run_id"], row["span_id"]), []).append(span)
    return known


def _settle_rows(
    settlement: Settlement, events: pa.Table, rows: Ints, known: dict[tuple[bytes, int], list[_Known]]
) -> None:
    for row, event in zip(rows.tolist(), events.to_pylist(), strict=True):
        namesakes = known.setdefault((event["run_id"], event["id"]), [])
        arrived = _Known(
            event["kind"], event["started_at_unix_nano"], event["completed_at_unix_nano"] != 0, event["id"], row
        )
        same = next((k for k in namesakes if (k.kind, k.started_at) == (arrived.kind, arrived.started_at)), None)
        if same is None:
            if namesakes:
                arrived.event_id = _derived_id(event["run_id"], event["id"], arrived)
            namesakes.append(arrived)
        elif same.finished or not arrived.finished:
            settlement.keep[row] = False
            continue
        else:
            _replace(settlement, event["run_id"], same, arrived)
        settlement.ids[row] = arrived.event_id


def _replace(settlement: Settlement, run_id: bytes, pending: _Known, arrived: _Known) -> None:
    arrived.event_id = pending.event_id
    if pending.row == STORED:
        settlement.replaced.append((run_id, pending.event_id))
    else:
        settlement.keep[pending.row] = False
    pending.finished, pending.row = True, arrived.row


def _derived_id(run_id: bytes, span_id: int, span: _Known) -> int:
    content = b"%b %d %d %d" % (run_id, span_id, span.kind, span.started_at)
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True) or 1
