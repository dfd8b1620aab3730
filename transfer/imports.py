"""Frames out of files into a server or a store."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import DecodeError

from ..collector.signals import SIGNALS
from . import formats
from .ends import IN_FLIGHT_MAX, Outcome, Sink
from .errors import BadInput
from .formats import Format
from .frames import Frame, Request
from .input import Input, opened
from .marks import Mark

REQUEST_BYTES = 1 << 20

# Told how many bytes of how many are read; 0 for not known.
Progress = Callable[[int, int], None]
Tell = Callable[[str], None]


@dataclass
class Tally:
    """What became of files: records that were taken, by signal, and refused; frames that could not be read, and that
    were skipped since they were imported before."""

    taken: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    unread: int = 0
    skipped: int = 0


@dataclass
class Import:
    """Imports files into `sink`. With `keep_going`, frames that cannot be read are told and left out; else the first
    one ends it."""

    sink: Sink
    tell: Tell
    progress: Progress
    keep_going: bool = False
    tally: Tally = field(default_factory=Tally)

    def file(self, name: str, of: Format | None = None) -> None:
        """Imports the file of this name, `-` for standard input; it is in the format `of`, else in the one that it
        begins like. What was read before an error is stored. Raises BadInput, and what the sink does."""
        with opened(name) as file:
            mark = Mark.of(file, self.sink)
            flight = _Flight(self, mark)
            try:
                if file.stream.peek():
                    self._fly(file, of or formats.recognised(file), flight, mark.frames(self.sink) if mark else 0)
                else:  # as an export of nothing is
                    self.tell(f"{file.name} is empty: there is nothing to import")
            except BadInput as error:
                flight.land()
                raise BadInput(f"{file.name}: {error}") from error
            flight.land()
            self.progress(file.size, file.size)
            if mark:
                mark.remove()

    def _fly(self, file: Input, each: Format, flight: _Flight, done: int) -> None:
        for frame in each.frames(file):
            self.progress(file.position, file.size)
            if frame.number <= done:
                self.tally.skipped += 1
            else:
                flight.add(frame, self._requests(each, frame, file))

    def _requests(self, each: Format, frame: Frame, file: Input) -> list[Request]:
        try:
            return _read(each, frame)
        except BadInput as error:
            told = BadInput(f"{frame.place}: {error}")
            if not self.keep_going:
                raise told from error
            self.tally.unread += 1
            self.tell(f"{file.name}: {told}")
            return []


def _read(each: Format, frame: Frame) -> list[Request]:
    if frame.broken:
        raise BadInput(frame.broken)
    with formats.uncollected():
        return each.requests(frame.content)


@dataclass
class _Sent:
    """A request on its way: how many records it has, up to which frame, its last span if it has one."""

    answer: Future[Outcome]
    signal: str
    records: int
    frames: int
    last: tuple[str, str] | None


class _Flight:
    """Requests on their way, in the order of the file. Small ones travel together: serialised one after the other they
    are one request."""

    def __init__(self, owner: Import, mark: Mark | None) -> None:
        self._owner, self._mark = owner, mark
        self._waiting: list[bytes] = []
        self._signal, self._frames = "", 0
        self._sent: deque[_Sent] = deque()

    def add(self, frame: Frame, requests: list[Request]) -> None:
        for request in requests:
            if request.warning:
                self._owner.tell(f"{frame.place}: {request.warning}")
            size = sum(map(len, self._waiting)) + len(request.payload)
            if request.signal != self._signal or size > REQUEST_BYTES:
                self._send()
            self._signal = request.signal
            self._waiting.append(request.payload)
        self._frames = frame.number

    def land(self) -> None:
        """Sends what waits, and waits for what is sent."""
        self._send()
        while self._sent:
            self._settle(self._sent.popleft())

    def _send(self) -> None:
        if not self._waiting:
            return
        payload, self._waiting = b"".join(self._waiting), []
        records, last = _content(self._signal, payload)
        while len(self._sent) >= IN_FLIGHT_MAX:
            self._settle(self._sent.popleft())
        answer = self._owner.sink.accept(self._signal, payload)
        self._sent.append(_Sent(answer, self._signal, records, self._frames, last))

    def _settle(self, sent: _Sent) -> None:
        outcome = sent.answer.result()
        tally = self._owner.tally
        tally.taken[sent.signal] += sent.records - outcome.rejected
        tally.rejected[sent.signal] += outcome.rejected
        if outcome.message:
            self._owner.tell(outcome.message)
        if self._mark and sent.last and sent.frames:
            self._mark.set(sent.frames, *sent.last)


def _content(signal: str, payload: bytes) -> tuple[int, tuple[str, str] | None]:
    """How many records a request has, and the last span's run and id."""
    try:
        message = SIGNALS[signal].request.FromString(payload)
    except DecodeError:  # nested deeper than protobuf reads here; the server says what becomes of it
        return 0, None
    count, last = 0, None
    for last in _records(message, signal):
        count += len(_points(last)) if signal == "metrics" else 1
    return count, (last.trace_id.hex(), last.span_id.hex()) if signal == "traces" and last else None


def _records(message: Any, signal: str) -> Iterator[Any]:
    of_resource, of_scope, records = _PATHS[signal]
    for resource_block in getattr(message, of_resource):
        for scope_block in getattr(resource_block, of_scope):
            yield from getattr(scope_block, records)


_PATHS = {
    "traces": ("resource_spans", "scope_spans", "spans"),
    "logs": ("resource_logs", "scope_logs", "log_records"),
    "metrics": ("resource_metrics", "scope_metrics", "metrics"),
}


def _points(metric: Any) -> Any:
    data = metric.WhichOneof("data")
    return getattr(metric, data).data_points if data else ()
