"""Serialised records as a request: in blocks, by the resource and the scope that they come from.

The three signals nest alike: a request has resource blocks as field 1, these their scope blocks as field 2, these the
records as field 2; a block's resource or scope is field 1, its schema URL field 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby, pairwise
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from sqlalchemy import select

from ..storage import Reader, Resource, Scope
from .rows import is_readable
from .wire import Ints, data_of, delimited, delimited_column, lengths_of, offsets_of

# Tag and length of a resource block and of a scope block.
_FRAMES_BYTES_MAX = 2 * (1 + 5)
_KNOWN_BYTES_MAX = 4 << 20


class Records(NamedTuple):
    """Serialised records, and the ids of what each comes from. Those with the same number in `together` stay together,
    and come in the order of these numbers."""

    messages: pa.Array
    resource_ids: Ints
    scope_ids: Ints
    together: Ints

    @property
    def size(self) -> int:
        """All messages, in bytes."""
        return len(data_of(self.messages))

    @classmethod
    def joined(cls, portions: Iterable[Records]) -> Records:
        """The records of all portions."""
        messages, *numbers = zip(*portions, strict=True)
        return cls(pa.concat_arrays(messages), *map(np.concatenate, numbers))


class Blocks:
    """A request of as many of the records, from the first one on, as fit into `bytes_max`, but of one at least."""

    def __init__(self, reader: Reader, records: Records, bytes_max: int) -> None:
        self._resource_ids, self._scope_ids = records.resource_ids, records.scope_ids
        self._resources = _RESOURCES.of(reader, records.resource_ids)
        self._scopes = _SCOPES.of(reader, records.scope_ids)
        self._fields = delimited_column(2, records.messages)
        firsts = _firsts(records.scope_ids), _firsts(records.resource_ids)
        self._by_block = np.lexsort((*firsts, records.together))
        sizes = lengths_of(self._fields)
        for first in self._by_block[self._beginnings(self._by_block)].tolist():
            resource, scope = self._origins(first)
            sizes[first] += _FRAMES_BYTES_MAX + len(resource) + len(scope)
        self.count = max(1, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))

    def request(self) -> bytes:
        """The serialised request."""
        order = self._by_block[self._by_block < self.count]
        fields = self._fields.take(pa.array(order))
        octets, ends = data_of(fields), offsets_of(lengths_of(fields))
        blocks: list[tuple[bytes, bytes]] = []
        for begin, end in pairwise([*self._beginnings(order).tolist(), len(order)]):
            resource, scope = self._origins(order[begin])
            blocks.append((resource, delimited(2, scope + octets[ends[begin] : ends[end]].tobytes())))
        of_resources = groupby(blocks, key=itemgetter(0))
        return b"".join(delimited(1, resource + b"".join(block for _, block in of)) for resource, of in of_resources)

    def _beginnings(self, order: Ints) -> Ints:
        """Where in this order of the records blocks begin."""
        changes = np.diff(self._resource_ids[order]) | np.diff(self._scope_ids[order])
        return np.concatenate(([0], np.flatnonzero(changes) + 1))

    def _origins(self, record: int) -> tuple[bytes, bytes]:
        return self._resources[int(self._resource_ids[record])], self._scopes[int(self._scope_ids[record])]


def _firsts(ids: Ints) -> Ints:
    """Of each record the first one with the same id."""
    _, firsts, places = np.unique(ids, return_index=True, return_inverse=True)
    return firsts[places]


class _Origins:
    """What blocks say of resources or scopes; one that nests deeper than protobuf's own parsers go is left out: no
    block with it could be read. Their ids are hashes of what they are, so that what is known once stays true, in
    whatever store."""

    def __init__(self, table: type[Resource | Scope], message_type: type[Message]) -> None:
        self._table, self._message_type = table, message_type
        self._known: dict[int, bytes] = {}

    def of(self, reader: Reader, ids: Ints) -> dict[int, bytes]:
        """By their ids; asked for once."""
        known, wanted = self._known, np.unique(ids).tolist()
        unknown = [number for number in wanted if number not in known]
        if unknown:
            rows = reader.rows(select(self._table.__table__).where(self._table.id.in_(unknown)))
            asked = {row["id"]: self._said(row["otlp"], row["schema_url"]) for row in rows}
            self._known = asked if sum(map(len, known.values())) > _KNOWN_BYTES_MAX else known | asked
            known = known | asked
        return {number: known[number] for number in wanted}

    def _said(self, otlp: bytes | None, schema_url: str | None) -> bytes:
        is_said = otlp is not None and is_readable(self._message_type, otlp)
        said = delimited(1, otlp or b"") if is_said else b""
        return said + (delimited(3, schema_url.encode()) if schema_url else b"")


_RESOURCES, _SCOPES = _Origins(Resource, OtlpResource), _Origins(Scope, InstrumentationScope)
