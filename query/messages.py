"""The messages of a run. Contents are cut after CONTENT_CHARACTERS characters unless asked for in full."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, func, select

from ..storage import Message, Reader, Row
from .errors import AnswerTooLarge
from .event_brief import event_briefs
from .events import EVENTS, of_run, one_of
from .paging import Order
from .parameters import CONTENT_CHARACTERS, MessagesWanted
from .runs import find_run

# More than one request may bring, so that no message is too long to be had alone.
FULL_CHARACTERS_MAX = 1 << 27

MESSAGES: Any = Message.__table__

_NAMES = ("id", "sender", "recipient", "role", "content", "content_length", "tokens", "node_id", "step_id")


def message_page(reader: Reader, run_id: UUID, wanted: MessagesWanted) -> dict[str, Any]:
    """`{"messages": [...], "next_cursor": ...}`, in order of time. Raises NotFound, and AnswerTooLarge where full
    contents are more than an answer may hold."""
    run = find_run(reader, run_id)
    statement = messages_cut().where(MESSAGES.c.run_id == run_id, *_filters(run, wanted))
    rows, next_cursor = Order(MESSAGES.c.time_unix_nano, MESSAGES.c.id).page(reader, statement, wanted)
    messages = [message_json(row) for row in rows]
    events = event_briefs(reader, run, (row["event_id"] for row in rows))
    for message, row in zip(messages, rows, strict=True):
        message["event"] = events[row["event_id"]]
    if wanted.full:
        _complete(reader, messages)
    return {"messages": messages, "next_cursor": next_cursor}


def messages_cut() -> Select[Any]:
    """Messages for `message_json`, their contents cut."""
    columns = [column for column in MESSAGES.c if column.name not in {"content", "content_hash", "meta"}]
    content = func.left(MESSAGES.c.content, CONTENT_CHARACTERS).label("content")
    return select(*columns, content, func.length(MESSAGES.c.content).label("content_length"))


def message_json(row: Row) -> dict[str, Any]:
    """What the row of a message says of the message itself."""
    return {name: row[name] for name in _NAMES} | {"time_unix_nano": str(row["time_unix_nano"])}


def _filters(run: Row, wanted: MessagesWanted) -> list[ColumnElement[bool]]:
    named = [(name, getattr(wanted, name)) for name in ("sender", "recipient")]
    filters: list[ColumnElement[bool]] = [MESSAGES.c[name] == value for name, value in named if value is not None]
    if wanted.agent_name is not None:
        of_agent = select(EVENTS.c.id).where(of_run(EVENTS, run), EVENTS.c.agent_name == wanted.agent_name)
        filters.append(MESSAGES.c.event_id.in_(of_agent))
    return filters


def _complete(reader: Reader, messages: list[dict[str, Any]]) -> None:
    """Gives the messages that were cut their whole contents."""
    characters = sum(message["content_length"] for message in messages)
    if characters > FULL_CHARACTERS_MAX:
        told = f"the contents have {characters:,} characters, an answer {FULL_CHARACTERS_MAX:,} at most"
        raise AnswerTooLarge(f"{told}; ask for fewer messages with ?limit=", parameter="full")
    cut = [message["id"] for message in messages if message["content_length"] > CONTENT_CHARACTERS]
    rows = reader.rows(select(MESSAGES.c.id, MESSAGES.c.content).where(one_of(MESSAGES.c.id, cut))) if cut else ()
    whole = {row["id"]: row["content"] for row in rows}
    for message in messages:
        message["content"] = whole.get(message["id"], message["content"])
