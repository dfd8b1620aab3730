"""How many logs and links came within a span, beside its event; and whether the events of a new run have no others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workflow_runs", sa.Column("parts_counted", sa.Boolean))
    op.add_column("execution_events", sa.Column("span_event_count", sa.BigInteger))
    op.add_column("execution_events", sa.Column("span_link_count", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("execution_events", "span_link_count")
    op.drop_column("execution_events", "span_event_count")
    op.drop_column("workflow_runs", "parts_counted")
