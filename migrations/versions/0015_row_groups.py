"""A file whose events are still to come says that its row groups have 8,192 rows; those made before keep 4,096."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    events = op.get_bind().execute(sa.text("SELECT 1 FROM execution_events LIMIT 1"))
    if events.first() is None:
        op.execute("COMMENT ON TABLE execution_events IS 'row groups of 8192 rows'")


def downgrade() -> None:
    op.execute("COMMENT ON TABLE execution_events IS NULL")
