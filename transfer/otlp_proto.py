"""OTLP protobuf messages one after the other, as the OpenTelemetry Collector's file exporter writes them.

Each message, a `TracesData`, `LogsData` or `MetricsData`, comes after its length: 4 bytes, unsigned, big-endian
(opentelemetry-collector-contrib, exporter/fileexporter: README, "File Format", and file_writer.go). Where that exporter
compresses, each message is compressed by itself and may be JSON: that is read too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import zstandard
from google.protobuf.message import DecodeError
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.metrics.v1.metrics_pb2 import MetricsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from . import otlp_json
from .errors import BadInput
from .frames import FRAME_BYTES_MAX, Frame, Request, sized, too_long
from .input import ZSTD_MAGIC, Input

SUFFIXES = (".binpb", ".pb", ".proto")

_LENGTH = struct.Struct(">I")
_PIECE_BYTES = 1 << 20
_RESOURCE_BLOCKS = b"\x0a"  # the tag of field 1, the only one of these messages


def begins(head: bytes) -> bool:
    """Whether a file that begins so is one."""
    content = head[_LENGTH.size :]
    return content.startswith((_RESOURCE_BLOCKS, ZSTD_MAGIC)) or otlp_json.begins(content)


def frames(file: Input) -> Iterator[Frame]:
    """The messages; one that is too long is passed over. Raises BadInput for one that is cut short."""
    number = offset = 0
    while length := file.stream.read(_LENGTH.size):
        number += 1
        place = f"message {number:,} (byte {offset:,})"
        size = _LENGTH.unpack(length)[0] if len(length) == _LENGTH.size else 0
        if size > FRAME_BYTES_MAX:
            yield Frame(number, place, b"", broken=too_long(size, FRAME_BYTES_MAX, "message"))
            _pass_over(file, size)
        else:
            content = file.stream.read(size)
            if len(content) < size or len(length) < _LENGTH.size:
                raise BadInput(f"{place} is cut short: the file ends within it")
            yield Frame(number, place, content)
        offset += _LENGTH.size + size


def _pass_over(file: Input, size: int) -> None:
    while size and (piece := file.stream.read(min(size, _PIECE_BYTES))):
        size -= len(piece)


def requests(message: bytes) -> list[Request]:
    """What a message asks to be stored. Raises BadInput."""
    if message.startswith(ZSTD_MAGIC):
        message = _expanded(message)
    if message.startswith(b"{"):
        return otlp_json.requests(message)
    return [Request(_signal_of(message), message)] if message else []


def _expanded(message: bytes) -> bytes:
    try:
        with zstandard.ZstdDecompressor().stream_reader(message) as reader:
            plain = reader.read(FRAME_BYTES_MAX + 1)
    except zstandard.ZstdError as error:
        raise BadInput(f"not valid zstd: {error}") from error
    if len(plain) > FRAME_BYTES_MAX:
        raise BadInput(f"it expands to more than {sized(FRAME_BYTES_MAX)}")
    return plain


def _signal_of(message: bytes) -> str:
    """The three messages look the same from outside. Their records have times as fixed64, in fields where the others
    have none of that wire type; a span has ids besides, which make no text. What is none of that, and can be read as
    spans, is left to the server as such."""
    tests = (("traces", TracesData, _has_spans), ("logs", LogsData, _has_logs), ("metrics", MetricsData, _has_metrics))
    unreadable: dict[str, DecodeError] = {}
    for signal, message_type, holds in tests:
        try:
            if holds(message_type.FromString(message)):
                return signal
        except DecodeError as error:
            unreadable[signal] = error
    if "traces" in unreadable:
        raise BadInput(f"not an OTLP message: {unreadable['traces']}")
    return "traces"


def _has_spans(traces: Any) -> bool:
    spans = (span for block in traces.resource_spans for scope in block.scope_spans for span in scope.spans)
    return any(
        span.start_time_unix_nano or span.end_time_unix_nano or _are_ids(span.trace_id, span.span_id)
        for span in islice(spans, 1)
    )


def _are_ids(trace_id: bytes, span_id: bytes) -> bool:
    """A metric has its name and its description there."""
    return (len(trace_id), len(span_id)) == (16, 8) and not (_is_text(trace_id) and _is_text(span_id))


def _is_text(value: bytes) -> bool:
    try:
        return value.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _has_logs(logs: Any) -> bool:
    records = (record for block in logs.resource_logs for scope in block.scope_logs for record in scope.log_records)
    return any(record.time_unix_nano or record.observed_time_unix_nano for record in islice(records, 1))


def _has_metrics(metrics: Any) -> bool:
    found = (one for block in metrics.resource_metrics for scope in block.scope_metrics for one in scope.metrics)
    return any(metric.WhichOneof("data") for metric in islice(found, 1))


class Writer:
    """Makes messages of pages."""

    state: Mapping[str, Any] = {}

    def page(self, traces: bytes) -> bytes:
        """A serialised `TracesData` after its length."""
        return _LENGTH.pack(len(traces)) + traces

    def end(self) -> bytes:
        return b""
