"""Whose usage counts, beside the events: see `clew.storage.counting`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workflow_runs", sa.Column("revision", sa.BigInteger, server_default="0"))
    op.add_column("workflow_runs", sa.Column("usage_revision", sa.BigInteger))
    op.add_column("execution_events", sa.Column("usage_counts", sa.Boolean))
    op.add_column("execution_events", sa.Column("usage_agent_name", sa.Text))


def downgrade() -> None:
    op.drop_column("execution_events", "usage_agent_name")
    op.drop_column("execution_events", "usage_counts")
    op.drop_column("workflow_runs", "usage_revision")
    op.drop_column("workflow_runs", "revision")
