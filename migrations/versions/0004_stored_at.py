"""When an event was stored: the order of commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("execution_events", sa.Column("stored_at_unix_nano", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("execution_events", "stored_at_unix_nano")
