"""Events of several runs in one answer, each with its run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
from sqlalchemy import RowMapping, select

from ..storage import Reader, parse_event_id, run_id_text
from .event_json import event_texts, place_in_tree
from .events import LINKS, LOGS, one_of, with_origins
from .histories import whole_attributes
from .runs import RUNS

_RUN_SHOWN = ("id", "session_id", "name", "agent")


def told_with_runs(reader: Reader, rows: pa.Table) -> tuple[Mapping[str, RowMapping], list[str]]:
    """The runs, by id, of the events in `rows` (those of ALL_EVENT_ROWS and `run_id`), and the events as JSON objects,
    in the order of the rows: with `run` for which run it was, and without a place in the run's tree. Raises
    AnswerTooLarge, see `whole_attributes`."""
    if not rows.num_rows:
        return {}, []
    run_ids = [UUID(text) for text in rows["run_id"].to_pylist()]
    runs = {run["id"]: run for run in reader.rows(select(RUNS).where(RUNS.c.id.in_(set(run_ids))))}
    rows = with_origins(reader, whole_attributes(reader, rows))
    keys = list(zip(map(run_id_text, run_ids), rows["id"].to_pylist(), strict=True))
    for name, table in (("log_count", LOGS), ("link_count", LINKS)):
        counts = _parts_of_events(reader, table, rows["id"].to_pylist(), runs.values())
        rows = rows.append_column(name, pa.array([counts[key] for key in keys], pa.int64()))
    texts = event_texts(place_in_tree(rows, None)).to_pylist()
    briefs = {run_id: orjson.dumps({name: run[name] for name in _RUN_SHOWN}).decode() for run_id, run in runs.items()}
    return runs, [f'{text},"run":{briefs[run_id]}}}' for text, (run_id, _) in zip(texts, keys, strict=True)]


def _parts_of_events(
    reader: Reader, table: Any, event_ids: Sequence[int], runs: Iterable[RowMapping]
) -> Counter[tuple[str, int]]:
    """How many rows of `table` each event, by run and id, has."""
    first = min(run["started_at_unix_nano"] for run in runs)
    last = max(run["last_started_at_unix_nano"] for run in runs)
    in_time = table.c.event_started_at_unix_nano.between(first, last)
    owners = select(table.c.run_id, table.c.event_id).where(in_time, one_of(table.c.event_id, list(event_ids)))
    return Counter((row["run_id"], parse_event_id(row["event_id"])) for row in reader.rows(owners))
