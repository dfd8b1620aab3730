"""One batch on its way to a target, until each of its records has been taken or refused.

A target that refuses a batch may mean a single span of it. So what is refused is halved and sent again, down to single
records: only what is refused by itself is given up. And only if the target takes an empty request, which any OTLP
server does: one that refuses even that refuses everything, which is no fault of these records, and they stay.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from .outgoing import Signal
from .senders import Sends
from .target_answers import Answer, Verdict

# How long an error of a target's own is taken for one of the moment.
UNCLEAR_S_MAX = 300.0

_log = logging.getLogger("clew.export")


class _Form(NamedTuple):
    """How a signal's requests are built: the same on the wire as this message, blocks in blocks with records."""

    message: type[Message]
    resource_blocks: str
    scope_blocks: str
    records: str
    noun: str


_FORMS = {
    Signal.TRACES: _Form(TracesData, "resource_spans", "scope_spans", "spans", "span"),
    Signal.LOGS: _Form(LogsData, "resource_logs", "scope_logs", "log_records", "log record"),
    Signal.METRICS: _Form(MetricsData, "resource_metrics", "scope_metrics", "metrics", "metric"),
}


class _Piece(NamedTuple):
    request: bytes
    records: int


class Batch:
    """A serialised request of so many records, for the target of that name. `sent` and `refused` count what became of
    them; `is_done` once that is said of all. `fits` is how many records at a time the target could do with, where these
    were too many."""

    def __init__(self, target: str, signal: Signal, request: bytes, records: int) -> None:
        self._target, self._signal = target, signal
        self._pieces = deque([_Piece(request, records)])
        self._unclear_since: float | None = None
        self.sent = self.refused = 0
        self.fits: int | None = None

    @property
    def is_done(self) -> bool:
        return not self._pieces

    def step(self, sender: Sends) -> Answer | None:
        """Sends what is next. Gives the answer where the target has to be waited for, and None where it is to be gone
        on at once. What is refused for good is named in the log."""
        piece = self._pieces[0]
        answer = self._judged(sender.send(self._signal, piece.request))
        match answer.verdict:
            case Verdict.TAKEN:
                self._take(answer)
            case Verdict.REFUSED:
                return None if self._halve() else self._give_up(sender, answer)
            case Verdict.TOO_LARGE:
                return None if self._shrink() else self._give_up(sender, answer)
            case Verdict.SLOW:
                self._shrink()  # less may be done in time
                return answer
            case _:
                return answer
        return None

    def _judged(self, answer: Answer) -> Answer:
        """An error that stays is not of the moment: then it is these records."""
        if answer.verdict is not Verdict.UNCLEAR:
            return answer
        now = time.monotonic()
        self._unclear_since = self._unclear_since or now
        is_over = now - self._unclear_since >= UNCLEAR_S_MAX
        return replace(answer, verdict=Verdict.REFUSED) if is_over else answer

    def _take(self, answer: Answer) -> None:
        piece = self._pieces.popleft()
        refused = min(answer.refused, piece.records)
        self.sent += piece.records - refused
        self.refused += refused
        self._unclear_since = None
        if refused:
            of = _counted(piece.records, self._signal)
            _log.warning("%s refused %d of %s: %s (%s)", self._target, refused, of, answer.message, self._named(piece))
        elif answer.message:
            _log.warning("%s took %s and says: %s", self._target, _counted(piece.records, self._signal), answer.message)

    def _halve(self) -> bool:
        """Two pieces instead of the first, where it can be divided."""
        halves = _halves(self._signal, self._pieces[0])
        if halves:
            self._pieces.popleft()
            self._pieces.extendleft(reversed(halves))
        return bool(halves)

    def _shrink(self) -> bool:
        """Halves, and remembers that less fits."""
        is_halved = self._halve()
        self.fits = self._pieces[0].records if is_halved else self.fits
        return is_halved

    def _give_up(self, sender: Sends, answer: Answer) -> Answer | None:
        empty = sender.send(self._signal, b"")
        if empty.verdict is Verdict.REFUSED:
            return replace(empty, message=f"it refuses everything, an empty request too: {empty.message}")
        if empty.verdict is not Verdict.TAKEN:
            return empty
        piece = self._pieces.popleft()
        self.refused += piece.records
        _log.warning("%s refused %s: %s", self._target, self._named(piece), answer.message)
        return None

    def _named(self, piece: _Piece) -> str:
        """The first and the last record."""
        try:
            names = [_name(self._signal, record) for record in _records(self._signal, piece)]
        except DecodeError:
            names = []
        if not names:
            return _counted(piece.records, self._signal)
        return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _halves(signal: Signal, piece: _Piece) -> list[_Piece]:
    """Empty where it is a single record, or nests deeper than protobuf's parser goes."""
    try:
        records = len(_records(signal, piece))
    except DecodeError:
        return []
    middle = records // 2
    return [_part(signal, piece, 0, middle), _part(signal, piece, middle, records)] if middle else []


def _part(signal: Signal, piece: _Piece, first: int, end: int) -> _Piece:
    """The records from `first` to before `end`, in their blocks."""
    form = _FORMS[signal]
    message = form.message.FromString(piece.request)
    place = 0
    for scope_block in _scope_blocks(form, message):
        records = getattr(scope_block, form.records)
        begin, place = place, place + len(records)
        del records[max(end - begin, 0) :]
        del records[: max(first - begin, 0)]
    return _Piece(message.SerializeToString(), end - first)


def _scope_blocks(form: _Form, message: Any) -> Iterator[Any]:
    for resource_block in getattr(message, form.resource_blocks):
        yield from getattr(resource_block, form.scope_blocks)


def _records(signal: Signal, piece: _Piece) -> list[Any]:
    """Raises DecodeError for what nests deeper than protobuf's parser goes."""
    form = _FORMS[signal]
    message = form.message.FromString(piece.request)
    return [record for block in _scope_blocks(form, message) for record in getattr(block, form.records)]


def _name(signal: Signal, record: Any) -> str:
    if signal is Signal.METRICS:
        return f"metric {record.name!r}"
    return f"{_FORMS[signal].noun} {record.trace_id.hex() or 'of no run'}/{record.span_id.hex()}"


def _counted(number: int, signal: Signal) -> str:
    return f"{number:,} {_FORMS[signal].noun}{'' if number == 1 else 's'}"
