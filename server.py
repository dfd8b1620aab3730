"""The whole server: where the parts meet. Built from the store outwards, stopped in reverse order."""

from __future__ import annotations

import errno
import gc
import os
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from .collector.grpc_server import GrpcServer, Methods, otlp_services
from .collector.http_server import otlp_routes
from .collector.receiver import Listening, Receiver
from .exporter.forwarding import Forwarding
from .exporter.otlp import run_as_otlp
from .exporter.pages import ChosenSpans
from .exporter.targets import BadTarget, Target, targets_of
from .query.app import build_app
from .query.filter import FilterError, parse
from .query.filter_sql import of_events
from .query.jaeger import jaeger_services
from .settings import Settings
from .storage import DatabaseLocked, SqlLimits, Store, Upkeep

GRACE_S = 5.0
# How long questions under way when the server stops have for their answer.
ANSWERS_S = 2.0
# EX_SOFTWARE of sysexits.h: whoever keeps it running may start it again.
EXIT_DAMAGED = 70
# RFC 6454, section 6.2: a scheme, a host, a port, and nothing behind it; `null` is what pages without one say.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#\s]+|null|\*")


class CannotServe(Exception):
    """No server, or no longer; the message tells what to do."""


@dataclass(frozen=True)
class Addresses:
    """Where a server listens, where its data is, and the backends to which it sends on: their names and addresses."""

    otlp_grpc: str
    http: str
    data: Path
    exports: tuple[tuple[str, str], ...] = ()


@contextmanager
def serving(settings: Settings, on_end: Callable[[], None], receiver: Receiver | None = None) -> Iterator[Addresses]:
    """A server that listens inside the `with`. Leaving it stops listening, finishes what was taken, closes the file.

    `receiver` is one that was started ahead, and is closed here. `on_end` is called, on another thread, when the
    server cannot go on or its HTTP part ends, asked or not. Raises CannotServe, StorageError.
    """
    with ExitStack() as parts:
        receiver = parts.enter_context(closing(receiver or Receiver()))
        _check_addresses(settings)
        targets = _targets(settings)
        store = parts.enter_context(closing(_opened(settings.database)))
        store.damage.on_notice = end_at_once
        parts.enter_context(closing(Upkeep(store)))
        registry = CollectorRegistry()
        forwarding = parts.enter_context(closing(_forwarding(store, targets, registry)))
        receiver.store_in(store, registry=registry, on_loss=on_end)
        parts.callback(receiver.close, GRACE_S)
        app = build_app(
            store,
            registry=registry,
            routes=otlp_routes(receiver),
            cors_origins=settings.cors_origins,
            run_as_otlp=run_as_otlp,
            spans_in_bulk=ChosenSpans,
            exports=forwarding.states,
            sql_limits=SqlLimits(seconds_max=settings.sql_seconds_max, rows_max=settings.sql_rows_max),
        )
        listener = parts.enter_context(_listen(settings.host, settings.http_port, "--http-port"))
        services = otlp_services(receiver) | jaeger_services(app.state.asker.elsewhere(), ChosenSpans)
        elsewhere = parts.enter_context(_grpc_within(services))
        grpc_port = _listen_for_otlp(receiver, settings, elsewhere)
        parts.enter_context(_http_serving(app, listener, on_end, [store.end_reads, app.state.sql_desk.end]))
        parts.callback(app.state.streams.end)  # else the HTTP server would wait for them
        parts.callback(gc.unfreeze)
        _spare_what_is_here_to_stay()
        http_port = listener.getsockname()[1]
        yield Addresses(
            _address(settings.host, grpc_port),
            f"http://{_address(settings.host, http_port)}",
            store.path,
            tuple((target.name, target.address) for target in targets),
        )
        if receiver.lost:
            raise CannotServe(receiver.lost)
    if app.state.sql_desk.is_answering:
        _leave_behind()


def _leave_behind() -> None:
    """Ends the process, which would wait for a query that cannot be stopped: all else is in order."""
    told = "clew: left a query behind that could not be stopped; all that was acknowledged is stored"
    print(told, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(0)


def end_at_once(reason: str) -> None:
    """As a killed process ends, which loses nothing that was acknowledged; closing the file could."""
    print(f"clew: the engine failed: {reason}", file=sys.stderr)
    print("clew: ended at once; all that was acknowledged is stored. Start clew again", file=sys.stderr, flush=True)
    os._exit(EXIT_DAMAGED)


def _opened(database: str) -> Store:
    try:
        return Store.open(database)
    except DatabaseLocked as error:
        raise CannotServe(f"{error} with --db") from error


def _check_addresses(settings: Settings) -> None:
    if settings.grpc_port == settings.http_port != 0:
        message = f"--grpc-port and --http-port are both {settings.http_port}; choose two, or 0 for a free one"
        raise CannotServe(message)
    for origin in settings.cors_origins:
        if not _ORIGIN.fullmatch(origin):
            raise CannotServe(f"--cors-origin: {origin!r} is no origin; write it as http://localhost:3000, or *")


def _targets(settings: Settings) -> list[Target]:
    try:
        return targets_of(settings.export or ())
    except BadTarget as error:
        raise CannotServe(f"--export: {error}") from error


def _forwarding(store: Store, targets: Sequence[Target], registry: CollectorRegistry) -> Forwarding:
    wheres = {}
    for target in targets:
        try:
            if target.filter:
                wheres[target.name] = of_events(parse(target.filter))
        except FilterError as error:
            raise CannotServe(f"--export: the filter of {target.name}: {error}") from error
    try:
        return Forwarding(store, targets, wheres, registry)
    except BadTarget as error:
        raise CannotServe(f"--export: {error}") from error


def _spare_what_is_here_to_stay() -> None:
    """Looking through all modules for garbage takes 0.15 s, in which nobody is answered; nothing of them ever is."""
    gc.collect()
    gc.freeze()


@contextmanager
def _grpc_within(services: Mapping[str, Methods]) -> Iterator[str]:
    """A gRPC server for this machine's own processes, as long as the `with` lasts; gives its address."""
    with TemporaryDirectory(prefix="clew-") as folder:
        address = f"unix:{folder}/grpc"
        server = GrpcServer(services, address)
        server.start()
        try:
            yield address
        finally:
            server.stop(GRACE_S)


def _listen_for_otlp(receiver: Receiver, settings: Settings, elsewhere: str) -> int:
    # gRPC says only that it could not bind; asking the system first tells why.
    _listen(settings.host, settings.grpc_port, "--grpc-port").close()
    try:
        return receiver.listen(Listening(_address(settings.host, settings.grpc_port), elsewhere))
    except OSError as error:
        raise CannotServe(str(error)) from error


def _listen(host: str, port: int, option: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"port {port} on {host} is taken; stop what listens there, or use {option} 0 for a free one"
        else:
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            message = f"cannot listen on {_address(host, port)} ({reason}); see --host and {option}"
        raise CannotServe(message) from error
    # An answer written in pieces must not wait for the reader's acknowledgement, 40 ms on Linux.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@contextmanager
def _http_serving(
    app: FastAPI, listener: socket.socket, on_end: Callable[[], None], at_the_end: Sequence[Callable[[], None]]
) -> Iterator[None]:
    """uvicorn on a thread of its own: signals stay with the main thread."""
    config = uvicorn.Config(
        app,
        http="h11",  # it bounds the headers of a request; httptools, where somebody has installed that, does not
        log_config=None,
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=int(GRACE_S),
    )
    server = _HttpServer(config)

    def serve() -> None:
        try:
            server.run(sockets=[listener])
        finally:
            server.ready.set()
            on_end()

    thread = threading.Thread(target=serve, name="clew-http")
    thread.start()
    server.ready.wait()
    try:
        if server.started:
            yield
        if not thread.is_alive():
            raise CannotServe("the HTTP server ended by itself; the reason is above")
    finally:
        server.should_exit = True
        thread.join(ANSWERS_S)
        for end_questions in at_the_end:
            end_questions()
        thread.join()


class _HttpServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
