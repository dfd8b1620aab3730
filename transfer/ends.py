"""The ends of a transfer: where spans are taken from, and where requests are taken to."""

from __future__ import annotations

from concurrent.futures import Future
from typing import NamedTuple, Protocol

from ..exporter.pages import Page

IN_FLIGHT_MAX = 4


class Total(NamedTuple):
    """How many spans are chosen. Their runs started in `since` to before `until` (nanoseconds since 1970), and the
    latest of them just before that."""

    spans: int
    since: int
    until: int


class Spans(Protocol):
    """Spans that were chosen, by pages. Both methods raise what ends the transfer."""

    def total(self) -> Total: ...

    def within(self, since: int, until: int) -> Spans:
        """The same choice of runs that started in this time."""

    def page(self, cursor: str | None) -> Page:
        """The page after the one that gave `cursor`, the first one for None."""


class Outcome(NamedTuple):
    """How many records of a request were refused, and what is to be said about it, or ""."""

    rejected: int
    message: str


class Sink(Protocol):
    """Takes requests; `name` says where to."""

    name: str

    def accept(self, signal: str, payload: bytes) -> Future[Outcome]:
        """Takes a serialised request of a signal. The future resolves once it is stored, or carries why not."""

    def holds(self, run_id: str, span_id: str) -> bool:
        """Whether this span is there."""

    def close(self) -> None: ...
