"""Which event it was, in few words: beside what belongs to an event, such as a file or a message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import select

from ..storage import Reader, Row, parse_event_id
from .events import EVENTS, of_run, one_of

_WORDS = ("id", "name", "event_type", "agent_name")


def event_briefs(reader: Reader, run: Row, event_ids: Iterable[str | None]) -> dict[str | None, Any]:
    """Each event's id, name, type and agent. Null for None; just the id of an event that has not come yet."""
    known = {event_id for event_id in event_ids if event_id is not None}
    briefs: dict[str | None, Any] = {event_id: dict.fromkeys(_WORDS) | {"id": event_id} for event_id in known}
    numbers = [parse_event_id(event_id) for event_id in known]
    columns = [EVENTS.c[word] for word in _WORDS]
    found = reader.rows(select(*columns).where(of_run(EVENTS, run), one_of(EVENTS.c.id, numbers))) if known else ()
    return briefs | {row["id"]: dict(row) for row in found} | {None: None}
