"""Which keys are in the store for certain, so that it need not be asked."""

from __future__ import annotations

from collections.abc import Iterable

KNOWN_KEYS_MAX = 200_000

_Key = str | int | bytes


class Known:
    """Keys of rows that are in the store for certain. Forgets all when full."""

    def __init__(self) -> None:
        self._committed: set[_Key] = set()
        self._uncommitted: set[_Key] = set()

    def new_among(self, keys: Iterable[_Key]) -> set[_Key]:
        """The keys not known; from the commit on they are."""
        new = set(keys) - self._committed
        self._uncommitted |= new
        return new

    def settle(self, *, committed: bool) -> None:
        """The transaction is over: what was new in it is there from now on, or was never."""
        if committed:
            self._committed |= self._uncommitted
        self._uncommitted.clear()
        if len(self._committed) > KNOWN_KEYS_MAX:
            self._committed.clear()
