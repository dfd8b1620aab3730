"""The spine: sessions, runs, events with their logs and links, resources and scopes, the view spans."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import UserDefinedType

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


class _DuckDBVariant(UserDefinedType[Any]):
    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARIANT"


def _variant() -> Any:
    return JSONB() if _postgresql() else _DuckDBVariant()


def _postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def _key(*columns: str) -> list[sa.schema.SchemaItem]:
    """A primary key on engines that should index the table; DuckDB finds events by their run's time bounds instead."""
    return [sa.PrimaryKeyConstraint(*columns)] if _postgresql() else []


def _references(columns: list[str], target: list[str], **options: Any) -> list[sa.schema.SchemaItem]:
    """A foreign key on engines that can cascade; in DuckDB the writer keeps parents present."""
    return [sa.ForeignKeyConstraint(columns, target, **options)] if _postgresql() else []


def _number(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.BigInteger, nullable=nullable, autoincrement=False)


def _text(name: str, *, nullable: bool = True) -> sa.Column[Any]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _uuid(name: str, *, nullable: bool = False) -> sa.Column[Any]:
    return sa.Column(name, sa.Uuid, nullable=nullable)


def _attributes() -> list[sa.Column[Any]]:
    return [_number("dropped_attributes_count"), sa.Column("attributes", _variant(), nullable=False)]


def upgrade() -> None:
    op.create_table(
        "sessions", _text("id", nullable=False), _number("created_at_unix_nano"), sa.PrimaryKeyConstraint("id")
    )
    op.create_table(
        "workflow_runs",
        _uuid("id"),
        _text("session_id", nullable=False),
        _text("name"),
        _text("agent"),
        _text("service_name"),
        _text("status", nullable=False),
        _number("root_event_id", nullable=True),
        _number("started_at_unix_nano"),
        _number("last_started_at_unix_nano"),
        _number("completed_at_unix_nano"),
        _number("event_count"),
        _number("error_count"),
        sa.PrimaryKeyConstraint("id"),
        *_references(["session_id"], ["sessions.id"], ondelete="CASCADE"),
    )
    _create_origins()
    _create_events()
    _create_event_parts()
    op.execute(_POSTGRESQL_SPANS if _postgresql() else _DUCKDB_SPANS)


def _create_origins() -> None:
    for table, names in (("resources", ["service_name"]), ("scopes", ["name", "version"])):
        op.create_table(
            table,
            _number("id"),
            *(_text(name) for name in names),
            _text("schema_url"),
            *_attributes(),
            sa.Column("otlp", sa.LargeBinary),
            sa.PrimaryKeyConstraint("id"),
        )


def _create_events() -> None:
    op.create_table(
        "execution_events",
        _uuid("run_id"),
        _number("id"),
        _number("otel_span_id", nullable=True),
        _number("parent_event_id", nullable=True),
        _text("name", nullable=False),
        _number("kind"),
        _text("event_type", nullable=False),
        _text("event_subtype"),
        _text("agent_name"),
        _text("agent_role"),
        _text("model"),
        _text("status", nullable=False),
        _number("status_code"),
        _text("status_message"),
        _number("started_at_unix_nano"),
        _number("completed_at_unix_nano"),
        _number("duration_ns"),
        _number("input_tokens", nullable=True),
        _number("output_tokens", nullable=True),
        sa.Column("cost_usd", sa.Double),
        _number("resource_id"),
        _number("scope_id"),
        _text("trace_state"),
        _number("flags"),
        _number("dropped_events_count"),
        _number("dropped_links_count"),
        *_attributes(),
        sa.Column("otlp_residue", sa.LargeBinary),
        *_key("run_id", "id"),
        *_references(["run_id"], ["workflow_runs.id"], ondelete="CASCADE"),
        *_references(["resource_id"], ["resources.id"]),
        *_references(["scope_id"], ["scopes.id"]),
    )


def _create_event_parts() -> None:
    parts: dict[str, tuple[str, list[sa.Column[Any]]]] = {
        "event_logs": ("log_index", [_number("time_unix_nano"), _text("name", nullable=False)]),
        "event_links": (
            "link_index",
            [
                _uuid("linked_run_id", nullable=True),
                _number("linked_event_id", nullable=True),
                _text("trace_state"),
                _number("flags"),
            ],
        ),
    }
    for table, (index, columns) in parts.items():
        op.create_table(
            table,
            _uuid("run_id"),
            _number("event_id"),
            _number(index),
            _number("event_started_at_unix_nano"),
            *columns,
            *_attributes(),
            sa.Column("otlp_residue", sa.LargeBinary),
            *_key("run_id", "event_id", index),
            *_references(
                ["run_id", "event_id"], ["execution_events.run_id", "execution_events.id"], ondelete="CASCADE"
            ),
        )


def downgrade() -> None:
    op.execute("DROP VIEW spans")
    for table in (
        "event_links",
        "event_logs",
        "execution_events",
        "scopes",
        "resources",
        "workflow_runs",
        "sessions",
    ):
        op.drop_table(table)


_SPANS_FROM = """
    e.event_type, e.agent_name, e.model, e.input_tokens, e.output_tokens, e.cost_usd
FROM execution_events e
LEFT JOIN resources r ON r.id = e.resource_id
LEFT JOIN scopes s ON s.id = e.scope_id
"""

_KIND_AND_STATUS = """
    CASE e.kind WHEN 1 THEN 'INTERNAL' WHEN 2 THEN 'SERVER' WHEN 3 THEN 'CLIENT' WHEN 4 THEN 'PRODUCER'
                WHEN 5 THEN 'CONSUMER' ELSE 'UNSPECIFIED' END AS kind,
    CASE e.status_code WHEN 1 THEN 'OK' WHEN 2 THEN 'ERROR' ELSE 'UNSET' END AS status_code,
    e.status_message, e.duration_ns, e.trace_state, e.flags,
    r.service_name, r.attributes AS resource_attributes, r.schema_url AS resource_schema_url,
    s.name AS scope_name, s.version AS scope_version, s.attributes AS scope_attributes,
    s.schema_url AS scope_schema_url, e.attributes,
    e.dropped_attributes_count, e.dropped_events_count, e.dropped_links_count,
"""

_DUCKDB_SPANS = f"""
CREATE VIEW spans AS
SELECT
    replace(e.run_id::VARCHAR, '-', '') AS trace_id,
    lpad(lower(hex(coalesce(e.otel_span_id, e.id))), 16, '0') AS span_id,
    lpad(lower(hex(e.parent_event_id)), 16, '0') AS parent_span_id,
    e.name,
    make_timestamp_ns(e.started_at_unix_nano) AS start_time,
    make_timestamp_ns(e.completed_at_unix_nano) AS end_time,
    {_KIND_AND_STATUS}{_SPANS_FROM}
"""

_POSTGRESQL_SPANS = f"""
CREATE VIEW spans AS
SELECT
    replace(e.run_id::text, '-', '') AS trace_id,
    lpad(to_hex(coalesce(e.otel_span_id, e.id)), 16, '0') AS span_id,
    lpad(to_hex(e.parent_event_id), 16, '0') AS parent_span_id,
    e.name,
    to_timestamp(e.started_at_unix_nano / 1e9) AS start_time,
    to_timestamp(e.completed_at_unix_nano / 1e9) AS end_time,
    {_KIND_AND_STATUS}{_SPANS_FROM}
"""
