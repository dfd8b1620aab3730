"""Sending on what is committed: to each target from its own cursor, on a thread of its own.

The store is the queue. A worker reads what lies behind its cursor, sends it, and moves the cursor in the database when
the target has answered for all of it. So nothing is lost while a target is away or clew is, and what was under way when
clew ended is sent again. A target that is slow, dead or wrong has its own thread to wait on: it keeps nobody waiting,
and holds one batch of each signal in memory.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import ColumnElement

from ..storage import ExportCursor, ExportCursors, StorageError, Store
from .batch import Batch
from .outgoing import Outgoing, Position, Signal, outgoing, waiting
from .senders import Sender, Sends, sender_to
from .target_answers import Answer, Verdict
from .targets import Target

# A look is a read of the store, and a batch is a commit of the cursor: a few records wait for more.
LOOK_EVERY_S = 0.5
RECORDS_MAX = 8_192
FEW_RECORDS, FEW_BYTES = 1_024, 1 << 20
PAUSE_S_MIN, PAUSE_S_MAX = 0.25, 30.0
NOT_TAKEN_S = 3600.0
SAVE_EVERY_S = 60.0
GRACE_S = 2.0
BUSY_S = 1.0

_log = logging.getLogger("clew.export")


class State(StrEnum):
    """How a signal gets on with a target."""

    SENDING = "sending"
    WAITING = "waiting"  # for the target: `last_error` says why
    NOT_TAKEN = "not_taken"  # the target does not know the signal
    AWAY = "away"  # the target is not configured any more


@dataclass(frozen=True)
class ExportState:
    """How far a signal of a target has come. `lag_s` is the age of the oldest record that waits. The counts are since
    the target was first configured."""

    target: str
    address: str | None
    signal: str
    state: str
    sent: int
    refused: int
    lag_records: int
    lag_s: float
    last_error: str | None
    last_error_at_unix_nano: int | None


class Forwarding:
    """Sends what `store` commits on to the targets until closed. `wheres` are the conditions on `execution_events` that
    the targets' filters mean, by target. A target that was never configured before begins with what comes now.

    Raises BadTarget where a target's TLS files are of no use, and StorageError."""

    def __init__(
        self,
        store: Store,
        targets: Sequence[Target],
        wheres: Mapping[str, ColumnElement[bool]],
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._cursors = ExportCursors(store.engine)
        senders = [sender_to(target) for target in targets]
        known = {(cursor.target, cursor.signal): cursor for cursor in self._cursors.all()}
        lanes = {
            target.name: [
                _Lane(store, self._cursors, signal, wheres.get(target.name), _begun(store, known, target, signal))
                for signal in target.signals
            ]
            for target in targets
        }
        self._cursors.save(*(lane.cursor for of_target in lanes.values() for lane in of_target))
        self._workers = [
            _Worker(target, sender, lanes[target.name]) for target, sender in zip(targets, senders, strict=True)
        ]
        registry.register(_Figures(self))

    def states(self) -> list[ExportState]:
        """Of each target, also of those that are not configured any more. Raises QueryTimeout."""
        told = self.configured()
        names = {(state.target, state.signal) for state in told}
        away = [cursor for cursor in self._cursors.all() if (cursor.target, cursor.signal) not in names]
        return told + [self._of_cursor(cursor) for cursor in away]

    def configured(self) -> list[ExportState]:
        """Of each target that is. Raises QueryTimeout."""
        return [self._of_lane(worker.target, lane) for worker in self._workers for lane in worker.lanes]

    def close(self) -> None:
        """Gives requests under way GRACE_S to be answered, together; what is not is sent again another time."""
        deadline = time.monotonic() + GRACE_S
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.finish(deadline)

    def _of_lane(self, target: Target, lane: _Lane) -> ExportState:
        state, trouble = lane.state, lane.trouble
        told = replace(self._of_cursor(lane.cursor, lane.where), address=target.address, state=state)
        told = replace(told, last_error=trouble.message, last_error_at_unix_nano=trouble.at_unix_nano)
        return replace(told, lag_records=0, lag_s=0.0) if state is State.NOT_TAKEN else told

    def _of_cursor(self, cursor: ExportCursor, where: ColumnElement[bool] | None = None) -> ExportState:
        lag_records, lag_s = self._lag(cursor, where)
        return ExportState(
            target=cursor.target,
            address=None,
            signal=cursor.signal,
            state=State.AWAY,
            sent=cursor.sent,
            refused=cursor.refused,
            lag_records=lag_records,
            lag_s=lag_s,
            last_error=cursor.last_error,
            last_error_at_unix_nano=cursor.last_error_at_unix_nano,
        )

    def _lag(self, cursor: ExportCursor, where: ColumnElement[bool] | None) -> tuple[int, float]:
        signal, after = Signal(cursor.signal), Position.parse(cursor.position)
        with self._store.read(awaited=False) as reader:
            first = outgoing(reader, signal, after, records_max=1, where=where)
            if first is None:
                return 0, 0.0
            return waiting(reader, signal, after, where=where), max(0.0, (time.time_ns() - first.position.stamp) / 1e9)


def _begun(store: Store, known: Mapping[tuple[str, str], ExportCursor], target: Target, signal: Signal) -> ExportCursor:
    """Where the target has come to; from now on for one that is new."""
    now = Position.at(store.commits.last).text()
    new = ExportCursor(
        target=target.name, signal=signal, position=now, sent=0, refused=0, updated_at_unix_nano=time.time_ns()
    )
    return known.get((target.name, signal), new)


class _Trouble(NamedTuple):
    """Why a target gets nothing at the moment, and since when."""

    message: str | None = None
    at_unix_nano: int | None = None


_NO_TROUBLE = _Trouble()


class _Lane:
    """A signal on its way to a target. Stepped by one thread; any may read `cursor`, which is as it is stored, `state`
    and `trouble`."""

    def __init__(
        self,
        store: Store,
        cursors: ExportCursors,
        signal: Signal,
        where: ColumnElement[bool] | None,
        cursor: ExportCursor,
    ) -> None:
        self.cursor, self.where, self.state = cursor, where, State.SENDING
        self.trouble = _Trouble(cursor.last_error, cursor.last_error_at_unix_nano)
        self.due = 0.0
        self._store, self._cursors, self._signal = store, cursors, signal
        self._position = Position.parse(cursor.position)
        self._read_up_to = -1
        self._in_hand: tuple[Outgoing, Batch] | None = None
        self._pause_s = 0.0
        self._records_max = RECORDS_MAX
        self._saved_at = time.monotonic()

    def step(self, sender: Sends) -> None:
        """Does what is next and sets when to be stepped again. Raises StorageError."""
        worked_before_s = time.thread_time()
        self._in_hand = self._in_hand or self._next()
        if self._in_hand is None:
            self.due = time.monotonic() + LOOK_EVERY_S
            return
        read, batch = self._in_hand
        answer = None if batch.is_done else batch.step(sender)
        if answer is not None:
            self._wait(answer)
        elif batch.is_done:
            self._move(read, batch)
            self.due = time.monotonic() + self._rest_s(read, time.thread_time() - worked_before_s)

    def fail(self, message: str, retry_after_s: float = 0.0) -> None:
        """Waits, longer each time, and says why."""
        if self.state is not State.WAITING:
            _log.warning("%s does not get %s, which wait: %s", self.cursor.target, self._signal, message)
        self.state = State.WAITING
        if message != self.trouble.message:
            self.trouble = _Trouble(message, time.time_ns())
        self._pause_s = min(max(2 * self._pause_s, PAUSE_S_MIN), PAUSE_S_MAX)
        # Not all servers at the same time.
        pause_s = self._pause_s * random.uniform(0.8, 1.2)  # noqa: S311 no secret
        self.due = time.monotonic() + max(pause_s, retry_after_s)

    def settle(self) -> None:
        """Stores where the cursor is, where that is not stored yet. Raises StorageError."""
        if self._position.text() != self.cursor.position:
            self._save(position=self._position.text())

    def _next(self) -> tuple[Outgoing, Batch] | None:
        """The next batch. Where there is none the position goes along with the commits, so that what was looked through
        is not looked through again."""
        committed = self._store.commits.last
        if committed <= self._read_up_to:
            return None
        with self._store.read(awaited=False) as reader:
            read = outgoing(reader, self._signal, self._position, records_max=self._records_max, where=self.where)
        if read is not None:
            return read, Batch(self.cursor.target, self._signal, read.request, read.records)
        self._read_up_to, self._position = committed, max(self._position, Position.at(committed))
        self.state, self.trouble = State.SENDING, _NO_TROUBLE
        if time.monotonic() - self._saved_at >= SAVE_EVERY_S:
            self.settle()
        return None

    def _move(self, read: Outgoing, batch: Batch) -> None:
        """What was answered for is stored before it is said."""
        self.trouble = _NO_TROUBLE
        counts = {"sent": self.cursor.sent + batch.sent, "refused": self.cursor.refused + batch.refused}
        self._save(position=read.position.text(), **counts)
        self._records_max = batch.fits or min(self._records_max + self._records_max // 8 + 1, RECORDS_MAX)
        if self.state is State.WAITING:
            _log.warning("%s gets %s again", self.cursor.target, self._signal)
        self._position, self._in_hand, self._pause_s, self.state = read.position, None, 0.0, State.SENDING

    def _rest_s(self, read: Outgoing, worked_s: float) -> float:
        """How long to leave the processor to others after a batch that took so much of it. A few records wait for more;
        and ingest goes first: while it works it gets as much again."""
        if read.records < min(FEW_RECORDS, self._records_max) and len(read.request) < FEW_BYTES:
            return LOOK_EVERY_S
        return worked_s if self._store.idle_s < BUSY_S else 0.0

    def _wait(self, answer: Answer) -> None:
        if answer.verdict is Verdict.NOT_TAKEN and not self.cursor.sent:  # else it did know the signal
            self.state, self.trouble, self._in_hand = State.NOT_TAKEN, _NO_TROUBLE, None
            self.due = time.monotonic() + NOT_TAKEN_S
            return
        self.fail(answer.message, answer.retry_after_s or 0.0)
        if answer.message != self.cursor.last_error:
            self._save()

    def _save(self, **changed: Any) -> None:
        said = {column.name: getattr(self.cursor, column.name) for column in ExportCursor.__table__.columns}
        trouble = {"last_error": self.trouble.message, "last_error_at_unix_nano": self.trouble.at_unix_nano}
        cursor = ExportCursor(**{**said, **trouble, **changed, "updated_at_unix_nano": time.time_ns()})
        self._cursors.save(cursor)
        self.cursor, self._saved_at = cursor, time.monotonic()


class _Worker:
    """The thread of a target. It has its turn while it touches the store, and gives it back while it waits."""

    def __init__(self, target: Target, sender: Sender, lanes: Sequence[_Lane]) -> None:
        self.target, self.lanes = target, lanes
        self._sender = sender
        self._stopping = threading.Event()
        self._turn = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._run, name=f"clew-export-{target.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Begins nothing more."""
        self._stopping.set()

    def finish(self, deadline: float) -> None:
        """Returns when all is done, or at the deadline: what is under way is left to itself then."""
        self._thread.join(max(0.0, deadline - time.monotonic()))
        self._sender.close()
        with self._turn:
            self._is_over = True

    def send(self, signal: Signal, request: bytes) -> Answer:
        """The target's answer, which is waited for without a turn."""
        self._turn.release()
        try:
            return self._sender.send(signal, request)
        finally:
            self._turn.acquire()
            if self._is_over:
                raise _Over

    def _run(self) -> None:
        with suppress(_Over):
            while not self._stopping.wait(max(0.0, min(lane.due for lane in self.lanes) - time.monotonic())):
                for lane in self.lanes:
                    self._step(lane)
            # Where it is not stored how far was looked, it is looked again.
            with self._turn, suppress(StorageError):
                for lane in self.lanes:
                    lane.settle()

    def _step(self, lane: _Lane) -> None:
        with self._turn:
            if lane.due > time.monotonic() or self._stopping.is_set():
                return
            try:
                lane.step(self)
            except StorageError as error:
                lane.fail(str(error))
            except _Over:
                raise
            except Exception as error:  # noqa: BLE001 the target's other signals go on, whatever it is
                _log.exception("sending %s on to %s failed", lane.cursor.signal, self.target.name)
                lane.fail(f"clew failed: {type(error).__name__}: {error}")


class _Over(Exception):
    """The store may be closed: nothing is to be done any more."""


class _Figures(Collector):
    """The states for Prometheus."""

    def __init__(self, forwarding: Forwarding) -> None:
        self._forwarding = forwarding

    def describe(self) -> Iterable[Metric]:
        return _families()

    def collect(self) -> Iterator[Metric]:
        sent, refused, lag_records, lag_s, failing = families = _families()
        for state in self._forwarding.configured():
            labels = [state.target, state.signal]
            sent.add_metric(labels, state.sent)
            refused.add_metric(labels, state.refused)
            lag_records.add_metric(labels, state.lag_records)
            lag_s.add_metric(labels, state.lag_s)
            failing.add_metric(labels, state.state == State.WAITING)
        yield from families


def _families() -> tuple[Any, ...]:
    labels = ["target", "signal"]
    return (
        CounterMetricFamily("clew_export_sent", "Records that a target has taken", labels=labels),
        CounterMetricFamily("clew_export_refused", "Records that a target has refused for good", labels=labels),
        GaugeMetricFamily("clew_export_lag_records", "Records that wait to be sent on", labels=labels),
        GaugeMetricFamily("clew_export_lag_seconds", "Age of the oldest record that waits", labels=labels),
        GaugeMetricFamily("clew_export_failing", "Whether a target takes nothing at the moment", labels=labels),
    )
