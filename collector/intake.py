"""From request to commit: the queue, the group and the answer.

Group commit without a timer: everything that waits, up to a bound, becomes one batch, is stored in one transaction and
answered. An idle server commits a single span at once; under load groups grow by themselves. Two threads take turns on a
group: while one group is being stored, the next is already made into columns. A group that fails is tried again request
by request, so that one bad request harms no other.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Queue
from time import perf_counter
from typing import Protocol

import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..storage import SpanBatch, StorageError, WriteOutcome
from .otlp import REQUESTS, Undecodable, repaired
from .projection import Projection, project

QUEUE_BYTES_MAX = 256 << 20
GROUP_BYTES_MAX = 16 << 20
RETRY_AFTER_S = 1.0
REJECTIONS_NAMED_MAX = 5


class Sink(Protocol):
    """What the intake needs of a store: all of the batch stored and durable on return, or a StorageError."""

    def write_spans(self, batch: SpanBatch) -> WriteOutcome: ...


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
    decoded: pa.RecordBatch
    warning: str
    payload_bytes: int
    answer: Future[Outcome]


@dataclass(frozen=True)
class _Group:
    """Requests that are stored together; why that cannot be, where they could not be made into columns."""

    requests: list[_Request]
    projection: Projection | Exception


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
        self._decoding = 0
        self._closing = False
        self._changed = threading.Condition()
        self._metrics = _Metrics(registry or CollectorRegistry())
        self._projected: Queue[_Group | None] = Queue(maxsize=1)
        self._threads = [
            threading.Thread(target=self._project_groups, name="clew-project"),
            threading.Thread(target=self._store_groups, name="clew-store"),
        ]
        for thread in self._threads:
            thread.start()

    def accept(self, request: bytes) -> Future[Outcome]:
        """Takes a serialised ExportTraceServiceRequest; the future resolves after the commit.

        Raises Malformed when it cannot be read, Busy when the queue is full or closing. The future may carry Unavailable.
        """
        self._reserve(len(request))
        try:
            taken = _Request(*_decoded(request), len(request), Future())
        except Undecodable as error:
            self._release(len(request), undecoded=1)
            raise Malformed(str(error)) from error
        with self._changed:
            self._decoding -= 1
            self._waiting.append(taken)
            self._changed.notify()
        return taken.answer

    def close(self) -> None:
        """Takes nothing more, finishes everything taken, then returns."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        for thread in self._threads:
            thread.join()

    def _reserve(self, payload_bytes: int) -> None:
        with self._changed:
            full = self._waiting_bytes and self._waiting_bytes + payload_bytes > self._queue_bytes_max
            if full or self._closing:
                self._metrics.busy.inc()
                reason = "the server is stopping" if self._closing else "the queue is full"
                raise Busy(f"{reason}; nothing was taken, send the request again")
            self._decoding += 1
            self._waiting_bytes += payload_bytes
            self._metrics.queue_bytes.set(self._waiting_bytes)

    def _release(self, payload_bytes: int, *, undecoded: int = 0) -> None:
        with self._changed:
            self._decoding -= undecoded
            self._waiting_bytes -= payload_bytes
            self._changed.notify()
            self._metrics.queue_bytes.set(self._waiting_bytes)

    def _project_groups(self) -> None:
        while requests := self._next_group():
            self._projected.put(_projected(requests))
        self._projected.put(None)

    def _store_groups(self) -> None:
        while group := self._projected.get():
            self._store(group)
            self._release(sum(request.payload_bytes for request in group.requests))

    def _next_group(self) -> list[_Request]:
        """Everything that waits, up to GROUP_BYTES_MAX; empty once closed and finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or (self._closing and not self._decoding))
            group: list[_Request] = []
            size = 0
            while self._waiting and (not group or size + self._waiting[0].payload_bytes <= GROUP_BYTES_MAX):
                group.append(self._waiting.popleft())
                size += group[-1].payload_bytes
            return group

    def _store(self, group: _Group) -> None:
        began = perf_counter()
        try:
            outcomes = self._committed(group)
        except Exception as error:  # noqa: BLE001 the senders must be answered, whatever happened
            self._store_one_by_one(group, error)
            return
        self._metrics.commit_seconds.observe(perf_counter() - began)
        for request, outcome in zip(group.requests, outcomes, strict=True):
            request.answer.set_result(outcome)

    def _committed(self, group: _Group) -> list[Outcome]:
        if isinstance(group.projection, Exception):
            raise group.projection
        written = self._sink.write_spans(group.projection.batch)
        rejections = group.projection.rejections
        self._metrics.count(written, sum(map(len, rejections)))
        return [_outcome(said, request.warning) for said, request in zip(rejections, group.requests, strict=True)]

    def _store_one_by_one(self, group: _Group, error: Exception) -> None:
        if len(group.requests) > 1:
            for request in group.requests:
                self._store(_projected([request]))
        else:
            self._metrics.failed.inc()
            group.requests[0].answer.set_exception(_refusal(error))


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.spans = Counter("clew_spans_total", "Spans taken, by what became of them", ["outcome"], registry=registry)
        self.busy = Counter(
            "clew_requests_busy_total", "Requests refused because the queue was full", registry=registry
        )
        self.failed = Counter("clew_requests_failed_total", "Requests that could not be stored", registry=registry)
        self.queue_bytes = Gauge("clew_queue_bytes", "Bytes of requests that wait for their commit", registry=registry)
        self.commit_seconds = Histogram("clew_commit_seconds", "From taking a group to its commit", registry=registry)

    def count(self, written: WriteOutcome, rejected: int) -> None:
        for outcome, spans in (
            ("stored", written.stored),
            ("repeated", written.repeated),
            ("replaced", written.replaced),
            ("rejected", rejected),
        ):
            self.spans.labels(outcome).inc(spans)


def _projected(requests: list[_Request]) -> _Group:
    try:
        return _Group(requests, project([request.decoded for request in requests]))
    except Exception as error:  # noqa: BLE001 the senders must be answered, whatever happened
        return _Group(requests, error)


def _decoded(request: bytes) -> tuple[pa.RecordBatch, str]:
    try:
        decoded = REQUESTS.decode([request])
    except Undecodable:
        canonical, warning = repaired(request)
        return REQUESTS.decode([canonical]), warning
    return decoded, ""


def _outcome(rejections: list[str], warning: str) -> Outcome:
    named = rejections[:REJECTIONS_NAMED_MAX]
    if len(rejections) > len(named):
        named.append(f"and {len(rejections) - len(named)} more")
    return Outcome(len(rejections), "; ".join([*named, *filter(None, [warning])]))


def _refusal(error: Exception) -> Refused:
    if isinstance(error, StorageError):
        return Unavailable(f"the store did not take the request: {error}")
    return Malformed(f"the request could not be read: {type(error).__name__}: {error}")
