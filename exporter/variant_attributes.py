"""Stored attributes as OTLP's, by columns.

The engine hands VARIANTs over in the binary form of Parquet's Variant (VariantEncoding.md of apache/parquet-format):
per row the keys that occur in it, and a value that says of each member its type and where it begins. All members of all
rows are read together; what nests is read one by one, but each distinct value once.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .rows import any_value
from .wire import (
    BYTES,
    Bools,
    Head,
    Ints,
    Octets,
    data_of,
    delimited_column,
    grouped,
    joined,
    lengths_of,
    octets_of,
    offsets_of,
    slices,
    varint_lengths,
)

# Basic types, the lowest two bits of a value's first byte; the others say which primitive it is, or a length.
_PRIMITIVE, _SHORT_STRING, _OBJECT, _ARRAY = range(4)
_NULL, _TRUE, _FALSE = range(3)
_INTS = {3: 1, 4: 2, 5: 4, 6: 8}  # how many bytes they have
_DOUBLE, _BINARY, _STRING = 7, 15, 16

# Fields of OTLP's AnyValue.
_STRING_VALUE, _BOOL_VALUE, _INT_VALUE, _DOUBLE_VALUE, _ARRAY_VALUE, _KVLIST_VALUE, _BYTES_VALUE = range(1, 8)

_READ_AHEAD = 16


class _UnknownType(ValueError):
    """A value that is of none of the types that attributes have."""


def attributes_column(variants: pa.StructArray, field: int, wanted: Bools) -> tuple[pa.Array, Bools]:
    """Of each row that is wanted its attributes, as fields `field` of type KeyValue one after another; and whether they
    are what is wanted: not where the row is no object, or a value has a type that attributes do not have."""
    metadata, octets, starts = _Metadata(variants.field("metadata")), *_bytes_of(variants.field("value"))
    is_said = wanted & variants.is_valid().to_numpy(zero_copy_only=False) & (octets[starts] & 3 == _OBJECT)
    rows, entries, members = _members(octets, starts, is_said)
    values = _Values(octets, members, metadata.shapes[rows], metadata)
    pairs = _pairs(field, metadata.keys_at(rows, entries), values)
    ends = np.searchsorted(rows, np.arange(len(variants) + 1))
    is_said[rows[values.is_unknown]] = False
    return grouped(pairs, ends), is_said | ~wanted


def _pairs(field: int, keys: pa.Array, values: _Values) -> pa.Array:
    """The KeyValues; `keys` are their first fields."""
    value_lengths = values.lengths()
    lengths = lengths_of(keys) + 1 + varint_lengths(value_lengths) + value_lengths
    count = len(lengths)
    before = Head(count).tag(field, 2).varint(lengths)
    after = Head(count).tag(2, 2).varint(value_lengths)
    values.add_to(after)
    return joined(before.column(), keys, after.column(), values.payloads)


class _Metadata:
    """The keys of the rows. Rows share few sets of keys: their shapes."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column.dictionary_encode()
        self.shapes: Ints = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        octets, starts = _bytes_of(encoded.dictionary)
        width = (octets[starts] >> 6).astype(np.int64) + 1
        counts = _numbers(octets, starts + 1, width)
        shapes = np.repeat(np.arange(len(starts)), counts)
        self._firsts = offsets_of(counts)
        places = np.arange(len(shapes)) - self._firsts[shapes]
        offset_at = (starts + 1 + width)[shapes] + places * width[shapes]
        begins = _numbers(octets, offset_at, width[shapes])
        ends = _numbers(octets, offset_at + width[shapes], width[shapes])
        text_at = (starts + 1 + width + (counts + 1) * width)[shapes]
        self._texts = slices(octets, text_at + begins, ends - begins)
        self._fields = delimited_column(1, self._texts)
        self._keys: dict[int, list[str]] = {}

    def keys_at(self, rows: Ints, entries: Ints) -> pa.Array:
        """The keys of entries in the rows' sets, each as a KeyValue's first field."""
        return self._fields.take(pa.array(self._firsts[self.shapes[rows]] + entries))

    def of_shape(self, shape: int) -> list[str]:
        """The keys of a shape, in their order."""
        if shape not in self._keys:
            texts = self._texts.slice(self._firsts[shape], self._firsts[shape + 1] - self._firsts[shape])
            self._keys[shape] = [text.decode() for text in texts.to_pylist()]
        return self._keys[shape]


class _Values:
    """Values that begin at `starts`: what they say of themselves first, and `payloads`, the bytes that follow."""

    def __init__(self, octets: Octets, starts: Ints, shapes: Ints, metadata: _Metadata) -> None:
        first = octets[starts]
        basic, primitive = first & 3, first >> 2
        is_primitive = basic == _PRIMITIVE
        self._fields = np.zeros(len(starts), np.uint8)
        self._numbers = np.zeros(len(starts), np.int64)
        self._is_double = is_primitive & (primitive == _DOUBLE)
        self._doubles = octets[starts[self._is_double][:, None] + np.arange(1, 9)]
        self.is_unknown = is_primitive & (primitive != _NULL)
        self._say(is_primitive & (primitive == _TRUE), _BOOL_VALUE, 1)
        self._say(is_primitive & (primitive == _FALSE), _BOOL_VALUE, 0)
        self._say(self._is_double, _DOUBLE_VALUE, 0)
        for code, width in _INTS.items():
            is_int = is_primitive & (primitive == code)
            if is_int.any():
                self._say(is_int, _INT_VALUE, _numbers(octets, starts[is_int] + 1, width, signed=True))
        begins, is_short = starts + 1, basic == _SHORT_STRING
        self._say(is_short, _STRING_VALUE, primitive[is_short])
        for code, field in ((_STRING, _STRING_VALUE), (_BINARY, _BYTES_VALUE)):
            is_long = is_primitive & (primitive == code)
            self._say(is_long, field, _numbers(octets, starts[is_long] + 1, 4))
            begins[is_long] += 4
        self._is_delimited = np.isin(self._fields, (_STRING_VALUE, _BYTES_VALUE))
        self.payloads = slices(octets, begins, np.where(self._is_delimited, self._numbers, 0))
        for kind, field in ((_ARRAY, _ARRAY_VALUE), (_OBJECT, _KVLIST_VALUE)):
            nested = np.flatnonzero(basic == kind)
            if len(nested):
                self._say_nested(nested, field, _nested(octets, starts[nested], shapes[nested], metadata))

    def lengths(self) -> Ints:
        """How long they are as AnyValues."""
        lengths = np.where(self._fields == 0, 0, 1 + varint_lengths(self._numbers))
        return np.where(self._is_double, 9, lengths) + lengths_of(self.payloads)

    def add_to(self, head: Head) -> None:
        """Adds what comes before the payload."""
        there = self._fields != 0
        wire_types = np.where(self._is_double, 1, np.where(self._is_delimited, 2, 0)).astype(np.uint8)
        head.octets((self._fields << 3 | wire_types).astype(np.uint8)[:, None], there)
        head.varint(self._numbers, there & ~self._is_double)
        if len(self._doubles):
            doubles = np.zeros((len(there), 8), np.uint8)
            doubles[self._is_double] = self._doubles
            head.octets(doubles, self._is_double)

    def _say(self, which: Bools, field: int, numbers: npt.NDArray[Any] | int) -> None:
        self._fields[which], self._numbers[which], self.is_unknown[which] = field, numbers, False

    def _say_nested(self, which: Ints, field: int, payloads: pa.Array) -> None:
        self.is_unknown[which] = payloads.is_null().to_numpy(zero_copy_only=False)
        self._fields[which], self._numbers[which], self._is_delimited[which] = field, lengths_of(payloads), True
        at = np.arange(len(self._fields))
        at[which] = len(at) + np.arange(len(which))
        self.payloads = pa.concat_arrays([self.payloads, pc.fill_null(payloads, b"")]).take(pa.array(at))


def _members(octets: Octets, starts: Ints, is_object: Bools) -> tuple[Ints, Ints, Ints]:
    """The members of all objects, in their order: of each its row, the number of its key and where its value begins."""
    head = octets[starts].astype(np.int64) >> 2
    offset_width, id_width = (head & 3) + 1, (head >> 2 & 3) + 1
    count_width = np.where(head >> 4 & 1, 4, 1)
    counts = np.where(is_object, _numbers(octets, starts + 1, count_width), 0)
    ids_at = starts + 1 + count_width
    offsets_at = ids_at + counts * id_width
    values_at = offsets_at + (counts + 1) * offset_width
    rows = np.repeat(np.arange(len(starts)), counts)
    places = np.arange(len(rows)) - offsets_of(counts)[rows]
    ids = _numbers(octets, ids_at[rows] + places * id_width[rows], id_width[rows])
    offsets = _numbers(octets, offsets_at[rows] + places * offset_width[rows], offset_width[rows])
    return rows, ids, values_at[rows] + offsets


def _nested(octets: Octets, starts: Ints, shapes: Ints, metadata: _Metadata) -> pa.Array:
    """Arrays and objects as serialised ArrayValues and KeyValueLists, null where they hold an unknown type."""
    pieces = slices(octets, starts, _container_lengths(octets, starts))
    shaped = joined(pa.array(list(map(bytes, octets_of(shapes))), BYTES), pieces).dictionary_encode()
    payloads = [_payload(piece, metadata) for piece in shaped.dictionary.to_pylist()]
    return pa.array(payloads, BYTES).take(shaped.indices)


def _container_lengths(octets: Octets, starts: Ints) -> Ints:
    head = octets[starts].astype(np.int64)
    is_object, head = head & 3 == _OBJECT, head >> 2
    offset_width, id_width = (head & 3) + 1, np.where(is_object, (head >> 2 & 3) + 1, 0)
    count_width = np.where(np.where(is_object, head >> 4, head >> 2) & 1, 4, 1)
    counts = _numbers(octets, starts + 1, count_width)
    last_offset_at = 1 + count_width + counts * (id_width + offset_width)
    return last_offset_at + offset_width + _numbers(octets, starts + last_offset_at, offset_width)


def _payload(shaped: bytes, metadata: _Metadata) -> bytes | None:
    shape, piece = int.from_bytes(shaped[:8], "little"), shaped[8:]
    try:
        value = any_value(_value(piece, 0, metadata.of_shape(shape)))
    except _UnknownType:
        return None
    said = value.array_value if value.HasField("array_value") else value.kvlist_value
    return said.SerializeToString()


def _value(octets: bytes, at: int, keys: list[str]) -> Any:
    """The value that begins there. Raises _UnknownType."""
    basic, head = octets[at] & 3, octets[at] >> 2
    if basic == _SHORT_STRING:
        return octets[at + 1 : at + 1 + head].decode()
    if basic == _PRIMITIVE:
        return _primitive(octets, at + 1, head)
    if basic == _ARRAY:
        _, begins = _container(octets, at, head >> 2 & 1, 0, (head & 3) + 1)
        return [_value(octets, begin, keys) for begin in begins]
    ids, begins = _container(octets, at, head >> 4 & 1, (head >> 2 & 3) + 1, (head & 3) + 1)
    return {keys[number]: _value(octets, begin, keys) for number, begin in zip(ids, begins, strict=True)}


def _primitive(octets: bytes, at: int, code: int) -> Any:
    if code in (_NULL, _TRUE, _FALSE):
        return {_NULL: None, _TRUE: True, _FALSE: False}[code]
    if code in _INTS:
        return int.from_bytes(octets[at : at + _INTS[code]], "little", signed=True)
    if code == _DOUBLE:
        return struct.unpack_from("<d", octets, at)[0]
    if code in (_STRING, _BINARY):
        content = octets[at + 4 : at + 4 + int.from_bytes(octets[at : at + 4], "little")]
        return content.decode() if code == _STRING else content
    raise _UnknownType(f"type {code} of Parquet's Variant")


def _container(octets: bytes, at: int, is_large: int, id_width: int, offset_width: int) -> tuple[list[int], list[int]]:
    """The numbers of an object's keys (none for an array), and where its values begin."""
    count_width = 4 if is_large else 1
    count = int.from_bytes(octets[at + 1 : at + 1 + count_width], "little")
    ids_at = at + 1 + count_width
    offsets_at = ids_at + count * id_width
    values_at = offsets_at + (count + 1) * offset_width
    ids = [int.from_bytes(octets[i : i + id_width], "little") for i in range(ids_at, offsets_at, id_width or 1)]
    offsets = range(offsets_at, offsets_at + count * offset_width, offset_width)
    return ids, [values_at + int.from_bytes(octets[i : i + offset_width], "little") for i in offsets]


def _bytes_of(column: pa.Array) -> tuple[Octets, Ints]:
    """What a column lies in, with some bytes after it that are read ahead, and where its values begin."""
    column = column.cast(BYTES)
    starts = np.frombuffer(column.buffers()[1], np.int64, count=len(column), offset=column.offset * 8)
    return np.concatenate((data_of(column), np.zeros(_READ_AHEAD, np.uint8))), starts


def _numbers(octets: Octets, at: Ints, width: Ints | int, *, signed: bool = False) -> Ints:
    """The numbers of so many bytes that stand there, little end first."""
    widths = np.broadcast_to(np.asarray(width, np.int64), at.shape)
    numbers = np.zeros(len(at), np.int64)
    for place in range(int(widths.max(initial=0))):
        numbers |= np.where(place < widths, octets[at + place].astype(np.int64), 0) << (8 * place)
    if signed:
        unused = 64 - 8 * widths
        numbers = numbers << unused >> unused
    return numbers
