"""Events as JSON text. Many are made by columns: a hundred thousand without a Python loop, and without its lock. Few
are made one by one: a kernel call for every column takes five times as long.

FIELDS says what an event looks like in every answer. Rows come from `events.EVENT_ROWS`; `place_in_tree` adds what only
the whole tree knows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from ..storage import event_id_text
from .attribute_json import exact_attributes, number_json
from .tree import NONE, Tree

TEXT = pa.large_string()

# From here on columns are quicker.
MANY = 192

_OF_THE_TREE = ("depth", "self_time_ns", "child_count", "orphan", "cycle")


def place_in_tree(rows: pa.Table, tree: Tree | None) -> pa.Table:
    """`rows` and each event's depth, execution_order, self_time_ns, child_count, orphan and cycle; null without a tree
    and for events that are not in it."""
    if tree is None:
        return _with_place(rows, *[pa.nulls(rows.num_rows, pa.int64())] * (1 + len(_OF_THE_TREE)))
    order = tree.positions(rows["id"].to_numpy())
    known = pa.array(order, mask=order == NONE)
    of_the_tree = (pa.array(getattr(tree, name)).take(known) for name in _OF_THE_TREE)
    return _with_place(rows, known, *of_the_tree)


def in_tree_order(rows: pa.Table, tree: Tree, part: slice) -> pa.Table:
    """`place_in_tree` of rows that are just the events of `part` of the tree, depth first."""
    rows = rows.take(pa.array(np.argsort(tree.positions(rows["id"].to_numpy()))))
    of_the_tree = (pa.array(getattr(tree, name)[part]) for name in _OF_THE_TREE)
    return _with_place(rows, pa.array(np.arange(part.start, part.stop)), *of_the_tree)


def _with_place(rows: pa.Table, execution_order: pa.Array, *of_the_tree: pa.Array) -> pa.Table:
    rows = rows.append_column("execution_order", execution_order)
    for name, column in zip(_OF_THE_TREE, of_the_tree, strict=True):
        rows = rows.append_column(name, column)
    return rows


def event_texts(rows: pa.Table) -> pa.Array:
    """The events of `rows` (see `place_in_tree`), each as a JSON object without its closing brace."""
    rows = _with_exact_attributes(rows)
    return texts_by_columns(rows) if rows.num_rows >= MANY else texts_one_by_one(rows)


def texts_one_by_one(rows: pa.Table) -> pa.Array:
    """`event_texts` of rows with exact attributes."""
    always, sometimes = (
        [[None if value is None else says.one(value) for value in rows[name].to_pylist()] for name, says in fields]
        for fields in (FIELDS, OPTIONAL_FIELDS)
    )
    texts = []
    for said, may_be_said in zip(zip(*always, strict=True), zip(*sometimes, strict=True), strict=True):
        event = dict(zip(_NAMES, said, strict=True))
        event |= {name: value for name, value in zip(_OPTIONAL_NAMES, may_be_said, strict=True) if value}
        texts.append(orjson.dumps(event)[:-1])
    return pa.array(texts, pa.large_binary()).cast(TEXT)


def texts_by_columns(rows: pa.Table) -> pa.Array:
    """`event_texts` of rows with exact attributes."""
    rows = rows.combine_chunks()
    parts: list[pa.Array | str] = []
    for name, says in FIELDS:
        parts += [f',"{name}":' if parts else f'{{"{name}":', _said(says.column, _column(rows, name))]
    for name, says in OPTIONAL_FIELDS:
        said = says.column(_column(rows, name))
        if said.null_count < len(said):
            parts.append(pc.fill_null(join(f',"{name}":', said), ""))
    return join(*parts)


def join(*parts: pa.Array | str) -> pa.Array:
    """The parts of each row one after the other, at least one of them an array; a null makes the row null."""
    texts = [pa.scalar(part, TEXT) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar("", TEXT))


def _said(says: Callable[[pa.Array], pa.Array], values: pa.Array) -> pa.Array | str:
    """What the values are as JSON; one text where no event has one, as often with few events."""
    if len(values) and values.null_count == len(values):
        return "null"
    said = says(values)
    return pc.fill_null(said, "null") if said.null_count else said


def _column(rows: pa.Table, name: str) -> pa.Array:
    return rows[name].combine_chunks() if rows.num_rows else pa.nulls(0, rows.schema.field(name).type)


def _with_exact_attributes(rows: pa.Table) -> pa.Table:
    exact = exact_attributes(_column(rows, "attributes").cast(TEXT), _column(rows, "otlp_residue"), Span)
    return rows.set_column(rows.schema.get_field_index("attributes"), "attributes", exact)


def _each_once(say: Callable[[Any], Any]) -> Callable[[pa.Array], pa.Array]:
    """Values are said once each, however often they occur."""

    def says(values: pa.Array) -> pa.Array:
        encoded = values.dictionary_encode()
        said = [orjson.dumps(say(value)).decode() for value in encoded.dictionary.to_pylist()]
        return pa.array(said, TEXT).take(encoded.indices)

    return says


def _hex(ids: pa.Array) -> pa.Array:
    digits = pc.fill_null(ids, 0).to_numpy(zero_copy_only=False).astype(">i8").tobytes().hex()
    offsets = np.arange(0, 16 * len(ids) + 1, 16, dtype=np.int64)
    texts = pa.LargeStringArray.from_buffers(len(ids), pa.py_buffer(offsets), pa.py_buffer(digits.encode()))
    return pc.if_else(ids.is_valid(), join('"', texts, '"'), pa.scalar(None, TEXT))


@lru_cache(maxsize=64)
def kind_name(kind: int) -> str:
    """OTel's name of a span kind; the number where it has none."""
    return Span.SpanKind.Name(kind).removeprefix("SPAN_KIND_") if kind in Span.SpanKind.values() else str(kind)


class Says(NamedTuple):
    """How the values of a field are said: one, as orjson takes it, and a column, as JSON texts."""

    one: Callable[[Any], Any]
    column: Callable[[pa.Array], pa.Array]


_number = Says(int, lambda values: values.cast(TEXT))
_number_as_text = Says(str, lambda values: join('"', values.cast(TEXT), '"'))
_id = Says(event_id_text, _hex)
_text = Says(str, _each_once(str))
_kind = Says(kind_name, _each_once(kind_name))
_decimal = Says(number_json, _each_once(number_json))
_json = Says(orjson.Fragment, lambda texts: texts)
_only_true = Says(
    bool, lambda flags: pc.if_else(flags.cast(pa.bool_()), pa.scalar("true", TEXT), pa.scalar(None, TEXT))
)

FIELDS: tuple[tuple[str, Says], ...] = (
    ("id", _id),
    ("parent_event_id", _id),
    ("depth", _number),
    ("execution_order", _number),
    ("name", _text),
    ("kind", _kind),
    ("event_type", _text),
    ("event_subtype", _text),
    ("agent_name", _text),
    ("agent_role", _text),
    ("model", _text),
    ("status", _text),
    ("status_message", _text),
    ("started_at_unix_nano", _number_as_text),
    ("completed_at_unix_nano", _number_as_text),
    ("duration_ns", _number),
    ("self_time_ns", _number),
    ("child_count", _number),
    ("input_tokens", _number),
    ("output_tokens", _number),
    ("cost_usd", _decimal),
    ("service_name", _text),
    ("scope_name", _text),
    ("log_count", _number),
    ("link_count", _number),
    ("attributes", _json),
)
# Left out where they say nothing.
OPTIONAL_FIELDS: tuple[tuple[str, Says], ...] = (
    ("otel_span_id", _id),
    ("orphan", _only_true),
    ("cycle", _only_true),
)
_NAMES = [name for name, _ in FIELDS]
_OPTIONAL_NAMES = [name for name, _ in OPTIONAL_FIELDS]
