"""From request to commit: the queue, the group and the answer.

Group commit without a timer: one thread takes everything that waits, up to a bound, stores it in one transaction and
answers every request in it. An idle server commits a single span at once; under load groups grow by themselves. A group
that fails is tried again request by request, so that one bad request harms no other.
"""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol

import pyarrow as pa
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..storage import SpanBatch, StorageError, WriteOutcome
from .otlp import REQUESTS, Undecodable, repaired
from .projection import project

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
    payload_bytes: int
    warning: str
    answer: Future[Outcome]


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
        self._closing = False
        self._changed = threading.Condition()
        self._metrics = _Metrics(registry or CollectorRegistry())
        self._thread = threading.Thread(target=self._run, name="clew-intake")
        self._thread.start()

    def accept(self, request: bytes) -> Future[Outcome]:
        """Takes a serialised ExportTraceServiceRequest; the future resolves after the commit.

        Raises Malformed when it cannot be read, Busy when the queue is full or closing. The future may carry Unavailable.
        """
        self._reserve(len(request))
        try:
            decoded, warning = _decoded(request)
        except Undecodable as error:
            self._release(len(request))
            raise Malformed(str(error)) from error
        answer: Future[Outcome] = Future()
        with self._changed:
            self._waiting.append(_Request(decoded, len(request), warning, answer))
            self._changed.notify()
        return answer

    def close(self) -> None:
        """Takes nothing more, finishes everything taken, then returns."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _reserve(self, payload_bytes: int) -> None:
        with self._changed:
            full = self._waiting_bytes and self._waiting_bytes + payload_bytes > self._queue_bytes_max
            if full or self._closing:
                self._metrics.busy.inc()
                reason = "the server is stopping" if self._closing else "the queue is full"
                raise Busy(f"{reason}; nothing was taken, send the request again")
            self._waiting_bytes += payload_bytes
            self._metrics.queue_bytes.set(self._waiting_bytes)

    def _release(self, payload_bytes: int) -> None:
        with self._changed:
            self._waiting_bytes -= payload_bytes
            self._metrics.queue_bytes.set(self._waiting_bytes)

    def _run(self) -> None:
        while group := self._next_group():
            self._store(group)
            self._release(sum(request.payload_bytes for request in group))

    def _next_group(self) -> list[_Request]:
        """Everything that waits, up to GROUP_BYTES_MAX; empty once closed and finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or (self._closing and not self._waiting_bytes))
            group: list[_Request] = []
            size = 0
            while self._waiting and (not group or size + self._waiting[0].payload_bytes <= GROUP_BYTES_MAX):
                group.append(self._waiting.popleft())
                size += group[-1].payload_bytes
            return group

    def _store(self, group: list[_Request]) -> None:
        began = perf_counter()
        try:
            outcomes = self._committed(group)
        except Exception as error:  # noqa: BLE001 the senders must be answered, whatever happened
            if len(group) > 1:
                for request in group:
                    self._store([request])
            else:
                self._metrics.failed.inc()
                group[0].answer.set_exception(_refusal(error))
            return
        self._metrics.commit_seconds.observe(perf_counter() - began)
        for request, outcome in zip(group, outcomes, strict=True):
            request.answer.set_result(outcome)

    def _committed(self, group: list[_Request]) -> list[Outcome]:
        projection = project([request.decoded for request in group])
        written = self._sink.write_spans(projection.batch)
        self._metrics.count(written, sum(map(len, projection.rejections)))
        return [
            _outcome(rejections, request.warning)
            for rejections, request in zip(projection.rejections, group, strict=True)
        ]


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
