"""The address of what is committed, as it is committed: server-sent events.

A stream looks at the stamp of the last commit ten times a second, in memory, and asks the database when it has risen.
So the writer does nothing for those who watch, and many commits at once are one question. A page is asked for once the
one before it has been sent: a client that reads slowly falls behind, and goes on from there by its cursor.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic, time_ns
from typing import Annotated, Any
from uuid import UUID

import orjson
from anyio import sleep
from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema
from sqlalchemy import ColumnElement

from ..storage import StorageError, parse_run_id
from .api import ERRORS, Ask
from .asking import Asker
from .errors import ApiError, Busy, InvalidParameter
from .events import EVENTS
from .filter import EVERYTHING, parse
from .filter_sql import of_events
from .live import LiveCursor, LivePage, live_page
from .parameters import Instant

STREAMS_MAX = 32
LOOK_EVERY_S = 0.1
HEARTBEAT_S = 15.0
RETRY_MS = 1_000

# A proxy on the way neither keeps nor gathers what is told.
_AS_IT_COMES = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_TEXT = WithJsonSchema({"type": "string"})

live = APIRouter(prefix="/api", responses=ERRORS, tags=["live"])


class LiveWanted(BaseModel):
    """What to tell of."""

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    filter: Annotated[Any, BeforeValidator(parse), _TEXT] = Field(
        EVERYTHING, description="Only events that this filter means, in the language of /api/search."
    )
    run_id: Annotated[UUID, BeforeValidator(parse_run_id), _TEXT] | None = Field(
        None, description="Only events of this run: 32 hex digits."
    )
    since: Instant | None = Field(
        None,
        description="Begin with what was committed then or later: RFC 3339, a date, nanoseconds since 1970, or `-5m`.",
    )

    def conditions(self) -> list[ColumnElement[bool]]:
        """What an event has to meet."""
        meant = of_events(self.filter)
        return [meant] if self.run_id is None else [meant, EVENTS.c.run_id == self.run_id]


class Streams:
    """The live streams of an application: a bounded number of them, which end together."""

    def __init__(self) -> None:
        self.over = False
        self._open = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one stream. Raises Busy where there is none."""
        if self._open >= STREAMS_MAX:
            raise Busy(f"{STREAMS_MAX} live streams are open, as many as may be; close one or try again later")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1

    def end(self) -> None:
        """Ends them all at their next look. Any thread may."""
        self.over = True


async def _placed(request: Request) -> AsyncIterator[Streams]:
    streams: Streams = request.app.state.streams
    with streams.place():
        yield streams


Placed = Annotated[Streams, Depends(_placed)]
LastEventId = Annotated[
    str | None, Header(description="The last id that came: the stream goes on after it, whatever `since` says.")
]


@live.get(
    "/live",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}, "description": "A stream without end."}},
    summary="Runs and events as they are committed",
)
async def follow(
    asker: Ask, streams: Placed, wanted: Annotated[LiveWanted, Query()], last_event_id: LastEventId = None
) -> StreamingResponse:
    """Server-sent events. `event` is an event as /api/search shows it: with its run, without its place in the tree,
    which still grows; one that was told while it was open comes again when it has ended. `run` is the run of events to
    come, as it is now. `gap` says that something may be missing, `failed` why the stream ends.
    Without `since` and `Last-Event-ID` the stream begins now."""
    stream = _Stream(asker, streams, wanted.conditions())
    told = stream.told(_begin(wanted, last_event_id, asker))
    return StreamingResponse(told, media_type="text/event-stream", headers=_AS_IT_COMES)


def _begin(wanted: LiveWanted, last_event_id: str | None, asker: Asker) -> LiveCursor:
    now = asker.store.commits.last
    if not last_event_id:
        return LiveCursor(now if wanted.since is None else max(0, min(now, wanted.since - 1)))
    try:
        return LiveCursor.parse(last_event_id)
    except ValueError as error:
        raise InvalidParameter(f"Last-Event-ID: {error}", parameter="Last-Event-ID") from error


class _Stream:
    """What one client is told."""

    def __init__(self, asker: Asker, streams: Streams, conditions: Sequence[ColumnElement[bool]]) -> None:
        self._asker = asker
        self._commits = asker.store.commits
        self._streams = streams
        self._conditions = conditions

    async def told(self, cursor: LiveCursor) -> AsyncIterator[bytes]:
        """The stream from the cursor on. An id without data is a heartbeat that moves the client's cursor."""
        if cursor.stored_at_unix_nano > max(self._commits.last, time_ns()):  # commits to come may be earlier than that
            cursor = LiveCursor(self._commits.last)
            yield _message("gap", _GAP)
        yield format_sse_event(id=cursor.text(), retry=RETRY_MS)
        try:
            async for page in self._pages(cursor):
                yield page
        except (ApiError, StorageError) as error:
            yield _message("failed", {"message": str(error)})

    async def _pages(self, cursor: LiveCursor) -> AsyncIterator[bytes]:
        is_behind, spoke_at = True, monotonic()
        while not self._streams.over:
            if is_behind or self._commits.last > cursor.stored_at_unix_nano:
                page = await self._page(cursor)
                cursor, is_behind = page.next, page.is_full
                if page.events:
                    yield _page_text(page)
                    spoke_at = monotonic()
            if monotonic() - spoke_at >= HEARTBEAT_S:
                yield format_sse_event(id=cursor.text(), comment="still here")
                spoke_at = monotonic()
            if not is_behind:
                await sleep(LOOK_EVERY_S)

    async def _page(self, cursor: LiveCursor) -> LivePage:
        while True:
            try:
                return await self._asker.ask(live_page, cursor, self._commits.last, self._conditions)
            except Busy:  # those who ask once go first
                await sleep(LOOK_EVERY_S)


_GAP = {
    "message": "the last id that came is of the future: the database is another one, or its clock was put back. The "
    "stream begins now; what was committed before may be missing, and can be had with ?since="
}


def _page_text(page: LivePage) -> bytes:
    """The page's runs without ids, since their events are still to come, then its events."""
    told = [format_sse_event(event="run", data_str=run) for run in page.runs]
    told += [format_sse_event(event="event", id=at.text(), data_str=event) for at, event in page.events]
    return b"".join(told)


def _message(event: str, content: Any) -> bytes:
    return format_sse_event(event=event, data_str=orjson.dumps(content).decode())
