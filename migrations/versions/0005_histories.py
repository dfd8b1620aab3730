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
        op.execute(f"CREATE FUNCTION {_POSTGRESQL_HEAD} RETURN {_text(_POSTGRESQL_MEMBERS)}")
    else:
        op.execute(f"CREATE MACRO history_text(history_id) AS {_text(_DUCKDB_MEMBERS)}")


def downgrade() -> None:
    whole = _POSTGRESQL_WHOLE if _postgresql() else _DUCKDB_WHOLE
    op.execute(f"UPDATE execution_events SET attributes = {whole} WHERE history_id IS NOT NULL")  # noqa: S608 our own
    op.execute("DROP FUNCTION history_text" if _postgresql() else "DROP MACRO history_text")
    op.drop_column("execution_events", "history_id")
    op.drop_table("history_parts")


def _text(members: str) -> str:
    """The text of a history. `members` are those of each `piece` that is a list, with their places; these
    places, list within list, put the pieces in order."""
    return f"""(
        WITH RECURSIVE piece (places, part_id) AS (
            SELECT CAST(ARRAY[] AS BIGINT[]), history_id
            UNION ALL
            {members}
        )
        SELECT string_agg(part.text, '' ORDER BY piece.places)
        FROM piece JOIN history_parts AS part ON part.id = piece.part_id WHERE part.text IS NOT NULL
    )"""  # noqa: S608 our own names


_DUCKDB_MEMBERS = """
    SELECT array_append(places, member.place), member.part_id
    FROM (SELECT piece.places, unnest(list_transform(list.parts, lambda p, i: {'part_id': p, 'place': i})) AS member
          FROM piece JOIN history_parts AS list ON list.id = piece.part_id WHERE list.text IS NULL) AS members
"""
_POSTGRESQL_MEMBERS = """
    SELECT array_append(places, CAST(place AS BIGINT)), part_id
    FROM (SELECT piece.places, unnest(list.parts) AS part_id, generate_subscripts(list.parts, 1) AS place
          FROM piece JOIN history_parts AS list ON list.id = piece.part_id WHERE list.text IS NULL) AS members
"""
_POSTGRESQL_HEAD = "history_text(history_id uuid) RETURNS text LANGUAGE sql STABLE"

_POSTGRESQL_WHOLE = "attributes || CAST(history_text(history_id) AS JSONB)"
# What JSON cannot say, an event's `otlp_residue` says together with all its attributes.
_DUCKDB_WHOLE = """
    coalesce(CAST(try_cast('{' || concat_ws(',',
        nullif(CAST(CAST(attributes AS JSON) AS VARCHAR)[2:-2], ''), history_text(history_id)[2:-2]
    ) || '}' AS JSON) AS VARIANT), attributes)
"""
