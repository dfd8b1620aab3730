"""An agent's history, stored once.

A call to a model repeats the conversation so far, so that n turns would cost n² messages. The attributes of an event
that carry it are taken out of `attributes` where they are long, and kept as the text of one JSON object, cut into
parts: rows of `history_parts`, each known by a hash of what it holds. What was stored before within the same session is
not stored again. A part is text, or a list of parts; `execution_events.history_id` is the one that stands for all. What
cuts text is the text beside the cut, what cuts lists their members' hashes, so equal stretches are cut alike wherever
they stand: a turn costs what is new in it, and a short list or two.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from .batch import AttributeColumns, ValueType
from .conversation import CONVERSATION_KEYS, CONVERSATION_PREFIXES

# Shorter ones stay in `attributes`: n turns then cost n times this at most.
HISTORY_BYTES_MIN = 2_048
PIECE_BYTES_MIN = 512
# One part in so many ends a list of parts.
LIST_PARTS = 16

# What frameworks repeat besides the conversation itself: their state, and the tools that a model may call.
_REPEATED_KEYS = frozenset(CONVERSATION_KEYS) | {
    *("clew.inputs", "input.value", "output.value", "traceloop.entity.input", "traceloop.entity.output"),
    *("genkit:input", "gen_ai.tool.definitions", "llm.invocation_parameters", "ai.prompt.tools"),
}
_REPEATED_PREFIXES = (*CONVERSATION_PREFIXES, "llm.tools.")
_KEPT_TYPES = (ValueType.STRING, ValueType.JSON)
# Before what begins and ends objects, texts and lines, in JSON within JSON too: so a text is cut the same way whether
# another one follows or not.
MARKS = re.compile(rb'[{}]|\\n|"[],}]')

_SCHEMA = pa.schema(
    [("id", pa.binary(16)), ("session_id", pa.string()), ("text", pa.string()), ("parts", pa.list_(pa.binary(16)))]
)

Ints = npt.NDArray[np.int64]


class History(NamedTuple):
    """What is taken out of a batch: per event the id of its history (16 bytes, or null), and the parts, each once."""

    ids: pa.Array
    parts: pa.Table


def may_be_history(key: str) -> bool:
    """May the attribute be part of a history, rather than in `attributes`?"""
    return key in _REPEATED_KEYS or key.startswith(_REPEATED_PREFIXES)


def take_histories(events: pa.Table, attributes: AttributeColumns) -> tuple[AttributeColumns, History | None]:
    """The events' attributes without their histories, and these; None where there is none to take."""
    entries = _repeated_entries(attributes)
    owners = np.searchsorted(attributes.offsets, entries, side="right") - 1
    lengths = np.bincount(owners, weights=_lengths(attributes, entries), minlength=len(attributes))
    is_long = lengths >= HISTORY_BYTES_MIN
    if not is_long.any():
        return attributes, None
    entries, owners = entries[is_long[owners]], owners[is_long[owners]]
    parts = _Parts()
    ids: list[bytes | None] = [None] * len(attributes)
    for owner, of_owner in zip(*_grouped(owners, entries), strict=True):
        session = events["session_id"][owner].as_py() or events["run_id"][owner].as_py().hex()
        ids[owner] = parts.add(session, _json_object(attributes, of_owner))
    return attributes.without(entries), History(pa.array(ids, pa.binary(16)), parts.table())


def _repeated_entries(attributes: AttributeColumns) -> Ints:
    is_repeated = np.array([may_be_history(key) for key in attributes.keys.dictionary.to_pylist()], dtype=bool)
    if not is_repeated.any():
        return np.empty(0, dtype=np.int64)
    entries = np.flatnonzero(is_repeated[attributes.keys.indices.to_numpy(zero_copy_only=False)])
    return entries[np.isin(attributes.types[entries], _KEPT_TYPES)]


def _lengths(attributes: AttributeColumns, entries: Ints) -> Ints:
    lengths = np.zeros(len(entries), dtype=np.int64)
    for value_type in _KEPT_TYPES:
        at = attributes.types[entries] == value_type
        if at.any():
            counted = pc.fill_null(pc.binary_length(attributes.values[value_type]), 0)
            lengths[at] = counted.to_numpy(zero_copy_only=False)[entries[at]]
    return lengths


def _grouped(owners: Ints, entries: Ints) -> tuple[list[int], list[list[int]]]:
    """Each owner once, and its entries; both come in order."""
    distinct, starts = np.unique(owners, return_index=True)
    return distinct.tolist(), [group.tolist() for group in np.split(entries, starts[1:])]


def _json_object(attributes: AttributeColumns, entries: Iterable[int]) -> bytes:
    return b"{" + b",".join(_member(attributes, entry) for entry in entries) + b"}"


def _member(attributes: AttributeColumns, entry: int) -> bytes:
    value_type = ValueType(int(attributes.types[entry]))
    value = attributes.values[value_type][entry].as_py()
    said = value.encode() if value_type is ValueType.JSON else orjson.dumps(value)
    return orjson.dumps(attributes.keys[entry].as_py()) + b":" + said


class _Parts:
    """Parts by their ids."""

    def __init__(self) -> None:
        self._rows: dict[bytes, dict[str, Any]] = {}

    def add(self, session: str, whole: bytes) -> bytes:
        """Adds the parts of a text; gives the id of the one that stands for all of it."""
        key = blake2b(session.encode()).digest()
        ids = [self._put(key, session, b"text", piece, text=piece) for piece in _pieces(whole)]
        while len(ids) > 1:
            ids = [
                group[0] if len(group) == 1 else self._put(key, session, b"list", b"".join(group), parts=group)
                for group in _lists(ids)
            ]
        return ids[0]

    def _put(self, key: bytes, session: str, kind: bytes, content: bytes, **held: Any) -> bytes:
        part_id = blake2b(content, digest_size=16, key=key, person=kind).digest()
        self._rows.setdefault(part_id, {"id": part_id, "session_id": session, **held})
        return part_id

    def table(self) -> pa.Table:
        return pa.Table.from_pylist(list(self._rows.values()), _SCHEMA)


def _pieces(whole: bytes) -> Iterator[bytes]:
    """A piece ends at a mark, once it has PIECE_BYTES_MIN or a stretch of that length without marks follows: long texts
    are pieces of their own, whatever stands beside them. Marks are ASCII, so no character is cut."""
    start = 0
    marks = [mark.start() for mark in MARKS.finditer(whole, 1)]
    for mark, following in pairwise([*marks, len(whole)]):
        if max(mark - start, following - mark) >= PIECE_BYTES_MIN:
            yield whole[start:mark]
            start = mark
    yield whole[start:]


def _lists(ids: list[bytes]) -> Iterator[list[bytes]]:
    """Lists of two parts and more, but for the last; each ends at a part whose hash says so."""
    group: list[bytes] = []
    for part_id in ids:
        group.append(part_id)
        if len(group) > 1 and part_id[-1] % LIST_PARTS == 0:
            yield group
            group = []
    if group:
        yield group
