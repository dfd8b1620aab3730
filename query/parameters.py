"""What a question may say, and how its text is read. What cannot be read raises ValueError and says what can."""

from __future__ import annotations

import re
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections import Counter
from contextvars import ContextVar
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Self
from uuid import UUID

import orjson
from fastapi import Path, Query, Request
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from ..storage.conventions import RUN_STATUSES
from ..storage.ids import event_id_text, parse_event_id, parse_run_id, run_id_text
from .errors import InvalidParameter, unknown_parameter

# All others may be given once.
GIVEN_OFTEN = frozenset({"run", "change"})
PAGE_ROWS_DEFAULT = 50
PAGE_ROWS_MAX = 1000
# Each file's event is looked up in the tree of its run.
FILE_EVENTS_MAX = 100
CONTENT_CHARACTERS = 2_000
# A tree is held as columns, attributes included, until it is sent.
ANSWER_EVENTS_MAX = 250_000

_NANOS = {"s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}
_RELATIVE = re.compile(rf"-(\d{{1,9}})([{''.join(_NANOS)}])", re.ASCII)
# What has a few digits more is a year, or seconds or milliseconds since 1970, given for nanoseconds.
_UNIX_NANO = re.compile(r"\d{1,3}|\d{17,19}", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
# A "+" that was not escaped in the URL arrives as a space.
_RFC_3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[-+ ]\d\d:\d\d)", re.ASCII)
_TWO_NUMBERS = re.compile(r"-?\d{1,19} -?\d{1,19}", re.ASCII)
_INT64_MAX = (1 << 63) - 1
_NUMBER = re.compile(r"\d{1,18}", re.ASCII)
_HEX_32 = re.compile(r"[0-9a-f]{32}")
_NO_CURSOR = "not a cursor of this server; pass next_cursor of the page before as it came"


# When the first page was asked for, of what is parsed just now.
_asked_at: ContextVar[int | None] = ContextVar("asked_at", default=None)


def parse_instant(text: str) -> int:
    """Nanoseconds since the epoch from RFC 3339, a date (its first moment in UTC), a whole number of nanoseconds, or a
    time before now such as `-1h`."""
    if relative := _RELATIVE.fullmatch(text):
        return max(0, (_asked_at.get() or time.time_ns()) - int(relative[1]) * _NANOS[relative[2]])
    if _UNIX_NANO.fullmatch(text):
        return min(int(text), _INT64_MAX)
    if _DATE.fullmatch(text):
        return _from_rfc_3339(text, "00:00:00", "", "Z")
    if stamp := _RFC_3339.fullmatch(text):
        return _from_rfc_3339(*stamp.groups(default=""))
    raise ValueError(
        f"{text[:80]!r} is not a time: use RFC 3339 (2026-01-31T12:00:00Z), a date, -30m, -1h, -7d, or nanoseconds "
        "since 1970, which have 19 digits"
    )


def _from_rfc_3339(day: str, clock: str, fraction: str, zone: str) -> int:
    offset = "+00:00" if zone in "Zz" else zone.replace(" ", "+")
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}{offset}")
    except ValueError as error:
        raise ValueError(
            f"'{day}T{clock}{zone}' is not a time that there is: use such as 2026-01-31T12:00:00Z"
        ) from error
    since_epoch = moment - datetime.fromtimestamp(0, UTC)
    seconds = since_epoch.days * 86400 + since_epoch.seconds
    return min(max(0, seconds * 10**9 + int(fraction.ljust(9, "0"))), _INT64_MAX)


class RunIdRange(BaseModel):
    """Every run id from `first` to `last`."""

    first: UUID
    last: UUID

    @classmethod
    def parse(cls, prefix: str) -> RunIdRange:
        """The ids that begin with these hex digits; dashes are accepted."""
        digits = prefix.replace("-", "")
        if not re.fullmatch(r"[0-9a-fA-F]{1,32}", digits):
            raise ValueError(f"{prefix[:80]!r} is not the beginning of a run id: 1 to 32 hex digits")
        return cls(first=UUID(digits.ljust(32, "0")), last=UUID(digits.ljust(32, "f")))


class EventCursor(BaseModel):
    """The last event of a page."""

    started_at_unix_nano: int
    id: int

    def text(self) -> str:
        return _opaque([self.started_at_unix_nano, event_id_text(self.id)])

    @classmethod
    def parse(cls, text: str) -> EventCursor:
        started_at, event_id = _from_opaque(text)
        return cls(started_at_unix_nano=started_at, id=parse_event_id(event_id))


class RowCursor(BaseModel):
    """The last row of a page: its time, and the key that tells it from others of the same time."""

    time_unix_nano: int
    key: int | UUID | str

    def text(self) -> str:
        key = run_id_text(self.key) if isinstance(self.key, UUID) else str(self.key)
        return _opaque([self.time_unix_nano, key])

    @classmethod
    def numbered(cls, text: str) -> RowCursor:
        """Of rows whose key is a number."""
        time_unix_nano, key = _from_opaque(text)
        if not _NUMBER.fullmatch(key):
            raise ValueError(_NO_CURSOR)
        return cls(time_unix_nano=time_unix_nano, key=int(key))

    @classmethod
    def hex(cls, text: str) -> RowCursor:
        """Of rows whose key is 32 hex digits."""
        time_unix_nano, key = _from_opaque(text)
        if not _HEX_32.fullmatch(key):
            raise ValueError(_NO_CURSOR)
        return cls(time_unix_nano=time_unix_nano, key=UUID(key))

    @classmethod
    def named(cls, text: str) -> RowCursor:
        """Of rows whose key is text."""
        time_unix_nano, key = _from_opaque(text)
        return cls(time_unix_nano=time_unix_nano, key=key)


class LogCursor(BaseModel):
    """The last log of a page."""

    moment: int
    log_index: int
    event_number: int

    def text(self) -> str:
        return _opaque([self.moment, f"{self.log_index} {self.event_number}"])

    @classmethod
    def parse(cls, text: str) -> LogCursor:
        moment, numbers = _from_opaque(text)
        if _TWO_NUMBERS.fullmatch(numbers):
            log_index, event_number = map(int, numbers.split())
            if max(abs(log_index), abs(event_number)) <= _INT64_MAX + 1:
                return cls(moment=moment, log_index=log_index, event_number=event_number)
        raise ValueError(_NO_CURSOR)


def _opaque(key: list[int | str]) -> str:
    return urlsafe_b64encode(orjson.dumps(key)).decode().rstrip("=")


def _from_opaque(text: str) -> tuple[int, str]:
    try:
        started_at, hex_id = orjson.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if isinstance(hex_id, str) and 0 <= started_at <= _INT64_MAX:
            return int(started_at), hex_id
    except (ValueError, TypeError):
        pass
    raise ValueError(_NO_CURSOR)


_TEXT = WithJsonSchema({"type": "string"})
_RUN_ID = WithJsonSchema({"type": "string", "examples": ["5b8efff798038103d269b633813fc60c"]})
_EVENT_ID = WithJsonSchema({"type": "string", "examples": ["eee19b7ec3c1b174"]})

RunId = Annotated[
    UUID, BeforeValidator(parse_run_id), _RUN_ID, Path(description="The run's id: 32 hex digits, dashes accepted.")
]
EventId = Annotated[
    int, BeforeValidator(parse_event_id), _EVENT_ID, Path(description="The event's id within its run: 16 hex digits.")
]
NodeId = Annotated[str, Path(description="The node's name within its run, such as `step_1`.")]
SessionId = Annotated[str, Path(description="The session's id.")]
Limit = Annotated[int, Field(ge=1, le=PAGE_ROWS_MAX, description="How many to answer with at most.")]
Instant = Annotated[int, BeforeValidator(parse_instant), _TEXT]


class Shape(StrEnum):
    """How a tree is written down."""

    FLAT = "flat"
    NESTED = "nested"


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ByPages(_Parameters):
    """What is asked for page by page. A time before now, such as `-1h`, means the same on every page: cursors bear when
    the first one was asked for, `CURSOR.NANOSECONDS`."""

    _asked_at: int = PrivateAttr(0)

    @model_validator(mode="wrap")
    @classmethod
    def _as_at_first(cls, said: Any, read: ModelWrapValidatorHandler[Self]) -> Self:
        cursor, _, asked_at = str(said.get("cursor") or "").rpartition(".") if isinstance(said, dict) else ("", "", "")
        is_told = bool(cursor) and _UNIX_NANO.fullmatch(asked_at) is not None
        first = _asked_at.set(min(int(asked_at), _INT64_MAX) if is_told else time.time_ns())
        try:
            wanted = read({**said, "cursor": cursor} if is_told else said)
            wanted._asked_at = _asked_at.get() or 0
        finally:
            _asked_at.reset(first)
        return wanted

    def next_cursor(self, place: str) -> str:
        """The cursor of the page behind this place."""
        return f"{place}.{self._asked_at}"


class StartedBetween(_Parameters):
    """From when to when what is meant started."""

    since: Instant | None = Field(
        None, description="Only what started then or later: RFC 3339, a date, nanoseconds since 1970, or `-1h`."
    )
    until: Instant | None = Field(None, description="Only what started before then, written as `since` is.")

    def model_post_init(self, context: Any) -> None:
        """Raises InvalidParameter where `since` is after `until`."""
        super().model_post_init(context)
        if self.since is not None and self.until is not None and self.since > self.until:
            raise InvalidParameter("since is after until: nothing can have started between them", parameter="since")


_CURSOR = Field(None, description="`next_cursor` of the page before.")
_NumberedCursor = Annotated[RowCursor, BeforeValidator(RowCursor.numbered), _TEXT]
_HexCursor = Annotated[RowCursor, BeforeValidator(RowCursor.hex), _TEXT]
_NamedCursor = Annotated[RowCursor, BeforeValidator(RowCursor.named), _TEXT]


class PageWanted(ByPages):
    """Which page of rows. What is listed says in `cursor` what its keys are."""

    limit: Limit = PAGE_ROWS_DEFAULT
    cursor: Annotated[RowCursor, WithJsonSchema({"type": "string"})] | None = _CURSOR


def _run_status(text: str) -> str:
    if text not in RUN_STATUSES:
        raise ValueError(f"no run is {text[:80]!r}; say one of {', '.join(RUN_STATUSES)}")
    return text


class RunsWanted(StartedBetween, PageWanted):
    """Which runs, and which page of them."""

    session_id: str | None = Field(None, description="Only runs of this session.")
    status: Annotated[str, AfterValidator(_run_status)] | None = Field(
        None, description="Only runs in this status: running, completed or failed."
    )
    agent: str | None = Field(None, description="Only runs in which this agent took part (the agent of any event).")
    id_prefix: Annotated[RunIdRange, BeforeValidator(RunIdRange.parse), _TEXT] | None = Field(
        None, description="Only runs whose id begins with these hex digits."
    )
    cursor: _HexCursor | None = _CURSOR


class EventsWanted(_Parameters):
    """Which events of a run, and which page of them."""

    event_type: str | None = Field(None, description="Only events of this type, such as `tool_call`.")
    agent_name: str | None = Field(None, description="Only events of this agent.")
    limit: Limit = PAGE_ROWS_DEFAULT
    cursor: Annotated[EventCursor, BeforeValidator(EventCursor.parse), _TEXT] | None = _CURSOR


class TreeWanted(_Parameters):
    """Which part of the tree, in which shape."""

    root: Annotated[int, BeforeValidator(parse_event_id), _EVENT_ID] | None = Field(
        None, description="Only this event and all below it: 16 hex digits."
    )
    limit: Annotated[int, Field(ge=1, le=ANSWER_EVENTS_MAX)] | None = Field(
        None, description="At most so many events, the first in depth-first order; `left_out` tells how many more."
    )
    shape: Shape = Field(
        Shape.FLAT, description="`flat`: one list, depth first; `nested`: each event with its `children`."
    )


class FilesWanted(PageWanted):
    """Which files of a run."""

    role: str | None = Field(None, description="Only files that were written (`output`) or read (`input`).")
    file_type: str | None = Field(None, description="Only files of this type, such as `code` or `plot`.")
    cursor: _HexCursor | None = _CURSOR


class MessagesWanted(PageWanted):
    """Which messages of a run, and how much of each."""

    sender: str | None = Field(None, description="Only messages from this sender.")
    recipient: str | None = Field(None, description="Only messages to this recipient.")
    agent_name: str | None = Field(None, description="Only messages of events of this agent.")
    full: bool = Field(False, description=f"Whole contents, instead of their first {CONTENT_CHARACTERS:,} characters.")
    cursor: _NumberedCursor | None = _CURSOR


def _log_type(text: str) -> str:
    from ..storage import EventType  # noqa: PLC0415 commands take times from here, and no schema

    types = [event_type.value for event_type in EventType]
    if text not in types:
        raise ValueError(f"no log is of type {text[:80]!r}; say one of {', '.join(types)}")
    return text


class LogsWanted(_Parameters):
    """Which logs of a run, and how much of each."""

    event_type: Annotated[str, AfterValidator(_log_type)] | None = Field(
        None, description="Only log records of this type, such as `ERROR`."
    )
    severity_number: int | None = Field(
        None, ge=0, le=24, description="Only log records at least as severe: OTel's number, 9 for INFO, 17 for ERROR."
    )
    full: bool = Field(False, description=f"Whole contents, not their first {CONTENT_CHARACTERS:,} characters.")
    limit: Limit = PAGE_ROWS_DEFAULT
    cursor: Annotated[LogCursor, BeforeValidator(LogCursor.parse), _TEXT] | None = _CURSOR


class CostsWanted(PageWanted):
    """Which cost records of a run."""

    source: str | None = Field(None, description="Only costs that were `reported` by the producer, or `estimated`.")
    cursor: _NumberedCursor | None = _CURSOR


class NodeEventsWanted(EventsWanted):
    """Which events of a node."""

    run_id: Annotated[UUID, BeforeValidator(parse_run_id), _RUN_ID] | None = Field(
        None, description="The run that has the node; else the latest run that has one of this name."
    )


class SessionsWanted(PageWanted):
    """Which sessions."""

    status: str | None = Field(None, description="Only sessions in this status.")
    cursor: _NamedCursor | None = _CURSOR


class FileEventsWanted(PageWanted):
    """Which file, or files."""

    path: str | None = Field(None, description="The file's path, as it was recorded.")
    path_prefix: str | None = Field(None, min_length=1, description="Every file whose path begins with this.")
    role: str | None = Field(None, description="Only events that wrote it (`output`) or read it (`input`).")
    limit: Annotated[int, Field(ge=1, le=FILE_EVENTS_MAX, description="How many to answer with at most.")] = (
        PAGE_ROWS_DEFAULT
    )
    cursor: _HexCursor | None = _CURSOR


async def none_unknown(request: Request) -> None:
    """Raises InvalidParameter for a parameter where the address takes none; where it takes some, its model refuses
    others."""
    if request.query_params and not request.scope["route"].dependant.query_params:
        raise unknown_parameter(next(iter(request.query_params)))


async def each_once(request: Request) -> None:
    """Raises InvalidParameter for a parameter that is given twice: which of them should count?"""
    given = Counter(name for name, _ in request.query_params.multi_items())
    for name, times in given.items():
        if times > 1 and name not in GIVEN_OFTEN:
            raise InvalidParameter(f"{name} is given {times} times; give it once", parameter=name)


RunsQuery = Annotated[RunsWanted, Query()]
EventsQuery = Annotated[EventsWanted, Query()]
TreeQuery = Annotated[TreeWanted, Query()]
FilesQuery = Annotated[FilesWanted, Query()]
MessagesQuery = Annotated[MessagesWanted, Query()]
LogsQuery = Annotated[LogsWanted, Query()]
CostsQuery = Annotated[CostsWanted, Query()]
NodeEventsQuery = Annotated[NodeEventsWanted, Query()]
SessionsQuery = Annotated[SessionsWanted, Query()]
FileEventsQuery = Annotated[FileEventsWanted, Query()]
