"""Serialised records as a request: in blocks, by the resource and the scope that they come from.

The three signals nest alike: a request has resource blocks as field 1, these their scope blocks as field 2, these the
records as field 2; a block's resource or scope is field 1, its schema URL field 3.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from sqlalchemy import select

from ..storage import Reader, Resource, Scope
from .wire import Ints, data_of, delimited, delimited_column, lengths_of, offsets_of

# Tag and length of a resource block and of a scope block.
_FRAMES_BYTES_MAX = 2 * (1 + 5)


class Records(NamedTuple):
    """Serialised records, and the ids of what each comes from."""

    messages: pa.Array
    resource_ids: Ints
    scope_ids: Ints

    @property
    def size(self) -> int:
        """All messages, in bytes."""
        return len(data_of(self.messages))

    @classmethod
    def joined(cls, portions: Iterable[Records]) -> Records:
        """The records of all portions."""
        messages, resource_ids, scope_ids = zip(*portions, strict=True)
        return cls(pa.concat_arrays(messages), np.concatenate(resource_ids), np.concatenate(scope_ids))


class Blocks:
    """A request of as many of the records, from the first one on, as fit into `bytes_max`, but of one at least."""

    def __init__(self, reader: Reader, records: Records, bytes_max: int) -> None:
        self._resources = _origins(reader, Resource, records.resource_ids)
        self._scopes = _origins(reader, Scope, records.scope_ids)
        fields = delimited_column(2, records.messages)
        sizes = lengths_of(fields) + self._sizes_of_blocks(records)
        self.count = max(1, int(np.searchsorted(np.cumsum(sizes), bytes_max, side="right")))
        self._fields = fields.slice(0, self.count)
        self._resource_ids, self._scope_ids = records.resource_ids[: self.count], records.scope_ids[: self.count]

    def _sizes_of_blocks(self, records: Records) -> Ints:
        """At the first record of each block what the block adds at most."""
        sizes = np.zeros(len(records.messages), np.int64)
        pairs = np.stack((records.resource_ids, records.scope_ids), axis=1)
        for (resource_id, scope_id), first in zip(*np.unique(pairs, axis=0, return_index=True), strict=True):
            sizes[first] = _FRAMES_BYTES_MAX + len(self._resources[resource_id]) + len(self._scopes[scope_id])
        return sizes

    def request(self) -> bytes:
        """The serialised request."""
        order = np.lexsort((self._scope_ids, self._resource_ids))
        resource_ids, scope_ids = self._resource_ids[order], self._scope_ids[order]
        changes = np.flatnonzero(np.diff(resource_ids) | np.diff(scope_ids)) + 1
        ends = offsets_of(lengths_of(fields := self._fields.take(pa.array(order))))
        octets = data_of(fields)
        of_resources: dict[int, list[bytes]] = {}
        for first, end in pairwise([0, *changes.tolist(), len(order)]):
            block = self._scopes[scope_ids[first]] + octets[ends[first] : ends[end]].tobytes()
            of_resources.setdefault(int(resource_ids[first]), []).append(delimited(2, block))
        blocks = (self._resources[number] + b"".join(scopes) for number, scopes in of_resources.items())
        return b"".join(delimited(1, block) for block in blocks)


def _origins(reader: Reader, table: type[Resource | Scope], ids: Ints) -> dict[int, bytes]:
    """What a block says of the resource or scope that it is of, by its id."""
    rows = reader.rows(select(table.__table__).where(table.id.in_(np.unique(ids).tolist())))
    return {row["id"]: _origin(row["otlp"], row["schema_url"]) for row in rows}


def _origin(otlp: bytes | None, schema_url: str | None) -> bytes:
    said = b"" if otlp is None else delimited(1, otlp)
    return said + (delimited(3, schema_url.encode()) if schema_url else b"")
