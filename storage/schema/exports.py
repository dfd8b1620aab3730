"""How far what is sent on to other backends has come."""

from __future__ import annotations

from sqlalchemy.orm import Mapped, mapped_column

from .base import Base


class ExportCursor(Base):
    """How much of a signal (`traces`, `logs` or `metrics`) a target has answered for: everything up to `position`, a
    place in the order of commits. `target` is its name, not its address: it may move. What it sent before it was taken
    out of the configuration stays, for when it comes back. `last_error` is NULL while all is well."""

    __tablename__ = "export_cursors"

    target: Mapped[str] = mapped_column(primary_key=True)
    signal: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[str]
    sent: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    last_error: Mapped[str | None]
    last_error_at_unix_nano: Mapped[int | None]
    updated_at_unix_nano: Mapped[int]
