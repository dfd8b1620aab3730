"""What a search may say."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from ..storage.ids import event_id_text, run_id_text
from .filter import EVERYTHING, parse
from .parameters import PAGE_ROWS_DEFAULT, ByPages, Limit, StartedBetween

_CURSOR = re.compile(r"(\d{1,19})-([0-9a-f]{32})-([0-9a-f]{16})", re.ASCII)
_INT64_MAX = (1 << 63) - 1
_TEXT = WithJsonSchema({"type": "string"})
_FILTER = WithJsonSchema({"type": "string", "examples": ['agent = "engineer" and duration > 250ms']})


class SearchedFor(StrEnum):
    """What a search is for."""

    EVENTS = "events"
    RUNS = "runs"


class SearchCursor(BaseModel):
    """A place in the order of a search: newest first, then by run id and event id, falling. What has been told stands
    before it or at it. Without ids, which no run has, it is the end of all that started at that time."""

    started_at_unix_nano: int
    run_id: UUID = UUID(int=0)
    event_id: int = -(1 << 63)

    @property
    def latest_start(self) -> int:
        """When what comes after it may have started at the latest."""
        return self.started_at_unix_nano if self.run_id.int else self.started_at_unix_nano - 1

    def text(self) -> str:
        return f"{self.started_at_unix_nano}-{run_id_text(self.run_id)}-{event_id_text(self.event_id)}"

    @classmethod
    def parse(cls, text: str) -> SearchCursor:
        """The cursor of that text. Raises ValueError."""
        found = _CURSOR.fullmatch(text)
        if found is None or int(found[1]) > _INT64_MAX:
            raise ValueError("not a cursor of this server; pass next_cursor of the page before as it came")
        event_id = int.from_bytes(bytes.fromhex(found[3]), "big", signed=True)
        return cls(started_at_unix_nano=int(found[1]), run_id=UUID(found[2]), event_id=event_id)


class SearchWanted(StartedBetween, ByPages):
    """What is searched for, and which page of it."""

    searched_for: SearchedFor = Field(
        SearchedFor.EVENTS, alias="for", description="`events`, or the `runs` that have one that is meant."
    )
    filter: Annotated[Any, BeforeValidator(parse), _FILTER] = Field(
        EVERYTHING, description="Which events are meant, in the filter language; all where it is left out."
    )
    limit: Limit = PAGE_ROWS_DEFAULT
    cursor: Annotated[SearchCursor, BeforeValidator(SearchCursor.parse), _TEXT] | None = Field(
        None, description="`next_cursor` of the page before."
    )


SearchQuery = Annotated[SearchWanted, Query()]
