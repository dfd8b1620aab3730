"""The cursors of what is sent on: small writes on connections of their own, beside those of the writer.

They touch no row that ingest touches, so neither waits for the other but for the disk.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from .errors import WriteFailed
from .schema import ExportCursor


class ExportCursors:
    """All cursors of a database. Any thread may ask; each cursor has one that saves it. What is given is a copy."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def all(self) -> Sequence[ExportCursor]:
        """Those of all targets that there ever were, by target and signal."""
        with Session(self._engine) as session:
            cursors = session.scalars(select(ExportCursor).order_by(ExportCursor.target, ExportCursor.signal)).all()
            session.expunge_all()
            return cursors

    def save(self, *cursors: ExportCursor) -> None:
        """Makes them durable, in one transaction. Raises WriteFailed."""
        try:
            with Session(self._engine) as session, session.begin():
                for cursor in cursors:
                    session.merge(cursor)
        except (DBAPIError, duckdb.Error) as error:
            raise WriteFailed(f"the cursor of an export is not stored: {error}") from error
