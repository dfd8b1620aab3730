"""What a search answers, for the documentation at /docs; as `answers` has the rest."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .answers import Answer, Cursor, Event, Hex32, Run, UnixNano

SearchedTo = Annotated[
    UnixNano | None,
    Field(description="Where the search stopped for now, before the page was full; `next_cursor` goes on from there."),
]


class RunBrief(Answer):
    """Which run it was."""

    id: Hex32
    session_id: str
    name: str | None
    agent: str | None


class FoundEvent(Event):
    """An event and its run. Its place in the run's tree is null: ask the tree for it."""

    run: RunBrief


class FoundEvents(Answer):
    """Events by start, newest first, then by run id and id."""

    events: list[FoundEvent]
    searched_to_unix_nano: SearchedTo
    next_cursor: Cursor


class FoundRuns(Answer):
    """Runs by start, newest first, then by id."""

    runs: list[Run]
    searched_to_unix_nano: SearchedTo
    next_cursor: Cursor
