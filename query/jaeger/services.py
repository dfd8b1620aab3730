"""Services and operations as Jaeger names them: a service is the `service.name` of a span's resource."""

from __future__ import annotations

from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import ColumnElement, Select, and_, case, func, select

from ...storage import Reader
from ..errors import AnswerTooLarge, InvalidParameter
from ..events import EVENTS, RESOURCES, json_text
from ..jaeger_json import NO_SERVICE

NAMES_MAX = 10_000

SERVICE: ColumnElement[str] = case(
    (and_(RESOURCES.c.service_name.is_(None), json_text(RESOURCES.c.attributes) == "{}"), NO_SERVICE),
    else_=func.coalesce(RESOURCES.c.service_name, ""),
)
_KINDS = {
    number: "" if name == "SPAN_KIND_UNSPECIFIED" else name.removeprefix("SPAN_KIND_").lower()
    for name, number in Span.SpanKind.items()
}
_KIND_NUMBERS = {name or "unspecified": number for number, name in _KINDS.items()}


def kind_name(kind: int) -> str:
    """Jaeger's name of an OTLP span kind, "" for none."""
    return _KINDS.get(kind, "")


def kind_number(name: str) -> int | None:
    """The span kind of this name, in letters of any case; None where there is none."""
    return _KIND_NUMBERS.get(name.lower())


def resources_of(*services: str) -> Select[Any]:
    """The ids of the services' resources."""
    return select(RESOURCES.c.id).where(SERVICE.in_(services))


def services(reader: Reader) -> list[str]:
    """The names of all services that have spans, sorted. Raises AnswerTooLarge past NAMES_MAX."""
    of_spans = RESOURCES.c.id.in_(select(EVENTS.c.resource_id).distinct())
    statement = select(SERVICE.label("service")).where(of_spans, SERVICE != "").distinct()
    rows = reader.rows(statement.order_by("service").limit(NAMES_MAX + 1))
    return [row["service"] for row in _not_too_many(rows)]


def operations(reader: Reader, service: str, span_kind: str = "") -> list[tuple[str, str]]:
    """Name and kind of each operation of the service, sorted; of one kind only where that is given.

    Raises InvalidParameter, and AnswerTooLarge past NAMES_MAX.
    """
    statement = select(EVENTS.c.name, EVENTS.c.kind).where(EVENTS.c.resource_id.in_(resources_of(service)))
    if span_kind:
        kind = kind_number(span_kind)
        if kind is None:
            raise InvalidParameter(f"{span_kind[:80]!r} is no span kind; use one of {', '.join(_KIND_NUMBERS)}")
        statement = statement.where(EVENTS.c.kind == kind)
    rows = reader.rows(statement.distinct().order_by(EVENTS.c.name, EVENTS.c.kind).limit(NAMES_MAX + 1))
    return [(row["name"], kind_name(row["kind"])) for row in _not_too_many(rows)]


def _not_too_many(rows: Any) -> Any:
    if len(rows) > NAMES_MAX:
        raise AnswerTooLarge(f"there are more than {NAMES_MAX:,} names; ask for one service, or search the traces")
    return rows
