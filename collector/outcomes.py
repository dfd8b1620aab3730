"""How a request fares: what an edge waits for, and what it can be told instead."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .signals import Signal

RETRY_AFTER_S = 1.0


@dataclass(frozen=True)
class Outcome:
    """What to tell the sender, as OTLP's partial success: (0, "") is full success, (0, text) a warning. For the other
    signals `rejected_spans` counts their records."""

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


class Accepts(Protocol):
    """What an edge hands requests to."""

    def accept(self, request: bytes, signal: Signal) -> Future[Outcome]:
        """Takes a serialised request of the signal; the future resolves after the commit, or carries what Refused it.
        May raise Busy at once."""
        ...
