"""From request to commit: the queue, the group and the answer.

Group commit without a timer: everything that waits, up to a bound, becomes one batch, is stored in one transaction and
answered. An idle server commits a single span at once; under load groups grow by themselves. A group that fails is
tried again request by request, so that one bad request harms no other.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..storage import PreparedBatch, StorageError, WriteOutcome
from .projection import Fate, Reading
from .worker import WORTH_SENDING_BYTES, ReadElsewhere, Reader, ReadHere

QUEUE_BYTES_MAX = 256 << 20
GROUP_BYTES_MAX = 16 << 20
RETRY_AFTER_S = 1.0
REJECTIONS_NAMED_MAX = 5


class Sink(Protocol):
    """What the intake needs of a store: all of the batch stored and durable on return, or a StorageError."""

    def write_spans(self, batch: PreparedBatch) -> WriteOutcome: ...


@dataclass(frozen=True)
class Outcome:
    """What to tell the sender, as OTLP's partial success: (0, "") is full success, (0, text) a warning."""

    rejected_spans: int
    error_message: str


class Refused(Exception):
    """A request of which nothing was stored."""

    retry_after_s: float | None = None


class Malformed(Refused):
    """The request cannot be read; sending it again will not help."""


class Busy(Refused):
    """The queue is full; nothing was taken."""

    retry_after_s = RETRY_AFTER_S


class Unavailable(Refused):
    """The store could not take the request; it can be sent again."""

    retry_after_s = RETRY_AFTER_S


@dataclass(frozen=True)
class _Request:
    payload: bytes
    answer: Future[Outcome]


@dataclass(frozen=True)
class _Group:
    """Requests that are stored together, and their reading under way."""

    requests: list[_Request]
    reading: ReadHere | ReadElsewhere


class Intake:
    """Takes serialised requests in and answers them once they are committed. Safe to use from several threads."""

    def __init__(
        self,
        sink: Sink,
        *,
        registry: CollectorRegistry | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        self._sink = sink
        self._queue_bytes_max = queue_bytes_max
        self._waiting: deque[_Request] = deque()
        self._queue_bytes = 0
        self._closing = False
        self._changed = threading.Condition()
        self._metrics = _Metrics(registry or CollectorRegistry())
        self._metrics.queue_bytes.set_function(lambda: self._queue_bytes)
        self._reader = Reader()
        self._thread = threading.Thread(target=self._run, name="clew-intake")
        self._thread.start()

    def accept(self, request: bytes) -> Future[Outcome]:
        """Takes a serialised ExportTraceServiceRequest; the future resolves after the commit, or carries Malformed or
        Unavailable. Raises Busy when the queue is full or closing."""
        taken = _Request(request, Future())
        with self._changed:
            full = self._queue_bytes and self._queue_bytes + len(request) > self._queue_bytes_max
            if full or self._closing:
                self._metrics.busy.inc()
                reason = "the server is stopping" if self._closing else "the queue is full"
                raise Busy(f"{reason}; nothing was taken, send the request again")
            self._waiting.append(taken)
            self._queue_bytes += len(request)
            self._changed.notify()
        return taken.answer

    def close(self) -> None:
        """Takes nothing more, finishes everything taken, then returns."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        """Stores one group after the other. A large one is read by the worker while the one before is stored; a small
        one is not chosen before it can be stored, since the longer it grows the less its commit costs each request."""
        ahead: _Group | None = None
        while True:
            reading = _outcome_of(ahead.reading) if ahead else None
            requests = self._next_group(wait=ahead is None)
            if not requests and ahead is None:
                return
            chosen = _Group(requests, self._reader.start([request.payload for request in requests]))
            if ahead and reading:
                self._finish(ahead.requests, reading)
            ahead = chosen if chosen.reading.elsewhere else None
            if requests and not ahead:
                self._finish(requests, _outcome_of(chosen.reading))

    def _next_group(self, *, wait: bool) -> list[_Request]:
        """What waits: all of it where that is little, else half of what is here, so that one half can be read while the
        other is stored. Empty when nothing waits, or once closed and finished."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._waiting or self._closing)
            share = min(max(self._queue_bytes // 2 + 1, WORTH_SENDING_BYTES), GROUP_BYTES_MAX)
            group: list[_Request] = []
            size = 0
            while self._waiting and size < share:
                group.append(self._waiting.popleft())
                size += len(group[-1].payload)
            return group

    def _finish(self, requests: list[_Request], reading: Reading | BaseException) -> None:
        """Stores what was read of the requests, answers them and gives their bytes back to the queue."""
        self._store(requests, reading)
        with self._changed:
            self._queue_bytes -= sum(len(request.payload) for request in requests)

    def _store(self, requests: list[_Request], reading: Reading | BaseException) -> None:
        began = perf_counter()
        try:
            fates = self._committed(reading)
        except BaseException as error:  # noqa: BLE001 the senders must be answered, even after a panic in native code
            self._store_one_by_one(requests, error)
            return
        self._metrics.commit_seconds.observe(perf_counter() - began)
        for request, fate in zip(requests, fates, strict=True):
            _answer(request, Malformed(fate.malformed) if fate.malformed else _outcome(fate))

    def _committed(self, reading: Reading | BaseException) -> list[Fate]:
        if isinstance(reading, BaseException):
            raise reading
        if reading.batch is not None:
            self._metrics.count(self._sink.write_spans(reading.batch))
        self._metrics.rejected(sum(len(fate.rejections) for fate in reading.fates))
        return reading.fates

    def _store_one_by_one(self, requests: list[_Request], error: BaseException) -> None:
        if len(requests) > 1:
            for request in requests:
                self._store([request], _outcome_of(ReadHere([request.payload])))
        else:
            self._metrics.failed.inc()
            _answer(requests[0], _refusal(error))


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.spans = Counter("clew_spans_total", "Spans taken, by what became of them", ["outcome"], registry=registry)
        self.busy = Counter(
            "clew_requests_busy_total", "Requests refused because the queue was full", registry=registry
        )
        self.failed = Counter("clew_requests_failed_total", "Requests that could not be stored", registry=registry)
        self.queue_bytes = Gauge("clew_queue_bytes", "Bytes of requests that wait for their commit", registry=registry)
        self.commit_seconds = Histogram("clew_commit_seconds", "From taking a group to its commit", registry=registry)

    def count(self, written: WriteOutcome) -> None:
        self.spans.labels("stored").inc(written.stored)
        self.spans.labels("repeated").inc(written.repeated)
        self.spans.labels("replaced").inc(written.replaced)

    def rejected(self, spans: int) -> None:
        self.spans.labels("rejected").inc(spans)


def _outcome_of(reading: ReadHere | ReadElsewhere) -> Reading | BaseException:
    try:
        return reading.result()
    except BaseException as error:  # noqa: BLE001 the senders must be answered, even after a panic in native code
        return error


def _answer(request: _Request, answer: Outcome | Refused) -> None:
    if not request.answer.set_running_or_notify_cancel():
        return  # the sender gave up waiting; what it sent is stored all the same
    if isinstance(answer, Refused):
        request.answer.set_exception(answer)
    else:
        request.answer.set_result(answer)


def _outcome(fate: Fate) -> Outcome:
    named = list(fate.rejections[:REJECTIONS_NAMED_MAX])
    if len(fate.rejections) > len(named):
        named.append(f"and {len(fate.rejections) - len(named)} more")
    return Outcome(len(fate.rejections), "; ".join(filter(None, [*named, fate.warning])))


def _refusal(error: BaseException) -> Refused:
    """Whatever went wrong on our side may go right later; only a request that cannot be decoded never will."""
    if isinstance(error, StorageError):
        return Unavailable(f"the store did not take the request: {error}")
    return Unavailable(f"the request could not be handled: {type(error).__name__}: {error}")
