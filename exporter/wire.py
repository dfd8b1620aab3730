"""Protobuf's wire format by columns: many messages at once, a part of all of them at a time.

A column holds bytes of each of n messages. `Head` is what is short: tags, lengths, numbers, side by side as a matrix of
bytes of which some are there; what is long stays in columns and is joined to it. Bytes that stand one after another in
a column become those of their owners by new offsets alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

BYTES = pa.large_binary()

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Octets = npt.NDArray[np.uint8]

_VARINT_BYTES_MAX = 10


class Head:
    """Short fields of `count` messages, in the order in which they are added; `present` tells who has one."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._octets: list[Octets] = []
        self._present: list[Bools] = []

    def octets(self, octets: Octets, present: Bools | None = None) -> Head:
        """Rows of so many bytes each, or one row that all have."""
        shape = (self._count, octets.shape[-1])
        self._octets.append(np.broadcast_to(octets, shape))
        there = np.ones(self._count, bool) if present is None else present
        self._present.append(np.broadcast_to(there[:, None], shape))
        return self

    def tag(self, field: int, wire_type: int, present: Bools | None = None) -> Head:
        """A field's beginning; its value comes next."""
        return self.octets(np.frombuffer(tag(field, wire_type), np.uint8), present)

    def varint(self, numbers: npt.NDArray[Any], present: Bools | None = None) -> Head:
        """A number as a varint. Negative ones take ten bytes, as protobuf has it."""
        rest = numbers.astype(np.uint64)
        octets: list[Octets] = []
        there: list[Bools] = []
        is_there = np.ones(self._count, bool) if present is None else present
        while len(octets) < _VARINT_BYTES_MAX and is_there.any():
            more = rest >> np.uint64(7)
            octets.append((rest & np.uint64(0x7F)).astype(np.uint8) | ((more > 0).astype(np.uint8) << np.uint8(7)))
            there.append(is_there)
            rest, is_there = more, is_there & (more > 0)
        if octets:
            self._octets.append(np.stack(octets, axis=1))
            self._present.append(np.stack(there, axis=1))
        return self

    def varint_field(self, field: int, numbers: npt.NDArray[Any]) -> Head:
        """A field that is left out where it is 0."""
        present = numbers != 0
        return self.tag(field, 0, present).varint(numbers, present) if present.any() else self

    def fixed_field(self, field: int, numbers: npt.NDArray[Any]) -> Head:
        """A field of four or eight bytes, as many as the numbers have; left out where it is 0."""
        present = numbers != 0
        wire_type = {4: 5, 8: 1}[numbers.dtype.itemsize]
        return self.tag(field, wire_type, present).octets(octets_of(numbers), present) if present.any() else self

    def id_field(self, field: int, ids: Octets, present: Bools | None = None) -> Head:
        """A field of bytes that are as many for all."""
        beginning = np.frombuffer(tag(field, 2) + bytes([ids.shape[1]]), np.uint8)
        return self.octets(beginning, present).octets(ids, present)

    def column(self) -> pa.Array:
        """The bytes."""
        if not self._octets:
            return empty(self._count)
        present = np.concatenate(self._present, axis=1)
        octets = np.concatenate(self._octets, axis=1)[present]
        return column_of(octets, offsets_of(np.count_nonzero(present, axis=1)))


def tag(field: int, wire_type: int) -> bytes:
    """How a field begins. Wire type 0 is a varint, 1 and 5 are eight and four bytes, 2 is bytes after their length."""
    return varint(field << 3 | wire_type)


def varint(number: int) -> bytes:
    """One number, not negative."""
    octets = bytearray()
    while number > 0x7F:
        octets.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*octets, number])


def delimited(field: int, message: bytes) -> bytes:
    """One field of bytes, text or a message."""
    return tag(field, 2) + varint(len(message)) + message


def varint_lengths(numbers: npt.NDArray[Any]) -> Ints:
    """How many bytes a varint of each takes."""
    lengths, rest = np.ones(len(numbers), np.int64), numbers.astype(np.uint64) >> np.uint64(7)
    while rest.any():
        lengths += rest > 0
        rest >>= np.uint64(7)
    return lengths


def delimited_column(field: int, values: pa.Array) -> pa.Array:
    """A field of bytes, text or a message, one each; left out where null."""
    values = values.cast(BYTES)
    lengths = lengths_of(values)
    present = values.is_valid().to_numpy(zero_copy_only=False)
    head = Head(len(values)).tag(field, 2, present).varint(lengths, present)
    return joined(head.column(), pc.fill_null(values, b""))


def joined(*columns: pa.Array) -> pa.Array:
    """What the columns hold of each message, one after the other; none may be null."""
    return pc.binary_join_element_wise(*columns, pa.scalar(b"", BYTES)) if len(columns) > 1 else columns[0]


def lengths_of(column: pa.Array) -> Ints:
    """How many bytes each has; 0 for null."""
    lengths: Ints = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lengths


def grouped(column: pa.Array, ends: Ints) -> pa.Array:
    """The bytes of owners to which neighbours in `column` belong: of owner i those from ends[i] to ends[i + 1]."""
    return column_of(data_of(column), _offsets(column)[ends])


def slices(octets: Octets, starts: Ints, lengths: Ints) -> pa.Array:
    """A column of pieces of `octets`, which do not overlap."""
    order = np.argsort(starts, kind="stable") if (np.diff(starts) < 0).any() else None
    if order is not None:
        starts, lengths = starts[order], lengths[order]
    bounds = np.empty(2 * len(starts) + 1, np.int64)
    bounds[:-1:2], bounds[1::2] = starts, starts + lengths
    bounds[-1] = bounds[-2] if len(starts) else 0
    at = np.arange(0, 2 * len(starts), 2)
    if order is not None:
        at[order] = at.copy()
    return column_of(octets, bounds).take(pa.array(at))


def column_of(octets: Octets, offsets: Ints) -> pa.Array:
    """A column of bytes that stand one after another."""
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets, np.int64)), pa.py_buffer(np.ascontiguousarray(octets))]
    return pa.Array.from_buffers(BYTES, len(offsets) - 1, buffers)


def empty(count: int) -> pa.Array:
    """A column in which nothing stands."""
    return column_of(np.empty(0, np.uint8), np.zeros(count + 1, np.int64))


def data_of(column: pa.Array) -> Octets:
    """All that a column lies in."""
    buffer = column.buffers()[2]
    return np.empty(0, np.uint8) if buffer is None else np.frombuffer(buffer, np.uint8)


def _offsets(column: pa.Array) -> Ints:
    return np.frombuffer(column.buffers()[1], np.int64, count=len(column) + 1, offset=column.offset * 8)


def offsets_of(lengths: npt.NDArray[Any]) -> Ints:
    """Where pieces of these lengths begin, and the last one ends."""
    return np.concatenate((np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)))


def octets_of(numbers: npt.NDArray[Any]) -> Octets:
    """The bytes of each number, little end first."""
    width = numbers.dtype.itemsize
    little = np.ascontiguousarray(numbers, numbers.dtype.newbyteorder("<"))
    return little.view(np.uint8).reshape(len(numbers), width)
