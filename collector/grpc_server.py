"""OTLP over gRPC, with health and reflection beside it.

Requests pass through as bytes: nothing is parsed here. grpcio undoes gzip and deflate itself, and holds the result to
the size limit too; an encoding that it does not know (zstd) it refuses before a handler sees the call.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from .answers import response_to, status_of
from .intake import Intake, Outcome, Refused

SERVICE = trace_service_pb2.DESCRIPTOR.services_by_name["TraceService"].full_name
# A request holds its thread until its commit, so this is how many can wait for one commit together.
THREADS_MAX = 128

_FULL_SUCCESS = Outcome(0, "")
_STATUS_CODES = {code.value[0]: code for code in grpc.StatusCode}
_log = logging.getLogger(__name__)


class GrpcServer:
    """Listens once built, serves from `start` to `stop`."""

    def __init__(self, intake: Intake, *, host: str, port: int, payload_bytes_max: int = 64 << 20) -> None:
        """Binds `host`:`port` (0: a free port). Raises OSError that names the address when it cannot."""
        self._intake = intake
        self._threads = ThreadPoolExecutor(THREADS_MAX, thread_name_prefix="clew-grpc")
        self._server = grpc.server(self._threads, options=_options(payload_bytes_max))
        self._health = health.HealthServicer()
        self._add_services()
        self.port = self._bound(host, port)

    def start(self) -> None:
        """Begins to serve; health turns SERVING."""
        self._server.start()
        self._set_health(health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_s: float) -> None:
        """Takes no new request, gives those taken `grace_s` seconds to be answered, then returns."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_s).wait()
        self._threads.shutdown(wait=False)

    def _add_services(self) -> None:
        # Neither deserialiser nor serialiser: the handler takes and gives the bytes of the wire.
        export = grpc.unary_unary_rpc_method_handler(self._export)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {"Export": export}),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)

    def _bound(self, host: str, port: int) -> int:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            return int(self._server.add_insecure_port(address))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address} for OTLP/gRPC: is it in use, or not of this machine?") from error

    def _set_health(self, status: int) -> None:
        for service in ("", SERVICE):
            self._health.set(service, status)

    def _export(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            outcome = self._intake.accept(request).result()
        except Exception as error:  # noqa: BLE001 the sender must be answered, whatever happened
            _refuse(context, error)
        return b"" if outcome == _FULL_SUCCESS else response_to(outcome).SerializeToString()


def _refuse(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    if not isinstance(error, Refused):
        _log.exception("an OTLP/gRPC request failed", exc_info=error)
    status = status_of(error)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(_STATUS_CODES[status.code], status.message)
    raise AssertionError("abort raises")


def _options(payload_bytes_max: int) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", payload_bytes_max),
        # A port in use is an error, not to be shared with whoever has it.
        ("grpc.so_reuseport", 0),
        # Exporters ping as often as they are configured to; that is no reason to drop them.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_ping_strikes", 0),
    ]
