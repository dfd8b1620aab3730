"""The critical path of a run, as the API shows it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import select

from ..storage import Reader, Row, event_id_text
from .critical_path import CriticalPath, critical_path
from .errors import AnswerTooLarge
from .events import EVENTS, of_any_run, rows_of, tree_from
from .figures_parameters import CriticalPathWanted
from .runs import find_run, run_json
from .tree import NONE, Ints, Tree

# Some 100 bytes an event, and for deep trees some 16 more for every doubling of their depth.
PATH_EVENTS_MAX = 500_000

_SHOWN = ("id", "name", "event_type", "agent_name", "model", "status", "started_at_unix_nano", "duration_ns")
_ROWS = select(*(EVENTS.c[name] for name in (*_SHOWN, "parent_event_id", "completed_at_unix_nano"))).where(
    of_any_run(EVENTS)
)


def critical_path_answer(reader: Reader, run_id: UUID, wanted: CriticalPathWanted) -> dict[str, Any]:
    """The events and steps of the path (see `critical_path`), at most `wanted.limit` of each, and how many there are.

    The path covers the run from its start to its end; for a run that has none yet, to the last end of an event. An
    event that has not ended counts as running until then. Raises NotFound, and AnswerTooLarge past PATH_EVENTS_MAX.
    """
    run = find_run(reader, run_id)
    if run["event_count"] > PATH_EVENTS_MAX:
        message = f"the run has {run['event_count']:,} events; a critical path is worked out for {PATH_EVENTS_MAX:,}"
        raise AnswerTooLarge(f"{message} at most; GET /api/runs/{{run_id}}/statistics has no limit")
    tree, rows = _in_tree_order(rows_of(reader, run, _ROWS))
    parents = tree.parents()
    path = _path(run, rows, parents)
    lasted = path.completed_at - path.started_at
    contributions = _contributions(rows.num_rows, path, lasted)
    on_path = np.flatnonzero(contributions)
    largest = on_path[np.argsort(-contributions[on_path], kind="stable")][: wanted.limit]
    return {
        "run": run_json(run),
        "duration_ns": int(lasted.sum()),
        "nobody_ns": int(lasted[path.positions == NONE].sum()),
        "event_count": len(on_path),
        "step_count": len(lasted),
        "by_agent": _sums("agent_name", _agents_at_work(rows, parents), contributions, wanted.limit),
        "by_event_type": _sums("event_type", rows["event_type"], contributions, wanted.limit),
        "events": _events(rows, largest, contributions),
        "steps": _steps(rows, path, lasted, wanted.limit),
    }


def _in_tree_order(rows: pa.Table) -> tuple[Tree, pa.Table]:
    tree = tree_from(rows)
    return tree, rows.take(pa.array(np.argsort(tree.positions(rows["id"].to_numpy()))))


def _agents_at_work(rows: pa.Table, parents: Ints) -> pa.Array:
    """For each event the agent that it, or the nearest event above it, names: whoever is above comes before."""
    agents = rows["agent_name"].to_pylist()
    for event, parent in enumerate(parents.tolist()):
        if agents[event] is None and parent != NONE:
            agents[event] = agents[parent]
    return pa.array(agents, pa.string())


def _path(run: Row, rows: pa.Table, parents: Ints) -> CriticalPath:
    """The path through the rows, which are in the order of the tree."""
    started_at, completed_at = (rows[f"{what}_at_unix_nano"].to_numpy() for what in ("started", "completed"))
    first = run["started_at_unix_nano"]
    last = run["completed_at_unix_nano"] or max(first, int(completed_at.max(initial=0)))
    ended_at = np.where(completed_at == 0, last, completed_at)
    return critical_path(parents, started_at, ended_at, first, last)


def _contributions(event_count: int, path: CriticalPath, lasted: Ints) -> Ints:
    contributions = np.zeros(event_count, dtype=np.int64)
    somebody = path.positions != NONE
    np.add.at(contributions, path.positions[somebody], lasted[somebody])
    return contributions


def _sums(name: str, by: Any, contributions: Ints, most: int) -> list[dict[str, Any]]:
    """What each agent or type contributed, the largest first; those that contributed nothing are left out."""
    table = pa.table({name: by, "contribution_ns": pa.array(contributions)})
    sums = table.group_by(name).aggregate([("contribution_ns", "sum")]).rename_columns([name, "contribution_ns"])
    sums = sums.filter(pc.greater(sums["contribution_ns"], 0))
    return sums.sort_by([("contribution_ns", "descending"), (name, "ascending")]).slice(0, most).to_pylist()


def _events(rows: pa.Table, positions: Ints, contributions: Ints) -> list[dict[str, Any]]:
    shown = rows.select(_SHOWN).take(pa.array(positions)).to_pylist()
    return [
        event
        | {
            "id": event_id_text(event["id"]),
            "started_at_unix_nano": str(event["started_at_unix_nano"]),
            "contribution_ns": contribution,
        }
        for event, contribution in zip(shown, contributions[positions].tolist(), strict=True)
    ]


def _steps(rows: pa.Table, path: CriticalPath, lasted: Ints, most: int) -> list[dict[str, Any]]:
    longest = np.sort(np.argsort(-lasted, kind="stable")[:most])
    positions = path.positions[longest]
    ids = rows["id"].take(pa.array(positions, mask=positions == NONE)).to_pylist()
    columns = (ids, path.started_at[longest].tolist(), lasted[longest].tolist())
    return [
        {
            "event_id": None if event_id is None else event_id_text(event_id),
            "started_at_unix_nano": str(started_at),
            "duration_ns": duration_ns,
        }
        for event_id, started_at, duration_ns in zip(*columns, strict=True)
    ]
