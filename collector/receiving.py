"""What the process does that receives, see `receiver`: it takes requests, reads them and has them stored."""

from __future__ import annotations

import gc
import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa
from prometheus_client import CollectorRegistry, Metric

from ..storage import WriteOutcome
from . import table_streams
from .grpc_server import GrpcServer, otlp_services
from .intake import Intake
from .line import Line
from .outcomes import Outcome
from .receiver import Listening
from .signals import SIGNALS


class Receiving:
    """An intake, and OTLP/gRPC where it is told to listen, for the process at the other end of the connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._line = Line(
            connection,
            {"listen": self._listen, "accept": self._accept, "metrics": self._metrics, "finish": self._finish},
            {pa.Table: table_streams.reduced},
        )
        self._registry = CollectorRegistry()
        self._intake = Intake(_StoreElsewhere(self._line), registry=self._registry)
        self._grpc: GrpcServer | None = None
        self._finishing = ThreadPoolExecutor(1)

    def run(self) -> None:
        """Serves the line. After that nothing is left to do: what was taken is finished, or can be so no more."""
        gc.collect()
        gc.freeze()  # looking through all modules for garbage takes 0.1 s, in which nobody is answered
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
        """Beside the line, which is needed for it."""
        return self._finishing.submit(self._finished, grace_s)

    def _finished(self, grace_s: float) -> None:
        if self._grpc:
            self._grpc.stop(grace_s)
        self._intake.close()


class _StoreElsewhere:
    """The store at the other end of the line, as a Sink."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def write(self, batch: Any) -> WriteOutcome:
        outcome: WriteOutcome = self._line.call("write", batch).result()
        return outcome
