"""What is done to a store between writes, so that questions are answered sooner: usage is counted, attributes are
compacted, their texts noted, and memory is given back that much of this has filled."""

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
# Below it there is room for what takes a write a third more.
ROOMY_SHARE_MAX = 0.5
# For so long whoever reads beside writes has both cores: what compaction brings, only later questions have.
UNDISTURBED_S = 30.0
# How long ago the last read was that still tells of somebody who is going to read.
WATCHED_S = 60.0
# Runs of which nothing started for so long are likely over.
QUIET_S = 0.5

_log = logging.getLogger("clew.upkeep")


class Upkeep:
    """Keeps a store up on a thread of its own: all the time while nobody wants anything of it; half of it while it is
    read, so that readers find the other half; a quarter while something is written, and then not in the first
    UNDISTURBED_S of somebody who reads. While much is written, only usage is counted, and that only for somebody who
    reads. What comes is compacted as it comes where somebody reads, or where writes leave the time."""

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
        busy_share, is_watched = self._busy_share(), self._store.audience.away_s < WATCHED_S
        self._store.compacts_arrivals = is_watched or busy_share <= ROOMY_SHARE_MAX
        is_busy = busy_share > BUSY_SHARE_MAX
        if is_busy and not is_watched:
            return self._idle_s
        is_written = self._store.idle_s < self._idle_s
        began = time.perf_counter()
        try:
            goes_on = self._small_portion(is_busy=is_busy) if is_written else self._portion()
        except (QueryTimeout, WriteFailed):
            # Nothing was changed. What hindered it, a full disk say, hinders others as well, and they tell of it.
            goes_on = False
        except Exception:  # noqa: BLE001 the thread goes on, whatever it is
            # Memory that a question has at the moment, say: nothing was changed, and the next time may do.
            _log.exception("upkeep of %s was given up for now; nothing is lost, questions are slower", self._store.path)
            goes_on = False
        took = time.perf_counter() - began
        return self._rests(is_busy=is_busy, is_written=is_written) * took if goes_on else self._idle_s

    def _rests(self, *, is_busy: bool, is_written: bool) -> int:
        """How many times as long as a portion took the store is left alone."""
        if is_written and not is_busy:
            return 3
        # Usage is mostly worked out by reading, and a question works out itself what is not worked out yet.
        return 1 if is_busy or self._store.audience.away_s == 0 else 0

    def _portion(self) -> bool:
        """Returns whether there may be more to do. Where not, and nobody waits, memory is given back."""
        goes_on = bool(self._store.count_usage() or self._store.compact() or self._store.note_texts())
        if not goes_on and self._store.audience.away_s:
            self._store.give_memory_back()
        return goes_on

    def _small_portion(self, *, is_busy: bool) -> bool:
        """As `_portion`. Runs that are going on change all the time: they are left until they are quiet."""
        counted = self._store.count_usage(quiet_s=QUIET_S)
        here_s = self._store.audience.here_s
        if is_busy or (here_s is not None and here_s < UNDISTURBED_S):
            return bool(counted)
        return bool(self._store.compact() or self._store.note_texts() or counted)

    def _busy_share(self) -> float:
        """Of the time since it was last asked, the share that writes took."""
        looked_at, busy_s = self._looked_at, self._busy_s
        self._looked_at, self._busy_s = time.monotonic(), self._store.busy_s
        return (self._busy_s - busy_s) / max(self._looked_at - looked_at, 1e-9)
