"""Columns out of attributes, by the tables of `storage.conventions` and `storage.event_rules`, without a loop over
spans."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..storage.batch import AttributeColumns, ValueType
from ..storage.conventions import (
    AGENT_ROLES,
    DOUBLES,
    EVENT_SUBTYPES,
    EVENT_TYPES,
    GUARDS,
    INTEGERS,
    MEMBERS,
    SPAN_NAME,
    SUMS,
    TEXTS,
    Guard,
    Member,
)
from ..storage.event_rules import AGENT_ROLE_RULES, EVENT_SUBTYPE_RULES, EVENT_TYPE_RULES, NONE_FITS, Rules

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

NOWHERE = -1
_NONE_FITS, _UNSAID = -1, -2  # beside the numbers of words
COUNT_MAX = (1 << 53) - 1
_INT64 = np.iinfo(np.int64)
_JSON_TYPES = (ValueType.STRING, ValueType.JSON)
_NUMBERS = dict.fromkeys(INTEGERS, pa.int64()) | dict.fromkeys(DOUBLES, pa.float64())
_SUBTYPE_OF_STATUS = {"running": "start", "completed": "complete", "failed": "error"}


def classify(attributes: AttributeColumns, names: pa.Array, statuses: pa.Array) -> dict[str, pa.Array]:
    """Per owner, a span with this name and status: the columns of TEXTS, INTEGERS, DOUBLES and `agent_role` (null where
    nothing says), `event_type` (`info` where nothing says) and `event_subtype` (what the status says where nothing else
    does, null where the span says a word that is none)."""
    spans = _Spans(attributes, names)
    columns = {name: spans.texts(keys) for name, keys in TEXTS.items()}
    for name, keys in (INTEGERS | DOUBLES).items():
        sums = [spans.sums(summands, _NUMBERS[name]) for summands in SUMS.get(name, ()) if spans.has_any(summands)]
        columns[name] = reduce(pc.coalesce, sums, spans.numbers(keys, _NUMBERS[name]))
    for name, members in MEMBERS.items():
        columns[name] = reduce(spans.with_member, members, columns[name])
    columns |= {name: _counts(columns[name]) for name in INTEGERS}
    return columns | _worded(spans, statuses)


def _counts(column: pa.Array) -> pa.Array:
    """Only those of the numbers that can be counts: below zero none is, and sums of larger ones than COUNT_MAX would be
    too large for a column."""
    if column.null_count == len(column):
        return column
    return pc.if_else(pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, COUNT_MAX)), column, None)


def _worded(spans: _Spans, statuses: pa.Array) -> dict[str, pa.Array]:
    """The columns that have a vocabulary."""
    info = np.full(spans.owner_count, EVENT_TYPES.index("info"), dtype=np.int64)
    no_role = np.full(spans.owner_count, _NONE_FITS, dtype=np.int64)
    subtypes = np.array([EVENT_SUBTYPES.index(subtype) for subtype in _SUBTYPE_OF_STATUS.values()], dtype=np.int64)
    by_status = subtypes[pc.index_in(statuses, pa.array(_SUBTYPE_OF_STATUS)).to_numpy()]
    return {
        "event_type": spans.words(EVENT_TYPE_RULES, EVENT_TYPES, info),
        "event_subtype": spans.words(EVENT_SUBTYPE_RULES, EVENT_SUBTYPES, by_status),
        "agent_role": spans.words(AGENT_ROLE_RULES, AGENT_ROLES, no_role),
    }


def _among(*types: ValueType) -> Bools:
    """Indexed by the number of a type: is it one of these?"""
    return np.isin(np.arange(len(ValueType)), types)


_ANY = _among(*ValueType)
_TEXT = _among(ValueType.STRING)
_TEXT_OR_COUNT = _among(ValueType.STRING, ValueType.INT)
_TEXT_OR_NUMBER = _among(ValueType.STRING, ValueType.INT, ValueType.DOUBLE)
_TEXT_OR_JSON = _among(*_JSON_TYPES)


class Lookup:
    """Finds attributes by key, for all owners at once. Few keys of all that may be are in a batch; to ask for others
    takes next to nothing."""

    def __init__(self, attributes: AttributeColumns) -> None:
        self._attributes = attributes
        self._codes = attributes.keys.indices.to_numpy(zero_copy_only=False)
        self._code_of = {key: code for code, key in enumerate(attributes.keys.dictionary.to_pylist())}
        self.owner_count = len(attributes)
        self.owners: Ints = np.repeat(np.arange(len(attributes)), np.diff(attributes.offsets))

    def has_any(self, keys: tuple[str, ...]) -> bool:
        """Does any owner have one of the keys?"""
        return not self._code_of.keys().isdisjoint(keys)

    def _is_met(self, key: str) -> bool:
        """Is it in the batch?"""
        return key in self._code_of

    def texts(self, keys: tuple[str, ...]) -> pa.Array:
        """Per owner the value of the first of the keys that it has, as text."""
        if not self.has_any(keys):
            return pa.nulls(self.owner_count, pa.string())
        winners, types = self._winners(keys, _TEXT_OR_COUNT)
        column = self._taken(ValueType.STRING, winners, types, pa.string())
        if (types == ValueType.INT).any():
            column = pc.coalesce(column, self._taken(ValueType.INT, winners, types, pa.int64()).cast(pa.string()))
        return column

    def numbers(self, keys: tuple[str, ...], arrow_type: pa.DataType) -> pa.Array:
        """Per owner the value of the first of the keys that it has, as a number."""
        if not self.has_any(keys):
            return pa.nulls(self.owner_count, arrow_type)
        winners, types = self._winners(keys, _TEXT_OR_NUMBER)
        column = self._taken(ValueType.INT, winners, types, pa.int64()).cast(arrow_type, safe=False)
        if (types == ValueType.DOUBLE).any():
            doubles = self._taken(ValueType.DOUBLE, winners, types, pa.float64())
            column = pc.coalesce(column, _fitting(doubles, arrow_type))
        if (types == ValueType.STRING).any():
            encoded = self._taken(ValueType.STRING, winners, types, pa.string()).dictionary_encode()
            doubles = pa.array([_number(text) for text in encoded.dictionary.to_pylist()], pa.float64())
            column = pc.coalesce(column, _fitting(doubles.take(encoded.indices), arrow_type))
        return column

    def _entries(self, key: str, types: Bools) -> Ints:
        """The entries with this key and one of these types."""
        code = self._code_of.get(key)
        if code is None:
            return np.empty(0, dtype=np.int64)
        entries = np.flatnonzero(self._codes == code)
        return entries[types[self._attributes.types[entries]]]

    def _texts_at(self, entries: Ints) -> pa.Array:
        texts = self._attributes.values.get(ValueType.STRING)
        return pa.nulls(len(entries), pa.string()) if texts is None else texts.take(pa.array(entries))

    def _winners(self, keys: tuple[str, ...], types: Bools) -> tuple[Ints, npt.NDArray[np.uint8]]:
        """Per owner the entry of the first key that it has (NOWHERE: none), and that entry's type. An empty text says
        nothing, as if the key were not there."""
        winners = np.full(self.owner_count, NOWHERE, dtype=np.int64)
        for key in filter(self._is_met, reversed(keys)):
            entries = self._without_empty_texts(self._entries(key, types))
            winners[self.owners[entries]] = entries
        won = np.zeros(self.owner_count, dtype=np.uint8)
        found = winners != NOWHERE
        won[found] = self._attributes.types[winners[found]]
        return winners, won

    def _without_empty_texts(self, entries: Ints) -> Ints:
        if not _TEXT[self._attributes.types[entries]].any():
            return entries
        lengths = pc.fill_null(pc.binary_length(self._texts_at(entries)), -1).to_numpy()
        return entries[lengths != 0]

    def _taken(
        self, value_type: ValueType, winners: Ints, types: npt.NDArray[np.uint8], arrow_type: pa.DataType
    ) -> pa.Array:
        """Per owner the winning entry's value where it has this type, else null."""
        of_type = types == value_type
        if not of_type.any():
            return pa.nulls(self.owner_count, arrow_type)
        return self._attributes.values[value_type].take(pa.array(winners, mask=~of_type))


class _Spans(Lookup):
    """Attributes of spans with these names, found where the tables' guards let them count."""

    def __init__(self, attributes: AttributeColumns, names: pa.Array) -> None:
        super().__init__(attributes)
        self._names = names

    def sums(self, keys: tuple[str, ...], arrow_type: pa.DataType) -> pa.Array:
        """Per owner the sum of the values of those of the keys that it has, null where it has none."""
        parts = np.array([self.numbers((key,), pa.float64()).to_numpy(zero_copy_only=False) for key in keys])
        with np.errstate(over="ignore"):  # what overflows does not fit
            sums = np.where(np.isnan(parts).all(axis=0), np.nan, np.nansum(parts, axis=0))
        return _fitting(pa.array(sums), arrow_type)

    def with_member(self, column: pa.Array, member: Member) -> pa.Array:
        """`column`, and where it is null what the member says."""
        if not self.has_any((member.key,)):
            return column
        winners, types = self._winners((member.key,), _TEXT_OR_JSON)
        types[column.is_valid().to_numpy(zero_copy_only=False)] = ValueType.NULL
        texts = pc.coalesce(*(self._taken(value_type, winners, types, pa.string()) for value_type in _JSON_TYPES))
        encoded = texts.dictionary_encode()
        values = [_values_within(text, member) for text in encoded.dictionary.to_pylist()]
        return pc.coalesce(column, _as_column(values, column.type).take(encoded.indices))

    def words(self, rules: Rules, vocabulary: tuple[str, ...], otherwise: Ints) -> pa.Array:
        """Per owner the word that the first rule gives which says something, else the word numbered `otherwise`."""
        numbers = otherwise.copy()
        for key, meaning in reversed(rules):
            if not self._is_met(key):
                continue
            if isinstance(meaning, str):
                numbers[self.owners[self._entries(key, _ANY)]] = vocabulary.index(meaning)
            else:
                owners, values = self._said(key)
                meant = _meant(values, meaning, vocabulary) if len(owners) else owners
                numbers[owners[meant != _UNSAID]] = meant[meant != _UNSAID]
        return pa.array(vocabulary).take(pa.array(numbers, mask=numbers == _NONE_FITS))

    def _is_met(self, key: str) -> bool:
        return key == SPAN_NAME or super()._is_met(key)

    def _said(self, key: str) -> tuple[Ints, pa.Array]:
        """The owners that have this key with a text, and the text."""
        if key == SPAN_NAME:
            return np.arange(self.owner_count), self._names
        entries = self._entries(key, _TEXT)
        return self.owners[entries], self._texts_at(entries)

    def _entries(self, key: str, types: Bools) -> Ints:
        entries = super()._entries(key, types)
        guard = GUARDS.get(key)
        return entries if guard is None or not len(entries) else entries[self._passing(guard)[self.owners[entries]]]

    def _passing(self, guard: Guard) -> Bools:
        """Which owners meet the condition."""
        owners, values = self._said(guard.key)
        passing = np.full(self.owner_count, guard.absent_passes)
        passing[owners] = _matching(values, guard.pattern)
        return passing


def _meant(values: pa.Array, meaning: dict[str, str], vocabulary: tuple[str, ...]) -> Ints:
    """The number of the word that each value means, _UNSAID for a value that the rule does not know."""
    meant = np.full(len(values), _UNSAID, dtype=np.int64)
    numbers = {said: _NONE_FITS if word == NONE_FITS else vocabulary.index(word) for said, word in meaning.items()}
    for pattern in [said for said in numbers if said.endswith("*")]:
        meant[_matching(values, pattern)] = numbers.pop(pattern)
    if numbers:
        places = pc.fill_null(pc.index_in(values, pa.array(numbers, pa.string())), NOWHERE).to_numpy()
        known = places != NOWHERE
        meant[known] = np.array(list(numbers.values()), dtype=np.int64)[places[known]]
    return meant


def _matching(values: pa.Array, pattern: str) -> Bools:
    prefix = pattern.removesuffix("*")
    matches = pc.equal(values, pattern) if prefix == pattern else pc.starts_with(values, prefix)
    return matches.to_numpy(zero_copy_only=False)


def _values_within(text: str | None, member: Member) -> list[Any]:
    """The values in this JSON that the member is about. Text that is no JSON is its own value."""
    if text is None or (member.names and not any(f'"{name}"' in text for name in member.names)):
        return []
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = text
    if not member.names:
        return [value]
    return [value[name] for name in member.names if name in value] if isinstance(value, dict) else []


def _as_column(found: list[list[Any]], arrow_type: pa.DataType) -> pa.Array:
    """Per list the first text of it, or the sum of its numbers; null where there is none."""
    if arrow_type == pa.string():
        texts = [[str(value) for value in values if _is_text(value)] for values in found]
        return pa.array([next(iter(of_one), None) for of_one in texts], pa.string())
    numbers = [[number for value in values if (number := _number(value)) is not None] for values in found]
    return _fitting(pa.array([sum(of_one) if of_one else None for of_one in numbers], pa.float64()), arrow_type)


def _is_text(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool) and value != ""


def _fitting(doubles: pa.Array, arrow_type: pa.DataType) -> pa.Array:
    """The numbers that are finite and fit into the type, null for the others."""
    values = doubles.to_numpy(zero_copy_only=False)
    fits = np.isfinite(values)
    if arrow_type == pa.float64():
        return pa.array(values, mask=~fits)
    fits &= (values > _INT64.min) & (values < _INT64.max)
    return pa.array(np.where(fits, values, 0).astype(np.int64), mask=~fits)


def _number(value: Any) -> float | None:
    """A number out of JSON or text."""
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except ValueError:
        return None
