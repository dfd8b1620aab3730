"""The process that receives: OTLP/gRPC, the queue, and the reading of groups.

Receiving and decoding hold Python's global lock about as long as storing the same spans takes, and whoever asks the
store questions needs the lock too. So they have a process of their own: what comes over the line from there is groups
that are ready to be stored, and what goes back is how they fared. OTLP/HTTP shares its port with the API, so its
requests come in with the store and go over the line to be read.

The process has nothing that was acknowledged: should it die, senders that have no answer send again, and another takes
its place.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal as process_signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.registry import Collector

from ..storage import WriteOutcome
from .grpc_server import GrpcServer, otlp_services
from .intake import Intake, Outcome, Unavailable
from .line import Line, LineBroken
from .memory import keep_freed_memory
from .signals import SIGNALS, TRACES, Signal, Sink

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
    """Owns the process, and stores what it reads. Safe to use from several threads."""

    def __init__(
        self,
        sink: Sink,
        *,
        registry: CollectorRegistry | None = None,
        on_loss: Callable[[], object] = lambda: None,
    ) -> None:
        """Starts the process. `on_loss` is called where it ends and no other can take its place; `lost` then says
        why."""
        self.lost = ""
        self._sink = sink
        self._on_loss = on_loss
        self._listening: Listening | None = None
        self._closing = False
        self._storing = ThreadPoolExecutor(1, thread_name_prefix="clew-storing")
        self._process, self._line = self._started()
        self._supervising = threading.Thread(target=self._supervise, name="clew-receiver-line")
        self._supervising.start()
        if registry is not None:
            registry.register(_MetricsElsewhere(self._metrics))

    def listen(self, listening: Listening) -> int:
        """Takes OTLP/gRPC from now on; returns the port. Raises OSError that names the address when it cannot."""
        port: int = self._line.call("listen", listening).result()
        host, _, _ = listening.address.rpartition(":")
        self._listening = replace(listening, address=f"{host}:{port}")
        return port

    def accept(self, request: bytes, signal: Signal = TRACES) -> Future[Outcome]:
        """See `Intake.accept`; what is Busy is told by the future too."""
        answer: Future[Outcome] = Future()
        taken = self._line.call("accept", signal.name, request)
        taken.add_done_callback(lambda done: _pass_on(done, answer))
        return answer

    def close(self, grace_s: float = 0.0) -> None:
        """Takes nothing more, gives gRPC calls under way `grace_s` seconds, finishes everything taken, then returns."""
        self._closing = True
        with suppress(LineBroken, TimeoutError):
            self._line.call("finish", grace_s).result(grace_s + FINISH_S_MAX)
        self._line.close()
        self._end(self._process)
        self._supervising.join()
        self._storing.shutdown()

    def _started(self) -> tuple[SpawnProcess, Line]:
        """A process and this side's end of the line to it; it ends when the line does."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_receive, args=(theirs,), name="clew-receiver", daemon=True)
        with _interrupt_blocked():
            process.start()
        theirs.close()
        answers = {"write_spans": self._write_spans, "write_hashed": self._write_hashed}
        return process, Line(ours, answers)

    def _write_spans(self, batch: Any) -> Future[WriteOutcome]:
        return self._storing.submit(self._sink.write_spans, batch)

    def _write_hashed(self, batch: Any) -> Future[WriteOutcome]:
        return self._storing.submit(self._sink.write_hashed, batch)

    def _supervise(self) -> None:
        """Serves the line, and whenever its other end is gone, the line to another process."""
        while True:
            self._line.serve()
            self._end(self._process)
            if self._closing:
                return
            self._process, self._line = self._started()
            if self._listening:
                self._line.call("listen", self._listening).add_done_callback(self._look_at)

    def _look_at(self, listening: Future[int]) -> None:
        error = listening.exception()
        if error and not self._closing:
            self.lost = f"the process that receives ended, and another cannot take its place: {error}"
            self._closing = True
            self._line.close()
            self._on_loss()

    def _end(self, process: SpawnProcess) -> None:
        process.join(END_S_MAX if self._closing else 0)
        process.kill()
        process.join()

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
        """None in advance: the other process is only starting."""
        return ()


@contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Ctrl-C reaches every process of the terminal, but the server needs this one to finish what was taken; what is
    blocked when a process starts stays blocked in it."""
    before = process_signal.pthread_sigmask(process_signal.SIG_BLOCK, {process_signal.SIGINT})
    try:
        yield
    finally:
        process_signal.pthread_sigmask(process_signal.SIG_SETMASK, before)


def _receive(connection: Connection) -> None:
    """What the process does, until the line ends."""
    keep_freed_memory()
    _Receiving(connection).run()


class _Receiving:
    """The other end: takes requests, reads them, has them stored."""

    def __init__(self, connection: Connection) -> None:
        self._line = Line(
            connection,
            {"listen": self._listen, "accept": self._accept, "metrics": self._metrics, "finish": self._finish},
        )
        self._registry = CollectorRegistry()
        self._intake = Intake(_StoreElsewhere(self._line), registry=self._registry)
        self._grpc: GrpcServer | None = None
        self._finishing = ThreadPoolExecutor(1)

    def run(self) -> None:
        """Serves the line. After that nothing is left to do: what was taken is finished, or can be so no more."""
        gc.collect()
        gc.freeze()  # looking through all modules for garbage would take 0.1 s, in which nobody is answered
        self._line.serve()
        os._exit(0)

    def _listen(self, listening: Listening) -> int:
        self._grpc = GrpcServer(otlp_services(self._intake), listening.address, elsewhere=listening.elsewhere)
        self._grpc.start()
        return self._grpc.port

    def _accept(self, signal_name: str, request: bytes) -> Future[Outcome]:
        return self._intake.accept(request, SIGNALS[signal_name])

    def _metrics(self) -> list[Metric]:
        return list(self._registry.collect())

    def _finish(self, grace_s: float) -> Future[None]:
        return self._finishing.submit(self._finished, grace_s)

    def _finished(self, grace_s: float) -> None:
        if self._grpc:
            self._grpc.stop(grace_s)
        self._intake.close()


class _StoreElsewhere:
    """The store at the other end of the line, as a Sink."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def write_spans(self, batch: Any) -> WriteOutcome:
        outcome: WriteOutcome = self._line.call("write_spans", batch).result()
        return outcome

    def write_hashed(self, batch: Any) -> WriteOutcome:
        outcome: WriteOutcome = self._line.call("write_hashed", batch).result()
        return outcome
