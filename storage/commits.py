"""The order of commits, for whoever follows what comes.

Every event, log record and metric point bears the stamp of the commit that stored it (`stored_at_unix_nano`); stamps
rise from commit to commit, also over restarts. So a cursor is a stamp: what came after it is one comparison, however
long the cursor was away, and since rows lie in the order they came, the comparison prunes the scan to them. An event
that takes the place of a pending copy bears its own commit's stamp, and so comes once more. A stamp is a reading of the
clock, moved up where the clock does not rise: readers can ask for what came since a time of day.

The engine's own row ids do not serve: a checkpoint that closes the gaps of deleted rows gives the others new ids, and
ids come to be used again.
"""

from __future__ import annotations

import time

from sqlalchemy import Engine, func, select

from .schema import EventLog, ExecutionEvent, WorkflowMetric

_STAMPED = (ExecutionEvent, EventLog, WorkflowMetric)


class Commits:
    """Gives each commit its stamp and knows the last one. The writer's, which makes one commit at a time."""

    def __init__(self, engine: Engine) -> None:
        with engine.connect() as connection:
            latest = [connection.scalar(select(func.max(table.stored_at_unix_nano))) for table in _STAMPED]
        self._last = self._coming = max(stamp or 0 for stamp in latest)

    @property
    def last(self) -> int:
        """The stamp of the last commit; a read that begins now sees all commits up to it at least. Any thread may
        ask."""
        return self._last

    def stamp(self) -> int:
        """A stamp for the commit that comes."""
        self._coming = max(self._last + 1, time.time_ns())
        return self._coming

    def done(self) -> None:
        """The commit that was stamped last is durable."""
        self._last = self._coming
