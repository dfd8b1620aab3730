"""Reading requests in a process of its own.

Decoding holds Python's global lock for as long as it takes, about as long as storing the same spans does: in one
process the two would take turns, in two they overlap. A small group is read where it is, since the way there and back
would take longer than the reading.
"""

from __future__ import annotations

import multiprocessing
import pickle
import signal
import threading
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from .projection import Reading, read_requests

WORTH_SENDING_BYTES = 64 << 10


class UnreadableGroup(Exception):
    """The worker could not read a group; read request by request, the one at fault shows."""


class WorkerReader:
    """Reads requests, large groups of them in a worker process, which ends with this one. For one thread at a time,
    but `read` may be called from another while the worker is busy: that group is read where it is."""

    def __init__(self) -> None:
        self._process, self._connection = _started()
        self._turn = threading.Lock()

    def read(self, requests: list[bytes]) -> Reading:
        """See `projection.read_requests`."""
        if sum(map(len, requests)) < WORTH_SENDING_BYTES or not self._turn.acquire(blocking=False):
            return read_requests(requests)
        try:
            return self._ask(requests)
        except (EOFError, OSError):
            self.close()
            self._process, self._connection = _started()
            return read_requests(requests)
        finally:
            self._turn.release()

    def close(self) -> None:
        """Ends the worker."""
        self._connection.close()
        self._process.join()

    def _ask(self, requests: list[bytes]) -> Reading:
        self._connection.send_bytes(pickle.dumps(requests, protocol=5))
        answer = pickle.loads(self._connection.recv_bytes())  # noqa: S301 from our own child
        if isinstance(answer, UnreadableGroup):
            raise answer
        return answer


def _started() -> tuple[SpawnProcess, Connection]:
    """A worker and this side's end of the line to it; the worker ends when the line does."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), name="clew-reader", daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _work(line: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; the server still needs its reader to finish what was taken.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            requests = pickle.loads(line.recv_bytes())  # noqa: S301 from our own parent
        except EOFError:
            return
        try:
            answer: Reading | UnreadableGroup = read_requests(requests)
        except BaseException as error:  # noqa: BLE001 a panic in native code must not end the worker
            answer = UnreadableGroup(f"{type(error).__name__}: {error}")
        line.send_bytes(pickle.dumps(answer, protocol=5))
