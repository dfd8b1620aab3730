"""Two runs beside one another: which events only one of them has, and in what the others differ.

`alignment` says which event is which. The longer event of a pair is told where it exceeds the shorter by more than a
share of it, the tolerance; events that have not ended are not compared by duration. Attributes are compared by a
digest (MD5) of their JSON; which of them differ is worked out for the page that is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import md5
from itertools import takewhile
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import case, func, or_, select

from ..storage import Reader, Row, event_id_text
from .alignment import Alignment, align, label_numbers
from .attribute_json import exact_attributes, number_json
from .errors import AnswerTooLarge
from .events import EVENTS, json_text, of_any_run, one_of, rows_of, tree_from
from .figures_parameters import Change, ComparisonWanted
from .histories import whole_attributes
from .runs import find_run, run_json
from .statistics import statistics
from .tree import NONE, Ints

COMPARED_EVENTS_MAX = 250_000
ATTRIBUTES_MAX = 50
VALUE_CHARACTERS = 500
ALIKE_CHARACTERS = 100

Bools = NDArray[np.bool_]
Json = dict[str, Any]

_LABEL = ("name", "event_type", "agent_name")
_TREE = ("id", "parent_event_id", "started_at_unix_nano", "completed_at_unix_nano")
_SIDE = ("status", "status_message", "duration_ns", "input_tokens", "output_tokens", "cost_usd")
_JSON = json_text(EVENTS.c.attributes)
_RESIDUE, _HISTORY = EVENTS.c.otlp_residue, EVENTS.c.history_id
_ROWS = select(
    *(EVENTS.c[name] for name in (*_TREE, *_LABEL, "status", "duration_ns")),
    func.md5(_JSON).label("digest"),
    case((or_(_RESIDUE.is_not(None), _HISTORY.is_not(None)), _JSON)).label("attributes"),
    _RESIDUE,
    _HISTORY,
).where(of_any_run(EVENTS))
_DETAILS = select(
    *(EVENTS.c[name] for name in ("id", "started_at_unix_nano", *_LABEL, *_SIDE)),
    _JSON.label("attributes"),
    _RESIDUE,
    _HISTORY,
).where(of_any_run(EVENTS))


def comparison(reader: Reader, wanted: ComparisonWanted) -> dict[str, Any]:
    """The differences of two runs by pages, how many there are of each kind, and what each run used.

    The cursor counts the changes that were told, so pages fit together while neither run changes. Raises NotFound, and
    AnswerTooLarge where a run has more than COMPARED_EVENTS_MAX events.
    """
    run_a, run_b = find_run(reader, wanted.a, parameter="a"), find_run(reader, wanted.b, parameter="b")
    a, b = (_side(reader, run) for run in (run_a, run_b))
    aligned = _aligned(a, b)
    found = _differences(a, b, aligned, wanted.tolerance)
    told = np.flatnonzero(np.any([found[change] for change in wanted.change or Change], axis=0))
    first = int(wanted.cursor or 0)
    page = told[first : first + wanted.limit]
    details_a, details_b = _details(reader, run_a, a, aligned.a[page]), _details(reader, run_b, b, aligned.b[page])
    kinds = [[change.value for change in Change if found[change][place]] for place in page]
    places = zip(details_a, details_b, aligned.depth[page].tolist(), kinds, strict=True)
    return {
        "a": run_json(run_a),
        "b": run_json(run_b),
        "usage_a": statistics(reader, wanted.a)["usage"],
        "usage_b": statistics(reader, wanted.b)["usage"],
        "counts": _counts(aligned, found),
        "changes": [_change_json(*place) for place in places],
        "next_cursor": str(first + len(page)) if first + len(page) < len(told) else None,
    }


@dataclass(frozen=True)
class _Side:
    """The events of a run in the order of its tree, and a digest of each one's attributes."""

    rows: pa.Table
    parents: Ints
    digests: pa.Array


def _side(reader: Reader, run: Row) -> _Side:
    if run["event_count"] > COMPARED_EVENTS_MAX:
        message = f"run {run['id']} has {run['event_count']:,} events; runs of at most {COMPARED_EVENTS_MAX:,}"
        raise AnswerTooLarge(f"{message} are compared; GET /api/runs/{{run_id}}/statistics has no limit")
    rows = rows_of(reader, run, _ROWS)
    tree = tree_from(rows)
    rows = rows.take(pa.array(np.argsort(tree.positions(rows["id"].to_numpy()))))
    return _Side(rows, tree.parents(), _digests(reader, rows))


def _digests(reader: Reader, rows: pa.Table) -> pa.Array:
    """The engine's, except for attributes that are not all in their column: histories, and what JSON cannot say. Those
    come in any order, the engine's in one."""
    digests, apart = _flat(rows["digest"]), _flat(rows["attributes"]).is_valid()
    of_column = rows.filter(apart)
    texts = zip(_flat(of_column["attributes"]).to_pylist(), _exact(reader, of_column), strict=True)
    redone = [exact if exact == stored else _ordered(orjson.loads(exact)) for stored, exact in texts]
    hashed = [md5(text.encode(), usedforsecurity=False).hexdigest() for text in redone]
    return pc.replace_with_mask(digests, apart, pa.array(hashed, digests.type))


def _ordered(value: Any) -> str:
    """JSON that is alike for values that differ in the order of keys alone."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _exact(reader: Reader, rows: pa.Table) -> list[str]:
    """The events' attributes as JSON objects."""
    whole = whole_attributes(reader, rows)
    texts: list[str] = exact_attributes(_flat(whole["attributes"]), _flat(rows["otlp_residue"]), Span).to_pylist()
    return texts


def _aligned(a: _Side, b: _Side) -> Alignment:
    codes = [_codes(a.rows[name], b.rows[name]) for name in _LABEL]
    labels = label_numbers(*codes)
    return align(a.parents, labels[: len(a.parents)], b.parents, labels[len(a.parents) :])


def _codes(a: pa.ChunkedArray, b: pa.ChunkedArray) -> Ints:
    """A number for each distinct value of both; -1 for null."""
    values = pa.chunked_array([*a.chunks, *b.chunks], a.type).combine_chunks().dictionary_encode()
    return pc.fill_null(values.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)


def _differences(a: _Side, b: _Side, aligned: Alignment, tolerance: float) -> dict[Change, Bools]:
    """For each kind of change which places of the alignment show it."""
    added, missing = aligned.a == NONE, aligned.b == NONE
    pairs = np.flatnonzero(~added & ~missing)
    of_a, of_b = a.rows.take(pa.array(aligned.a[pairs])), b.rows.take(pa.array(aligned.b[pairs]))
    lasted_a, lasted_b = (rows["duration_ns"].to_numpy() for rows in (of_a, of_b))
    ended = np.all([rows["completed_at_unix_nano"].to_numpy() > 0 for rows in (of_a, of_b)], axis=0)
    in_pairs = {
        Change.SLOWER: ended & (lasted_b > lasted_a * (1 + tolerance)),
        Change.FASTER: ended & (lasted_a > lasted_b * (1 + tolerance)),
        Change.STATUS: _differ(_flat(of_a["status"]), _flat(of_b["status"])),
        Change.ATTRIBUTES: _differ(a.digests.take(aligned.a[pairs]), b.digests.take(aligned.b[pairs])),
    }
    return {Change.ADDED: added, Change.MISSING: missing} | {
        change: _at(pairs, flags, len(added)) for change, flags in in_pairs.items()
    }


def _at(places: Ints, flags: Bools, size: int) -> Bools:
    flagged = np.zeros(size, dtype=np.bool_)
    flagged[places] = flags
    return flagged


def _differ(a: pa.Array, b: pa.Array) -> Bools:
    return np.asarray(pc.not_equal(a, b).to_numpy(zero_copy_only=False), dtype=np.bool_)


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays([pa.array([], column.type), *column.chunks])


def _counts(aligned: Alignment, found: dict[Change, Bools]) -> dict[str, int]:
    counts = {change.value: int(np.count_nonzero(found[change])) for change in Change}
    changed = np.any(list(found.values()), axis=0)
    pairs = len(aligned.depth) - counts["added"] - counts["missing"]
    return {"pairs": pairs, "unchanged": int(np.count_nonzero(~changed))} | counts


def _details(reader: Reader, run: Row, side: _Side, positions: Ints) -> list[dict[str, Any] | None]:
    """What is told of the events at these positions, attributes included; None where the position is NONE."""
    ids = side.rows["id"].take(pa.array(positions, mask=positions == NONE)).to_pylist()
    wanted = _DETAILS.where(one_of(EVENTS.c.id, [number for number in ids if number is not None]))
    rows = rows_of(reader, run, wanted, is_kept=False)
    exact = _exact(reader, rows)
    by_id = {row["id"]: row | {"attributes": text} for row, text in zip(rows.to_pylist(), exact, strict=True)}
    return [None if number is None else by_id[number] for number in ids]


def _change_json(a: Json | None, b: Json | None, depth: int, changes: list[str]) -> Json:
    either: Json = a or b or {}
    differing = _differing(a, b) if Change.ATTRIBUTES in changes else []
    return {
        **{name: either[name] for name in _LABEL},
        "depth": depth,
        "changes": changes,
        "a": a and _side_json(a),
        "b": b and _side_json(b),
        "duration_change_ns": b["duration_ns"] - a["duration_ns"] if a and b else None,
        "attributes": differing[:ATTRIBUTES_MAX],
        "attributes_left_out": len(differing[ATTRIBUTES_MAX:]),
    }


def _side_json(row: Json) -> Json:
    return {
        "id": event_id_text(row["id"]),
        "started_at_unix_nano": str(row["started_at_unix_nano"]),
        **{name: row[name] for name in _SIDE},
        "cost_usd": None if row["cost_usd"] is None else number_json(row["cost_usd"]),
    }


def _differing(a: Json | None, b: Json | None) -> list[Json]:
    """The attributes that differ, by key."""
    of_a, of_b = (orjson.loads(row["attributes"]) if row else {} for row in (a, b))
    texts = [{key: _ordered(value) for key, value in side.items()} for side in (of_a, of_b)]
    keys = sorted(key for key in of_a.keys() | of_b.keys() if texts[0].get(key) != texts[1].get(key))
    return [{"key": key} | _cut(texts[0].get(key), texts[1].get(key)) for key in keys]


def _cut(a: str | None, b: str | None) -> Json:
    """Both texts; of long ones the part in which they begin to differ, with what is left out before it marked."""
    alike = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(a or "", b or "", strict=False)))
    first = max(0, alike - ALIKE_CHARACTERS)
    return {
        side: text and ("…" if first else "") + text[first : first + VALUE_CHARACTERS]
        for side, text in (("a", a), ("b", b))
    }
