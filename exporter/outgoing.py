"""What goes on to other backends: what was stored, in the order of commits, as OTLP requests.

The store is the queue. Every span, log record and metric point bears the stamp of the commit that stored it
(`storage.commits`), so a place in the order of commits is all that a worker has to keep: nothing is copied, nothing is
held between two portions, and whoever was away goes on where it stopped. A pending span that was replaced
bears its new commit's stamp and comes again: at least once, never less. Rows without a stamp were stored before stamps
were kept; they are history and not part of this.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

import pyarrow as pa
from sqlalchemy import ColumnElement, and_, true

from ..storage import EventLog, ExecutionEvent, Reader, WorkflowMetric, event_id_text
from .columns import NO_RUN, Chosen, column
from .log_columns import LOG_COLUMNS, log_messages
from .portions import Feed, Place
from .span_columns import SPAN_COLUMNS, span_messages
from .wire import BYTES

_LAST = (1 << 63) - 1
_TEXT = re.compile(r"(\d{1,19})\.(-?\d{1,19})\.([0-9a-f]{32})\.([0-9a-f]{16})", re.ASCII)

_EVENTS: Any = ExecutionEvent.__table__
_LOGS: Any = EventLog.__table__
_METRICS: Any = WorkflowMetric.__table__


@dataclass(frozen=True, order=True)
class Position:
    """A place in the order of commits: just behind one record. `stamp` is its commit's, `started_at` its time, both in
    nanoseconds since 1970; `run_id` (32 hex digits) and `event_id` (a signed integer) are the span's. A log record or a
    metric point has a number of its own for `event_id` and no run here. It stays true whatever becomes of rows."""

    stamp: int
    started_at: int
    run_id: str
    event_id: int

    def text(self) -> str:
        return f"{self.stamp}.{self.started_at}.{self.run_id}.{event_id_text(self.event_id)}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """The position that `text()` gave. Raises ValueError."""
        found = _TEXT.fullmatch(text)
        if found is None or max(int(found[1]), abs(int(found[2]))) > _LAST:
            raise ValueError(f"{text[:80]!r} is not a position in the order of commits; give one as it was told")
        return cls(int(found[1]), int(found[2]), found[3], _signed(found[4]))

    @classmethod
    def at(cls, stamp: int) -> Position:
        """Behind everything of this commit and of those before it."""
        return cls(stamp, _LAST, "f" * 32, _LAST)


class Signal(StrEnum):
    """What OTLP tells apart."""

    TRACES = "traces"
    LOGS = "logs"
    METRICS = "metrics"


@dataclass(frozen=True)
class Outgoing:
    """A serialised `Export…ServiceRequest` of the signal, with so many spans, log records or points; `position` is
    that of the last of them."""

    request: bytes
    records: int
    position: Position


def outgoing(  # noqa: PLR0913 two limits and a filter, by name
    reader: Reader,
    signal: Signal,
    after: Position,
    *,
    records_max: int = 8192,
    bytes_max: int = 4 << 20,
    where: ColumnElement[bool] | None = None,
) -> Outgoing | None:
    """The next records behind `after`, None where there are none yet: `records_max` at most, and no more than fit into
    `bytes_max`, but one that is larger alone goes alone. `where`: only spans that meet this condition on
    `execution_events`; for TRACES only, and the same object each time, as what is asked is compiled for it. Raises
    QueryTimeout, and StorageError where a part of a history is missing; what is asked next then has few records, in
    case they were too large to be read together."""
    found = _feed(signal, where).read(reader, _place(signal, after), records_max, bytes_max)
    return None if found is None else Outgoing(found.request, found.records, _position(found.last))


def waiting(reader: Reader, signal: Signal, after: Position, *, where: ColumnElement[bool] | None = None) -> int:
    """How many records are behind `after`, of those that meet `where`. Raises QueryTimeout."""
    return _feed(signal, where).count(reader, _place(signal, after))


@dataclass(frozen=True)
class Form:
    """Where a signal's records lie: those of `table` that meet `condition`, within a commit in the `order` of these
    columns, a time and then ids. `messages` serialises rows of `columns`, given the condition that they meet and values
    for it."""

    table: Any
    order: tuple[ColumnElement[Any], ...]
    condition: ColumnElement[bool]
    columns: tuple[ColumnElement[Any], ...]
    messages: Callable[[Reader, pa.Table, Chosen], pa.Array]


@lru_cache(maxsize=64)
def _feed(signal: Signal, where: ColumnElement[bool] | None) -> Feed:
    form = FORMS[signal]
    return Feed(
        order=(form.table.c.stored_at_unix_nano, *form.order),
        condition=form.condition if where is None else and_(form.condition, where),
        columns=form.columns,
        messages=form.messages,
    )


def _place(signal: Signal, position: Position) -> Place:
    run = (UUID(position.run_id),) if signal is Signal.TRACES else ()
    return position.stamp, position.started_at, *run, position.event_id


def _position(place: Place) -> Position:
    stamp, started_at, *run, event_id = place
    return Position(stamp, started_at, run[0].hex if run else NO_RUN, event_id)


def _signed(digits: str) -> int:
    return int.from_bytes(bytes.fromhex(digits), "big", signed=True)


def _points(_reader: Reader, rows: pa.Table, _chosen: Chosen) -> pa.Array:
    return column(rows, "otlp").cast(BYTES)


FORMS = {
    Signal.TRACES: Form(
        _EVENTS,
        (_EVENTS.c.started_at_unix_nano, _EVENTS.c.run_id, _EVENTS.c.id),
        true(),
        SPAN_COLUMNS,
        span_messages,
    ),
    Signal.LOGS: Form(
        _LOGS,
        (_LOGS.c.event_started_at_unix_nano, _LOGS.c.log_index),
        # What a repository wrote is no OTLP.
        and_(_LOGS.c.log_index < 0, _LOGS.c.resource_id.is_not(None)),
        LOG_COLUMNS,
        log_messages,
    ),
    Signal.METRICS: Form(
        _METRICS,
        (_METRICS.c.time_unix_nano, _METRICS.c.id),
        _METRICS.c.otlp.is_not(None),
        (_METRICS.c.otlp, _METRICS.c.resource_id, _METRICS.c.scope_id),
        _points,
    ),
}
