"""When an event was compacted: see `clew.storage.compacting`."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("execution_events", sa.Column("compacted_at_unix_nano", sa.BigInteger))


def downgrade() -> None:
    op.drop_column("execution_events", "compacted_at_unix_nano")
