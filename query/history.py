"""A run's events as a history, and those of one node of its graph. Both are pages of events as `events` has them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import ColumnElement, and_, not_, select

from ..storage import DAGNode, Reader, Row, run_id_text
from .errors import InvalidParameter, NotFound
from .events import EVENTS, page_of
from .parameters import EventsWanted, NodeEventsWanted
from .runs import RUNS, find_run

NODES: Any = DAGNode.__table__


def history_page(reader: Reader, run_id: UUID, wanted: EventsWanted) -> bytes:
    """What was done: `event_page` without the beginnings of what ends later (subtype `start`) and without the changes
    of nodes' states. Raises NotFound."""
    return orjson.dumps(page_of(reader, find_run(reader, run_id), wanted, _is_history()))


def node_event_page(reader: Reader, node_id: str, wanted: NodeEventsWanted) -> bytes:
    """`event_page` of the node's events, with the `run_id` they are of: the latest run that has such a node, unless
    named. Raises NotFound, and InvalidParameter for a cursor without the run it belongs to."""
    if wanted.cursor is not None and wanted.run_id is None:
        raise InvalidParameter("a later run may have the node by now; pass the answer's run_id too", parameter="run_id")
    run = _latest_run_with(reader, node_id) if wanted.run_id is None else _run_with(reader, node_id, wanted.run_id)
    page = page_of(reader, run, wanted, EVENTS.c.node_id == node_id)
    return orjson.dumps({"run_id": run["id"], "node_id": node_id, **page})


def _is_history() -> ColumnElement[bool]:
    of_a_node = and_(EVENTS.c.event_type == "state_transition", EVENTS.c.node_id.is_not(None))
    return and_(EVENTS.c.event_subtype.is_distinct_from("start"), not_(of_a_node))


def _latest_run_with(reader: Reader, node_id: str) -> Row:
    newest_first = (RUNS.c.started_at_unix_nano.desc(), RUNS.c.id.desc())
    statement = select(RUNS).join(NODES, NODES.c.run_id == RUNS.c.id).where(NODES.c.id == node_id)
    found = reader.rows(statement.order_by(*newest_first).limit(1))
    if not found:
        message = f"no run has a node {node_id[:80]!r}; GET /api/runs/{{run_id}}/graph shows the nodes of a run"
        raise NotFound(message, parameter="node_id")
    return found[0]


def _run_with(reader: Reader, node_id: str, run_id: UUID) -> Row:
    run = find_run(reader, run_id)
    if not reader.rows(select(NODES.c.id).where(NODES.c.run_id == run_id, NODES.c.id == node_id)):
        message = f"run {run_id_text(run_id)} has no node {node_id[:80]!r}"
        raise NotFound(f"{message}; GET /api/runs/{run_id_text(run_id)}/graph shows its nodes", parameter="node_id")
    return run
