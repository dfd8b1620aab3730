"""What is done to a store between writes, so that questions are answered sooner: usage is counted, attributes are
compacted."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING

from .errors import QueryTimeout, WriteFailed

if TYPE_CHECKING:
    from .store import Store

IDLE_S = 2.0
# Of the time, by writes: below it there is room for small portions.
BUSY_SHARE_MAX = 0.25

_log = logging.getLogger("clew.upkeep")


class Upkeep:
    """Keeps a store up on a thread of its own: all the time while nobody wants anything of it; half of it while it is
    read, so that readers find the other half; a quarter while something is written; not at all while much is."""

    def __init__(self, store: Store, *, idle_s: float = IDLE_S) -> None:
        self._store = store
        self._idle_s = idle_s
        self._looked_at, self._busy_s = time.monotonic(), store.busy_s
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clew-upkeep")
        self._thread.start()

    def close(self) -> None:
        """Returns when the portion under way is done."""
        self._closing.set()
        self._thread.join()

    def _run(self) -> None:
        pause = self._idle_s
        while not self._closing.wait(pause):
            pause = self._step()

    def _step(self) -> float:
        """Does a portion of what is due and possible; returns how many seconds to leave the store alone."""
        if self._busy_share() > BUSY_SHARE_MAX:
            return self._idle_s
        is_written = self._store.idle_s < self._idle_s
        began = time.perf_counter()
        try:
            goes_on = self._small_portion() if is_written else self._portion()
        except (QueryTimeout, WriteFailed):
            # Nothing was changed. What hindered it, a full disk say, hinders others as well, and they tell of it.
            goes_on = False
        except Exception:  # noqa: BLE001 the thread goes on, whatever it is
            # Memory that a question has at the moment, say: nothing was changed, and the next time may do.
            _log.exception("upkeep of %s was given up for now; nothing is lost, questions are slower", self._store.path)
            goes_on = False
        rest = 3 if is_written else self._store.is_read
        return rest * (time.perf_counter() - began) if goes_on else self._idle_s

    def _portion(self) -> bool:
        """Returns whether there may be more to do."""
        return bool(self._store.count_usage() or self._store.compact())

    def _small_portion(self) -> bool:
        """As `_portion`. Runs that are going on change all the time: they are not counted without a pause."""
        if self._store.compact():
            return True
        self._store.count_usage()
        return False

    def _busy_share(self) -> float:
        """Of the time since it was last asked, the share that writes took."""
        looked_at, busy_s = self._looked_at, self._busy_s
        self._looked_at, self._busy_s = time.monotonic(), self._store.busy_s
        return (self._busy_s - busy_s) / max(self._looked_at - looked_at, 1e-9)
