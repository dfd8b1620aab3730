"""Columns out of attributes, by the tables of `conventions`, without a loop over spans."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..storage.batch import AttributeColumns, ValueType
from .conventions import AGENT_ROLES, DOUBLES, EVENT_SUBTYPES, EVENT_TYPE_RULES, EVENT_TYPES, INTEGERS, TEXTS

Ints = npt.NDArray[np.int64]

NOWHERE = -1
_INT64 = np.iinfo(np.int64)
_TEXT_TYPES = (ValueType.STRING, ValueType.INT)
_NUMBER_TYPES = (ValueType.INT, ValueType.DOUBLE, ValueType.STRING)
_KNOWN_TEXTS = {"event_subtype": EVENT_SUBTYPES, "agent_role": AGENT_ROLES}


def classify(attributes: AttributeColumns) -> dict[str, pa.Array]:
    """Per owner the columns of TEXTS, INTEGERS and DOUBLES (null where no attribute says) and `event_type` (never
    null: `info` where nothing says)."""
    lookup = _Lookup(attributes)
    columns = {name: _known(name, lookup.texts(keys)) for name, keys in TEXTS.items()}
    columns |= {name: lookup.numbers(keys, pa.int64()) for name, keys in INTEGERS.items()}
    columns |= {name: lookup.numbers(keys, pa.float64()) for name, keys in DOUBLES.items()}
    columns["event_type"] = _event_types(lookup)
    return columns


def _known(name: str, column: pa.Array) -> pa.Array:
    """`column` without the values that its column does not know."""
    known = _KNOWN_TEXTS.get(name)
    if known is None or column.null_count == len(column):
        return column
    indices = pc.index_in(column, pa.array(known))
    return pa.array(known).take(indices)


def _event_types(lookup: _Lookup) -> pa.Array:
    types = np.full(lookup.owner_count, EVENT_TYPES.index("info"), dtype=np.int64)
    for key, meaning in reversed(EVENT_TYPE_RULES):
        entries = lookup.entries(key, (ValueType.STRING,))
        if isinstance(meaning, str):
            types[lookup.owners[entries]] = EVENT_TYPES.index(meaning)
        elif len(entries):
            numbers = _numbers_of(lookup.values(ValueType.STRING, entries), meaning)
            said = numbers != NOWHERE
            types[lookup.owners[entries[said]]] = numbers[said]
    return pa.array(EVENT_TYPES).take(pa.array(types))


def _numbers_of(values: pa.Array, meaning: dict[str, str]) -> Ints:
    """The number in EVENT_TYPES of what each value means, NOWHERE for one that the rule does not know."""
    encoded = values.dictionary_encode()
    by_value = [
        EVENT_TYPES.index(meaning[value]) if value in meaning else NOWHERE for value in encoded.dictionary.to_pylist()
    ]
    return np.array(by_value, dtype=np.int64)[encoded.indices.to_numpy()]


class _Lookup:
    """Finds entries by key."""

    def __init__(self, attributes: AttributeColumns) -> None:
        self._attributes = attributes
        self._codes = attributes.keys.indices.to_numpy(zero_copy_only=False)
        self._code_of = {key: code for code, key in enumerate(attributes.keys.dictionary.to_pylist())}
        self.owner_count = len(attributes)
        self.owners: Ints = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets))

    def entries(self, key: str, types: tuple[ValueType, ...]) -> Ints:
        """The entries with this key and one of these types."""
        code = self._code_of.get(key)
        if code is None:
            return np.empty(0, dtype=np.int64)
        entries = np.flatnonzero(self._codes == code)
        return entries[np.isin(self._attributes.types[entries], types)]

    def values(self, value_type: ValueType, entries: Ints) -> pa.Array:
        return self._attributes.values[value_type].take(pa.array(entries))

    def texts(self, keys: tuple[str, ...]) -> pa.Array:
        """Per owner the value of the first of the keys that it has, as text."""
        winners, types = self._winners(keys, _TEXT_TYPES)
        column = self._taken(ValueType.STRING, winners, types, pa.string())
        if (types == ValueType.INT).any():
            column = pc.coalesce(column, self._taken(ValueType.INT, winners, types, pa.int64()).cast(pa.string()))
        return column

    def numbers(self, keys: tuple[str, ...], arrow_type: pa.DataType) -> pa.Array:
        """Per owner the value of the first of the keys that it has, as a number."""
        winners, types = self._winners(keys, _NUMBER_TYPES)
        column = self._taken(ValueType.INT, winners, types, pa.int64()).cast(arrow_type, safe=False)
        for value_type, own_type in ((ValueType.DOUBLE, pa.float64()), (ValueType.STRING, pa.string())):
            if (types == value_type).any():
                values = self._taken(value_type, winners, types, own_type).to_pylist()
                column = pc.coalesce(column, pa.array([_number(v, arrow_type) for v in values], arrow_type))
        return column

    def _winners(self, keys: tuple[str, ...], types: tuple[ValueType, ...]) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """Per owner the entry of the first key that it has (NOWHERE: none), and that entry's type. An empty text says
        nothing, as if the key were not there."""
        winners = np.full(self.owner_count, NOWHERE, dtype=np.int64)
        for key in reversed(keys):
            entries = self._without_empty_texts(self.entries(key, types))
            winners[self.owners[entries]] = entries
        won = np.zeros(self.owner_count, dtype=np.uint8)
        found = winners != NOWHERE
        won[found] = self._attributes.types[winners[found]]
        return winners, won

    def _without_empty_texts(self, entries: Ints) -> Ints:
        texts = self._attributes.values.get(ValueType.STRING)
        if texts is None or not len(entries):
            return entries
        lengths = pc.fill_null(pc.binary_length(texts.take(pa.array(entries))), -1).to_numpy()
        return entries[lengths != 0]

    def _taken(
        self, value_type: ValueType, winners: Ints, types: npt.NDArray[np.uint8], arrow_type: pa.DataType
    ) -> pa.Array:
        """Per owner the winning entry's value where it has this type, else null."""
        of_type = types == value_type
        if not of_type.any():
            return pa.nulls(self.owner_count, arrow_type)
        return self._attributes.values[value_type].take(pa.array(winners, mask=~of_type))


def _number(value: float | str | None, arrow_type: pa.DataType) -> float | int | None:
    """A number out of a double or text, None where it is none or does not fit."""
    try:
        number = float(value) if value is not None else None
    except ValueError:
        return None
    if number is None or not np.isfinite(number):
        return None
    if arrow_type == pa.float64():
        return number
    return int(number) if _INT64.min < number < _INT64.max else None
