"""One event with everything it has: what every event shows, and besides what OTLP said about it, its resource and
scope, its logs and its links."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as OtlpResource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from sqlalchemy import select

from ..storage import Reader, Row, event_id_text, run_id_text
from .attribute_json import AttributeOwner, exact_attributes_text
from .errors import NotFound
from .event_json import event_texts, place_in_tree
from .events import EVENT_ROWS, EVENTS, LINKS, LOGS, RESOURCES, SCOPES, json_text, of_run, read_events, tree_of
from .logs import IN_TIME, log_json, log_rows
from .runs import find_run

# OTel SDKs keep 128 logs and 128 links of a span unless told otherwise.
PARTS_MAX = 10_000


def event_detail(reader: Reader, run_id: UUID, event_id: int) -> bytes:
    """The event as a JSON object. Raises NotFound."""
    run = find_run(reader, run_id)
    row = read_events(reader, EVENT_ROWS.where(EVENTS.c.id == event_id), run)
    if not row.num_rows:
        message = f"run {run_id_text(run_id)} has no event {event_id_text(event_id)}"
        raise NotFound(f"{message}; GET /api/runs/{run_id_text(run_id)}/tree shows those it has", parameter="event_id")
    shown_everywhere: str = event_texts(place_in_tree(row, tree_of(reader, run)))[0].as_py()
    shown_here = {
        "run_id": run_id_text(run_id),
        **_said_by_otlp(reader, run, event_id),
        **_origins(reader, run, event_id),
        "logs": _logs(reader, run, event_id),
        "links": _links(reader, run, event_id),
    }
    return shown_everywhere.encode() + b"," + orjson.dumps(shown_here)[1:]


def _said_by_otlp(reader: Reader, run: Row, event_id: int) -> dict[str, Any]:
    names = ("trace_state", "flags", "dropped_attributes_count", "dropped_events_count", "dropped_links_count")
    columns = [EVENTS.c.status_code, *(EVENTS.c[name] for name in names)]
    [row] = reader.rows(select(*columns).where(of_run(EVENTS, run), EVENTS.c.id == event_id))
    return {"status_code": _status_name(row["status_code"]), **{name: row[name] for name in names}}


def _status_name(code: int) -> str:
    known = code in Status.StatusCode.values()
    return Status.StatusCode.Name(code).removeprefix("STATUS_CODE_") if known else str(code)


def _origins(reader: Reader, run: Row, event_id: int) -> dict[str, Any]:
    origins: tuple[tuple[str, Any, Any, AttributeOwner, tuple[str, ...]], ...] = (
        ("resource", RESOURCES, EVENTS.c.resource_id, OtlpResource, ("service_name",)),
        ("scope", SCOPES, EVENTS.c.scope_id, InstrumentationScope, ("name", "version")),
    )
    answer = {}
    for key, table, foreign_key, message, names in origins:
        shown = (*names, "schema_url", "dropped_attributes_count")
        columns = [*(table.c[name] for name in shown), table.c.otlp, json_text(table.c.attributes).label("attributes")]
        joined = EVENTS.join(table, table.c.id == foreign_key)
        statement = select(*columns).select_from(joined).where(of_run(EVENTS, run), EVENTS.c.id == event_id)
        [row] = reader.rows(statement)
        answer[key] = {name: row[name] for name in shown} | {"attributes": _attributes(row, row["otlp"], message)}
    return answer


def _logs(reader: Reader, run: Row, event_id: int) -> list[dict[str, Any]]:
    of_event = (of_run(LOGS, run, start="event_started_at_unix_nano"), LOGS.c.event_id == event_id)
    statement = log_rows(LOGS.c.content).where(*of_event).order_by(*IN_TIME).limit(PARTS_MAX)
    return [log_json(row) for row in reader.rows(statement)]


def _links(reader: Reader, run: Row, event_id: int) -> list[dict[str, Any]]:
    columns = [column for column in LINKS.c if column.name != "attributes"]
    statement = (
        select(*columns, json_text(LINKS.c.attributes).label("attributes"))
        .where(of_run(LINKS, run, start="event_started_at_unix_nano"), LINKS.c.event_id == event_id)
        .order_by(LINKS.c.link_index)
        .limit(PARTS_MAX)
    )
    return [
        {
            "link_index": row["link_index"],
            "linked_run_id": row["linked_run_id"],
            "linked_event_id": row["linked_event_id"],
            "trace_state": row["trace_state"],
            "flags": row["flags"],
            "dropped_attributes_count": row["dropped_attributes_count"],
            "attributes": _attributes(row, row["otlp_residue"], Span.Link),
        }
        for row in reader.rows(statement)
    ]


def _attributes(row: Row, residue: bytes | None, owner: AttributeOwner) -> orjson.Fragment:
    return orjson.Fragment(exact_attributes_text(row["attributes"], residue, owner))
