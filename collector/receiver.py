"""The process that receives, seen from the one that stores.

Receiving and reading hold Python's global lock about as long as storing the same spans takes, and whoever asks the
store questions needs that lock too. So OTLP/gRPC, the queue and the reading of groups have a process of their own
(`receiving`): what comes over the line from there is groups that are ready to be stored, and what goes back is how they
fared. OTLP/HTTP shares its port with the API, so its requests come in beside the store and go over the line to be read.

The process has nothing that was acknowledged: should it die, senders that have no answer send again, and another takes
its place. This module is quick to import, so that the process can start up while its parent does.
"""

from __future__ import annotations

import multiprocessing
import signal as process_signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnProcess
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from .line import Line, LineBroken
from .outcomes import Outcome, Unavailable
from .without_pandas import go_without_pandas

if TYPE_CHECKING:
    from .signals import Signal, Sink

# What was taken is stored within this, or its senders will send it again.
FINISH_S_MAX = 30.0
END_S_MAX = 5.0


@dataclass(frozen=True)
class Listening:
    """Where OTLP/gRPC is taken (`host:port`; port 0: a free one), and the gRPC server of this machine that answers
    all else there."""

    address: str
    elsewhere: str


class Receiver:
    """Owns the process, and has stored what it reads. Safe to use from several threads."""

    def __init__(self) -> None:
        self.lost = ""
        self._sink: Sink | None = None
        self._on_loss: Callable[[], object] = lambda: None
        self._listening: Listening | None = None
        self._closing = False
        self._turn = threading.Lock()
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="clew-storing")
        self._process, self._line = self._started()
        self._supervising = threading.Thread(target=self._supervise, name="clew-receiver-line")
        self._supervising.start()

    def store_in(
        self,
        sink: Sink,
        *,
        registry: CollectorRegistry | None = None,
        on_loss: Callable[[], object] = lambda: None,
    ) -> None:
        """Says where to store what is taken; before, nothing may be. The registry gets the metrics of the other
        process. `on_loss` is called where that ends and no other can take its place; `lost` then says why."""
        self._sink, self._on_loss = sink, on_loss
        if registry is not None:
            registry.register(_MetricsElsewhere(self._metrics))

    def listen(self, listening: Listening) -> int:
        """Takes OTLP/gRPC from now on; returns the port. Raises OSError that names the address when it cannot."""
        try:
            port: int = self._line.call("listen", listening).result()
        except LineBroken as error:
            reason = f"the process that receives ended before it listened on {listening.address}; start clew again"
            raise OSError(reason) from error
        host, _, _ = listening.address.rpartition(":")
        self._listening = replace(listening, address=f"{host}:{port}")
        return port

    def accept(self, request: bytes, signal: Signal) -> Future[Outcome]:
        """See `Accepts`."""
        answer: Future[Outcome] = Future()
        taken = self._line.call("accept", signal.name, request)
        taken.add_done_callback(lambda done: _pass_on(done, answer))
        return answer

    def close(self, grace_s: float = 0.0) -> None:
        """Takes nothing more, gives gRPC calls under way `grace_s` seconds, finishes everything taken, then returns.
        Does nothing the second time."""
        if self._takes_no_more() and self._sink:
            with suppress(LineBroken, TimeoutError):
                self._line.call("finish", grace_s).result(grace_s + FINISH_S_MAX)
        self._line.close()
        self._supervising.join()
        self._storing.shutdown()

    def _started(self) -> tuple[SpawnProcess, Line]:
        """A process and this side's end of the line to it; it ends when the line does."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = socket.socketpair()
        process = context.Process(target=_receive, args=(theirs,), name="clew-receiver", daemon=True)
        with _interrupt_blocked():
            process.start()
        theirs.close()
        return process, Line(ours, {"write": self._write})

    def _write(self, batch: Any) -> Future[Any]:
        assert self._sink  # noqa: S101 nothing was taken before
        return self._storing.submit(self._sink.write, batch)

    def _supervise(self) -> None:
        """Serves the line, and whenever its other end is gone, the line to another process."""
        while True:
            self._line.serve()
            self._process.kill()
            self._process.join()
            try:
                with self._turn:
                    if self._closing:
                        return
                    self._process, self._line = self._started()
            except OSError as error:
                self._give_up(error)
                return
            if self._listening:
                self._line.call("listen", self._listening).add_done_callback(self._look_at)

    def _look_at(self, listening: Future[int]) -> None:
        if error := listening.exception():
            self._give_up(error)

    def _give_up(self, error: BaseException) -> None:
        if self._takes_no_more():
            self.lost = f"the process that receives ended, and another cannot take its place: {error}; start clew again"
            self._line.close()
            self._on_loss()

    def _takes_no_more(self) -> bool:
        """From now on no process is replaced. False where that was so before."""
        with self._turn:
            was_open, self._closing = not self._closing, True
        return was_open

    def _metrics(self) -> Iterable[Metric]:
        try:
            return list(self._line.call("metrics").result(END_S_MAX))
        except (LineBroken, TimeoutError):
            return []


def _pass_on(done: Future[Outcome], answer: Future[Outcome]) -> None:
    if not answer.set_running_or_notify_cancel():
        return  # the sender gave up waiting
    error = done.exception()
    if isinstance(error, LineBroken):
        answer.set_exception(Unavailable("the request was not read to its end; send it again"))
    elif error:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


class _MetricsElsewhere(Collector):
    """Metrics of another process, asked for whenever they are wanted."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics()

    def describe(self) -> Iterable[Metric]:
        """None in advance: the other process may be only starting."""
        return ()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal, but the server needs this one to finish what was taken; what is
    blocked when a process starts stays blocked in it."""
    # Starting the first process starts this one before, and unblocks what is blocked.
    resource_tracker.ensure_running()
    before = process_signal.pthread_sigmask(process_signal.SIG_BLOCK, {process_signal.SIGINT})
    try:
        yield
    finally:
        process_signal.pthread_sigmask(process_signal.SIG_SETMASK, before)


def _receive(connection: socket.socket) -> None:
    go_without_pandas()
    from .receiving import Receiving  # noqa: PLC0415 what it needs is needed there only

    Receiving(connection).run()
