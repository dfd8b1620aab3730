"""The logs of a run: moments within its events, and log records. Contents are cut after CONTENT_CHARACTERS characters
unless asked for in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import BigInteger, ColumnElement, Select, case, func, literal, select, tuple_, type_coerce

from ..storage import Reader, Row
from .attribute_json import exact_attributes_text
from .errors import AnswerTooLarge
from .events import LOGS, json_text, of_run, one_of
from .messages import FULL_CHARACTERS_MAX
from .parameters import CONTENT_CHARACTERS, LogCursor, LogsWanted
from .runs import find_run

_SHOWN = ("log_index", "name", "event_type", "agent_role", "severity_number", "severity_text", "content")

# When it happened; a record that does not say has been placed where it was observed, or came.
MOMENT = case((LOGS.c.log_index < 0, LOGS.c.event_started_at_unix_nano), else_=LOGS.c.time_unix_nano)
# Logs of different events may share moment and index.
IN_TIME = (MOMENT, LOGS.c.log_index, func.coalesce(type_coerce(LOGS.c.event_id, BigInteger), 0))
_KEY = (IN_TIME[0].label("moment"), IN_TIME[2].label("event_number"))


def log_page(reader: Reader, run_id: UUID, wanted: LogsWanted) -> dict[str, Any]:
    """`{"logs": [...], "next_cursor": ...}`, in order of time. Raises NotFound, and AnswerTooLarge where full contents
    are more than an answer may hold."""
    run = find_run(reader, run_id)
    length = func.length(LOGS.c.content).label("content_length")
    statement = log_rows(func.left(LOGS.c.content, CONTENT_CHARACTERS), length, *_KEY)
    found = reader.rows(
        statement.where(of_run(LOGS, run, start="event_started_at_unix_nano"), *_filters(wanted))
        .order_by(*IN_TIME)
        .limit(wanted.limit + 1)
    )
    page = found[: wanted.limit]
    logs = [{"event_id": row["event_id"], **log_json(row), "content_length": row["content_length"]} for row in page]
    if wanted.full:
        _complete(reader, run, logs)
    cursor = LogCursor(**{name: page[-1][name] for name in LogCursor.model_fields}) if len(found) > len(page) else None
    return {"logs": logs, "next_cursor": cursor and cursor.text()}


def log_rows(content: ColumnElement[Any], *more: ColumnElement[Any]) -> Select[Any]:
    """Logs for `log_json`, with this of their content."""
    columns = [column for column in LOGS.c if column.name not in {"attributes", "content"}]
    return select(*columns, json_text(LOGS.c.attributes).label("attributes"), content.label("content"), *more)


def log_json(row: Row) -> dict[str, Any]:
    """What the row of a log says of itself."""
    owner = LogRecord if row["log_index"] < 0 else Span.Event
    attributes = exact_attributes_text(row["attributes"], row["otlp_residue"], owner)
    observed = row["observed_time_unix_nano"]
    return {
        **{name: row[name] for name in _SHOWN},
        "time_unix_nano": str(row["time_unix_nano"]),
        "observed_time_unix_nano": None if observed is None else str(observed),
        "dropped_attributes_count": row["dropped_attributes_count"],
        "attributes": orjson.Fragment(attributes),
    }


def _filters(wanted: LogsWanted) -> list[ColumnElement[bool]]:
    filters: list[ColumnElement[bool]] = []
    if wanted.event_type is not None:
        filters.append(LOGS.c.event_type == wanted.event_type)
    if wanted.severity_number is not None:
        filters.append(LOGS.c.severity_number >= wanted.severity_number)
    if wanted.cursor is not None:
        last = (wanted.cursor.moment, wanted.cursor.log_index, wanted.cursor.event_number)
        filters.append(tuple_(*IN_TIME) > tuple_(*map(literal, last)))
    return filters


def _complete(reader: Reader, run: Row, logs: Sequence[dict[str, Any]]) -> None:
    """Gives the logs that were cut their whole contents."""
    characters = sum(log["content_length"] or 0 for log in logs)
    if characters > FULL_CHARACTERS_MAX:
        told = f"the contents have {characters:,} characters, an answer {FULL_CHARACTERS_MAX:,} at most"
        raise AnswerTooLarge(f"{told}; ask for fewer logs with ?limit=", parameter="full")
    cut = [log["log_index"] for log in logs if (log["content_length"] or 0) > CONTENT_CHARACTERS]
    if not cut:
        return
    statement = select(LOGS.c.log_index, LOGS.c.content).where(
        of_run(LOGS, run, start="event_started_at_unix_nano"), one_of(LOGS.c.log_index, cut)
    )
    whole = {row["log_index"]: row["content"] for row in reader.rows(statement)}
    for log in logs:
        log["content"] = whole.get(log["log_index"], log["content"])
