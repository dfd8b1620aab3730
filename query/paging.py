"""Pages of rows: each goes on where the one before ended, so that none is met twice however many arrive meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_

from ..storage import Reader, Row
from .parameters import PageWanted, RowCursor


@dataclass(frozen=True)
class Order:
    """The order that pages follow: by the column `time`, then by the column `key`, which tells rows apart; both rising,
    or both falling with `newest_first`."""

    time: Any
    key: Any
    newest_first: bool = False

    def page(self, reader: Reader, statement: Select[Any], wanted: PageWanted) -> tuple[Sequence[Row], str | None]:
        """The rows of `statement` (which selects both columns) on the page, and the text of its cursor: None on the
        last page."""
        if wanted.cursor is not None:
            statement = statement.where(self._beyond(wanted.cursor))
        found = reader.rows(statement.order_by(*self._columns()).limit(wanted.limit + 1))
        page = found[: wanted.limit]
        if len(found) == len(page):
            return page, None
        last = RowCursor(time_unix_nano=page[-1][self.time.name], key=page[-1][self.key.name])
        return page, wanted.next_cursor(last.text())

    def _columns(self) -> tuple[Any, Any]:
        return (self.time.desc(), self.key.desc()) if self.newest_first else (self.time, self.key)

    def _beyond(self, last: RowCursor) -> ColumnElement[bool]:
        time, key = last.time_unix_nano, last.key
        if self.newest_first:
            return and_(self.time <= time, or_(self.time < time, self.key < key))
        return and_(self.time >= time, or_(self.time > time, self.key > key))
