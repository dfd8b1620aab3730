"""Histories where they are stored, as parts (see `histories`): which say something, and which parts nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, Text, and_, bindparam, func, literal, select, text

from .histories import MARKS
from .schema import ExecutionEvent, HistoryPart

_EVENTS: Any = ExecutionEvent.__table__
_PARTS: Any = HistoryPart.__table__


def histories_that_say(said: str) -> ColumnElement[bool]:
    """The condition over `execution_events` that its history has this in it, as it stands in JSON, in whatever case."""
    pieces = list(_pieces_at_marks(said))
    held = and_(*(_EVENTS.c.history_id.in_(_parts_with(piece)) for piece in pieces))
    if len(pieces) == 1:
        return held
    return and_(held, _says(func.history_text(_EVENTS.c.history_id), said))


def _pieces_at_marks(said: str) -> Iterator[str]:
    """What is surely within one part, wherever a text that has all of it was cut."""
    whole = said.encode()
    for start, end in pairwise([0, *(mark.start() for mark in MARKS.finditer(whole, 1)), len(whole)]):
        yield whole[start:end].decode()


def _parts_with(piece: str) -> Select[Any]:
    """The ids of parts that say it, and of the lists that lead to them."""
    held = select(_PARTS.c.id).where(_says(_PARTS.c.text, piece)).cte(recursive=True)
    lists = select(_PARTS.c.id, func.unnest(_PARTS.c.parts).label("part")).subquery()
    held = held.union(select(lists.c.id).join(held, lists.c.part == held.c.id))
    return select(held.c.id)


def _says(held: ColumnElement[Any], said: str) -> ColumnElement[bool]:
    return func.contains(func.lower(held), func.lower(literal(said, Text)))


def sessions_of(connection: Connection, condition: ColumnElement[bool]) -> list[str]:
    """Whose parts the histories of the events are made of for which `condition` holds."""
    histories = select(_EVENTS.c.history_id).where(condition, _EVENTS.c.history_id.is_not(None))
    return list(connection.scalars(select(_PARTS.c.session_id).where(_PARTS.c.id.in_(histories)).distinct()))


def sweep(connection: Connection, sessions: list[str]) -> None:
    """Deletes the sessions' parts that no event needs, in the connection's transaction."""
    if sessions:
        connection.execute(_SWEEP, {"sessions": sessions})


_SWEEP = text("""
    DELETE FROM history_parts WHERE session_id IN :sessions AND id NOT IN (
        WITH RECURSIVE needed (id) AS (
            SELECT history_id FROM execution_events WHERE history_id IS NOT NULL
            UNION
            SELECT unnest(list.parts) FROM needed JOIN history_parts AS list ON list.id = needed.id
            WHERE list.session_id IN :sessions
        )
        SELECT id FROM needed
    )
""").bindparams(bindparam("sessions", expanding=True))
