"""What compaction knows of the events that it has rewritten."""

from __future__ import annotations

from sqlalchemy import ARRAY, Text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class CompactedPortion(Base):
    """Events that were compacted together, told by when. `attribute_keys`: the keys of their attributes, no event has
    another; NULL where they are not known."""

    __tablename__ = "compacted_portions"

    compacted_at_unix_nano: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attribute_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
