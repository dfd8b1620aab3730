"""When log records and metric points were stored: the order of commits."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_TABLES = ("event_logs", "workflow_metrics")


def upgrade() -> None:
    for table in _TABLES:
        op.add_column(table, sa.Column("stored_at_unix_nano", sa.BigInteger))


def downgrade() -> None:
    for table in _TABLES:
        op.drop_column(table, "stored_at_unix_nano")
