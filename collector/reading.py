"""Requests of any signal into one batch: decoded together, told apart where something is wrong with one.

Records that cannot be stored (ids of wrong length, say) are told apart one by one; the rest of the request stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from google.protobuf.message import Message

from .columns import unnested
from .otlp import MessageColumns, Undecodable, repaired


@dataclass(frozen=True)
class Fate:
    """How one request fared: `malformed` says why nothing of it could be read, `rejections` name the records of it that
    cannot be stored, `warning` what was mended ("" for nothing)."""

    rejections: tuple[str, ...] = ()
    warning: str = ""
    malformed: str = ""


@dataclass(frozen=True)
class Reading:
    """The good records of some requests, prepared to be stored together (None where there are none), and each request's
    fate."""

    batch: Any
    fates: list[Fate]


class Tree:
    """The nesting of requests, resources, scopes and records, flattened."""

    def __init__(self, requests: pa.RecordBatch, scope_blocks: str, records: str) -> None:
        self.resource_blocks, request_of_resource = unnested(requests.column(0))
        self.scope_blocks, resource_of_scope = unnested(self.resource_blocks.field(scope_blocks))
        self.records, self.scope_of_record = unnested(self.scope_blocks.field(records))
        self.resource_of_record = resource_of_scope[self.scope_of_record]
        self.request_of_record = request_of_resource[self.resource_of_record]

    def drop(self, rows: list[int]) -> None:
        """Takes these records out."""
        kept = np.delete(np.arange(len(self.records)), rows)
        self.records = self.records.take(pa.array(kept))
        self.scope_of_record = self.scope_of_record[kept]
        self.resource_of_record = self.resource_of_record[kept]
        self.request_of_record = self.request_of_record[kept]


@dataclass(frozen=True)
class Form:
    """How the requests of a signal are read: the message, its columns, the fields that nest scopes and records; which
    records cannot be stored and why, by row; the `AnyValue`s that they hold; and the batch that a tree becomes."""

    request: type[Message]
    columns: MessageColumns
    scope_blocks: str
    records: str
    refusals: Callable[[pa.StructArray], dict[int, str]]
    values: Callable[[pa.StructArray], list[pa.StructArray]]
    prepared: Callable[[Tree], Any]

    def read(self, requests: list[bytes]) -> Reading:
        """Serialised requests into one batch. A bad one harms no other.

        They are decoded together, and one by one where that fails, so that what is wrong shows in the fate of the
        request that it is wrong with.
        """
        try:
            tree = self._tree(requests)
            if not self._has_ambiguous_values(tree):
                return self._reading(tree, list(range(len(requests))), [Fate() for _ in requests])
        except Undecodable:
            pass
        good, fates = mended(requests, self.request, self.columns)
        return self._reading(self._tree([request for _, request in good]), [number for number, _ in good], fates)

    def _tree(self, requests: list[bytes]) -> Tree:
        return Tree(self.columns.decode(requests), self.scope_blocks, self.records)

    def _reading(self, tree: Tree, number_of_row: list[int], fates: list[Fate]) -> Reading:
        """What `tree` holds, of which row i is request `number_of_row[i]`; `fates` is what became of the requests so
        far. Raises Undecodable for nested text that is not UTF-8."""
        refused = self.refusals(tree.records)
        rejections: dict[int, list[str]] = {}
        for row, reason in refused.items():
            rejections.setdefault(number_of_row[int(tree.request_of_record[row])], []).append(reason)
        for number, reasons in rejections.items():
            fates[number] = replace(fates[number], rejections=tuple(reasons))
        if refused:
            tree.drop(list(refused))
        return Reading(self.prepared(tree) if len(tree.records) else None, fates)

    def _has_ambiguous_values(self, tree: Tree) -> bool:
        """Does a value set several members of AnyValue's oneof? The last one on the wire counts, and only protobuf's
        own parser knows which that was."""
        origins = (tree.resource_blocks.field("resource"), tree.scope_blocks.field("scope"))
        values = [*self.values(tree.records), *map(attribute_values, origins)]
        return any(map(_sets_more_than_one_each, values))


def attribute_values(owners: pa.StructArray) -> pa.StructArray:
    """The `AnyValue`s in the attributes of the owners."""
    return owners.field("attributes").flatten().field("value")


def mended(
    requests: list[bytes], message: type[Message], columns: MessageColumns | None
) -> tuple[list[tuple[int, bytes]], list[Fate]]:
    """The requests that can be read, made canonical, each with its number; and the fates so far. See `repaired`."""
    fates = [Fate() for _ in requests]
    good: list[tuple[int, bytes]] = []
    for number, request in enumerate(requests):
        try:
            canonical, warning = repaired(request, message, columns)
        except Undecodable as error:
            fates[number] = Fate(malformed=str(error))
        else:
            good.append((number, canonical))
            fates[number] = Fate(warning=warning)
    return good, fates


def _sets_more_than_one_each(values: pa.StructArray) -> bool:
    present = sum(len(values) - values.field(number).null_count for number in range(values.type.num_fields))
    return present > len(values)
