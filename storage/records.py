"""What a batch of events brings along for other tables, and how it is written.

Rows come with the event that said them (`event_row`), so a repeated event repeats none. Some tables hold the event's
own rows: they go when the event is replaced by its finished copy, which brings its own; those that log records told of
it have a `log_index`, and stay as the record does. The others hold what several
events say of one thing: it is as its earliest event says, and lasts from the first to the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .batch import SAID_AGAIN

_BY_EVENTS_ONLY = ("agent_runs", "cost_records")
_BY_LOGS_TOO = ("messages", "files", "checkpoints")

DELETE_OWN = [
    f"DELETE FROM {table} WHERE run_id = ?::BLOB::UUID AND event_id = ?{told_itself}"  # noqa: S608 our own names
    for tables, told_itself in ((_BY_EVENTS_ONLY, ""), (_BY_LOGS_TOO, " AND log_index IS NULL"))
    for table in tables
]


def told_by_kept(rows: pa.Table, kept: npt.NDArray[np.bool_]) -> pa.Table:
    """The rows that events which are kept bring along; a message whose first sayer is not is the next one's."""
    may_be_anothers = SAID_AGAIN.name in rows.column_names
    told = rows.drop_columns(SAID_AGAIN.name) if may_be_anothers else rows
    if kept.all():
        return told
    if not may_be_anothers:
        return rows.filter(pa.array(kept[rows["event_row"].to_numpy()]))
    messages = [_as_said_by_kept(message, kept) for message in rows.to_pylist()]
    return pa.Table.from_pylist([message for message in messages if message], told.schema)


def _as_said_by_kept(message: dict[str, Any], kept: npt.NDArray[np.bool_]) -> dict[str, Any] | None:
    sayings = [message, *message[SAID_AGAIN.name]]
    return next((message | said for said in sayings if kept[said["event_row"]]), None)


def _plain(table: str, **types: str) -> str:
    """An insert of rows as they come; `types` are those of columns that Arrow has no type for."""
    typed = ", ".join(f"try_cast({name} AS {kind}) AS {name}" for name, kind in ({"run_id": "UUID"} | types).items())
    return (
        f"INSERT INTO {table} BY NAME "  # noqa: S608 our own names
        f"SELECT * EXCLUDE (event_started_at_unix_nano) REPLACE ({typed}) FROM incoming"
    )


def _lasting(table: str, *columns: str, **of_both: str) -> str:
    """An upsert of things that last (steps, nodes), by (run_id, id). `of_both` says what becomes of a column that was
    told before and is told again; elsewhere the first to say something is believed."""
    told = ", ".join(f"arg_min({name}, said_at) FILTER ({name} IS NOT NULL) AS {name}" for name in columns)
    first_told = {name: f"coalesce({table}.{name}, excluded.{name})" for name in columns}
    kept = ", ".join(f"{name} = {value}" for name, value in (first_told | of_both).items())
    return f"""
        INSERT INTO {table} BY NAME
        SELECT run_id::UUID AS run_id, id, {told},
               coalesce(arg_min(status, said_at) FILTER (started_at_unix_nano IS NOT NULL), min(status)) AS status,
               min(started_at_unix_nano) AS started_at_unix_nano,
               max(completed_at_unix_nano) AS completed_at_unix_nano
        FROM (SELECT *, coalesce(started_at_unix_nano, {_NEVER}) AS said_at FROM incoming) GROUP BY run_id, id
        ON CONFLICT (run_id, id) DO UPDATE SET {kept},
            status = CASE WHEN excluded.started_at_unix_nano <= coalesce({table}.started_at_unix_nano, {_NEVER})
                     THEN excluded.status ELSE {table}.status END,
            started_at_unix_nano = least({table}.started_at_unix_nano, excluded.started_at_unix_nano),
            completed_at_unix_nano = greatest({table}.completed_at_unix_nano, excluded.completed_at_unix_nano)
    """  # noqa: S608


_NEVER = (1 << 63) - 1

# What these make of the rows depends on those that are there.
JOINED = ("runs", "dag_edges", "messages")

# In the order of writing: what is referred to comes first.
STATEMENTS: dict[str, str] = {
    "projects": """
        INSERT INTO projects (id, session_id, name, created_at_unix_nano)
        SELECT id::UUID, min(session_id), min(name), min(created_at_unix_nano) FROM incoming GROUP BY id
        ON CONFLICT DO NOTHING
    """,
    "tasks": """
        INSERT INTO tasks BY NAME
        SELECT id, min(session_id) AS session_id, max(title) AS title, max(input_prompt) AS input_prompt,
               arg_min(status, created_at_unix_nano) AS status, min(created_at_unix_nano) AS created_at_unix_nano,
               max(updated_at_unix_nano) AS updated_at_unix_nano
        FROM incoming GROUP BY id
        ON CONFLICT (id) DO UPDATE SET
            title = coalesce(excluded.title, tasks.title),
            input_prompt = CASE tasks.input_prompt WHEN '' THEN excluded.input_prompt ELSE tasks.input_prompt END,
            status = CASE WHEN excluded.created_at_unix_nano <= tasks.created_at_unix_nano
                     THEN excluded.status ELSE tasks.status END,
            created_at_unix_nano = least(tasks.created_at_unix_nano, excluded.created_at_unix_nano),
            updated_at_unix_nano = greatest(tasks.updated_at_unix_nano, excluded.updated_at_unix_nano)
    """,
    "runs": """
        UPDATE workflow_runs SET
            project_id = coalesce(said.project_id, workflow_runs.project_id),
            task_id = coalesce(said.task_id, workflow_runs.task_id),
            mode = coalesce(said.mode, workflow_runs.mode),
            agent = coalesce(said.agent, workflow_runs.agent),
            model = coalesce(said.model, workflow_runs.model),
            task_description = coalesce(said.task_description, workflow_runs.task_description),
            status = coalesce(said.status, workflow_runs.status)
        FROM (SELECT run_id::UUID AS id, max(project_id)::UUID AS project_id, max(task_id) AS task_id,
                     max(mode) AS mode, max(agent) AS agent, max(model) AS model,
                     max(task_description) AS task_description, arg_max(status, event_started_at_unix_nano) AS status
              FROM incoming GROUP BY run_id) AS said
        WHERE workflow_runs.id = said.id
    """,
    "workflow_steps": _lasting(
        *("workflow_steps", "step_number", "agent", "progress_percentage", "error_message"),
        progress_percentage="greatest(workflow_steps.progress_percentage, excluded.progress_percentage)",
    ),
    "dag_nodes": _lasting(
        *("dag_nodes", "node_type", "agent", "order_index", "meta"),
        node_type="CASE dag_nodes.node_type WHEN 'agent' THEN excluded.node_type ELSE dag_nodes.node_type END",
    ),
    "dag_edges": """
        INSERT INTO dag_edges (run_id, from_node_id, to_node_id, dependency_type, source)
        SELECT DISTINCT run_id::UUID, from_node_id, to_node_id, 'sequential', source FROM incoming
        WHERE NOT EXISTS (FROM dag_edges e WHERE e.run_id = incoming.run_id::UUID AND e.source = incoming.source
                          AND e.from_node_id = incoming.from_node_id AND e.to_node_id = incoming.to_node_id)
    """,
    "agent_runs": _plain("agent_runs"),
    "cost_records": _plain("cost_records", cost_usd="DECIMAL(18, 12)"),
    "messages": _plain("messages", content_hash="UUID")
    + " WHERE NOT EXISTS (FROM messages m WHERE m.content_hash = incoming.content_hash::UUID)",
    "files": _plain("files", id="UUID"),
    "checkpoints": _plain("checkpoints", id="UUID"),
    "approval_requests": """
        INSERT INTO approval_requests BY NAME
        SELECT run_id::UUID AS run_id, id, arg_min(event_id, requested_at_unix_nano) AS event_id,
               min(step_id) AS step_id, arg_max(status, requested_at_unix_nano) AS status,
               min(requested_at_unix_nano) AS requested_at_unix_nano,
               max(resolved_at_unix_nano) AS resolved_at_unix_nano,
               max(user_feedback) AS user_feedback, max(resolution) AS resolution
        FROM incoming GROUP BY run_id, id
        ON CONFLICT (run_id, id) DO UPDATE SET
            status = CASE WHEN excluded.resolved_at_unix_nano IS NULL THEN approval_requests.status
                     ELSE excluded.status END,
            requested_at_unix_nano =
                least(approval_requests.requested_at_unix_nano, excluded.requested_at_unix_nano),
            resolved_at_unix_nano = coalesce(excluded.resolved_at_unix_nano, approval_requests.resolved_at_unix_nano),
            user_feedback = coalesce(excluded.user_feedback, approval_requests.user_feedback),
            resolution = coalesce(excluded.resolution, approval_requests.resolution)
    """,
    "branches": """
        INSERT INTO branches BY NAME
        SELECT * EXCLUDE (run_id, event_id, event_started_at_unix_nano)
               REPLACE (id::UUID AS id, parent_run_id::UUID AS parent_run_id, child_run_id::UUID AS child_run_id)
        FROM incoming ON CONFLICT DO NOTHING
    """,
}
