"""Log records and metric points: rows that come by themselves, known by a hash of what was sent.

The hash takes in the record with its ids, its resource and its scope, so one sent again is refused by its number alone,
looked for among what was stored of its time; whoever makes it tells equals apart that are several. A record of a run
that nobody has told of yet makes that run.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .batch import AttributeColumns, Origins
from .preparing import PreparedBatch, prepare_origins
from .runs import mentioned_runs
from .variant import RowsWithAttributes, with_attributes

# table: the column with the hash, the column with the time that it is looked for by
_KEYS = {
    "event_logs": ("log_index", "event_started_at_unix_nano"),
    "workflow_metrics": ("point_id", "time_unix_nano"),
}
_OF_THE_RUN = ["session_id", "service_name", "met_at_unix_nano", "is_placed_by_arrival"]


@dataclass(frozen=True)
class HashedBatch:
    """Rows of `table` (`event_logs` or `workflow_metrics`) that are stored together or not at all.

    `rows` has the columns of the table but `attributes` (`run_id` as 16 bytes, null for none), and besides, for
    the runs: `session_id` (text or null), `service_name`, `met_at_unix_nano`, when the run was under way, and
    `is_placed_by_arrival`, where that is only when the record came, for want of any time in it. `records`: what the
    rows bring along for other tables, as in `SpanBatch`, with `event_row` for the row.
    """

    table: str
    rows: pa.Table
    attributes: AttributeColumns
    resources: Origins
    scopes: Origins
    records: dict[str, pa.Table] = field(default_factory=dict)


@dataclass(frozen=True)
class PreparedHashed:
    """A HashedBatch ready to be written, without the rows that are `repeated`: rows with their attributes and, besides
    what is stored, what they say of their runs; and `runs`, those that it mentions. `since` and `until` bound the times
    of its rows but those of time 0, which is none: then `earliest` is 0, else it says no more."""

    table: str
    runs: pa.Table
    resources: RowsWithAttributes
    scopes: RowsWithAttributes
    rows: RowsWithAttributes
    since: int
    until: int
    earliest: int
    records: dict[str, pa.Table]
    is_placed_by_arrival: bool
    repeated: int

    def of(self, new: npt.NDArray[np.int64]) -> PreparedHashed:
        """Only these rows, in this order, the others being repeated."""
        rows = self.rows.take(new)
        records = {table: _of_rows(brought, new) for table, brought in self.records.items()}
        repeated = self.repeated + len(self.rows.rows) - len(new)
        runs = _mentioned_runs(self.table, rows.rows)
        return replace(self, rows=rows, runs=runs, records=records, repeated=repeated)

    @property
    def hashes(self) -> pa.Table:
        """What tells the rows apart, as the column `hash`."""
        return pa.table({"hash": self.rows.rows[_KEYS[self.table][0]]})

    @property
    def stored_hashes(self) -> str:
        """The statement that finds those of `incoming` that are stored, between two times or at a third."""
        key, time = _KEYS[self.table]
        return (
            f"SELECT {key} AS hash FROM {self.table} "  # noqa: S608 our own names
            f"WHERE ({time} BETWEEN ? AND ? OR {time} = ?) AND {key} IN (SELECT hash FROM incoming)"
        )


# What a write can be of: spans, or rows that are known by a hash.
Prepared = PreparedBatch | PreparedHashed


def prepare_hashed(batch: HashedBatch) -> PreparedHashed:
    """Does for `batch` all that needs no database. It has at least one row."""
    key, time = _KEYS[batch.table]
    _, first = np.unique(batch.rows[key].to_numpy(), return_index=True)
    first.sort()
    rows = with_attributes(batch.rows.drop_columns(_OF_THE_RUN), batch.attributes)
    rows = rows.beside(batch.rows.select(_OF_THE_RUN))
    times = batch.rows[time].to_numpy()
    told = times[times != 0]
    prepared = PreparedHashed(
        table=batch.table,
        runs=_mentioned_runs(batch.table, batch.rows),
        resources=prepare_origins(batch.resources),
        scopes=prepare_origins(batch.scopes),
        rows=rows,
        since=int(told.min(initial=times.max())),
        until=int(times.max()),
        earliest=int(times.min()),
        records=batch.records,
        is_placed_by_arrival=bool(batch.rows["is_placed_by_arrival"].to_numpy().any()),
        repeated=0,
    )
    return prepared if len(first) == len(times) else prepared.of(first)


def _mentioned_runs(table: str, rows: pa.Table) -> pa.Table:
    return mentioned_runs(rows, are_logs=table == "event_logs")


def _of_rows(brought: pa.Table, kept: npt.NDArray[np.int64]) -> pa.Table:
    """What these rows bring along, numbered as they are once the others are gone."""
    row = brought["event_row"].to_numpy()
    brought = brought.filter(pa.array(np.isin(row, kept)))
    renumbered = pa.array(np.searchsorted(kept, brought["event_row"].to_numpy()), pa.int32())
    return brought.set_column(brought.schema.get_field_index("event_row"), "event_row", renumbered)
