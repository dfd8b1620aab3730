"""From request to commit: the queue, the group and the answer.

Each signal has a lane of its own, so that a flood of one leaves room for the others; they take turns in the store.

Group commit: requests that wait together become one batch, are stored in one transaction and answered. An idle server
commits a single span at once; under load groups grow by themselves, since a group costs much and a small request in it
little: those that were answered together mostly come back together, and are waited for, shortly. Where requests are
large, half of them are read while the others are stored, and wait at the store's door. A group that fails is tried
again request by request, so that one bad request harms no other.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ..storage import StorageError
from .log_records import read_log_requests
from .metric_points import read_metric_requests
from .outcomes import Busy, Malformed, Outcome, Refused, Unavailable
from .projection import read_requests
from .reading import Fate, Reading
from .signals import LOGS, METRICS, SIGNALS, TRACES, Signal, Sink

QUEUE_BYTES_MAX = 256 << 20
GROUP_BYTES_MAX = 16 << 20
# Some 200 spans. Below that a group takes as long whatever it holds.
LARGE_BYTES = 64 << 10
GROUPS_UNDER_WAY_MAX = 2
GATHER_S_MAX = 0.100
REJECTIONS_NAMED_MAX = 5

_READS: Mapping[str, Callable[[list[bytes]], Reading]] = {
    TRACES.name: read_requests,
    LOGS.name: read_log_requests,
    METRICS.name: read_metric_requests,
}


@dataclass(frozen=True)
class _Request:
    payload: bytes
    answer: Future[Outcome]


@dataclass(frozen=True)
class _Group:
    """Requests that are stored together, what was read of them, and when that began."""

    requests: list[_Request]
    reading: Reading | BaseException
    began: float


class Intake:
    """Takes serialised requests in and answers them once they are committed. Safe to use from several threads."""

    def __init__(
        self,
        sink: Sink,
        *,
        registry: CollectorRegistry | None = None,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
    ) -> None:
        """`queue_bytes_max` bounds what waits of each signal."""
        metrics = _Metrics(registry or CollectorRegistry())
        self._lanes = {name: _Lane(signal, sink, metrics, queue_bytes_max) for name, signal in SIGNALS.items()}
        metrics.queue_bytes.set_function(lambda: sum(lane.queue_bytes for lane in self._lanes.values()))

    def accept(self, request: bytes, signal: Signal = TRACES) -> Future[Outcome]:
        """Takes a serialised request of the signal; the future resolves after the commit, or carries Malformed or
        Unavailable. Raises Busy when the signal's queue is full or closing."""
        return self._lanes[signal.name].accept(request)

    def close(self) -> None:
        """Takes nothing more, finishes everything taken, then returns."""
        for lane in self._lanes.values():
            lane.take_no_more()
        for lane in self._lanes.values():
            lane.finish()


class _Lane:
    """The way of one signal: its queue, a thread that gathers and reads, and what is under way to the store."""

    def __init__(self, signal: Signal, sink: Sink, metrics: _Metrics, queue_bytes_max: int) -> None:
        self._reads = _READS[signal.name]
        self._sink = sink
        self._metrics = metrics
        self._outcomes = metrics.outcomes_of(signal)
        self._queue_bytes_max = queue_bytes_max
        self._waiting: deque[_Request] = deque()
        self._waiting_bytes = 0
        self.queue_bytes = 0
        self._taken = 0
        self._taken_before = 0
        self._under_way = 0
        self._group_took_s = 0.0
        self._closing = False
        self._changed = threading.Condition()
        self._storing = ThreadPoolExecutor(GROUPS_UNDER_WAY_MAX, thread_name_prefix=f"clew-{signal.name}-storing")
        self._thread = threading.Thread(target=self._run, name=f"clew-{signal.name}-intake")
        self._thread.start()

    def accept(self, request: bytes) -> Future[Outcome]:
        """See `Intake.accept`."""
        taken = _Request(request, Future())
        with self._changed:
            full = self.queue_bytes and self.queue_bytes + len(request) > self._queue_bytes_max
            if full or self._closing:
                self._metrics.busy.inc()
                reason = "the server is stopping" if self._closing else "the queue is full"
                raise Busy(f"{reason}; nothing was taken, send the request again")
            self._waiting.append(taken)
            self._taken += 1
            self._waiting_bytes += len(request)
            self.queue_bytes += len(request)
            if len(self._waiting) == 1 or self._is_half() or self._is_all():
                self._changed.notify()
        return taken.answer

    def take_no_more(self) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify()

    def finish(self) -> None:
        """Returns once everything taken is answered; nothing more may be taken."""
        self._thread.join()
        self._storing.shutdown()

    def _run(self) -> None:
        """Reads one group after the other, and has them stored."""
        while requests := self._next_requests():
            self._storing.submit(self._finish, self._read(requests))

    def _next_requests(self) -> list[_Request]:
        """Waits for requests worth a commit and takes them off the queue. Empty once closed and finished."""
        with self._changed:
            self._changed.wait_for(self._is_wanted)
            # Whoever comes too late waits for this group and one more, and makes that one necessary.
            patience_s = min(GATHER_S_MAX, 2 * self._group_took_s)
            self._changed.wait_for(lambda: self._closing or self._is_half() or self._is_all(), timeout=patience_s)
            half = (self._taken + 1) // 2
            group: list[_Request] = []
            size = 0
            while self._waiting and (len(group) < half or size < LARGE_BYTES) and size < GROUP_BYTES_MAX:
                group.append(self._waiting.popleft())
                size += len(group[-1].payload)
            self._waiting_bytes -= size
            self._under_way += bool(group)
            return group

    def _is_wanted(self) -> bool:
        """Is there room for another group, and enough for one?"""
        if self._under_way >= GROUPS_UNDER_WAY_MAX:
            return False
        return self._closing or self._is_half() or (bool(self._waiting) and not self._under_way)

    def _is_half(self) -> bool:
        """Enough waits to be read while the other half is stored, and is worth that."""
        return self._waiting_bytes >= LARGE_BYTES and 2 * len(self._waiting) >= self._taken_before > 1

    def _is_all(self) -> bool:
        """As many wait as were here when some were last answered: no more are to be hoped for."""
        return len(self._waiting) >= self._taken_before

    def _read(self, requests: list[_Request]) -> _Group:
        began = perf_counter()
        try:
            return _Group(requests, self._reads([request.payload for request in requests]), began)
        except BaseException as error:  # noqa: BLE001 the senders must be answered, even after a panic in native code
            return _Group(requests, error, began)

    def _finish(self, group: _Group) -> None:
        try:
            self._store(group)
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify()

    def _store(self, group: _Group) -> None:
        try:
            fates = self._committed(group.reading)
        except BaseException as error:  # noqa: BLE001 the senders must be answered, even after a panic in native code
            self._store_one_by_one(group.requests, error)
            return
        self._group_took_s = perf_counter() - group.began
        self._metrics.commit_seconds.observe(self._group_took_s)
        self._release(group.requests)
        for request, fate in zip(group.requests, fates, strict=True):
            _answer(request, Malformed(fate.malformed) if fate.malformed else _outcome(fate))

    def _release(self, requests: list[_Request]) -> None:
        """Gives the requests' bytes back to the queue; they are answered next."""
        with self._changed:
            self._taken_before = self._taken
            self._taken -= len(requests)
            self.queue_bytes -= sum(len(request.payload) for request in requests)

    def _committed(self, reading: Reading | BaseException) -> list[Fate]:
        if isinstance(reading, BaseException):
            raise reading
        if reading.batch is not None:
            written = self._sink.write(reading.batch)
            for outcome in ("stored", "repeated", "replaced"):
                self._outcomes.labels(outcome).inc(getattr(written, outcome))
        self._outcomes.labels("rejected").inc(sum(len(fate.rejections) for fate in reading.fates))
        return reading.fates

    def _store_one_by_one(self, requests: list[_Request], error: BaseException) -> None:
        if len(requests) > 1:
            for request in requests:
                self._store(self._read([request]))
        else:
            self._metrics.failed.inc()
            self._release(requests)
            _answer(requests[0], _refusal(error))


class _Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self.busy = Counter(
            "clew_requests_busy_total", "Requests refused because the queue was full", registry=registry
        )
        self.failed = Counter("clew_requests_failed_total", "Requests that could not be stored", registry=registry)
        self.queue_bytes = Gauge("clew_queue_bytes", "Bytes of requests that wait for their commit", registry=registry)
        self.commit_seconds = Histogram("clew_commit_seconds", "From taking a group to its commit", registry=registry)

    def outcomes_of(self, signal: Signal) -> Counter:
        """What the signal's records are counted by."""
        taken = f"{signal.records.replace('_', ' ').capitalize()} taken, by what became of them"
        return Counter(f"clew_{signal.records}_total", taken, ["outcome"], registry=self._registry)


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
