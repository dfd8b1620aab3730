"""Stored events, log records and metric points back as OTLP, equal to what came in.

What OTLP gives no meaning to is not kept: the order of attributes, how records were divided into blocks, blocks without
records, which points of a metric came together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import BigInteger, ColumnElement, and_, bindparam, select

from ..storage import EventLog, ExecutionEvent, Reader, Store, WorkflowMetric, WorkflowRun
from .blocks import Blocks, Records
from .columns import Chosen, numbers
from .outgoing import FORMS, Form, Signal
from .span_columns import readable_span_messages

_EVENTS: Any = ExecutionEvent.__table__
_LOGS: Any = EventLog.__table__
_METRICS: Any = WorkflowMetric.__table__
_RUNS: Any = WorkflowRun.__table__
_LAST = (1 << 63) - 1


def run_as_otlp(store: Store, run_id: UUID) -> bytes | None:
    """The run as a serialised OTLP `TracesData`, its spans by start time; None where there is no such run. What nests
    deeper than protobuf's own parsers go is said as far as columns can.

    Raises QueryTimeout, and StorageError where a part of a history is missing.
    """
    with store.read() as reader:
        found = reader.arrow(_RUN, {"run_id": run_id}).to_pylist()
        return _SPANS_OF_RUN.otlp(reader, {"run_id": run_id, **found[0]}) if found else None


def logs_as_otlp(store: Store, run_id: UUID | None) -> bytes | None:
    """The log records of the run (of no run, for None) as a serialised OTLP `LogsData`, by time; None where there is no
    such run. Raises QueryTimeout."""
    with store.read() as reader:
        if run_id is None:
            return _LOGS_OF_NO_RUN.otlp(reader, {})
        found = reader.arrow(_RUN, {"run_id": run_id}).to_pylist()
        return _LOGS_OF_RUN.otlp(reader, {"run_id": run_id, **found[0]}) if found else None


def metrics_as_otlp(store: Store, *, since: int = 0, until: int = _LAST) -> bytes:
    """The metric points from `since` to `until` (nanoseconds since 1970, both included) as a serialised OTLP
    `MetricsData`, by time, each in a `Metric` of its own. Raises QueryTimeout."""
    with store.read() as reader:
        return _METRICS_IN_TIME.otlp(reader, {"begins": since, "ends": until})


class _Records:
    """The records of a form that meet a condition, all of them."""

    def __init__(self, form: Form, condition: ColumnElement[bool]) -> None:
        self._chosen = and_(form.condition, condition)
        self._rows = select(*form.columns).where(self._chosen).order_by(*form.order)
        self._messages = form.messages

    def otlp(self, reader: Reader, values: Mapping[str, Any]) -> bytes:
        """One message of them, with `values` for the condition."""
        rows = reader.arrow(self._rows, values).combine_chunks()
        if not rows.num_rows:
            return b""
        messages = self._messages(reader, rows, Chosen(self._chosen, values))
        origins = numbers(rows, "resource_id"), numbers(rows, "scope_id")
        records = Records(messages, *origins, together=np.zeros(rows.num_rows, np.int64))
        return Blocks(reader, records, _LAST).request()


def _of_run(run_id: ColumnElement[Any], started: ColumnElement[int]) -> ColumnElement[bool]:
    """The run's rows, within its time bounds."""
    # The time first, which leaves out most row groups; ids leave out none.
    return and_(_in_time(started), run_id == bindparam("run_id", type_=run_id.type, required=False))


def _in_time(time: ColumnElement[int]) -> ColumnElement[bool]:
    begins, ends = (bindparam(name, type_=BigInteger, required=False) for name in ("begins", "ends"))
    return time.between(begins, ends)


_RUN = select(_RUNS.c.started_at_unix_nano.label("begins"), _RUNS.c.last_started_at_unix_nano.label("ends")).where(
    _RUNS.c.id == bindparam("run_id", type_=_RUNS.c.id.type, required=False)
)
_SPANS_OF_RUN = _Records(
    replace(FORMS[Signal.TRACES], messages=readable_span_messages),
    _of_run(_EVENTS.c.run_id, _EVENTS.c.started_at_unix_nano),
)
_LOGS_OF_RUN = _Records(FORMS[Signal.LOGS], _of_run(_LOGS.c.run_id, _LOGS.c.event_started_at_unix_nano))
_LOGS_OF_NO_RUN = _Records(FORMS[Signal.LOGS], _LOGS.c.run_id.is_(None))
_METRICS_IN_TIME = _Records(FORMS[Signal.METRICS], _in_time(_METRICS.c.time_unix_nano))
