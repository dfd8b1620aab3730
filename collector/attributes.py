"""OTLP attribute lists into typed columns, without a loop over spans.

What the columns cannot say exactly (a key given twice, a missing value, bytes or a non-finite number within something
nested …) is flagged per owner: its attributes are then also kept as they came.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from ..storage.batch import VALUE_ARROW_TYPES, AttributeColumns, ValueType
from .otlp import ARRAYS, VALUES, Undecodable, parsed

Bools = npt.NDArray[np.bool_]

_FIELD_OF_TYPE = {
    ValueType.STRING: "string_value",
    ValueType.BOOL: "bool_value",
    ValueType.INT: "int_value",
    ValueType.DOUBLE: "double_value",
    ValueType.BYTES: "bytes_value",
}
# Messages within a value. Protobuf's own parsers go 100 levels down, and OTLP has nine around a value at most; what
# nests deeper is kept as it came, and empty in the columns.
DEPTH_MAX = 90
_LEVELS = {"array_value": 2, "kvlist_value": 3}


@dataclass(frozen=True)
class FlatAttributes:
    """Attribute columns of n owners; `inexact[i]`: owner i's attributes are to be kept as they came as well."""

    columns: AttributeColumns
    inexact: Bools


def flatten(lists: pa.ListArray) -> FlatAttributes:
    """The attributes of n owners, given as an Arrow list of OTLP `KeyValue` per owner (null: none)."""
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    offsets = np.concatenate((np.zeros(1, np.int64), np.cumsum(counts)))
    pairs = lists.flatten()
    keys, value = pairs.field("key").dictionary_encode(), pairs.field("value")
    types = np.zeros(len(pairs), dtype=np.uint8)
    values: dict[ValueType, pa.Array] = {}
    for value_type, name in _FIELD_OF_TYPE.items():
        column = value.field(name)
        if column.null_count < len(column):
            types[_valid(column)] = value_type
            values[value_type] = column
    inexact = _entries_inexact(pairs, types, values) | _holds_nul(keys)
    for name, read in (("array_value", _read_arrays), ("kvlist_value", _read_maps)):
        column = value.field(name)
        if column.null_count < len(column):
            inexact |= read(column, types, values)
    columns = AttributeColumns(offsets, keys, types, values)
    columns, repeated = _without_repeated_keys(columns)
    return FlatAttributes(columns, _owners_of(inexact, offsets) | repeated)


def as_text(values: pa.StructArray) -> tuple[pa.Array, Bools]:
    """OTLP `AnyValue`s as text, null where they are empty or absent: a string as it is, anything else as JSON. Also
    which of them that text does not say exactly: all that is there and no string."""
    texts = values.field("string_value")
    others = _valid(values) & ~_valid(texts)
    if not others.any():
        return texts, others
    at = np.flatnonzero(others)
    said: list[str | None] = [None] * len(values)
    for row, message in zip(at.tolist(), VALUES.encode(values.take(pa.array(at))), strict=True):
        value = parsed(AnyValue, message)
        if value is None or value.WhichOneof("value") is not None:
            said[row], _ = _json_of(value)
    return pc.coalesce(texts, pa.array(said, pa.string())), others


def from_messages(owners: Sequence[Iterable[KeyValue]]) -> AttributeColumns:
    """The attributes of few owners, given as protobuf messages; a key given twice keeps its last value."""
    entries = [{pair.key: pair.value for pair in owner} for owner in owners]
    offsets = np.cumsum([0, *(len(owner) for owner in entries)], dtype=np.int64)
    keys = pa.array([key for owner in entries for key in owner], pa.string()).dictionary_encode()
    flat = [_typed(value) for owner in entries for value in owner.values()]
    types = np.array([value_type for value_type, _ in flat], dtype=np.uint8)
    values = {}
    for value_type, arrow_type in VALUE_ARROW_TYPES.items():
        if (types == value_type).any():
            values[value_type] = pa.array([v if t == value_type else None for t, v in flat], arrow_type)
    return AttributeColumns(offsets, keys, types, values)


def _typed(value: AnyValue) -> tuple[ValueType, Any]:
    kind = value.WhichOneof("value")
    for value_type, name in _FIELD_OF_TYPE.items():
        if kind == name:
            return value_type, getattr(value, name)
    if kind in ("array_value", "kvlist_value"):
        plain, _ = _plain(value, DEPTH_MAX)
        return ValueType.JSON, orjson.dumps(plain).decode()
    return ValueType.NULL, None


def _valid(column: pa.Array) -> Bools:
    return column.is_valid().to_numpy(zero_copy_only=False)


def _entries_inexact(pairs: pa.StructArray, types: npt.NDArray[np.uint8], values: dict[ValueType, pa.Array]) -> Bools:
    """Entries that JSON text cannot say: bytes, non-finite numbers, values absent or given by reference."""
    nested = _valid(pairs.field("value").field("array_value")) | _valid(pairs.field("value").field("kvlist_value"))
    inexact = (types == ValueType.BYTES) | ((types == ValueType.NULL) & ~nested)
    inexact |= pairs.field("key_strindex").to_numpy() != 0
    if ValueType.DOUBLE in values:
        doubles = values[ValueType.DOUBLE].to_numpy(zero_copy_only=False)
        inexact |= (types == ValueType.DOUBLE) & ~np.isfinite(doubles)
    return inexact


def _holds_nul(keys: pa.DictionaryArray) -> Bools:
    """Keys that the engine cuts at their NUL."""
    holds = pc.match_substring(keys.dictionary, "\0").to_numpy(zero_copy_only=False)
    return holds[keys.indices.to_numpy(zero_copy_only=False)]


def _read_arrays(column: pa.Array, types: npt.NDArray[np.uint8], values: dict[ValueType, pa.Array]) -> Bools:
    """Serialised ArrayValues: lists of strings become STRINGS, any other JSON."""
    encoded = column.dictionary_encode()
    lists = _string_lists(encoded.dictionary)
    if lists is None:
        return _read_nested(encoded, _array_json, types, values)
    types[_valid(column)] = ValueType.STRINGS
    values[ValueType.STRINGS] = lists.take(encoded.indices)
    return np.zeros(len(column), dtype=bool)


def _string_lists(messages: pa.Array) -> pa.Array | None:
    """The lists of strings that the ArrayValues are, None unless all of them are."""
    try:
        lists = ARRAYS.decode(messages.to_pylist()).column(0)
    except Undecodable:
        return None
    strings = lists.flatten().field("string_value")
    if strings.null_count:
        return None
    offsets = np.concatenate(([0], np.cumsum(pc.list_value_length(lists).to_numpy())))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), strings)


def _read_maps(column: pa.Array, types: npt.NDArray[np.uint8], values: dict[ValueType, pa.Array]) -> Bools:
    return _read_nested(column.dictionary_encode(), _map_json, types, values)


def _read_nested(
    encoded: pa.DictionaryArray,
    read: Callable[[bytes], tuple[str, bool]],
    types: npt.NDArray[np.uint8],
    values: dict[ValueType, pa.Array],
) -> Bools:
    texts, exact = zip(*(read(message) for message in encoded.dictionary.to_pylist()), strict=True)
    present = _valid(encoded.indices)
    types[present] = ValueType.JSON
    column = pa.array(texts, pa.string()).take(encoded.indices)
    known = values.get(ValueType.JSON)
    values[ValueType.JSON] = column if known is None else pc.coalesce(known, column)
    inexact = np.zeros(len(present), dtype=bool)
    indices = encoded.indices.to_numpy(zero_copy_only=False)[present].astype(np.int64)
    inexact[present] = ~np.array(exact, dtype=bool)[indices]
    return inexact


def _array_json(message: bytes) -> tuple[str, bool]:
    array = parsed(ArrayValue, message)
    return _json_of(None if array is None else AnyValue(array_value=array))


def _map_json(message: bytes) -> tuple[str, bool]:
    kvlist = parsed(KeyValueList, message)
    return _json_of(None if kvlist is None else AnyValue(kvlist_value=kvlist))


def _json_of(value: AnyValue | None) -> tuple[str, bool]:
    """JSON text of a nested value, and whether it says all of it."""
    plain, exact = (None, False) if value is None else _plain(value, DEPTH_MAX)
    return orjson.dumps(plain).decode(), exact


def _plain(value: AnyValue, depth: int) -> tuple[Any, bool]:
    """The value as JSON's types, and whether they say all of it."""
    kind = value.WhichOneof("value")
    if kind in ("string_value", "bool_value", "int_value"):
        return getattr(value, kind), True
    if kind == "double_value":
        finite = math.isfinite(value.double_value)
        return (value.double_value if finite else str(value.double_value)), finite
    if kind == "bytes_value":
        return b64encode(value.bytes_value).decode(), False
    below = depth - _LEVELS.get(kind or "", DEPTH_MAX + 1)
    if below < 0:
        return None, False
    if kind == "array_value":
        items = [_plain(item, below) for item in value.array_value.values]
        return [item for item, _ in items], all(exact for _, exact in items)
    return _plain_map(value.kvlist_value.values, below)


def _plain_map(pairs: Sequence[KeyValue], depth: int) -> tuple[Any, bool]:
    members = {pair.key: _plain(pair.value, depth) for pair in pairs}
    plain = {key: member for key, (member, _) in members.items()}
    if len({key.lower() for key in plain}) < len(plain):
        # The engine has no text for an object whose keys differ in case alone; so it is given the text.
        return orjson.dumps(plain).decode(), False
    exact = len(members) == len(pairs) and not any(pair.key_strindex or "\0" in pair.key for pair in pairs)
    return plain, exact and all(exact for _, exact in members.values())


def _owners_of(flags: Bools, offsets: npt.NDArray[np.int64]) -> Bools:
    total = np.concatenate(([0], np.cumsum(flags)))
    return total[offsets[1:]] > total[offsets[:-1]]


def _without_repeated_keys(columns: AttributeColumns) -> tuple[AttributeColumns, Bools]:
    """Keeps the last value of a key that an owner gives twice; also says which owners do."""
    offsets = columns.offsets
    owners = np.repeat(np.arange(len(columns)), np.diff(offsets))
    keyed = owners * max(1, len(columns.keys.dictionary)) + columns.keys.indices.to_numpy(zero_copy_only=False)
    if not _has_repetition(keyed, len(columns) * max(1, len(columns.keys.dictionary))):
        return columns, np.zeros(len(columns), dtype=bool)
    _, last_from_end = np.unique(keyed[::-1], return_index=True)
    kept = np.zeros(len(keyed), dtype=bool)
    kept[len(keyed) - 1 - last_from_end] = True
    kept_at = pa.array(np.flatnonzero(kept))
    total = np.concatenate(([0], np.cumsum(kept)))
    values = {value_type: array.take(kept_at) for value_type, array in columns.values.items()}
    reduced = AttributeColumns(total[offsets], columns.keys.take(kept_at), columns.types[kept], values)
    return reduced, _owners_of(~kept, offsets)


def _has_repetition(numbers: npt.NDArray[np.int64], bound: int) -> bool:
    """Does a number occur twice? All are below `bound`; counting is cheaper than sorting while the bound is small."""
    if bound < 16 * len(numbers) + 1024:
        return bool((np.bincount(numbers, minlength=1) > 1).any())
    return len(np.unique(numbers)) < len(numbers)
