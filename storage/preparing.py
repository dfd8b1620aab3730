"""What can be done for a write before the database is needed.

It is a good part of a write's work, and can be done in another process: what comes out is plain columns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from .arriving_usage import arriving_usage
from .batch import EventParts, Origins, SpanBatch
from .histories import take_histories
from .identity import Settlement
from .runs import run_deltas
from .variant import RowsWithAttributes, with_attributes

ORIGINS_KEPT_BYTES_MAX = 65_536

_OF_THE_RUN = ["session_id", "service_name"]


@dataclass(frozen=True)
class PreparedBatch:
    """A SpanBatch ready to be written: rows with their attributes, and what the batch says about its runs, were all its
    spans new. Rows of events have besides what is stored of them what they say of their run."""

    runs: pa.Table
    resources: RowsWithAttributes
    scopes: RowsWithAttributes
    events: RowsWithAttributes
    logs: RowsWithAttributes | None
    links: RowsWithAttributes | None
    records: dict[str, pa.Table]
    history_parts: pa.Table | None

    def saying_what_is_kept(self, settlement: Settlement) -> PreparedBatch:
        """The same rows, and what those that are kept say of their runs. Whose usage counts is left to `counting` in
        runs that have others besides."""
        rows = self.events.rows
        kept = pa.array(settlement.keep)
        runs = run_deltas(rows.set_column(rows.column_names.index("id"), "id", pa.array(settlement.ids)).filter(kept))
        dropped_from = rows["run_id"].filter(pc.invert(kept)).combine_chunks()
        as_told = self.runs.filter(pc.invert(pc.is_in(self.runs["id"], dropped_from)))
        usage_revision = as_told["usage_revision"].take(pc.index_in(runs["id"], as_told["id"].combine_chunks()))
        return replace(self, runs=runs.append_column("usage_revision", usage_revision))


def prepare(batch: SpanBatch) -> PreparedBatch:
    """Does for `batch` all that needs no database."""
    attributes, history = take_histories(batch.events, batch.attributes)
    usage = arriving_usage(batch.events)
    events = batch.events.drop_columns(_OF_THE_RUN)
    for name in ("usage_counts", "usage_agent_name"):
        events = events.append_column(name, getattr(usage, name))
    if history:
        events = events.append_column("history_id", history.ids)
    return PreparedBatch(
        runs=run_deltas(batch.events).append_column("usage_revision", usage.usage_revision),
        resources=prepare_origins(batch.resources),
        scopes=prepare_origins(batch.scopes),
        events=with_attributes(events, attributes).beside(batch.events.select(_OF_THE_RUN)),
        logs=_of(batch.logs) if batch.logs else None,
        links=_of(batch.links) if batch.links else None,
        records=batch.records,
        history_parts=history.parts if history else None,
    )


def prepare_origins(origins: Origins) -> RowsWithAttributes:
    """The same rows for the same object where it is not large: telemetry comes from few origins."""
    return (_prepared_kept if origins.table.nbytes <= ORIGINS_KEPT_BYTES_MAX else _prepared)(origins)


def _prepared(origins: Origins) -> RowsWithAttributes:
    return with_attributes(origins.table, origins.attributes)


_prepared_kept = lru_cache(maxsize=256)(_prepared)


def _of(parts: EventParts) -> RowsWithAttributes:
    return with_attributes(parts.table, parts.attributes)
