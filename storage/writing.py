"""Writes: one batch, one transaction, parents before children.

The run's row comes first. What its upsert returns tells new runs from known ones: only a known run can hold a span
already, so only there the store is asked for spans with the same id, within the run's time bounds. Run counts are
taken as if nothing were repeated, and corrected in the rare case that something was.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
from sqlalchemy import Engine

from .batch import AttributeColumns, EventParts, Origins, SpanBatch, WriteOutcome
from .engine import ROW_GROUP_ROWS, native
from .errors import WriteFailed
from .identity import Settlement, settle
from .runs import run_deltas
from .variant import VariantSource, variant_source

KNOWN_KEYS_MAX = 200_000


class _KnownRun(NamedTuple):
    """A run that was there before the batch; the bounds of its events' start times, the batch's included."""

    id: bytes
    started_at: int
    last_started_at: int
    event_count: int


_WriteRuns = Callable[[pa.Table], list[_KnownRun]]


class Writer:
    """Owns the connection that writes. `write` may be called from several threads; they take turns."""

    def __init__(self, engine: Engine) -> None:
        self._holder = engine.raw_connection()
        self._connection = native(self._holder)
        self._turn = threading.Lock()
        self._known: dict[str, _Known] = {name: _Known() for name in ("sessions", "runs", "resources", "scopes")}

    def write(self, batch: SpanBatch) -> WriteOutcome:
        """Stores the batch, see `Store.write_spans`."""
        with self._turn:
            try:
                return self._written(batch)
            except duckdb.Error as error:
                raise WriteFailed(f"not stored: {error}") from error

    def _written(self, batch: SpanBatch) -> WriteOutcome:
        """Runs that this process has not met are taken for new: nearly always right, and cheaper than looking. The
        table's key refuses the batch where it is wrong, and it is written again the careful way."""
        try:
            return self._in_transaction(batch, self._insert_runs)
        except duckdb.ConstraintException:
            return self._in_transaction(batch, self._upsert_runs)

    def _in_transaction(self, batch: SpanBatch, write_runs: _WriteRuns) -> WriteOutcome:
        committed = False
        try:
            with self._transaction():
                outcome = self._store(batch, write_runs)
            committed = True
        finally:
            for known in self._known.values():
                known.settle(committed=committed)
        return outcome

    def close(self) -> None:
        """Folds the write-ahead log into the file."""
        with self._turn:
            self._connection.execute("CHECKPOINT")
            self._holder.close()

    def _store(self, batch: SpanBatch, write_runs: _WriteRuns) -> WriteOutcome:
        for name, origins in (("resources", batch.resources), ("scopes", batch.scopes)):
            self._insert_origins(name, origins)
        known_runs = self._write_runs(batch.events, write_runs)
        settlement = settle(batch.events, self._namesakes(batch.events, known_runs))
        replaced = [(run_id, self._delete_event(run_id, event_id)) for run_id, event_id in settlement.replaced]
        self._insert_events(batch, settlement)
        if not settlement.keep.all() or replaced:
            self._correct(batch.events, settlement, replaced)
        for name, parts in (("event_logs", batch.logs), ("event_links", batch.links)):
            self._insert_parts(name, parts, batch.events, settlement)
        stored = int(settlement.keep.sum())
        repeated = len(settlement.keep) - stored
        return WriteOutcome(stored=stored, repeated=repeated, replaced=len(settlement.replaced))

    def _insert_origins(self, table: str, origins: Origins) -> None:
        ids = origins.table["id"].to_pylist()
        new_ids = self._known[table].new_among(ids)
        new = np.flatnonzero([number in new_ids for number in ids])
        if len(new):
            rows = origins.table.take(pa.array(new))
            self._insert(table, rows, _attributes_of(origins.attributes, new), "ON CONFLICT DO NOTHING")

    def _write_runs(self, events: pa.Table, write_runs: _WriteRuns) -> list[_KnownRun]:
        """Brings the runs up to date; returns those that were there before."""
        delta = run_deltas(events)
        with self._registered(delta=delta):
            if self._known["sessions"].new_among(delta["session_id"].unique().to_pylist()):
                self._connection.execute(_INSERT_SESSIONS)
            return write_runs(delta)

    def _insert_runs(self, delta: pa.Table) -> list[_KnownRun]:
        if len(self._known["runs"].new_among(delta["id"].to_pylist())) < delta.num_rows:
            return self._upsert_runs(delta)
        self._connection.execute(_INSERT_RUNS)
        return []

    def _upsert_runs(self, delta: pa.Table) -> list[_KnownRun]:
        self._known["runs"].new_among(delta["id"].to_pylist())
        upserted = self._connection.execute(_UPSERT_RUNS).fetchall()
        added = dict(zip(delta["id"].to_pylist(), delta["event_count"].to_pylist(), strict=True))
        return [_KnownRun(*run) for run in upserted if run[-1] > added[run[0]]]

    def _namesakes(self, events: pa.Table, known_runs: list[_KnownRun]) -> pa.Table | None:
        """The stored events that share run and span id with one of `events`."""
        if not known_runs:
            return None
        bounds = [min(run.started_at for run in known_runs), max(run.last_started_at for run in known_runs)]
        ids = pa.table({"id": pa.array([run.id for run in known_runs], pa.binary(16))})
        with self._registered(events=events.select(["run_id", "id"]), known_runs=ids):
            return self._connection.sql(_NAMESAKES, params=bounds).to_arrow_table()

    def _insert_events(self, batch: SpanBatch, settlement: Settlement) -> None:
        kept = np.flatnonzero(settlement.keep)
        events = batch.events.drop_columns(["session_id", "service_name"])
        shared = np.flatnonzero(settlement.ids != events["id"].to_numpy())
        otel_span_ids = np.zeros(len(settlement.ids), dtype=np.int64)
        otel_span_ids[shared] = events["id"].to_numpy()[shared]
        unshared = np.ones(len(settlement.ids), dtype=bool)
        unshared[shared] = False
        events = events.set_column(events.schema.get_field_index("id"), "id", pa.array(settlement.ids))
        events = events.append_column("otel_span_id", pa.array(otel_span_ids, mask=unshared))
        if len(kept) < events.num_rows:
            events = events.take(pa.array(kept))
        if len(kept):
            self._insert("execution_events", events, _attributes_of(batch.attributes, kept))

    def _delete_event(self, run_id: bytes, event_id: int) -> str:
        """Returns the status that the event had."""
        for statement in _DELETE_PARTS:
            self._connection.execute(statement, [run_id, event_id])
        [[status]] = self._connection.execute(_DELETE_EVENT, [run_id, event_id]).fetchall()
        return str(status)

    def _insert_parts(self, table: str, parts: EventParts, events: pa.Table, settlement: Settlement) -> None:
        rows = parts.table["event_row"].to_numpy()
        kept = np.flatnonzero(settlement.keep[rows])
        if not len(kept):
            return
        of_event = pa.array(rows[kept])
        columns = parts.table.take(pa.array(kept)).drop_columns(["event_row"])
        columns = columns.append_column("run_id", events["run_id"].take(of_event))
        columns = columns.append_column("event_id", pa.array(settlement.ids[rows[kept]]))
        columns = columns.append_column("event_started_at_unix_nano", events["started_at_unix_nano"].take(of_event))
        self._insert(table, columns, _attributes_of(parts.attributes, kept))

    def _correct(self, events: pa.Table, settlement: Settlement, replaced: list[tuple[bytes, str]]) -> None:
        """Takes what was not new, and the `replaced` (run id, status), off the runs' counts."""
        gone = events.select(["run_id", "status"]).filter(pa.array(~settlement.keep))
        no_more = pa.table(
            {
                "run_id": pa.array([run_id for run_id, _ in replaced], pa.binary(16)),
                "status": pa.array([status for _, status in replaced], pa.string()),
            }
        )
        with self._registered(gone=pa.concat_tables([gone, no_more])):
            self._connection.execute(_CORRECT_COUNTS)

    def _insert(self, table: str, rows: pa.Table, attributes: AttributeColumns, conflict: str = "") -> None:
        source = variant_source(attributes, "a")
        for name, column in source.columns.items():
            rows = rows.append_column(name, column)
        rows = pa.Table.from_batches(rows.combine_chunks().to_batches(max_chunksize=ROW_GROUP_ROWS))
        with self._registered(incoming=rows, **({} if source.pairs is None else {"a_pairs": source.pairs})):
            self._connection.execute(_insert_statement(table, rows.column_names, source, conflict))

    @contextmanager
    def _registered(self, **tables: pa.Table) -> Iterator[None]:
        for name, table in tables.items():
            self._connection.register(name, table)
        yield
        # Not after an error: an aborted transaction refuses this too, and would hide what went wrong.
        for name in tables:
            self._connection.unregister(name)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.begin()
        try:
            yield
        except BaseException:
            self._connection.rollback()
            raise
        self._connection.commit()


_Key = str | int | bytes


class _Known:
    """Keys of rows that are in the store for certain. Forgets all when full."""

    def __init__(self) -> None:
        self._committed: set[_Key] = set()
        self._uncommitted: set[_Key] = set()

    def new_among(self, keys: Iterable[_Key]) -> set[_Key]:
        """The keys not known; from the commit on they are."""
        new = set(keys) - self._committed
        self._uncommitted |= new
        return new

    def settle(self, *, committed: bool) -> None:
        if committed:
            self._committed |= self._uncommitted
        self._uncommitted.clear()
        if len(self._committed) > KNOWN_KEYS_MAX:
            self._committed.clear()


_AS_UUID = ("run_id", "linked_run_id")


def _insert_statement(table: str, columns: list[str], source: VariantSource, conflict: str) -> str:
    plain = [name for name in columns if name not in source.columns]
    selected = [f"{name}::UUID AS {name}" if name in _AS_UUID else name for name in plain]
    return (
        f"INSERT INTO {table} BY NAME SELECT {', '.join(selected)}, {source.expression} AS attributes "  # noqa: S608
        f"FROM incoming {source.join} {conflict}"
    )


def _attributes_of(attributes: AttributeColumns, owners: Any) -> AttributeColumns:
    """The attributes of some owners, in the order given."""
    if len(owners) == len(attributes):
        return attributes
    counts = np.diff(attributes.offsets)[owners]
    offsets = np.concatenate(([0], np.cumsum(counts)))
    entries = np.arange(offsets[-1]) + np.repeat(attributes.offsets[owners] - offsets[:-1], counts)
    at = pa.array(entries)
    values = {value_type: array.take(at) for value_type, array in attributes.values.items()}
    return AttributeColumns(offsets, attributes.keys.take(at), attributes.types[entries], values)


_INSERT_SESSIONS = """
    INSERT INTO sessions
    SELECT session_id, min(started_at_unix_nano) FROM delta GROUP BY session_id ON CONFLICT DO NOTHING
"""

_INSERT_RUNS = "INSERT INTO workflow_runs BY NAME SELECT * REPLACE (id::UUID AS id) FROM delta"

_UPSERT_RUNS = f"""
    {_INSERT_RUNS}
        ON CONFLICT (id) DO UPDATE SET
            session_id = CASE workflow_runs.session_id WHEN 'default' THEN excluded.session_id
                         ELSE workflow_runs.session_id END,
            name = CASE WHEN workflow_runs.root_event_id IS NULL AND excluded.root_event_id IS NOT NULL
                   THEN excluded.name ELSE workflow_runs.name END,
            agent = CASE WHEN workflow_runs.root_event_id IS NULL AND excluded.root_event_id IS NOT NULL
                    THEN coalesce(excluded.agent, workflow_runs.agent)
                    ELSE coalesce(workflow_runs.agent, excluded.agent) END,
            service_name = CASE WHEN workflow_runs.root_event_id IS NULL AND excluded.root_event_id IS NOT NULL
                    THEN coalesce(excluded.service_name, workflow_runs.service_name)
                    ELSE coalesce(workflow_runs.service_name, excluded.service_name) END,
            status = CASE WHEN 'failed' IN (workflow_runs.status, excluded.status) THEN 'failed'
                     WHEN 'completed' IN (workflow_runs.status, excluded.status) THEN 'completed'
                     ELSE 'running' END,
            root_event_id = coalesce(workflow_runs.root_event_id, excluded.root_event_id),
            started_at_unix_nano = least(workflow_runs.started_at_unix_nano, excluded.started_at_unix_nano),
            last_started_at_unix_nano =
                greatest(workflow_runs.last_started_at_unix_nano, excluded.last_started_at_unix_nano),
            completed_at_unix_nano = greatest(workflow_runs.completed_at_unix_nano, excluded.completed_at_unix_nano),
            event_count = workflow_runs.event_count + excluded.event_count,
            error_count = workflow_runs.error_count + excluded.error_count
    RETURNING id::BLOB, started_at_unix_nano, last_started_at_unix_nano, event_count
"""

_NAMESAKES = """
    SELECT e.run_id::BLOB AS run_id, e.id, coalesce(e.otel_span_id, e.id) AS span_id, e.kind,
           e.started_at_unix_nano, e.completed_at_unix_nano
    FROM execution_events e
    WHERE e.started_at_unix_nano BETWEEN ? AND ?
      AND e.run_id IN (SELECT id::UUID FROM known_runs)
      AND (e.run_id, coalesce(e.otel_span_id, e.id)) IN (SELECT run_id::UUID, id FROM events)
"""

_DELETE_PARTS = [
    f"DELETE FROM {table} WHERE run_id = ?::BLOB::UUID AND event_id = ?"  # noqa: S608 our own names
    for table in ("event_logs", "event_links")
]
_DELETE_EVENT = "DELETE FROM execution_events WHERE run_id = ?::BLOB::UUID AND id = ? RETURNING status"

_CORRECT_COUNTS = """
    UPDATE workflow_runs SET event_count = event_count - gone_by_run.events,
                             error_count = error_count - gone_by_run.errors
    FROM (SELECT run_id::UUID AS id, count(*) AS events, count(*) FILTER (status = 'failed') AS errors
          FROM gone GROUP BY ALL) AS gone_by_run
    WHERE workflow_runs.id = gone_by_run.id
"""
