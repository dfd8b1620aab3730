"""Spans on their way out of an application: off its threads, in bounded memory, never at its expense.

Finished spans and pending copies of open ones wait in queues of their own and leave in portions that any OTLP server
takes. A server that cannot be reached costs a warning and, at the end of a run and of the process, some seconds.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from queue import SimpleQueue
from threading import Event, Lock, Thread
from types import MappingProxyType
from typing import Any, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

DEFAULT_ENDPOINT = "127.0.0.1:4317"
FLUSH_S = 5.0
_FLUSH_WHILE_FAILING_S = 0.5
_EXPORT_TIMEOUT_S = 5.0
_DELAY_MS = 200
_QUEUE_MAX = 8_192
# Collectors take messages of 4 MiB unless told otherwise; a character is at most four bytes.
PORTION_CHARS = 1_000_000
# What applications attach through the SDK itself, exceptions above all; the recorder's own limits are tighter.
_LIMITS = SpanLimits(max_events=10_000, max_links=1_000, max_attribute_length=PORTION_CHARS // 4)

_logger = logging.getLogger("clew.record")


def tracer_provider(endpoint: str | None = None, *, jaeger: str | None = None) -> TracerProvider:
    """clew's own tracer provider, the same one for the same addresses.

    It sends finished spans and pending copies of open ones to the OTLP/gRPC server at `endpoint` (host:port or URL; no
    TLS unless https). Without `endpoint` the OTEL_EXPORTER_OTLP_* variables decide, OTLP/HTTP included, and where they
    are silent it is 127.0.0.1:4317. Finished spans go to `jaeger` (OTLP/gRPC as well) too.

    It is nobody's global provider; `opentelemetry.trace.set_tracer_provider(clew.record.tracer_provider())` makes it
    so, and instrumented libraries' spans become part of the runs around them.
    """
    address = endpoint or _environment_endpoint() or DEFAULT_ENDPOINT
    with _providers_lock:
        if (address, jaeger) not in _providers:
            _providers[address, jaeger] = _OwnProvider(_courier(endpoint), _courier(jaeger) if jaeger else None)
        return _providers[address, jaeger]


def pending_processor(endpoint: str | None = None) -> SpanProcessor:
    """For an application's own tracer provider: sends a copy without an end of each span that is open for longer than a
    moment, so that clew shows it as running. `endpoint` as in `tracer_provider`. Only for a clew server: others may
    take the copy for a second span."""
    return _PendingCopies(_courier(endpoint))


def chosen_provider(endpoint: str | None, jaeger: str | None) -> trace.TracerProvider:
    """Where a run goes: to the addresses that are given, else to the application's provider, else to clew's own."""
    given = trace.get_tracer_provider()
    if endpoint or jaeger or isinstance(given, trace.ProxyTracerProvider):
        return tracer_provider(endpoint, jaeger=jaeger)
    return given


def flush(provider: trace.TracerProvider) -> None:
    """Waits until what has ended has been answered for, FLUSH_S at most."""
    failing = isinstance(provider, _OwnProvider) and provider.failing
    _flusher(provider).asked().wait(_FLUSH_WHILE_FAILING_S if failing else FLUSH_S)


class _Flusher:
    """Flushes a provider beside the application. Its thread is started early: at exit Python starts none."""

    def __init__(self, provider: trace.TracerProvider) -> None:
        # The SDK's word; the API's providers have nothing to flush.
        self._flush = getattr(provider, "force_flush", bool)
        self._waiting: SimpleQueue[Event] = SimpleQueue()
        self._thread = Thread(target=self._work, name="clew-flush", daemon=True)
        self._thread.start()

    @property
    def works(self) -> bool:
        """Not in a process that was forked off: threads stay behind."""
        return self._thread.is_alive()

    def asked(self) -> Event:
        """Asks for a flush; the event tells when it is done."""
        done = Event()
        self._waiting.put(done)
        return done

    def _work(self) -> None:
        while True:
            done = self._waiting.get()
            try:
                self._flush()
            finally:
                done.set()


class _OwnProvider(TracerProvider):
    def __init__(self, to_clew: _Courier, beside: _Courier | None) -> None:
        super().__init__(shutdown_on_exit=False, span_limits=_LIMITS)
        self._to_clew = to_clew
        self.add_span_processor(_PendingCopies(to_clew))
        for courier in (to_clew, beside):
            if courier:
                self.add_span_processor(_batching(courier))
        _flusher(self)

    @property
    def failing(self) -> bool:
        """Whether the last that was sent to clew did not arrive."""
        return self._to_clew.failing


class _PendingCopies(SpanProcessor):
    """Queues open spans; a copy is made when it is sent, of those that are still open."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._open = _batching(_CopiesOfOpenSpans(exporter))

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002
        self._open.on_end(span)

    def shutdown(self) -> None:
        self._open.shutdown()  # type: ignore[no-untyped-call]

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._open.force_flush(timeout_millis)


class _CopiesOfOpenSpans(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        copies = [_pending_copy(span) for span in spans if span.end_time is None]
        return self._exporter.export(copies) if copies else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Leaves the exporter open: the finished spans may still have to go through it."""


class _Courier(SpanExporter):
    """Sends through `exporter`, a portion at a time, and speaks of an outage once, in its own words."""

    def __init__(self, exporter: SpanExporter, address: str) -> None:
        self.failing = False
        self.reason = "no answer"
        self._exporter, self._address = exporter, address
        self._lock = Lock()  # two processors share it, and the SDK's exporter replaces its channel while it retries

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        with self._lock:
            results = [self._sent(portion) for portion in _portions(spans)]
        return SpanExportResult.FAILURE if SpanExportResult.FAILURE in results else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def _sent(self, portion: Sequence[ReadableSpan]) -> SpanExportResult:
        token = _sending.set(self)
        try:
            result = self._exporter.export(portion)
        finally:
            _sending.reset(token)
        failed = result is not SpanExportResult.SUCCESS
        if failed and not self.failing:
            _logger.warning(
                "spans do not arrive at %s and are lost until they do; is `clew serve` running there? (%s)",
                self._address,
                self.reason,
            )
        self.failing = failed
        return result


class _SaidByTheCourier(logging.Filter):
    """Keeps what the SDK's exporters log while a courier sends as the reason that the courier gives."""

    def filter(self, record: logging.LogRecord) -> bool:
        courier = _sending.get()
        if courier:
            courier.reason = record.getMessage()
        return courier is None


_providers: dict[tuple[str, str | None], _OwnProvider] = {}
_providers_lock = Lock()
_flushers: dict[trace.TracerProvider, _Flusher] = {}
_sending: ContextVar[_Courier | None] = ContextVar("clew_sending", default=None)
for _name in ("grpc.exporter", "http.trace_exporter", "http._common"):
    logging.getLogger(f"opentelemetry.exporter.otlp.proto.{_name}").addFilter(_SaidByTheCourier())


def _flusher(provider: trace.TracerProvider) -> _Flusher:
    flusher = _flushers.get(provider)
    if flusher is None or not flusher.works:
        flusher = _flushers[provider] = _Flusher(provider)
    return flusher


@atexit.register
def _flush_at_exit() -> None:
    deadline = time.monotonic() + FLUSH_S
    for done in [flusher.asked() for flusher in _flushers.values() if flusher.works]:
        done.wait(max(0.0, deadline - time.monotonic()))


def _batching(exporter: SpanExporter) -> BatchSpanProcessor:
    return BatchSpanProcessor(exporter, max_queue_size=_QUEUE_MAX, schedule_delay_millis=_DELAY_MS)


def _pending_copy(span: ReadableSpan) -> ReadableSpan:
    # The application goes on writing to the span: only `copy` takes its attributes in one piece.
    attributes = cast("MappingProxyType[str, Any]", span.attributes).copy()
    return ReadableSpan(
        name=span.name,
        context=span.get_span_context(),
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        events=span.events,
        links=span.links,
        kind=span.kind,
        start_time=span.start_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _portions(spans: Sequence[ReadableSpan]) -> Iterator[list[ReadableSpan]]:
    """The spans in turn, each list with at most PORTION_CHARS characters of text or a single span."""
    portion: list[ReadableSpan] = []
    room = PORTION_CHARS
    for span in spans:
        size = _text_size(span)
        if portion and size > room:
            yield portion
            portion, room = [], PORTION_CHARS
        portion.append(span)
        room -= size
    if portion:
        yield portion


def _text_size(span: ReadableSpan) -> int:
    texts = [span.name, span.status.description or "", *(event.name for event in span.events)]
    owners: list[Any] = [span, *span.events, *span.links]
    pairs = (pair for owner in owners for pair in (owner.attributes or {}).items())
    return sum(map(len, texts)) + sum(len(key) + len(str(value)) for key, value in pairs)


def _courier(endpoint: str | None) -> _Courier:
    if endpoint is None and (address := _environment_endpoint()):
        return _Courier(_exporter_of_environment(), address)
    address = endpoint or DEFAULT_ENDPOINT
    url = address if "://" in address else f"http://{address}"
    return _Courier(
        OTLPSpanExporter(
            endpoint=url,
            timeout=_timeout(),
            channel_options=(("grpc.enable_http_proxy", 0),),  # type: ignore[arg-type]  # annotated as text, takes an int
        ),
        address,
    )


def _exporter_of_environment() -> SpanExporter:
    protocol = _variable("PROTOCOL") or "grpc"
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http  # noqa: PLC0415  # few need it

        return http.OTLPSpanExporter(timeout=_timeout())
    return OTLPSpanExporter(timeout=_timeout())


def _environment_endpoint() -> str | None:
    return _variable("ENDPOINT")


def _timeout() -> float | None:
    """None leaves it to the environment. The SDK's own 10 s would outlast every flush."""
    return None if _variable("TIMEOUT") else _EXPORT_TIMEOUT_S


def _variable(name: str) -> str | None:
    return os.environ.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}") or os.environ.get(f"OTEL_EXPORTER_OTLP_{name}")
