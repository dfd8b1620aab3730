"""Events of several runs in one answer, each with its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
from sqlalchemy import ARRAY, BigInteger, ColumnElement, and_, bindparam, select

from ..storage import Reader, Row, parse_event_id, run_id_text
from .event_json import event_texts, place_in_tree
from .events import one_of_bound, owners_of_parts, with_origins, with_stored_part_counts
from .histories import whole_attributes
from .runs import RUNS

_RUN_SHOWN = ("id", "session_id", "name", "agent")


def told_with_runs(reader: Reader, rows: pa.Table) -> tuple[Mapping[str, Row], list[str]]:
    """The runs, by id, of the events in `rows` (those of ALL_EVENT_ROWS and `run_id`), and the events as JSON objects,
    in the order of the rows: with `run` for which run it was, and without a place in the run's tree. Raises
    AnswerTooLarge, see `whole_attributes`."""
    if not rows.num_rows:
        return {}, []
    run_ids = [UUID(text) for text in rows["run_id"].to_pylist()]
    runs = {run["id"]: run for run in reader.rows(_RUNS_OF, {"run_ids": list(set(run_ids))})}
    rows = with_origins(reader, whole_attributes(reader, rows))
    keys = list(zip(map(run_id_text, run_ids), rows["id"].to_pylist(), strict=True))
    rows = _with_part_counts(reader, rows, runs.values(), keys)
    texts = event_texts(place_in_tree(rows, None)).to_pylist()
    briefs = {run_id: orjson.dumps({name: run[name] for name in _RUN_SHOWN}).decode() for run_id, run in runs.items()}
    return runs, [f'{text},"run":{briefs[run_id]}}}' for text, (run_id, _) in zip(texts, keys, strict=True)]


def _with_part_counts(
    reader: Reader, rows: pa.Table, runs: Collection[Row], keys: Sequence[tuple[str, int]]
) -> pa.Table:
    if all(run["parts_counted"] for run in runs):
        return with_stored_part_counts(rows)
    for name, counts in _parts_of_events(reader, rows["id"].to_pylist(), runs).items():
        rows = rows.append_column(name, pa.array([counts[key] for key in keys], pa.int64()))
    return rows


def _parts_of_events(
    reader: Reader, event_ids: Sequence[int], runs: Iterable[Row]
) -> dict[str, Counter[tuple[str, int]]]:
    """How many logs (`log_count`) and links (`link_count`) each event, by run and id, has."""
    bounds = {
        "first": min(run["started_at_unix_nano"] for run in runs),
        "last": max(run["last_started_at_unix_nano"] for run in runs),
    }
    counts: dict[str, Counter[tuple[str, int]]] = {"log_count": Counter(), "link_count": Counter()}
    for row in reader.rows(_OWNERS_OF_PARTS, bounds | {"event_ids": list(event_ids)}):
        counts["log_count" if row["is_log"] else "link_count"][row["run_id"], parse_event_id(row["event_id"])] += 1
    return counts


def _of_some_events(table: Any) -> ColumnElement[bool]:
    bounds = (bindparam(name, type_=BigInteger) for name in ("first", "last"))
    return and_(table.c.event_started_at_unix_nano.between(*bounds), one_of_bound(table.c.event_id, _EVENT_IDS))


_EVENT_IDS = bindparam("event_ids", type_=ARRAY(BigInteger))

_RUNS_OF = select(RUNS).where(RUNS.c.id.in_(bindparam("run_ids", expanding=True, type_=RUNS.c.id.type)))

_OWNERS_OF_PARTS = owners_of_parts(_of_some_events, "run_id", "event_id")
