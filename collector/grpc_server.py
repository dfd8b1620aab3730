"""OTLP over gRPC, with health and reflection beside it, and the services it is handed.

Requests pass through as bytes: nothing is parsed here. grpcio undoes gzip and deflate itself, and holds the result to
the size limit too; an encoding that it does not know (zstd) it refuses before a handler sees the call.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from .answers import response_to, status_of
from .intake import Intake, Outcome, Refused
from .signals import SIGNALS, Signal

_SERVICES = tuple(signal.service.full_name for signal in SIGNALS.values())
_FULL_SUCCESS = Outcome(0, "")
CALLS_WAITING_MAX = 10_000
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)

T = TypeVar("T")
Methods = Mapping[str, grpc.RpcMethodHandler]
_Export = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


class GrpcServer:
    """Listens once built, serves from `start` to `stop`, on an event loop in a thread of its own: a request that waits
    for its commit takes no thread, so only the intake's bytes bound how many can wait together."""

    def __init__(
        self,
        intake: Intake,
        *,
        host: str,
        port: int,
        payload_bytes_max: int = 64 << 20,
        services: Mapping[str, Methods] | None = None,
    ) -> None:
        """Binds `host`:`port` (0: a free port). `services` are served beside OTLP: by their full names, the
        asynchronous handlers of their methods by name. Raises OSError that names the address when it cannot."""
        self._intake = intake
        self._beside = services or {}
        self._health = health.aio.HealthServicer()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clew-grpc", daemon=True)
        self._thread.start()
        try:
            self.port = self._await(self._built(host, port, payload_bytes_max))
        except BaseException:
            self._end_loop()
            raise

    def start(self) -> None:
        """Begins to serve; health turns SERVING."""
        self._await(self._started())

    def stop(self, grace_s: float) -> None:
        """Takes no new request, gives those taken `grace_s` seconds to be answered, then returns. Once is enough."""
        if not self._loop.is_closed():
            self._await(self._stopped(grace_s))
            self._end_loop()

    async def _built(self, host: str, port: int, payload_bytes_max: int) -> int:
        self._server = grpc.aio.server(options=_options(payload_bytes_max))
        for signal in SIGNALS.values():
            # Neither deserialiser nor serialiser: the handler takes and gives the bytes of the wire.
            export = grpc.unary_unary_rpc_method_handler(self._export_of(signal))
            handler = grpc.method_handlers_generic_handler(signal.service.full_name, {"Export": export})
            self._server.add_generic_rpc_handlers((handler,))
        for name, methods in self._beside.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        beside = (*self._beside, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection((*_SERVICES, *beside), self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for OTLP/gRPC: is it in use, or not of this machine?") from error

    async def _started(self) -> None:
        await self._server.start()
        for service in ("", *_SERVICES, *self._beside):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def _stopped(self, grace_s: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _export_of(self, signal: Signal) -> _Export:
        async def export(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
            try:
                outcome = await asyncio.wrap_future(self._intake.accept(request, signal))
            except Exception as error:  # noqa: BLE001 the sender must be answered, whatever happened
                await _refuse(context, error)
            return b"" if outcome == _FULL_SUCCESS else response_to(outcome, signal).SerializeToString()

        return export

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _refuse(context: grpc.aio.ServicerContext, error: Exception) -> NoReturn:
    if not isinstance(error, Refused):
        _log.exception("an OTLP/gRPC request failed", exc_info=error)
    status = status_of(error)
    details = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(_STATUS_CODES[status.code], status.message, details)
    raise AssertionError("abort raises")


def _options(payload_bytes_max: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", payload_bytes_max),
        # A port in use is an error, not to be shared with whoever has it.
        ("grpc.so_reuseport", 0),
        # Exporters ping as often as they are configured to; that is no reason to drop them.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
        # Calls that come faster than they are looked at wait; gRPC's own limit of some thousand cancels them by chance.
        ("grpc.server.max_pending_requests", CALLS_WAITING_MAX),
        ("grpc.server.max_pending_requests_hard_limit", CALLS_WAITING_MAX),
    ]
