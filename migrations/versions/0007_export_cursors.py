"""How far what is sent on to other backends has come."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "export_cursors",
        sa.Column("target", sa.Text, nullable=False),
        sa.Column("signal", sa.Text, nullable=False),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("sent", sa.BigInteger, nullable=False),
        sa.Column("refused", sa.BigInteger, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.Column("last_error_at_unix_nano", sa.BigInteger),
        sa.Column("updated_at_unix_nano", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("target", "signal"),
    )


def downgrade() -> None:
    op.drop_table("export_cursors")
