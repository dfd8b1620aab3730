"""Rows of runs as batches of events make them, and the sessions that these runs name."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa

from .known import Known
from .runs import PARENT_IS_REMOTE
from .statements import Statements, by_one_thread

# Of an event, as `run_deltas` tells it.
IS_ENTRY = f"(flags & {PARENT_IS_REMOTE}) = {PARENT_IS_REMOTE}"


class KnownRun(NamedTuple):
    """A run, there before the batch or not; the bounds of its events' start times, the batch's included, and how many
    events it had before."""

    id: bytes
    session_id: str
    started_at: int
    last_started_at: int
    event_count: int


class Gone(NamedTuple):
    """An event that its finished copy has replaced; `may_decide`: its run's status may have been its own."""

    run_id: bytes
    has_failed: bool
    may_decide: bool


class RunRows:
    """Writes them, within the transaction of the writer whose statements these are. `known` are the runs and the
    sessions that are there."""

    def __init__(self, statements: Statements, known: Known, known_sessions: Known) -> None:
        self._statements = statements
        self._known, self._known_sessions = known, known_sessions

    def insert(self, runs: pa.Table) -> list[KnownRun]:
        """What `runs.run_deltas` says of runs, taken for new where this process has not met them: raises
        ConstraintException where one is there. Returns at least those that were there before."""
        if len(self._known.new_among(runs["id"].to_pylist())) < runs.num_rows:
            return self.upsert(runs)
        self._insert_sessions(runs.select(["session_id", "started_at_unix_nano"]))
        self._statements.execute_kept(by_one_thread(_INSERT_RUNS), runs=runs)
        return []

    def upsert(self, runs: pa.Table) -> list[KnownRun]:
        """As `insert`, of any runs."""
        self._known.new_among(runs["id"].to_pylist())
        upserted = [KnownRun(*row) for row in self._statements.execute_kept(_UPSERT_RUNS, runs=runs).fetchall()]
        sessions = [[run.session_id for run in upserted], [run.started_at for run in upserted]]
        self._insert_sessions(pa.table(sessions, ["session_id", "started_at_unix_nano"]))
        added = dict(zip(runs["id"].to_pylist(), runs["event_count"].to_pylist(), strict=True))
        return [run._replace(event_count=run.event_count - added[run.id]) for run in upserted]

    def uncount(self, replaced: list[Gone]) -> None:
        """Takes events that are no more off the runs' counts and status."""
        gone = pa.table(list(zip(*replaced, strict=True)), _GONE)
        self._statements.execute(_CORRECT_COUNTS, incoming=gone)
        if any(event.has_failed and event.may_decide for event in replaced):
            self._statements.execute(_CORRECT_STATUS, incoming=gone)

    def _insert_sessions(self, named: pa.Table) -> None:
        if self._known_sessions.new_among(named["session_id"].unique().to_pylist()):
            self._statements.execute_kept(_INSERT_SESSIONS, runs=named)


_INSERT_SESSIONS = by_one_thread("""
    INSERT INTO sessions (id, created_at_unix_nano, status)
    SELECT session_id, min(started_at_unix_nano), 'active' FROM runs GROUP BY session_id ON CONFLICT DO NOTHING
""")

_INSERT_RUNS = "INSERT INTO workflow_runs BY NAME SELECT * REPLACE (id::UUID AS id) FROM runs"

# Its root comes, or its root's finished copy: one that came before is not told again. Or, while it has none, an event
# that came in from elsewhere and has ended.
_IS_OF_WHAT_DECIDES = """(excluded.root_event_id = coalesce(workflow_runs.root_event_id, excluded.root_event_id)
    OR coalesce(workflow_runs.root_event_id, excluded.root_event_id) IS NULL AND excluded.status <> 'running')"""

_UPSERT_RUNS = f"""
    {_INSERT_RUNS}
        ON CONFLICT (id) DO UPDATE SET
            session_id = CASE workflow_runs.session_id WHEN 'default' THEN excluded.session_id
                         ELSE workflow_runs.session_id END,
            name = CASE WHEN {_IS_OF_WHAT_DECIDES}
                   THEN excluded.name ELSE coalesce(workflow_runs.name, excluded.name) END,
            agent = CASE WHEN {_IS_OF_WHAT_DECIDES}
                    THEN coalesce(excluded.agent, workflow_runs.agent)
                    ELSE coalesce(workflow_runs.agent, excluded.agent) END,
            service_name = CASE WHEN {_IS_OF_WHAT_DECIDES}
                    THEN coalesce(excluded.service_name, workflow_runs.service_name)
                    ELSE coalesce(workflow_runs.service_name, excluded.service_name) END,
            -- What its root says counts, and until that comes what entered it from elsewhere, see `run_deltas`. Other
            -- statuses are said of the run, and hold until its root has ended.
            status = CASE WHEN workflow_runs.root_event_id IS NULL AND excluded.root_event_id IS NOT NULL
                          AND workflow_runs.status IN ('completed', 'failed')
                     THEN excluded.status
                     WHEN workflow_runs.root_event_id IS NOT NULL AND excluded.root_event_id IS NULL
                     THEN workflow_runs.status
                     WHEN 'failed' IN (workflow_runs.status, excluded.status) THEN 'failed'
                     WHEN 'completed' IN (workflow_runs.status, excluded.status) THEN 'completed'
                     ELSE workflow_runs.status END,
            root_event_id = coalesce(workflow_runs.root_event_id, excluded.root_event_id),
            started_at_unix_nano = least(workflow_runs.started_at_unix_nano, excluded.started_at_unix_nano),
            last_started_at_unix_nano =
                greatest(workflow_runs.last_started_at_unix_nano, excluded.last_started_at_unix_nano),
            completed_at_unix_nano = greatest(workflow_runs.completed_at_unix_nano, excluded.completed_at_unix_nano),
            event_count = workflow_runs.event_count + excluded.event_count,
            error_count = workflow_runs.error_count + excluded.error_count,
            parts_counted = workflow_runs.parts_counted AND excluded.parts_counted,
            revision = workflow_runs.revision + 1,
            -- Never NULL: what came with the new events is for a run of nothing else.
            usage_revision =
                CASE WHEN excluded.event_count = 0 AND workflow_runs.usage_revision = workflow_runs.revision
                THEN workflow_runs.revision + 1 ELSE coalesce(workflow_runs.usage_revision, -1) END
    RETURNING id::BLOB, session_id, started_at_unix_nano, last_started_at_unix_nano, event_count
"""

_GONE = pa.schema([("run_id", pa.binary(16)), ("has_failed", pa.bool_()), ("may_decide", pa.bool_())])
_CORRECT_COUNTS = """
    UPDATE workflow_runs SET event_count = event_count - gone_by_run.events,
                             error_count = error_count - gone_by_run.errors
    FROM (SELECT run_id::UUID AS id, count(*) AS events, count(*) FILTER (has_failed) AS errors
          FROM incoming GROUP BY ALL) AS gone_by_run
    WHERE workflow_runs.id = gone_by_run.id
"""
# As `runs` says it of a batch.
_CORRECT_STATUS = f"""
    UPDATE workflow_runs SET status = roots.status
    FROM (SELECT e.run_id, CASE WHEN bool_or(e.status = 'failed') THEN 'failed'
                                WHEN bool_or(e.status = 'completed') THEN 'completed' ELSE 'running' END AS status
          FROM execution_events e JOIN workflow_runs r ON r.id = e.run_id
          WHERE (e.parent_event_id IS NULL
                 OR r.root_event_id IS NULL AND {IS_ENTRY})
            AND e.started_at_unix_nano BETWEEN r.started_at_unix_nano AND r.last_started_at_unix_nano
            AND e.run_id IN (SELECT run_id::UUID FROM incoming WHERE has_failed AND may_decide)
          GROUP BY e.run_id) AS roots
    WHERE workflow_runs.id = roots.run_id
"""  # noqa: S608 our own condition
