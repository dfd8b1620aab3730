"""What is known of the events that were compacted together, told by when."""

from __future__ import annotations

from sqlalchemy import ARRAY, LargeBinary, Text
from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class CompactedPortion(Base):
    """Events that were compacted together. `attribute_keys`: the keys of their attributes, no event has another; NULL
    where they are not known."""

    __tablename__ = "compacted_portions"

    compacted_at_unix_nano: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attribute_keys: Mapped[list[str] | None] = mapped_column(ARRAY(Text))


class TextFilter(Base):
    """Which texts the attributes of this key are in a portion, as a Bloom filter (`storage.bloom`). A portion has one
    for each of its keys, or none yet."""

    __tablename__ = "text_filters"

    compacted_at_unix_nano: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attribute_key: Mapped[str] = mapped_column(Text, primary_key=True)
    text_filter: Mapped[bytes] = mapped_column(LargeBinary)
