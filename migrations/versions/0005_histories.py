"""Histories: long attributes that repeat a conversation, in parts that are stored once; a function that reads them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def _postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def upgrade() -> None:
    op.create_table(
        "history_parts",
        sa.Column("id", sa.Uuid, nullable=False),
        sa.Column("session_id", sa.Text, nullable=False),
        sa.Column("text", sa.Text),
        sa.Column("parts", sa.ARRAY(sa.Uuid)),
        sa.PrimaryKeyConstraint("id"),
    )
    op.add_column("execution_events", sa.Column("history_id", sa.Uuid))
    if _postgresql():
        op.create_foreign_key("execution_events_history", "execution_events", "history_parts", ["history_id"], ["id"])
    op.execute(_POSTGRESQL_TEXT if _postgresql() else _DUCKDB_TEXT)


def downgrade() -> None:
    whole = _POSTGRESQL_WHOLE if _postgresql() else _DUCKDB_WHOLE
    op.execute(f"UPDATE execution_events SET attributes = {whole} WHERE history_id IS NOT NULL")  # noqa: S608 our own
    op.execute("DROP FUNCTION history_text" if _postgresql() else "DROP MACRO history_text")
    op.drop_column("execution_events", "history_id")
    op.drop_table("history_parts")


# The places of a text's pieces, list within list, put them in order.
_TEXT = """(
    WITH RECURSIVE piece (places, part_id) AS (
        SELECT CAST(ARRAY[] AS BIGINT[]), history_id
        UNION ALL
        SELECT array_append(places, place), member
        FROM (SELECT piece.places, unnest(list.parts) AS member, generate_subscripts(list.parts, 1) AS place
              FROM piece JOIN history_parts AS list ON list.id = piece.part_id WHERE list.text IS NULL) AS members
    )
    SELECT string_agg(part.text, '' ORDER BY piece.places)
    FROM piece JOIN history_parts AS part ON part.id = piece.part_id WHERE part.text IS NOT NULL
)"""

_DUCKDB_TEXT = f"CREATE MACRO history_text(history_id) AS {_TEXT}"
_POSTGRESQL_TEXT = f"CREATE FUNCTION history_text(history_id uuid) RETURNS text LANGUAGE sql STABLE RETURN {_TEXT}"

_POSTGRESQL_WHOLE = "attributes || CAST(history_text(history_id) AS JSONB)"
# What JSON cannot say, an event's `otlp_residue` says together with all its attributes.
_DUCKDB_WHOLE = """
    coalesce(CAST(try_cast('{' || concat_ws(',',
        nullif(CAST(CAST(attributes AS JSON) AS VARCHAR)[2:-2], ''), history_text(history_id)[2:-2]
    ) || '}' AS JSON) AS VARIANT), attributes)
"""
