"""The workflow schema: projects, tasks, steps, nodes, messages, files and costs; log records and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


class _DuckDBVariant(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARIANT"


def _postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


_TYPES: dict[str, Any] = {
    "text": sa.Text,
    "int": sa.BigInteger,
    "float": sa.Double,
    "cost": sa.Numeric(18, 12),
    "uuid": sa.Uuid,
    "bytes": sa.LargeBinary,
    "json": sa.JSON().with_variant(JSONB(), "postgresql"),
    "variant": _DuckDBVariant().with_variant(JSONB(), "postgresql"),
}


def _columns(described: str) -> list[sa.Column[Any]]:
    """Columns out of `name type` pairs; a type that ends in `?` may be NULL."""
    pairs = (pair.split() for pair in described.replace("\n", ",").split(",") if pair.strip())
    return [
        sa.Column(name, _TYPES[kind.rstrip("?")], nullable=kind.endswith("?"), autoincrement=False)
        for name, kind in pairs
    ]


# In DuckDB the tables that telemetry fills by the row group have no key: an index costs more than it finds.
_NEW_TABLES: dict[str, tuple[str, list[str], list[tuple[list[str], str, str]]]] = {
    "projects": (
        """id uuid, session_id text, name text, description text?, created_at_unix_nano int, meta json?""",
        ["id"],
        [(["session_id"], "sessions.id", "CASCADE")],
    ),
    "tasks": (
        """id text, session_id text?, title text?, input_prompt text, status text, result_summary text?
           created_at_unix_nano int, updated_at_unix_nano int""",
        ["id"],
        [(["session_id"], "sessions.id", "CASCADE")],
    ),
    "workflow_steps": (
        """run_id uuid, id text, step_number int?, agent text?, status text, started_at_unix_nano int?
           completed_at_unix_nano int?, progress_percentage int?, inputs json?, outputs json?, error_message text?
           meta json?""",
        ["run_id", "id"],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "dag_nodes": (
        """run_id uuid, id text, node_type text, agent text?, status text, order_index int?, started_at_unix_nano int?
           completed_at_unix_nano int?, meta json?""",
        ["run_id", "id"],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "dag_edges": (
        """id int, run_id uuid, from_node_id text, to_node_id text, dependency_type text, condition text?
           source text""",
        ["id"],
        [
            (["run_id"], "workflow_runs.id", "CASCADE"),
            (["run_id", "from_node_id"], "dag_nodes.run_id dag_nodes.id", "CASCADE"),
            (["run_id", "to_node_id"], "dag_nodes.run_id dag_nodes.id", "CASCADE"),
        ],
    ),
    "agent_runs": (
        """id int, task_id text?, run_id uuid?, event_id int?, agent_name text, status text, started_at_unix_nano int
           finished_at_unix_nano int?, output_summary text?""",
        [],
        [(["task_id"], "tasks.id", "CASCADE"), (["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "cost_records": (
        """id int, run_id uuid, event_id int?, step_id text?, agent_name text?, model text?, prompt_tokens int?
           completion_tokens int?, total_tokens int?, cached_tokens int?, reasoning_tokens int?, cost_usd cost?
           source text, time_unix_nano int""",
        [],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "checkpoints": (
        """id uuid, run_id uuid, event_id int?, log_index int?, step_id text?, checkpoint_type text
           created_at_unix_nano int, context_snapshot json?, pickle_file_path text?, pickle_digest text?, meta json?""",
        ["id"],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "messages": (
        """id int, run_id uuid, event_id int?, log_index int?, step_id text?, node_id text?, sender text?
           recipient text?, role text?, content text, content_hash uuid?, tokens int?, time_unix_nano int
           meta json?""",
        [],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "files": (
        """id uuid, run_id uuid, event_id int?, log_index int?, step_id text?, node_id text?
           file_path text, file_type text, role text?, size_bytes int?
           content_hash text?, created_at_unix_nano int, meta json?""",
        [],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "approval_requests": (
        """run_id uuid, id text, event_id int?, step_id text?, status text, requested_at_unix_nano int
           resolved_at_unix_nano int?, context_snapshot json?, user_feedback text?, resolution text?""",
        ["run_id", "id"],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "branches": (
        """id uuid, parent_run_id uuid, parent_step_id text?, parent_event_id int?, child_run_id uuid?
           branch_name text?, created_at_unix_nano int, hypothesis text?, meta json?""",
        ["id"],
        [(["parent_run_id"], "workflow_runs.id", "CASCADE")],
    ),
    "workflow_metrics": (
        """id int, point_id int?, run_id uuid?, event_id int?, step_id text?, metric_name text, metric_type text
           metric_value float?, unit text?, started_at_unix_nano int?, time_unix_nano int, resource_id int?
           scope_id int?, attributes variant?, otlp bytes?, meta json?""",
        [],
        [(["run_id"], "workflow_runs.id", "CASCADE")],
    ),
}
_COUNTED = ("dag_edges", "agent_runs", "cost_records", "messages", "workflow_metrics")

_NEW_COLUMNS: dict[str, str] = {
    "sessions": """user_id text?, name text?, last_active_at_unix_nano int?, status text?, meta json?
                   resource_limits json?""",
    "workflow_runs": """project_id uuid?, task_id text?, mode text?, model text?, task_description text?
                        last_heartbeat_at_unix_nano int?, checkpoint_frequency_minutes int?, meta json?""",
    "execution_events": "node_id text?, step_id text?, execution_order int?, depth int?",
    "event_logs": """observed_time_unix_nano int?, event_type text?, task_id text?, agent_role text?, content text?
                     severity_number int?, severity_text text?, resource_id int?, scope_id int?, flags int?""",
}


def upgrade() -> None:
    for table in _COUNTED:
        op.execute(f"CREATE SEQUENCE {table}_id")
    for table, (columns, key, references) in _NEW_TABLES.items():
        op.create_table(table, *_columns(columns), *_key(key), *_references(references))
    for table in _COUNTED:
        op.alter_column(table, "id", server_default=sa.text(f"nextval('{table}_id')"))
    for table, described in _NEW_COLUMNS.items():
        for column in _columns(described):
            op.add_column(table, column)
    if _postgresql():
        op.drop_constraint("event_logs_pkey", "event_logs")
    for name in ("run_id", "event_id"):
        op.alter_column("event_logs", name, nullable=True)


def _key(key: list[str]) -> list[sa.schema.SchemaItem]:
    columns = key or (["id"] if _postgresql() else [])
    return [sa.PrimaryKeyConstraint(*columns)] if columns else []


def _references(references: Iterable[tuple[list[str], str, str]]) -> list[sa.schema.SchemaItem]:
    """Foreign keys on engines that can cascade; in DuckDB `clew.storage` follows them itself."""
    if not _postgresql():
        return []
    return [
        sa.ForeignKeyConstraint(columns, target.split(), ondelete=ondelete) for columns, target, ondelete in references
    ]


def downgrade() -> None:
    op.execute("DELETE FROM event_logs WHERE run_id IS NULL OR event_id IS NULL OR log_index < 0")
    for name in ("run_id", "event_id"):
        op.alter_column("event_logs", name, nullable=False)
    if _postgresql():
        op.create_primary_key("event_logs_pkey", "event_logs", ["run_id", "event_id", "log_index"])
    for table, described in _NEW_COLUMNS.items():
        _drop_columns(table, [column.name for column in _columns(described)])
    for table in reversed(_NEW_TABLES):
        op.drop_table(table)
    for table in _COUNTED:
        op.execute(f"DROP SEQUENCE {table}_id")


def _drop_columns(table: str, names: list[str]) -> None:
    for name in names:
        op.drop_column(table, name)
