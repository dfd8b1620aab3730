"""A run's tree as one JSON text, written piece by piece: serialisers recurse, a run's tree can be 100,000 deep."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import numpy as np
import orjson
import pyarrow as pa

from ..storage import Reader, Row, event_id_text
from .errors import AnswerTooLarge, NotFound
from .event_json import TEXT, event_texts, in_tree_order, join
from .events import EVENT_ROWS, EVENTS, TREE_EVENTS_MAX, event_links, one_of, read_events, tree_from
from .parameters import ANSWER_EVENTS_MAX, Shape, TreeWanted
from .runs import find_run, run_json
from .tree import NONE, Ints, Tree

ANSWER_BYTES_MAX = 1 << 29
PIECE_EVENTS = 8_192


def tree_answer(reader: Reader, run_id: UUID, wanted: TreeWanted) -> bytes | Iterator[bytes]:
    """The tree of the run, or what hangs below `wanted.root`, the first `wanted.limit` events of it, as JSON text; in
    pieces, which need no reader, where it has more than PIECE_EVENTS events.

    Raises NotFound, and AnswerTooLarge where there is more than an answer may hold.
    """
    run = find_run(reader, run_id)
    is_whole = wanted.root is None and run["event_count"] <= (wanted.limit or ANSWER_EVENTS_MAX)
    tree, part, rows = _whole(reader, run) if is_whole else _part(reader, run, wanted)
    shown = slice(part.start, part.start + rows.num_rows)
    _must_fit(rows.nbytes, ANSWER_BYTES_MAX, "bytes")
    rows = in_tree_order(rows, tree, shown)
    head = _head(run, tree, shown, left_out=part.stop - shown.stop)
    pieces = _pieces(head, rows, _separators(tree.depth[shown], wanted.shape))
    return pieces if rows.num_rows > PIECE_EVENTS else b"".join(pieces)


def _whole(reader: Reader, run: Row) -> tuple[Tree, slice, pa.Table]:
    rows = read_events(reader, EVENT_ROWS, run)
    tree = tree_from(rows)
    return tree, slice(0, len(tree.ids)), rows


def _part(reader: Reader, run: Row, wanted: TreeWanted) -> tuple[Tree, slice, pa.Table]:
    """The tree, which part of it is wanted, and the events of that part, as many as may be shown."""
    _must_fit(run["event_count"], TREE_EVENTS_MAX, "events to find the part in")
    tree = tree_from(event_links(reader, run))
    part = slice(0, len(tree.ids)) if wanted.root is None else tree.subtree(_position(tree, wanted.root))
    ids = tree.ids[part][: wanted.limit]
    _must_fit(len(ids), ANSWER_EVENTS_MAX, "events")
    rows = read_events(reader, EVENT_ROWS.where(one_of(EVENTS.c.id, ids.tolist())), run)
    return tree, part, rows


def _must_fit(count: int, most: int, what: str) -> None:
    if count > most:
        message = f"the tree has {count:,} {what}, an answer {most:,} at most; ask for less with ?limit=N"
        raise AnswerTooLarge(f"{message} or ?root=EVENT_ID, or for pages with GET /api/runs/{{run_id}}/events")


def _position(tree: Tree, event_id: int) -> int:
    position = int(tree.positions(np.array([event_id]))[0])
    if position == NONE:
        raise NotFound(f"the run has no event {event_id_text(event_id)}; without root the whole tree", parameter="root")
    return position


def _head(run: Row, tree: Tree, part: slice, *, left_out: int) -> bytes:
    counts = {
        "run": run_json(run),
        "event_count": part.stop - part.start,
        "left_out": left_out,
        "roots": tree.root_count(part),
        "orphans": int(np.count_nonzero(tree.orphan[part])),
        "cycles": int(np.count_nonzero(tree.cycle[part])),
    }
    return orjson.dumps(counts)[:-1] + b',"events":['


def _separators(depth: Ints, shape: Shape) -> pa.Array:
    """What follows each event's members, up to the next event or the end of the list."""
    if not depth.size:
        return pa.array([], TEXT)
    if shape is Shape.FLAT:
        return pa.array(["},"] * (len(depth) - 1) + ["}"], TEXT)
    # Each event opens its list of children, and closes it and all above it that hold nothing more.
    closed = depth - np.append(depth[1:], depth[0]) + 1
    distinct, which = np.unique(closed, return_inverse=True)
    texts = [',"children":[' + "]}" * int(count) + ("," if count else "") for count in distinct]
    separators = pa.array(texts, TEXT).take(pa.array(which))
    last = ',"children":[' + "]}" * int(closed[-1])
    return pa.concat_arrays([separators.slice(0, len(depth) - 1), pa.array([last], TEXT)])


def _pieces(head: bytes, rows: pa.Table, separators: pa.Array) -> Iterator[bytes]:
    piece = head
    for start in range(0, rows.num_rows, PIECE_EVENTS):
        texts = event_texts(rows.slice(start, PIECE_EVENTS))
        piece += _joined(join(texts, separators.slice(start, PIECE_EVENTS)))
        if start + PIECE_EVENTS < rows.num_rows:
            yield piece
            piece = b""
    yield piece + b"]}"


def _joined(texts: Any) -> bytes:
    """All the texts as one: an array of texts holds them one after the other."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64)
    return bytes(memoryview(data)[bounds[texts.offset] : bounds[texts.offset + len(texts)]])
