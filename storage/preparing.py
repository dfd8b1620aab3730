"""What can be done for a write before the database is needed.

It is a good part of a write's work, and can be done in another process: what comes out is plain columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from .batch import EventParts, Origins, SpanBatch
from .runs import run_deltas
from .variant import RowsWithAttributes, with_attributes

_OF_THE_RUN = ["session_id", "service_name"]


@dataclass(frozen=True)
class PreparedBatch:
    """A SpanBatch ready to be written: rows with their attributes, and what the batch says about its runs."""

    runs: pa.Table
    resources: RowsWithAttributes
    scopes: RowsWithAttributes
    events: RowsWithAttributes
    logs: RowsWithAttributes | None
    links: RowsWithAttributes | None
    records: dict[str, pa.Table]


def prepare(batch: SpanBatch) -> PreparedBatch:
    """Does for `batch` all that needs no database."""
    return PreparedBatch(
        runs=run_deltas(batch.events),
        resources=_of(batch.resources),
        scopes=_of(batch.scopes),
        events=with_attributes(batch.events.drop_columns(_OF_THE_RUN), batch.attributes),
        logs=_of(batch.logs) if batch.logs else None,
        links=_of(batch.links) if batch.links else None,
        records=batch.records,
    )


def _of(part: Origins | EventParts) -> RowsWithAttributes:
    return with_attributes(part.table, part.attributes)
