"""Reading requests, large groups of them in a process of its own.

Decoding holds Python's global lock for as long as it takes, about as long as storing the same spans does: in one
process the two would take turns, in two they overlap. A small group is read where it is, since the way there and back
would take longer than the reading.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal as process_signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from .memory import keep_freed_memory
from .reading import Reading
from .signals import SIGNALS, TRACES, Signal

WORTH_SENDING_BYTES = 64 << 10
# A group of one signal is read within this; a worker that is longer at another's holds nobody up.
TURN_S_MAX = 0.5


class UnreadableGroup(Exception):
    """The worker could not read a group; read request by request, the one at fault shows."""


class Reader:
    """Owns the worker process, which ends with this one. Threads take turns; a turn that is long in coming is not
    waited for."""

    def __init__(self) -> None:
        self._process, self._line = _started()
        self._turn = threading.Lock()

    def read(self, requests: list[bytes], signal: Signal = TRACES) -> Reading:
        """See `Signal.read`. Raises UnreadableGroup."""
        if sum(map(len, requests)) < WORTH_SENDING_BYTES or not self._turn.acquire(timeout=TURN_S_MAX):
            return signal.read(requests)
        try:
            answer = self._asked((signal.name, requests))
        except (EOFError, OSError):
            return signal.read(requests)
        finally:
            self._turn.release()
        if isinstance(answer, UnreadableGroup):
            raise answer
        return answer

    def _asked(self, question: tuple[str, list[bytes]]) -> Reading | UnreadableGroup:
        """What the worker makes of it; one that has died is replaced."""
        try:
            self._line.send_bytes(pickle.dumps(question, protocol=5))
            answer: Reading | UnreadableGroup = pickle.loads(self._line.recv_bytes())  # noqa: S301 from our own child
        except (EOFError, OSError):
            self.close()
            self._process, self._line = _started()
            raise
        return answer

    def close(self) -> None:
        """Ends the worker, whatever it is at: it has nothing that would have to be finished."""
        self._line.close()
        self._process.kill()
        self._process.join()


def _started() -> tuple[SpawnProcess, Connection]:
    """A worker and this side's end of the line to it; the worker ends when the line does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name="clew-reader", daemon=True)
    with _interrupt_blocked():
        process.start()
    theirs.close()
    return process, ours


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal, but the server needs its reader to finish what was taken; what is
    blocked when a process starts stays blocked in it."""
    before = process_signal.pthread_sigmask(process_signal.SIG_BLOCK, {process_signal.SIGINT})
    try:
        yield
    finally:
        process_signal.pthread_sigmask(process_signal.SIG_SETMASK, before)


def _work(line: Connection) -> None:
    keep_freed_memory()
    with suppress(EOFError, OSError):  # the server is gone, and nobody is left to answer
        while True:
            name, requests = pickle.loads(line.recv_bytes())  # noqa: S301 from our own parent
            line.send_bytes(pickle.dumps(_read(SIGNALS[name], requests), protocol=5))


def _read(signal: Signal, requests: list[bytes]) -> Reading | UnreadableGroup:
    try:
        return signal.read(requests)
    except BaseException as error:  # noqa: BLE001 a panic in native code must not end the worker
        return UnreadableGroup(f"{type(error).__name__}: {error}")
