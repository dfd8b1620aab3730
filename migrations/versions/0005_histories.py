"""Histories: long attributes that repeat a conversation, in parts that are stored once."""

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


def downgrade() -> None:
    op.execute(_POSTGRESQL_WHOLE if _postgresql() else _DUCKDB_WHOLE)
    op.drop_column("execution_events", "history_id")
    op.drop_table("history_parts")


# The places of a text's pieces, list within list, put them in order.
_HISTORIES = """
    WITH RECURSIVE piece (history_id, places, part_id) AS (
        SELECT DISTINCT history_id, CAST(ARRAY[] AS BIGINT[]), history_id
        FROM execution_events WHERE history_id IS NOT NULL
        UNION ALL
        SELECT history_id, array_append(places, place), member
        FROM (SELECT piece.history_id, piece.places, unnest(list.parts) AS member,
                     generate_subscripts(list.parts, 1) AS place
              FROM piece JOIN history_parts AS list ON list.id = piece.part_id WHERE list.text IS NULL) AS members
    ), history (id, attributes) AS (
        SELECT piece.history_id, string_agg(part.text, '' ORDER BY piece.places)
        FROM piece JOIN history_parts AS part ON part.id = piece.part_id WHERE part.text IS NOT NULL
        GROUP BY piece.history_id
    )
"""

_POSTGRESQL_WHOLE = f"""
    {_HISTORIES}
    UPDATE execution_events SET attributes = execution_events.attributes || CAST(history.attributes AS JSONB)
    FROM history WHERE history.id = execution_events.history_id
"""  # noqa: S608 our own names

# What JSON cannot say, an event's `otlp_residue` says together with all its attributes.
_DUCKDB_WHOLE = f"""
    UPDATE execution_events SET attributes = whole.attributes
    FROM (
        {_HISTORIES}
        SELECT run_id, e.id, coalesce(CAST(try_cast('{{' || concat_ws(',',
            nullif(CAST(CAST(e.attributes AS JSON) AS VARCHAR)[2:-2], ''), history.attributes[2:-2]
        ) || '}}' AS JSON) AS VARIANT), e.attributes) AS attributes
        FROM execution_events e JOIN history ON history.id = e.history_id
    ) AS whole
    WHERE whole.run_id = execution_events.run_id AND whole.id = execution_events.id
"""  # noqa: S608 our own names
