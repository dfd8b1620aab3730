"""OTLP's fields as the schema's columns: ids, times, and what a column cannot say exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from .otlp import MessageColumns

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

# What stands for an id that was sent as text and is not hexadecimal: no id is as short.
NOT_HEX = b"\xff"

_TIME_MAX = np.iinfo(np.int64).max


def unnested(lists: pa.ListArray) -> tuple[pa.StructArray, Ints]:
    """The items of the lists, and for each the number of its list."""
    parents = pc.list_parent_indices(lists).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists.flatten(), parents


def event_ids(ids: pa.Array, *, zero_is_null: bool = True) -> pa.Array:
    """8-byte ids as signed integers; null where there is none."""
    absent = pc.fill_null(pc.not_equal(pc.binary_length(ids), 8), True).to_numpy(zero_copy_only=False)
    filled = pc.if_else(pa.array(absent), pa.scalar(bytes(8), ids.type), ids).cast(pa.binary(8))
    numbers = np.frombuffer(filled.buffers()[1], dtype=">i8", count=len(ids), offset=filled.offset * 8).astype(np.int64)
    return pa.array(numbers, mask=absent | (numbers == 0) if zero_is_null else absent)


def where(present: pa.Array, values: pa.Array) -> pa.Array:
    """`values` where `present`, else null."""
    return pc.if_else(present, values, pa.scalar(None, values.type))


def has_width(ids: pa.Array, width: int) -> Bools:
    return pc.equal(pc.binary_length(ids), width).to_numpy(zero_copy_only=False)


def is_zero(ids: pa.Array, width: int) -> Bools:
    """Which ids are `width` bytes of nothing."""
    return pc.equal(ids, pa.scalar(bytes(width), pa.binary())).to_numpy(zero_copy_only=False)


def times(unix_nanos: pa.Array) -> Ints:
    """Unsigned nanoseconds in the column's signed integers, the last of them for any later time."""
    return np.minimum(unix_nanos.to_numpy(), np.uint64(_TIME_MAX)).astype(np.int64)


def beyond(unix_nanos: pa.Array) -> Bools:
    """Which of these the column's signed integers cannot say."""
    return unix_nanos.to_numpy() > np.uint64(_TIME_MAX)


def numbered(rows: Ints) -> Ints:
    """Position among the neighbours that have the same number; `rows` is sorted."""
    if not len(rows):
        return rows
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    return np.arange(len(rows)) - np.repeat(firsts, np.diff(firsts, append=len(rows)))


def residues(rows: pa.StructArray, columns: MessageColumns, fields: tuple[str, ...], inexact: Bools) -> pa.Array:
    """Per row null, or where the columns are inexact these fields, as a serialised message."""
    if not inexact.any():
        return pa.nulls(len(rows), pa.binary())
    said: list[bytes | None] = [None] * len(rows)
    at = np.flatnonzero(inexact)
    inexact_rows = pa.StructArray.from_arrays([rows.field(name) for name in fields], fields).take(pa.array(at))
    for row, encoded in zip(at.tolist(), columns.encode(inexact_rows), strict=True):
        said[row] = encoded
    return pa.array(said, pa.binary())


def wrong_ids(ids: pa.Array, width: int, *, may_be_absent: bool) -> dict[int, str]:
    """What is wrong with the ids that cannot be stored, by row: their text or length, or, where there must be one, all
    zero."""
    lengths = pc.binary_length(ids).to_numpy()
    wrong = (lengths != width) & ((lengths != 0) | (not may_be_absent))
    if not may_be_absent:
        wrong |= is_zero(ids, width)
    return {row: _what_is_wrong(ids[row].as_py(), width) for row in np.flatnonzero(wrong).tolist()}


def _what_is_wrong(identifier: bytes, width: int) -> str:
    if identifier == NOT_HEX:
        return f"not {2 * width} hexadecimal digits"
    return "all zero" if len(identifier) == width else f"{len(identifier)} bytes long, not {width}"
