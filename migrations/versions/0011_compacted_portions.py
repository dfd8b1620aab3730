"""Which keys the attributes of compacted events have. Of those compacted before, nothing is known."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "compacted_portions",
        sa.Column("compacted_at_unix_nano", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attribute_keys", sa.ARRAY(sa.Text)),
    )
    op.execute(
        "INSERT INTO compacted_portions (compacted_at_unix_nano) "
        "SELECT DISTINCT compacted_at_unix_nano FROM execution_events WHERE compacted_at_unix_nano IS NOT NULL"
    )


def downgrade() -> None:
    op.drop_table("compacted_portions")
