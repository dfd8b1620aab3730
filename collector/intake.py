"""From request to commit: the queue, the group and the answer.

Group commit: requests that wait together become one batch, are stored in one transaction and answered. One thread
stores, another gathers and reads what is stored next. An idle server commits a single span at once; under load groups
grow by themselves, since a commit costs much and a request in it little: those that were answered together mostly come
back together, and are waited for, shortly. A group that fails is tried again request by request, so that one bad
request harms no other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..storage import PreparedBatch, StorageError, WriteOutcome
from .projection import read_requests
from .reading import Fate, Reading
from .worker import WORTH_SENDING_BYTES, Reader

QUEUE_BYTES_MAX = 256 << 20
GROUP_BYTES_MAX = 16 << 20
GATHER_S_MAX = 0.010
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
    """Requests that are stored together, and what was read of them."""

    requests: list[_Request]
    reading: Reading | BaseException


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
        self._waiting_bytes = 0
        self._queue_bytes = 0
        self._taken = 0
        self._taken_before = 0
        self._storing = False
        self._closing = False
        self._changed = threading.Condition()
        self._metrics = _Metrics(registry or CollectorRegistry())
        self._metrics.queue_bytes.set_function(lambda: self._queue_bytes)
        self._reader = Reader()
        self._gatherer = ThreadPoolExecutor(1, thread_name_prefix="clew-reader")
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
            self._taken += 1
            self._waiting_bytes += len(request)
            self._queue_bytes += len(request)
            if len(self._waiting) == 1 or self._is_half() or self._is_all():
                self._changed.notify()
        return taken.answer

    def close(self) -> None:
        """Takes nothing more, finishes everything taken, then returns."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        self._gatherer.shutdown()
        self._reader.close()

    def _run(self) -> None:
        """Stores one group after the other, while the next is gathered and read."""
        coming = self._gatherer.submit(self._read_next)
        while group := coming.result():
            self._storing = True
            coming = self._gatherer.submit(self._read_next)
            self._store(group)
            with self._changed:
                self._storing = False
                self._changed.notify()

    def _read_next(self) -> _Group | None:
        """The next group; None once closed and finished."""
        requests = self._next_requests()
        return _Group(requests, _reading(self._reader.read, requests)) if requests else None

    def _next_requests(self) -> list[_Request]:
        """Waits for requests worth a commit and takes them off the queue. Empty once closed and finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._is_half() or (self._waiting and not self._storing))
            self._changed.wait_for(lambda: self._closing or self._is_half() or self._is_all(), timeout=GATHER_S_MAX)
            half = (self._taken + 1) // 2
            group: list[_Request] = []
            size = 0
            while self._waiting and (len(group) < half or size < WORTH_SENDING_BYTES) and size < GROUP_BYTES_MAX:
                group.append(self._waiting.popleft())
                size += len(group[-1].payload)
            self._waiting_bytes -= size
            return group

    def _is_half(self) -> bool:
        """Enough waits to be read while the other half is stored."""
        return self._waiting_bytes >= WORTH_SENDING_BYTES and 2 * len(self._waiting) >= self._taken_before

    def _is_all(self) -> bool:
        """As many wait as were here when some were last answered: no more are to be hoped for."""
        return len(self._waiting) >= self._taken_before

    def _store(self, group: _Group) -> None:
        began = perf_counter()
        try:
            fates = self._committed(group.reading)
        except BaseException as error:  # noqa: BLE001 the senders must be answered, even after a panic in native code
            self._store_one_by_one(group.requests, error)
            return
        self._metrics.commit_seconds.observe(perf_counter() - began)
        self._release(group.requests)
        for request, fate in zip(group.requests, fates, strict=True):
            _answer(request, Malformed(fate.malformed) if fate.malformed else _outcome(fate))

    def _release(self, requests: list[_Request]) -> None:
        """Gives the requests' bytes back to the queue; they are answered next."""
        with self._changed:
            self._taken_before = self._taken
            self._taken -= len(requests)
            self._queue_bytes -= sum(len(request.payload) for request in requests)

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
                self._store(_Group([request], _reading(read_requests, [request])))
        else:
            self._metrics.failed.inc()
            self._release(requests)
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


def _reading(read: Callable[[list[bytes]], Reading], requests: list[_Request]) -> Reading | BaseException:
    try:
        return read([request.payload for request in requests])
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
