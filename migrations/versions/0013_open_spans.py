"""The view spans has NULL for the end and the duration of a span that has not ended."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COLUMNS = """
    replace(e.run_id::VARCHAR, '-', '') AS trace_id,
    lpad(lower(hex(coalesce(e.otel_span_id, e.id))), 16, '0') AS span_id,
    lpad(lower(hex(e.parent_event_id)), 16, '0') AS parent_span_id,
    e.name,
    TRY(make_timestamp_ns(e.started_at_unix_nano)) AS start_time,
    {end} AS end_time,
    CASE e.kind WHEN 1 THEN 'INTERNAL' WHEN 2 THEN 'SERVER' WHEN 3 THEN 'CLIENT' WHEN 4 THEN 'PRODUCER'
                WHEN 5 THEN 'CONSUMER' ELSE 'UNSPECIFIED' END AS kind,
    CASE e.status_code WHEN 1 THEN 'OK' WHEN 2 THEN 'ERROR' ELSE 'UNSET' END AS status_code,
    e.status_message, {duration} AS duration_ns, e.trace_state, e.flags,
    r.service_name, r.attributes AS resource_attributes, r.schema_url AS resource_schema_url,
    s.name AS scope_name, s.version AS scope_version, s.attributes AS scope_attributes,
    s.schema_url AS scope_schema_url, e.attributes,
    e.dropped_attributes_count, e.dropped_events_count, e.dropped_links_count,
    e.event_type, e.agent_name, e.model, e.input_tokens, e.output_tokens, e.cost_usd
"""
_END = "TRY(make_timestamp_ns({at}))"
_AT_ITS_END, _DURATION = (
    "nullif(e.completed_at_unix_nano, 0)",
    "CASE WHEN e.completed_at_unix_nano <> 0 THEN e.duration_ns END",
)


def upgrade() -> None:
    _view(_END.format(at=_AT_ITS_END), _DURATION)


def downgrade() -> None:
    _view(_END.format(at="e.completed_at_unix_nano"), "e.duration_ns")


def _view(end: str, duration: str) -> None:
    columns = _COLUMNS.format(end=end, duration=duration)
    op.execute(
        f"CREATE OR REPLACE VIEW spans AS SELECT {columns} FROM execution_events e "  # noqa: S608 of constants
        "LEFT JOIN resources r ON r.id = e.resource_id LEFT JOIN scopes s ON s.id = e.scope_id"
    )
