"""OTLP over gRPC, and whatever else is asked at the same address.

Requests pass through as bytes: nothing is parsed here. grpcio undoes gzip and deflate itself, and holds the result to
the size limit too; an encoding that it does not know (zstd) it refuses before a handler sees the call. Health and
reflection are answered beside the services, or, with all else that is no Export, by another server of this machine.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn, TypeVar

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from .answers import response_to, status_of
from .outcomes import Accepts, Outcome, Refused
from .signals import SIGNALS, Signal

_FULL_SUCCESS = Outcome(0, "")
CALLS_WAITING_MAX = 10_000
PAYLOAD_BYTES_MAX = 64 << 20
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)

T = TypeVar("T")
Methods = Mapping[str, grpc.RpcMethodHandler]
_Export = Callable[[bytes, grpc.aio.ServicerContext], Awaitable[bytes]]


def otlp_services(intake: Accepts) -> dict[str, Methods]:
    """The methods of OTLP's services by name, by the full name of their service."""
    return {
        # Neither deserialiser nor serialiser: the handler takes and gives the bytes of the wire.
        signal.service.full_name: {"Export": grpc.unary_unary_rpc_method_handler(_export_of(signal, intake))}
        for signal in SIGNALS.values()
    }


class GrpcServer:
    """Listens once built, serves from `start` to `stop`, on an event loop in a thread of its own: a request that waits
    for its commit takes no thread, so only the intake's bytes bound how many can wait together."""

    def __init__(
        self,
        services: Mapping[str, Methods],
        address: str,
        *,
        payload_bytes_max: int = PAYLOAD_BYTES_MAX,
        elsewhere: str | None = None,
    ) -> None:
        """Serves the asynchronous handlers of the services at `address` (`host:port`, port 0 for a free one, or
        `unix:path`), all else as the gRPC server at the address `elsewhere` answers it, or health and reflection where
        there is none. Raises OSError that names the address when it cannot."""
        self._services = services
        self._elsewhere = elsewhere
        self._health = health.aio.HealthServicer()
        self._loop = _new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="clew-grpc", daemon=True)
        self._thread.start()
        try:
            self.port = self._await(self._built(address, payload_bytes_max))
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

    async def _built(self, address: str, payload_bytes_max: int) -> int:
        self._server = grpc.aio.server(options=_options(payload_bytes_max))
        for name, methods in self._services.items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, methods),))
        if self._elsewhere is None:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
            names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self._server)
        else:
            self._server.add_generic_rpc_handlers((_Elsewhere(self._elsewhere),))
        try:
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for OTLP/gRPC: is it in use, or not of this machine?") from error

    async def _started(self) -> None:
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)

    async def _stopped(self, grace_s: float) -> None:
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's, where that can be had (not on Windows): it takes a tenth less of the CPU that a request does."""
    try:
        import uvloop  # noqa: PLC0415 only here
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _export_of(signal: Signal, intake: Accepts) -> _Export:
    arrivals = _Arrivals()

    async def export(request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            outcome = await arrivals.of(intake.accept(request, signal))
        except Exception as error:  # noqa: BLE001 the sender must be answered, whatever happened
            await _refuse(context, error)
        return b"" if outcome == _FULL_SUCCESS else response_to(outcome, signal).SerializeToString()

    return export


class _Arrivals:
    """Outcomes that come from another thread, those of a group one after the other: the event loop is woken once for as
    many as are there. For the handlers of one loop."""

    def __init__(self) -> None:
        self._come: deque[tuple[Future[Outcome], asyncio.Future[Outcome]]] = deque()
        self._is_told = False

    def of(self, taken: Future[Outcome]) -> asyncio.Future[Outcome]:
        """What `taken` becomes, to be awaited."""
        loop = asyncio.get_running_loop()
        awaited = loop.create_future()
        taken.add_done_callback(partial(self._arrived, loop, awaited))
        return awaited

    def _arrived(
        self, loop: asyncio.AbstractEventLoop, awaited: asyncio.Future[Outcome], taken: Future[Outcome]
    ) -> None:
        self._come.append((taken, awaited))
        if not self._is_told:
            self._is_told = True
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        self._is_told = False  # first: what comes from now on may come too late for this time
        while self._come:
            taken, awaited = self._come.popleft()
            error = taken.exception()
            if awaited.done():
                continue  # the sender gave up
            if error is None:
                awaited.set_result(taken.result())
            else:
                awaited.set_exception(error)


class _Elsewhere(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Passes calls of any method on to another server, and its answers back.

    Each message of a call is a call of its own there: most have one, and reflection, which has many, answers each by
    itself. A stream of messages would now and then be told INTERNAL where the server refuses it at once.
    """

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.stream_stream_rpc_method_handler(partial(self._pass_on, handler_call_details.method))

    async def _pass_on(
        self, method: str, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[bytes]:
        ask = self._channel.unary_stream(method)
        try:
            async for request in requests:
                call = ask(request, timeout=context.time_remaining())
                async for response in call:
                    yield response
                context.set_trailing_metadata(tuple(await call.trailing_metadata()))
        except grpc.aio.AioRpcError as error:
            await context.abort(error.code(), error.details() or "", tuple(error.trailing_metadata() or ()))


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
