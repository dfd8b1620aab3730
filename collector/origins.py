"""Resources and scopes: what the telemetry comes from, the same for every signal."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from hashlib import blake2b
from typing import Any

import pyarrow as pa
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from ..storage.batch import Origins
from ..storage.conventions import TEXTS
from .attributes import from_messages
from .otlp import RESOURCES, SCOPES, MessageColumns, parsed

# Of what an origin's message says: larger ones are read each time, since many of them would take much memory.
KEPT_BYTES_MAX = 16_384


class Origin(dict[str, Any]):
    """The columns of a resource or scope. Its id, a hash, stands for all of it."""

    def __hash__(self) -> int:  # type: ignore[override]
        return int(self["id"])


class DistinctOrigins:
    """The distinct resources or scopes of the blocks, and which block has which."""

    def __init__(self, of_block: list[Origin], texts: list[str]) -> None:
        self._of_block = of_block
        self._texts = texts

    def of_block(self, name: str) -> pa.Array:
        """`name` of each block's origin."""
        return pa.array([origin[name] for origin in self._of_block], pa.int64() if name == "id" else pa.string())

    def stored(self) -> Origins:
        """Each origin once, with the columns of its table."""
        distinct = sorted(set(self._of_block), key=hash)
        is_small = sum(len(origin["otlp"] or b"") for origin in distinct) <= KEPT_BYTES_MAX
        return (_stored_kept if is_small else _stored)(tuple(distinct), tuple(self._texts))


def _stored(distinct: tuple[Origin, ...], texts: tuple[str, ...]) -> Origins:
    types = {"id": pa.int64(), "dropped_attributes_count": pa.int64(), "otlp": pa.binary()}
    names = ["id", *texts, "schema_url", "dropped_attributes_count", "otlp"]
    table = {name: pa.array([o[name] for o in distinct], types.get(name, pa.string())) for name in names}
    return Origins(pa.table(table), from_messages([o["attributes"] for o in distinct]))


# Telemetry comes from the same few combinations of origins for hours.
_stored_kept = lru_cache(maxsize=256)(_stored)


def resources_of(blocks: pa.StructArray) -> DistinctOrigins:
    """The resources of ResourceSpans, ResourceLogs …; each knows `service_name` and `session_id` besides its `id`."""
    return DistinctOrigins(_read(blocks, "resource", RESOURCES, read_resource), ["service_name"])


def scopes_of(blocks: pa.StructArray) -> DistinctOrigins:
    """The scopes of ScopeSpans, ScopeLogs …"""
    return DistinctOrigins(_read(blocks, "scope", SCOPES, read_scope), ["name", "version"])


def _read(
    blocks: pa.StructArray, field: str, columns: MessageColumns, read: Callable[[bytes | None, str], Origin]
) -> list[Origin]:
    encoded = _encoded(blocks.field(field), columns)
    schema_urls = blocks.field("schema_url").to_pylist()
    return [read(message, url) for message, url in zip(encoded, schema_urls, strict=True)]


def _encoded(messages: pa.StructArray, columns: MessageColumns) -> list[bytes | None]:
    if not messages.null_count:  # as nearly always; telling present ones apart takes longer than writing them
        return list(columns.encode(messages))
    present = messages.is_valid()
    encoded_present = iter(columns.encode(messages.filter(present)))
    return [next(encoded_present) if is_present else None for is_present in present.to_pylist()]


def _keeping_small(read: Callable[[bytes | None, str], Origin]) -> Callable[[bytes | None, str], Origin]:
    kept = lru_cache(maxsize=4096)(read)

    def read_or_kept(message: bytes | None, schema_url: str) -> Origin:
        is_small = len(message or b"") + len(schema_url) <= KEPT_BYTES_MAX
        return (kept if is_small else read)(message, schema_url)

    return wraps(read)(read_or_kept)


@_keeping_small
def read_resource(message: bytes | None, schema_url: str) -> Origin:
    """The columns of `schema.Resource` and `session_id`, from a serialised Resource (None: absent)."""
    resource = parsed(Resource, message or b"") or Resource()
    texts = {pair.key: pair.value.string_value for pair in resource.attributes}
    origin = _origin(message, schema_url, resource)
    return Origin(
        origin,
        service_name=texts.get("service.name") or None,
        session_id=next((texts[key] for key in TEXTS["session_id"] if texts.get(key)), None),
    )


@_keeping_small
def read_scope(message: bytes | None, schema_url: str) -> Origin:
    """The columns of `schema.Scope`, from a serialised InstrumentationScope (None: absent)."""
    scope = parsed(InstrumentationScope, message or b"") or InstrumentationScope()
    return Origin(_origin(message, schema_url, scope), name=scope.name or None, version=scope.version or None)


def _origin(message: bytes | None, schema_url: str, parsed: Resource | InstrumentationScope) -> dict[str, Any]:
    content = b"%d%d " % (message is not None, len(schema_url)) + schema_url.encode() + (message or b"")
    return {
        "id": int.from_bytes(blake2b(content, digest_size=8).digest(), "big", signed=True),
        "schema_url": schema_url or None,
        "dropped_attributes_count": parsed.dropped_attributes_count,
        "attributes": parsed.attributes,
        "otlp": message,
    }
