"""What a span says about the graph it stands in: its run, project and task, its step, its node and the edges between
nodes, the run that it branches from.

Names: `clew.*`, OTel's `gen_ai.workflow.*` and those that frameworks give their nodes. An edge that leads from a node
to itself is left out, and marked on the node; one from a node that is not known yet makes that node.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from math import isfinite
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..storage.batch import AttributeColumns, EventParts
from ..storage.conventions import RECIPIENTS, RUN_STATUSES

Row = dict[str, Any]
Columns = dict[str, pa.Array]

DEFAULT_SESSION = "default"

_PLACE_KEYS = ("gen_ai.workflow.nodes", "gen_ai.workflow.edges", "graph.node.id", "langgraph_node")
_OWN_PREFIXES = ("clew.run.", "clew.task.", "clew.project.", "clew.step.", "clew.node.")
_TASK_STATUS = {"running": "RUNNING", "completed": "SUCCEEDED", "failed": "FAILED"}


def graph_of(columns: Columns, attributes: AttributeColumns, links: EventParts | None) -> dict[str, pa.Table | None]:
    """Rows of runs (what their events say of them), projects, tasks, workflow_steps, dag_nodes, dag_edges and branches,
    with `event_row`."""
    rows: dict[str, list[Row]] = {table: [] for table in _SCHEMAS}
    for event_row in _with_place(columns, attributes).tolist():
        event = {name: columns[name][event_row].as_py() for name in _EVENT_COLUMNS if name in columns}
        event["event_row"] = event_row
        for table, said in _said(event, attributes.of(event_row)):
            rows[table].append(said | {"event_row": event_row})
    rows["branches"] += _branches(columns, links)
    return {table: _table(found, _SCHEMAS[table]) for table, found in rows.items()}


_EVENT_COLUMNS = (
    *("event_type", "agent_name", "status", "status_message", "session_id", "node_id", "step_id"),
    *("started_at_unix_nano", "completed_at_unix_nano"),
)


def _with_place(columns: Columns, attributes: AttributeColumns) -> np.typing.NDArray[np.int64]:
    """The events that say where they stand."""
    placed = attributes.codes(lambda key: key in _PLACE_KEYS or key.startswith(_OWN_PREFIXES))
    handoffs = np.flatnonzero(pc.equal(columns["event_type"], "handoff").to_numpy(zero_copy_only=False))
    return np.union1d(attributes.owners_of(placed), handoffs)


def _said(event: Row, attributes: Row) -> Iterable[tuple[str, Row]]:
    yield from _run(event, attributes)
    if event.get("step_id") or _number(attributes.get("clew.step.number")) is not None:
        yield "workflow_steps", _step(event, attributes)
    if event.get("node_id"):
        yield "dag_nodes", _node(event, attributes)
        yield from _declared_edges(event, attributes)
    yield from _workflow_graph(event, attributes)
    if event["event_type"] == "handoff":
        yield from _handoff(event, attributes)


def _run(event: Row, attributes: Row) -> Iterable[tuple[str, Row]]:
    session = event.get("session_id") or DEFAULT_SESSION
    project, task = _text(attributes.get("clew.project.name")), _text(attributes.get("clew.task.id"))
    said: Row = {
        "project_id": _project_id(session, project) if project else None,
        "task_id": task,
        "mode": _text(attributes.get("clew.run.mode")),
        "agent": _text(attributes.get("clew.run.agent")),
        "model": _text(attributes.get("clew.run.model")),
        "task_description": _text(attributes.get("clew.run.task")),
        "status": _run_status(attributes.get("clew.run.status")),
    }
    if not any(said.values()):
        return
    yield "runs", said
    if project:
        at = event["started_at_unix_nano"]
        yield (
            "projects",
            {"id": said["project_id"], "session_id": session, "name": project, "created_at_unix_nano": at},
        )
    if task:
        yield "tasks", _task(event, attributes, session)


def _run_status(value: Any) -> str | None:
    return value if value in RUN_STATUSES else None


def _project_id(session: str, name: str) -> bytes:
    return blake2b(f"{session}\0{name}".encode(), digest_size=16).digest()


def _task(event: Row, attributes: Row, session: str) -> Row:
    title = _text(attributes.get("clew.task.title"))
    return {
        "id": attributes["clew.task.id"],
        "session_id": session,
        "title": title,
        "input_prompt": _text(attributes.get("clew.run.task")) or title or "",
        "status": _TASK_STATUS[event["status"]],
        "created_at_unix_nano": event["started_at_unix_nano"],
        "updated_at_unix_nano": event["completed_at_unix_nano"] or event["started_at_unix_nano"],
    }


def _step(event: Row, attributes: Row) -> Row:
    number = _number(attributes.get("clew.step.number"))
    return _lasted(event) | {
        "id": event.get("step_id") or str(number),
        "step_number": number,
        "agent": event["agent_name"],
        "progress_percentage": _percentage(attributes.get("clew.step.progress")),
        "error_message": None if number is None else event["status_message"] or None,
    }


def _node(event: Row, attributes: Row) -> Row:
    loops = event["node_id"] in _texts(attributes.get("clew.node.depends_on"))
    return _lasted(event) | {
        "id": event["node_id"],
        "node_type": _text(attributes.get("clew.node.type")) or "agent",
        "agent": event["agent_name"],
        "order_index": _number(attributes.get("clew.node.order")),
        "meta": '{"depends_on_itself":true}' if loops else None,
    }


def _lasted(event: Row) -> Row:
    return {
        "status": event["status"],
        "started_at_unix_nano": event["started_at_unix_nano"],
        "completed_at_unix_nano": event["completed_at_unix_nano"] or None,
    }


def _declared_edges(event: Row, attributes: Row) -> Iterable[tuple[str, Row]]:
    for before in _texts(attributes.get("clew.node.depends_on")):
        if before != event["node_id"]:
            yield from _edge(before, event["node_id"], "declared")


def _workflow_graph(_event: Row, attributes: Row) -> Iterable[tuple[str, Row]]:
    """`gen_ai.workflow.nodes` names nodes, `gen_ai.workflow.edges` says "a -> b"."""
    for node in _texts(attributes.get("gen_ai.workflow.nodes")):
        yield "dag_nodes", _expected(node)
    for edge in _texts(attributes.get("gen_ai.workflow.edges")):
        before, arrow, after = (part.strip() for part in edge.partition("->"))
        if before and arrow and after and before != after:
            yield from _edge(before, after, "workflow")


def _handoff(event: Row, attributes: Row) -> Iterable[tuple[str, Row]]:
    """Agents are nodes to one another's hand-overs."""
    sender = event["agent_name"]
    recipient = next((attributes[key] for key in RECIPIENTS if _text(attributes.get(key))), None)
    recipient = recipient or _text(_object(attributes.get("clew.inputs")).get("to"))
    if sender and recipient and sender != recipient:
        yield from _edge(sender, recipient, "handoff")


def _edge(before: str, after: str, source: str) -> Iterable[tuple[str, Row]]:
    yield "dag_nodes", _expected(before)
    yield "dag_nodes", _expected(after)
    yield "dag_edges", {"from_node_id": before, "to_node_id": after, "source": source}


def _expected(node: str) -> Row:
    """A node of which nothing but its name is known so far."""
    return {"id": node, "node_type": "agent", "status": "pending"}


def _branches(columns: Columns, links: EventParts | None) -> list[Row]:
    """Links of type `branch`, from the new run to the event that it branches from."""
    if links is None or "clew.link.type" not in links.attributes.keys.dictionary.to_pylist():
        return []
    rows = []
    for row in range(links.table.num_rows):
        said = links.attributes.of(row)
        link = {name: links.table[name][row].as_py() for name in ("event_row", "linked_run_id", "linked_event_id")}
        if said.get("clew.link.type") == "branch" and link["linked_run_id"]:
            rows.append(_branch(columns, link, said))
    return rows


def _branch(columns: Columns, link: Row, said: Row) -> Row:
    child = columns["run_id"][link["event_row"]].as_py()
    name = _text(said.get("clew.branch.name"))
    return {
        "event_row": link["event_row"],
        "id": blake2b(link["linked_run_id"] + child + (name or "").encode(), digest_size=16).digest(),
        "parent_run_id": link["linked_run_id"],
        "parent_event_id": link["linked_event_id"],
        "child_run_id": child,
        "branch_name": name,
        "hypothesis": _text(said.get("clew.branch.hypothesis")),
        "created_at_unix_nano": columns["started_at_unix_nano"][link["event_row"]].as_py(),
    }


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _texts(value: Any) -> list[str]:
    """A list of texts, also as JSON or as one text with commas."""
    if isinstance(value, str):
        value = _parsed(value, otherwise=value.split(","))
    if not isinstance(value, list):
        return []
    return [item.strip() for item in value if isinstance(item, str) and item.strip()]


def _object(value: Any) -> Row:
    found = _parsed(value, otherwise={}) if isinstance(value, str) else value
    return found if isinstance(found, dict) else {}


def _parsed(text: str, *, otherwise: Any) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return otherwise


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _percentage(value: Any) -> int | None:
    return min(100, max(0, round(value))) if isinstance(value, int | float) and isfinite(value) else None


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table | None:
    return pa.Table.from_pylist(rows, schema) if rows else None


def _schema(described: str) -> pa.Schema:
    """`event_row`, and fields out of `name type` pairs."""
    types = {"text": pa.string(), "int": pa.int64(), "uuid": pa.binary(16)}
    pairs = [pair.split() for pair in described.split(",")]
    return pa.schema([("event_row", pa.int32()), *((name, types[kind]) for name, kind in pairs)])


_TIMES = "status text, started_at_unix_nano int, completed_at_unix_nano int"
_SCHEMAS = {
    "projects": _schema("id uuid, session_id text, name text, created_at_unix_nano int"),
    "tasks": _schema(
        "id text, session_id text, title text, input_prompt text, status text, created_at_unix_nano int,"
        "updated_at_unix_nano int"
    ),
    "runs": _schema(
        "project_id uuid, task_id text, mode text, agent text, model text, task_description text, status text"
    ),
    "workflow_steps": _schema(
        f"id text, step_number int, agent text, progress_percentage int, error_message text, {_TIMES}"
    ),
    "dag_nodes": _schema(f"id text, node_type text, agent text, order_index int, meta text, {_TIMES}"),
    "dag_edges": _schema("from_node_id text, to_node_id text, source text"),
    "branches": _schema(
        "id uuid, parent_run_id uuid, parent_event_id int, child_run_id uuid, branch_name text, hypothesis text,"
        "created_at_unix_nano int"
    ),
}
