"""The parts that histories are made of, and how they become text again; `storage.histories` says how they are cut."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ARRAY, Select, select
from sqlalchemy.orm import Mapped, mapped_column

from ..errors import StorageError
from .base import Base, HexUuid

# As many as the engine looks up by its index.
PARTS_AT_ONCE = 500


class HistoryPart(Base):
    """A part of what events of a session repeat, stored once: `text`, or the list of the `parts` that it is made of, in
    order. `id` is a hash of the session and of what the part holds. `session_id` is the one that the first event named
    that said it, or the id of that event's run where it named none."""

    __tablename__ = "history_parts"

    id: Mapped[str] = mapped_column(HexUuid, primary_key=True)
    session_id: Mapped[str]
    text: Mapped[str | None]
    parts: Mapped[list[str] | None] = mapped_column(ARRAY(HexUuid))


_PARTS: Any = HistoryPart.__table__

# Runs a statement and gives its rows, mappings by column.
Ask = Callable[[Select[Any]], Iterable[Any]]


class Histories:
    """The histories with these ids (None has none): the attributes that they stand for, each as the text of one JSON
    object. `ask` runs a statement. Raises StorageError where a part is missing."""

    def __init__(self, ask: Ask, ids: Iterable[str | None]) -> None:
        self._parts: dict[str, Any] = {}
        self._lengths: dict[str, int] = {}
        missing = sorted({history_id for history_id in ids if history_id is not None})
        while missing:
            for start in range(0, len(missing), PARTS_AT_ONCE):
                some = select(_PARTS).where(_PARTS.c.id.in_(missing[start : start + PARTS_AT_ONCE]))
                self._parts |= {row["id"]: row for row in ask(some)}
            missing = self._missing_in(missing)

    def length(self, history_id: str) -> int:
        """Of the text, in characters."""
        if history_id not in self._lengths:
            part = self._parts[history_id]
            self._lengths[history_id] = sum(map(self.length, part["parts"] or ())) + len(part["text"] or "")
        return self._lengths[history_id]

    def text(self, history_id: str) -> str:
        """The JSON object."""
        return "".join(self._texts(history_id))

    def _texts(self, part_id: str) -> Iterator[str]:
        part = self._parts[part_id]
        if part["text"] is not None:
            yield part["text"]
        for member in part["parts"] or ():
            yield from self._texts(member)

    def _missing_in(self, ids: list[str]) -> list[str]:
        """The parts that these consist of and that are not read yet."""
        if not self._parts.keys() >= set(ids):
            raise StorageError(
                "a history lacks a part; restore the database from a copy made before parts were deleted"
            )
        return sorted({part for part_id in ids for part in self._parts[part_id]["parts"] or ()} - self._parts.keys())


def with_histories(ask: Ask, events: Sequence[Any]) -> Iterator[Any]:
    """Rows of events (mappings by column, `attributes` as a dict), each with its attributes as they came. `ask` runs a
    statement. Raises StorageError where a part is missing."""
    histories = Histories(ask, (event["history_id"] for event in events))
    for event in events:
        if event["history_id"] is None:
            yield event
        else:
            repeated = json.loads(histories.text(event["history_id"]))
            yield {**event, "attributes": event["attributes"] | repeated}
