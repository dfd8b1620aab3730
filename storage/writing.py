"""Writes: one batch, one transaction, parents before children.

The run's row comes first. What its upsert returns tells new runs from known ones: only a known run can hold a span
already, so only there the store is asked for spans with the same id, within the run's time bounds. Runs are written as
if no span came again; in the rare case that one did, all is taken back and written by what is new.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import replace
from time import monotonic

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from sqlalchemy import Engine

from .batch import WriteOutcome
from .commits import Commits
from .compacting import Compaction, can_arrive_compacted
from .counting import Portion, write_counted
from .damage import Damage
from .engine import EngineMemory, native
from .errors import WriteFailed
from .hashed import Prepared, PreparedHashed
from .identity import Settlement, settle
from .known import Known
from .large_values import LargeValues
from .preparing import PreparedBatch
from .records import DELETE_OWN, JOINED, STATEMENTS, told_by_kept
from .run_rows import IS_ENTRY, Gone, KnownRun, RunRows
from .statements import SIDE_BY_SIDE, Statements, by_one_thread
from .variant import RowsWithAttributes

# So many rows, stored or compacted, fill memory with some hundred megabytes that nobody asked for.
MUCH_ROWS = 1_000_000

_KNOWN = ("sessions", "runs", "resources", "scopes", "history_parts")

Bools = npt.NDArray[np.bool_]


_WriteRuns = Callable[[RunRows, pa.Table], list[KnownRun]]


class _NotAllNew(Exception):
    """Not all that came is to be stored, or not under the ids that it came with, and so the runs are others than the
    batch says; what to write instead."""

    def __init__(self, rest: Prepared, settlement: Settlement | None = None) -> None:
        super().__init__()
        self.rest, self.settlement = rest, settlement


class Writer:
    """Owns the connection that writes. `write` may be called from several threads; they take turns."""

    def __init__(self, engine: Engine, damage: Damage) -> None:
        self._damage = damage
        self._holder = engine.raw_connection()
        self._connection = native(self._holder)
        self._statements = Statements(self._connection)
        self._memory = EngineMemory(self._connection)
        self._large_values = LargeValues(self._connection, self._memory)
        self._turn = threading.Lock()
        self._has_failed = False
        self._compaction = Compaction(self._connection, damage)
        self._written_at = monotonic()
        self.busy_s = 0.0
        self._rows_since_given_back = 0
        self.compacts_arrivals = False
        self.commits = Commits(engine)
        self._known: dict[str, Known] = {name: Known() for name in _KNOWN}
        self._runs = RunRows(self._statements, self._known["runs"], self._known["sessions"])

    def write(self, batch: Prepared) -> WriteOutcome:
        """See `Store.write`."""
        with self._taking_turns("not stored"):
            began = monotonic()
            try:
                outcome = self._written(batch)
                self._rows_since_given_back += outcome.stored
                return outcome
            finally:
                self._written_at = monotonic()
                self.busy_s += self._written_at - began

    @property
    def idle_s(self) -> float:
        """See `Store.idle_s`."""
        return monotonic() - self._written_at

    def write_usage(self, portion: Portion) -> None:
        """See `Store.count_usage`."""
        with self._taking_turns("usage not counted"), self._damage.transaction(self._connection):
            write_counted(self._connection, portion)

    def compact(self) -> int:
        """See `Store.compact`."""
        with self._taking_turns("not compacted"):
            rows = self._compaction.portion()
            self._rows_since_given_back += rows
            return rows

    def write_text_filters(self, filters: pa.Table) -> None:
        """See `Store.note_texts`."""
        with self._taking_turns("texts not noted"), self._damage.transaction(self._connection):
            self._statements.execute_kept(_INSERT_TEXT_FILTERS, incoming=filters)

    def give_memory_back(self) -> None:
        """See `Store.give_memory_back`."""
        if self._rows_since_given_back >= MUCH_ROWS:
            with self._taking_turns("memory not given back"):
                self._memory.give_back()
                self._rows_since_given_back = 0

    @contextmanager
    def _taking_turns(self, failed: str) -> Iterator[None]:
        with self._turn:
            self._damage.refuse()
            try:
                self._take_back()
                yield
            except duckdb.Error as error:
                self._has_failed = True
                self._damage.look_at(error)
                raise WriteFailed(f"{failed}: {error}") from error

    def _take_back(self) -> None:
        """What failed for want of memory may not have been taken back, for the same want."""
        if self._has_failed:
            with suppress(duckdb.TransactionException):  # there is none
                self._connection.rollback()
            self._has_failed = False

    def _written(self, batch: Prepared) -> WriteOutcome:
        sizes = [_size(name, parts) for name, parts in _tables_of(batch)]
        self._large_values.make_room(sizes)
        try:
            outcome = self._taken_for_new(batch)
        except _NotAllNew as found:
            outcome = self._in_transaction(found.rest, RunRows.upsert, found.settlement)
        self._large_values.stored(sizes, outcome.stored / max(1, outcome.stored + outcome.repeated))
        return outcome

    def _taken_for_new(self, batch: Prepared) -> WriteOutcome:
        """Runs that this process has not met are taken for new: nearly always right, and cheaper than looking. The
        table's key refuses the batch where it is wrong, and it is written again the careful way."""
        try:
            return self._in_transaction(batch, RunRows.insert)
        except duckdb.ConstraintException:
            return self._in_transaction(batch, RunRows.upsert)

    def _on_arrival(self, batch: Prepared) -> AbstractContextManager[None]:
        wanted = self.compacts_arrivals and isinstance(batch, PreparedBatch) and can_arrive_compacted(batch)
        return self._compaction.on_arrival() if wanted else nullcontext()

    def _in_transaction(
        self, batch: Prepared, write_runs: _WriteRuns, settlement: Settlement | None = None
    ) -> WriteOutcome:
        committed = False
        # Before it, so that what fails then is not told of a batch that is stored.
        self._compaction.fold_arrivals()
        self._statements.keep()
        try:
            with self._on_arrival(batch), self._damage.transaction(self._connection):
                outcome = self._store(batch, write_runs, settlement)
            committed = True
            self.commits.done()
        finally:
            for known in self._known.values():
                known.settle(committed=committed)
        return outcome

    def close(self) -> None:
        """Folds the write-ahead log into the file. Raises WriteFailed where that cannot be, and closes all the same."""
        with self._turn:
            try:
                self._connection.execute("CHECKPOINT")
            except duckdb.Error as error:
                kept = "what was stored is in its log, which is read when it is opened again"
                raise WriteFailed(f"the file could not be put in order; {kept}: {error}") from error
            finally:
                self._holder.close()

    def _store(self, batch: Prepared, write_runs: _WriteRuns, settlement: Settlement | None) -> WriteOutcome:
        for table, origins in (("resources", batch.resources), ("scopes", batch.scopes)):
            self._insert_origins(table, origins)
        known_runs = write_runs(self._runs, batch.runs) if batch.runs.num_rows else []
        if isinstance(batch, PreparedHashed):
            return self._store_hashed(batch, known_runs)
        return self._store_events(batch, settlement or self._settlement(batch, known_runs))

    def _store_hashed(self, batch: PreparedHashed, known_runs: list[KnownRun]) -> WriteOutcome:
        bounds = [batch.since, batch.until, batch.earliest]
        if batch.is_placed_by_arrival:  # and may have arrived before at another time of its run
            bounds = [
                min([batch.since, *(run.started_at for run in known_runs)]),
                max([batch.until, *(run.last_started_at for run in known_runs)]),
                batch.earliest,
            ]
        hashes = batch.hashes
        stored = self._statements.execute(batch.stored_hashes, bounds, incoming=hashes).fetchnumpy()["hash"]
        if len(stored):
            raise _NotAllNew(batch.of(np.flatnonzero(~np.isin(hashes["hash"].to_numpy(), stored))))
        self._insert(batch.table, _stamped(batch.rows, self.commits.stamp()))
        if batch.records:
            every = np.ones(len(hashes), dtype=bool)
            self._insert_records(batch.records, batch.rows.rows.select(_OF_THE_EVENT), every)
        return WriteOutcome(stored=len(hashes), repeated=batch.repeated, replaced=0)

    def _settlement(self, batch: PreparedBatch, known_runs: list[KnownRun]) -> Settlement:
        """Raises _NotAllNew where the runs are not as they were written."""
        events = batch.events.rows
        settlement = settle(events, self._namesakes(events, known_runs))
        if settlement.keep.all() and not _has_renamed_roots(events, settlement):
            return settlement
        raise _NotAllNew(batch.saying_what_is_kept(settlement), settlement)

    def _store_events(self, batch: PreparedBatch, settlement: Settlement) -> WriteOutcome:
        events = batch.events.rows
        replaced = [self._delete_event(run_id, event_id) for run_id, event_id in settlement.replaced]
        if batch.history_parts:
            self._insert_history(batch.history_parts)
        settled = _settled(batch.events, settlement, self.commits.stamp())
        self._insert("execution_events", self._compaction.arrived(settled))
        if replaced:
            self._runs.uncount(replaced)
        owners = _columns_of_events(events, settlement)
        for table, parts in (("event_logs", batch.logs), ("event_links", batch.links)):
            if parts:
                self._insert(table, _of_events(parts, owners, settlement.keep))
        self._insert_records(batch.records, owners, settlement.keep)
        stored = int(settlement.keep.sum())
        repeated = len(settlement.keep) - stored
        return WriteOutcome(stored=stored, repeated=repeated, replaced=len(settlement.replaced))

    def _insert_origins(self, table: str, origins: RowsWithAttributes) -> None:
        ids = origins.rows["id"].to_pylist()
        new = self._known[table].new_among(ids)
        if new:
            rows = origins.take(np.flatnonzero([number in new for number in ids]))
            self._insert(table, rows, "ON CONFLICT DO NOTHING")

    def _insert_history(self, parts: pa.Table) -> None:
        ids = parts["id"].to_pylist()
        new = self._known["history_parts"].new_among(ids)
        if new:
            rows = parts.filter(pa.array([part in new for part in ids]))
            self._statements.execute_kept(_INSERT_HISTORY, incoming=rows)

    def _namesakes(self, events: pa.Table, known_runs: list[KnownRun]) -> pa.Table | None:
        """The stored events that share run and span id with one of `events`."""
        known_runs = [run for run in known_runs if run.event_count]
        if not known_runs:
            return None
        bounds = [min(run.started_at for run in known_runs), max(run.last_started_at for run in known_runs)]
        ids = pa.table({"id": pa.array([run.id for run in known_runs], pa.binary(16))})
        found = self._statements.execute(
            _NAMESAKES, bounds, incoming=events.select(["run_id", "id"]), runs=ids
        ).fetchall()
        return pa.Table.from_pylist([dict(zip(_NAMESAKE_COLUMNS, row, strict=True)) for row in found])

    def _delete_event(self, run_id: bytes, event_id: int) -> Gone:
        for statement in _DELETE_PARTS:
            self._connection.execute(statement, [run_id, event_id])
        [gone] = self._connection.execute(_DELETE_EVENT, [run_id, event_id]).fetchall()
        return Gone(run_id, *gone)

    def _insert(self, table: str, new: RowsWithAttributes, conflict: str = "") -> None:
        if not new.rows.num_rows:
            return
        self._statements.execute_kept(_insert_statement(table, new, conflict), incoming=new.rows, pairs=new.pairs)

    def _insert_records(self, records: dict[str, pa.Table], owners: pa.Table, kept: Bools) -> None:
        for table, statement in STATEMENTS.items():
            if table in records:
                execute = self._statements.execute if table in JOINED else self._statements.execute_kept
                rows = _with_owners(told_by_kept(records[table], kept), owners)
                if rows.num_rows:
                    execute(by_one_thread(statement), incoming=rows)


def _tables_of(batch: Prepared) -> Iterator[tuple[str, list[pa.Table]]]:
    """What the batch has for each table that may hold large values: the rows, and what they are made of besides."""
    if isinstance(batch, PreparedHashed):
        told = [(batch.table, batch.rows)]
    else:
        parts = (("event_logs", batch.logs), ("event_links", batch.links))
        told = [("execution_events", batch.events), *((name, each) for name, each in parts if each)]
        if batch.history_parts:
            yield "history_parts", [batch.history_parts]
    for name, each in told:
        yield name, [each.rows, each.pairs] if each.pairs else [each.rows]
    for name, rows in batch.records.items():
        yield name, [rows]


def _size(name: str, parts: list[pa.Table]) -> tuple[str, int, int]:
    return name, parts[0].num_rows, sum(part.get_total_buffer_size() for part in parts)


# Fewer are copied sooner than read side by side.
_MANY_ROWS = 1_000
_AS_UUID = ("run_id", "linked_run_id", "history_id")


def _insert_statement(table: str, new: RowsWithAttributes, conflict: str) -> str:
    selected = [f"{name}::UUID AS {name}" if name in _AS_UUID else name for name in new.names]
    beside = SIDE_BY_SIDE if new.pairs is None and len(new.rows) >= _MANY_ROWS else ""
    return by_one_thread(
        f"INSERT INTO {table} BY NAME SELECT {', '.join(selected)}, {new.expression} AS attributes "  # noqa: S608
        f"FROM {new.source} {beside} {conflict}"
    )


def _has_renamed_roots(events: pa.Table, settlement: Settlement) -> bool:
    renamed = settlement.ids != events["id"].to_numpy()
    return bool(renamed.any() and (renamed & events["parent_event_id"].is_null().to_numpy()).any())


def _settled(events: RowsWithAttributes, settlement: Settlement, stamp: int) -> RowsWithAttributes:
    """The events that are kept, under their event ids, with the commit's stamp."""
    span_ids = events.rows["id"].to_numpy()
    as_sent = settlement.ids == span_ids
    rows = events.rows.set_column(events.rows.schema.get_field_index("id"), "id", pa.array(settlement.ids))
    rows = rows.append_column("otel_span_id", pa.array(span_ids, mask=as_sent))
    settled = _stamped(replace(events, rows=rows, names=[*events.names, "otel_span_id"]), stamp)
    return settled if settlement.keep.all() else settled.take(np.flatnonzero(settlement.keep))


def _stamped(new: RowsWithAttributes, stamp: int) -> RowsWithAttributes:
    """The rows with the stamp of the commit that stores them."""
    rows = new.rows.append_column("stored_at_unix_nano", pa.repeat(stamp, new.rows.num_rows))
    return replace(new, rows=rows, names=[*new.names, "stored_at_unix_nano"])


def _of_events(parts: RowsWithAttributes, owners: pa.Table, kept: Bools) -> RowsWithAttributes:
    """The logs or links of events that are kept, each with what it repeats of its event."""
    rows = parts.rows if kept.all() else parts.rows.filter(pa.array(kept[parts.rows["event_row"].to_numpy()]))
    rows = _with_owners(rows, owners)
    names = [name for name in parts.names if name != "event_row"]
    return replace(parts, rows=rows, names=[*names, *_OF_THE_EVENT])


_OF_THE_EVENT = ["run_id", "event_id", "event_started_at_unix_nano"]


def _columns_of_events(events: pa.Table, settlement: Settlement) -> pa.Table:
    return pa.table([events["run_id"], pa.array(settlement.ids), events["started_at_unix_nano"]], names=_OF_THE_EVENT)


def _with_owners(rows: pa.Table, owners: pa.Table) -> pa.Table:
    """The rows with `event_row`, the row of the owner, replaced by the owner's columns."""
    of_owners = owners.take(rows["event_row"])
    rows = rows.drop_columns("event_row")
    for name in owners.column_names:
        rows = rows.append_column(name, of_owners[name])
    return rows


_INSERT_TEXT_FILTERS = by_one_thread("INSERT INTO text_filters BY NAME FROM incoming")
_INSERT_HISTORY = by_one_thread("""
    INSERT INTO history_parts BY NAME
    SELECT * REPLACE (id::UUID AS id, list_transform(parts, lambda part: part::UUID) AS parts) FROM incoming
    ON CONFLICT DO NOTHING
""")

_NAMESAKE_COLUMNS = ("run_id", "id", "span_id", "kind", "started_at_unix_nano", "completed_at_unix_nano")
_NAMESAKES = """
    SELECT e.run_id::BLOB AS run_id, e.id, coalesce(e.otel_span_id, e.id) AS span_id, e.kind,
           e.started_at_unix_nano, e.completed_at_unix_nano
    FROM execution_events e
    WHERE e.started_at_unix_nano BETWEEN ? AND ?
      AND e.run_id IN (SELECT id::UUID FROM runs)
      AND (e.run_id, coalesce(e.otel_span_id, e.id)) IN (SELECT run_id::UUID, id FROM incoming)
"""

_DELETE_PARTS = [
    # A log record stays: it came by itself.
    "DELETE FROM event_logs WHERE run_id = ?::BLOB::UUID AND event_id = ? AND log_index >= 0",
    "DELETE FROM event_links WHERE run_id = ?::BLOB::UUID AND event_id = ?",
    *DELETE_OWN,
]
_DELETE_EVENT = f"""
    DELETE FROM execution_events WHERE run_id = ?::BLOB::UUID AND id = ?
    RETURNING status = 'failed', parent_event_id IS NULL OR {IS_ENTRY}
"""  # noqa: S608 our own condition
