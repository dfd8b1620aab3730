"""Attributes into VARIANT, by shape.

Owners of one batch share few shapes (the sequence of keys and value types). Owners of a frequent shape become rows of
one struct array, which the engine casts to VARIANT by columns; no JSON text is built or parsed. The rest, and whatever
nests, goes through one aggregation over (owner, key, value): slower per attribute, but indifferent to the number of
shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .batch import VALUE_ARROW_TYPES, AttributeColumns, ValueType

SHAPES_MAX = 16
SHAPE_OWNERS_MIN = 32
SHAPE_KEYS_MAX = 128

EMPTY = -1
RARE = -2

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class RowsWithAttributes:
    """Rows of a table and how to say their `attributes` in SQL, with the rows registered as `incoming` and `pairs`,
    where there are any, as `pairs`. Rows may be taken out and put in another order. `keys`: those of the attributes;
    None where values nest, which have keys of their own."""

    rows: pa.Table
    names: list[str]
    expression: str
    pairs: pa.Table | None
    keys: list[str] | None

    def take(self, numbers: npt.NDArray[np.int64]) -> RowsWithAttributes:
        """Some of the rows."""
        return replace(self, rows=self.rows.take(pa.array(numbers)))

    def beside(self, others: pa.Table) -> RowsWithAttributes:
        """With columns that are not stored."""
        rows = self.rows
        for name in others.column_names:
            rows = rows.append_column(name, others[name])
        return replace(self, rows=rows)

    @property
    def source(self) -> str:
        """What stands behind FROM."""
        return "incoming" if self.pairs is None else f"incoming LEFT JOIN ({_GROUPED_PAIRS}) rare USING (owner)"


def with_attributes(rows: pa.Table, attributes: AttributeColumns) -> RowsWithAttributes:
    """`rows`, each with its attributes."""
    shape_of, shapes = _frequent_shapes(attributes)
    names = rows.column_names
    cases = [f"WHEN {EMPTY} THEN '{{}}'::JSON::VARIANT"]
    for number, sequence in enumerate(shapes):
        owners = np.flatnonzero(shape_of == number)
        rows = rows.append_column(
            f"shape_{number}", _spread(_struct_of(attributes, owners, sequence), owners, len(rows))
        )
        cases.append(f"WHEN {number} THEN shape_{number}::VARIANT")
    rare = np.flatnonzero(shape_of == RARE)
    if len(rare):
        rows = rows.append_column("owner", pa.array(np.arange(len(rows))))
        cases.append(f"WHEN {RARE} THEN rare.grouped")
    rows = rows.append_column("shape", pa.array(shape_of))
    pairs = _pairs_of(attributes, rare) if len(rare) else None
    return RowsWithAttributes(rows, names, f"CASE shape {' '.join(cases)} END", pairs, _keys(attributes))


_GROUPED_PAIRS = f"""
    SELECT owner, variant_group_object(key, CASE type
        WHEN {ValueType.STRING:d} THEN v{ValueType.STRING:d}::VARIANT
        WHEN {ValueType.BOOL:d} THEN v{ValueType.BOOL:d}::VARIANT
        WHEN {ValueType.INT:d} THEN v{ValueType.INT:d}::VARIANT
        WHEN {ValueType.DOUBLE:d} THEN v{ValueType.DOUBLE:d}::VARIANT
        WHEN {ValueType.BYTES:d} THEN v{ValueType.BYTES:d}::VARIANT
        WHEN {ValueType.STRINGS:d} THEN v{ValueType.STRINGS:d}::VARIANT
        WHEN {ValueType.JSON:d} THEN v{ValueType.JSON:d}::JSON::VARIANT
    END) AS grouped
    FROM pairs GROUP BY owner
"""  # noqa: S608


def _frequent_shapes(attributes: AttributeColumns) -> tuple[npt.NDArray[np.int32], list[slice]]:
    """The shape of each owner (EMPTY, RARE or a number), and for each number the entries of one owner that has it."""
    offsets, counts = attributes.offsets, np.diff(attributes.offsets)
    codes = _entry_codes(attributes)
    shape_of = np.where(counts == 0, EMPTY, RARE).astype(np.int32)
    if not len(codes):
        return shape_of, []
    candidates = np.flatnonzero((counts > 0) & (counts <= SHAPE_KEYS_MAX) & ~_any_entry(_unfit(attributes), offsets))
    hashes = _sequence_hashes(codes, offsets)[candidates]
    _, first, shape, sizes = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    shapes: list[slice] = []
    for number in np.argsort(-sizes, kind="stable")[:SHAPES_MAX]:
        if sizes[number] < SHAPE_OWNERS_MIN:
            break
        model = candidates[first[number]]
        sequence = slice(int(offsets[model]), int(offsets[model + 1]))
        owners = candidates[shape == number]
        shape_of[owners[_has_sequence(codes, offsets, owners, codes[sequence])]] = len(shapes)
        shapes.append(sequence)
    return shape_of, shapes


def _keys(attributes: AttributeColumns) -> list[str] | None:
    if (attributes.types == ValueType.JSON).any():
        return None
    used = np.bincount(attributes.keys.indices.to_numpy(zero_copy_only=False))
    keys: list[str] = attributes.keys.dictionary.take(pa.array(np.flatnonzero(used))).to_pylist()
    return keys


def _entry_codes(attributes: AttributeColumns) -> Ints:
    """One number per entry that stands for its (key, type)."""
    keys = attributes.keys.indices.to_numpy(zero_copy_only=False)
    return keys.astype(np.int64) * len(ValueType) + attributes.types


def _unfit(attributes: AttributeColumns) -> npt.NDArray[np.bool_]:
    """Entries that no struct field can hold: nested values, and keys that Arrow's C interface would cut."""
    unfit_key = np.array([not key or "\0" in key for key in attributes.keys.dictionary.to_pylist()], dtype=bool)
    return unfit_key[attributes.keys.indices.to_numpy(zero_copy_only=False)] | (attributes.types == ValueType.JSON)


def _any_entry(flags: npt.NDArray[np.bool_], offsets: Ints) -> npt.NDArray[np.bool_]:
    """Per owner: is any of its entries flagged?"""
    total = np.concatenate(([0], np.cumsum(flags)))
    return total[offsets[1:]] > total[offsets[:-1]]


def _sequence_hashes(codes: Ints, offsets: Ints) -> npt.NDArray[np.uint64]:
    """A hash of each owner's sequence of codes: a sum of mixed codes, weighted by position."""
    position = np.arange(len(codes)) - np.repeat(offsets[:-1], np.diff(offsets))
    mixed = (codes.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    mixed *= (position.astype(np.uint64) * np.uint64(2) + np.uint64(1)) * np.uint64(0xBF58476D1CE4E5B9)
    total = np.concatenate((np.zeros(1, np.uint64), np.cumsum(mixed)))
    return total[offsets[1:]] - total[offsets[:-1]]


def _has_sequence(codes: Ints, offsets: Ints, owners: Ints, sequence: Ints) -> npt.NDArray[np.bool_]:
    """Which of the owners have exactly this sequence: equal hashes are not proof."""
    long_enough = np.diff(offsets)[owners] == len(sequence)
    entries = offsets[owners[long_enough]][:, None] + np.arange(len(sequence))
    has = long_enough.copy()
    has[long_enough] = (codes[entries] == sequence).all(axis=1)
    return has


def _struct_of(attributes: AttributeColumns, owners: Ints, sequence: slice) -> pa.StructArray:
    """One struct per owner, its fields the keys of the shape."""
    starts = attributes.offsets[owners]
    fields, names = [], []
    for place, entry in enumerate(range(sequence.start, sequence.stop)):
        value_type = ValueType(int(attributes.types[entry]))
        names.append(attributes.keys[entry].as_py())
        if value_type is ValueType.NULL:
            fields.append(pa.nulls(len(owners), pa.string()))
        else:
            fields.append(attributes.values[value_type].take(pa.array(starts + place)))
    return pa.StructArray.from_arrays(fields, names)


def _spread(array: pa.Array, rows: Ints, length: int) -> pa.Array:
    """`array`'s values at `rows` of a column of `length`, null elsewhere."""
    if len(rows) == length:
        return array
    source = np.zeros(length, dtype=np.int64)
    source[rows] = np.arange(len(rows))
    elsewhere = np.ones(length, dtype=bool)
    elsewhere[rows] = False
    return array.take(pa.array(source, mask=elsewhere))


def _pairs_of(attributes: AttributeColumns, owners: Ints) -> pa.Table:
    """(owner, key, type, one column per ValueType) of every entry of the owners."""
    starts, counts = attributes.offsets[owners], np.diff(attributes.offsets)[owners]
    firsts = np.cumsum(counts) - counts
    entries = np.arange(counts.sum()) + np.repeat(starts - firsts, counts)
    at = pa.array(entries)
    columns = {
        "owner": pa.array(np.repeat(owners, counts)),
        "key": attributes.keys.take(at).cast(pa.string()),
        "type": pa.array(attributes.types[entries]),
    }
    for value_type, arrow_type in VALUE_ARROW_TYPES.items():
        values = attributes.values.get(value_type)
        columns[f"v{value_type:d}"] = pa.nulls(len(entries), arrow_type) if values is None else values.take(at)
    return pa.table(columns)
