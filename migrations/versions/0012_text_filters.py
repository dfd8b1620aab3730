"""Which texts the attributes of compacted events are. Of those compacted before it is worked out between writes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "text_filters",
        sa.Column("compacted_at_unix_nano", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("attribute_key", sa.Text, primary_key=True),
        sa.Column("text_filter", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("text_filters")
