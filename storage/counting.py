"""Whose usage counts, written beside the events before somebody asks.

Working it out (`usage`) takes ten times as long as all other figures of the same events, and hardly ever changes once
a run is over. So each event that reports usage bears whether that counts (`usage_counts`) and whose it is
(`usage_agent_name`); both hold where the run's `usage_revision` is its `revision`, which rises whenever events of the
run are written. What is written while it is worked out shows in the revision, so nothing waits for that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, Select, and_, func, not_, select

from .reading import Reader
from .usage import RUN_COLUMNS, RUNS, usage_of, whole_runs

PORTION_EVENTS = 100_000
# Longer runs are worked out whenever somebody asks: while they grow, each time anew would be each time the whole run.
RUN_EVENTS_MAX = 5_000
_RUNS_MAX = 20_000

USAGE_IS_CURRENT: ColumnElement[bool] = func.coalesce(RUNS.c.usage_revision == RUNS.c.revision, False)


class Portion(NamedTuple):
    """Some runs (RUN_COLUMNS, revision), and of their events those that report usage (run_id, id, counts, user)."""

    runs: pa.Table
    counted: pa.Table


def count_portion(reader: Reader, *, before: int | None = None) -> Portion:
    """The oldest runs that are not current, PORTION_EVENTS events of them at most, and only such whose last event
    started before then (ns since 1970), where that is told. Raises QueryTimeout."""
    runs = reader.arrow(_OLDEST if before is None else _OLDEST.where(RUNS.c.last_started_at_unix_nano < before))
    events = np.cumsum(runs["event_count"].to_numpy())
    runs = runs.slice(0, max(1, int(np.searchsorted(events, PORTION_EVENTS, side="right"))))
    counted = [reader.arrow(_counted(some)) for some in whole_runs(runs)]
    return Portion(runs, pa.concat_tables(counted) if counted else _NOTHING)


def write_counted(connection: duckdb.DuckDBPyConnection, portion: Portion) -> None:
    """Writes what was found of the runs that have not changed since, in the caller's transaction."""
    runs, counted = portion
    unchanged = pa.array([run_id for (run_id,) in connection.execute(_SET_REVISIONS).fetchall()], pa.string())
    counted = counted.filter(pc.is_in(counted["run_id"], value_set=unchanged))
    if counted.num_rows:
        bounds = [pc.min(runs["started_at_unix_nano"]).as_py(), pc.max(runs["last_started_at_unix_nano"]).as_py()]
        connection.execute(_SET_COUNTED, bounds)


def _counted(some: ColumnElement[bool]) -> Select[Any]:
    used = usage_of(some)
    return select(used.c.run_id, used.c.id, used.c.counts, used.c.user).where(used.c.reports)


def _oldest(events_max: int) -> Select[Any]:
    to_count = and_(not_(USAGE_IS_CURRENT), RUNS.c.event_count <= events_max)
    return select(*RUN_COLUMNS, RUNS.c.revision).where(to_count).order_by(RUNS.c.started_at_unix_nano).limit(_RUNS_MAX)


_OLDEST = _oldest(RUN_EVENTS_MAX)
_NOTHING = pa.table({"run_id": pa.nulls(0, pa.string())})

# The engine finds what these name beside its tables among the variables of the caller.
_SET_REVISIONS = """
    UPDATE workflow_runs SET usage_revision = runs.revision FROM runs
    WHERE workflow_runs.id = runs.id::UUID AND workflow_runs.revision = runs.revision
    RETURNING workflow_runs.id::VARCHAR
"""
_SET_COUNTED = """
    UPDATE execution_events SET usage_counts = counted.counts, usage_agent_name = counted."user" FROM counted
    WHERE execution_events.started_at_unix_nano BETWEEN ? AND ?
      AND execution_events.run_id = counted.run_id::UUID AND execution_events.id = counted.id
"""
