"""Where questions are answered: a few threads, each question a read transaction with a time limit."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Concatenate, ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread
from prometheus_client import CollectorRegistry, Histogram

from ..storage import Reader, Store
from .errors import Busy

ANSWERED_AT_ONCE_MAX = 8
WAITING_MAX = 64
SECONDS_MAX = 30.0

P = ParamSpec("P")
T = TypeVar("T")


class Asker:
    """Puts questions to the store, off the event loop; `ANSWERED_AT_ONCE_MAX` at a time, the others wait."""

    def __init__(self, store: Store, registry: CollectorRegistry) -> None:
        self.store = store
        self._limiter = CapacityLimiter(ANSWERED_AT_ONCE_MAX)
        self._taken = 0
        self._seconds = Histogram(
            "clew_query_seconds", "Time to answer a question, waiting not included.", ["question"], registry=registry
        )

    def elsewhere(self) -> Asker:
        """Another for another event loop: of the same store and figures, with places of its own."""
        other = copy(self)
        other._limiter, other._taken = CapacityLimiter(ANSWERED_AT_ONCE_MAX), 0
        return other

    async def ask(self, question: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `question` answers, given a reader. Raises what it raises, QueryTimeout, and Busy past WAITING_MAX."""

        def answer() -> T:
            with self.store.read(seconds_max=SECONDS_MAX) as reader:
                return question(reader, *args, **kwargs)

        return await self.run(question.__name__, answer)

    async def run(self, name: str, work: Callable[[], T]) -> T:
        """`work` on one of the same threads, for what reads the store by itself. Raises Busy as `ask` does."""
        if self._taken >= ANSWERED_AT_ONCE_MAX + WAITING_MAX:
            raise Busy(f"{WAITING_MAX} questions are waiting already; ask again in a second")
        self._taken += 1
        try:
            return await to_thread.run_sync(self._timed, name, work, limiter=self._limiter)
        finally:
            self._taken -= 1

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        with self._seconds.labels(name).time():
            return work()
