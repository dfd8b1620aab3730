"""Calls, errors and latencies of services over time, reckoned from the spans themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, func, literal_column, select

from ...storage import Reader
from ..errors import AnswerTooLarge, InvalidParameter
from ..events import EVENTS, RESOURCES
from .services import SERVICE
from .summaries import STATUS_CODE_ERROR

POINTS_MAX = 100_000
STEPS_MAX = 11_000


@dataclass(frozen=True)
class Measured:
    """What is measured: spans of these services and kinds that started from `first` to before `end` (ns since 1970), in
    steps of `step_ns`, operations apart from one another if so wished."""

    services: Sequence[str]
    kinds: Sequence[int]
    first: int
    end: int
    step_ns: int
    by_operation: bool = False

    def __post_init__(self) -> None:
        if self.step_ns < 1 or (self.end - self.first) // self.step_ns > STEPS_MAX:
            raise InvalidParameter(f"the time has more than {STEPS_MAX:,} steps; use a larger step", parameter="step")


def call_rates(reader: Reader, measured: Measured) -> dict[str, Any]:
    """Calls a second, as a metric family of Jaeger's."""
    rate = func.count() * 1e9 / measured.step_ns
    return _family(reader, measured, rate, "call_rate", "calls/sec, grouped by service")


def error_rates(reader: Reader, measured: Measured) -> dict[str, Any]:
    """The share of calls that failed, from 0 to 1, as a metric family of Jaeger's."""
    share = func.count().filter(EVENTS.c.status_code == STATUS_CODE_ERROR) * 1.0 / func.count()
    return _family(reader, measured, share, "error_rate", "error rate, grouped by service")


def latencies(reader: Reader, measured: Measured, quantile: float) -> dict[str, Any]:
    """The quantile (0 to 1) of durations in milliseconds, as a metric family of Jaeger's. Raises InvalidParameter."""
    if not 0 <= quantile <= 1:
        raise InvalidParameter(f"a quantile lies from 0 to 1, not at {quantile:g}", parameter="quantile")
    # The engine takes a quantile as a constant only.
    durations = func.quantile_cont(EVENTS.c.duration_ns, literal_column(repr(float(quantile)))) / 1e6
    return _family(reader, measured, durations, "latencies", f"{quantile:.2f}th quantile latency, grouped by service")


def _family(reader: Reader, measured: Measured, value: ColumnElement[Any], name: str, help_text: str) -> dict[str, Any]:
    points: dict[tuple[str, str], list[dict[str, Any]]] = {}
    rows = reader.rows(_points(measured, value).limit(POINTS_MAX + 1))
    if len(rows) > POINTS_MAX:
        raise AnswerTooLarge(f"there are more than {POINTS_MAX:,} points; use a larger step or a shorter lookback")
    for row in rows:
        point = {"timestamp": _rfc_3339(row["step"]), "gaugeValue": {"doubleValue": float(row["value"])}}
        points.setdefault((row["service"], row["operation"]), []).append(point)
    return {
        "name": f"service_operation_{name}" if measured.by_operation else f"service_{name}",
        "type": "GAUGE",
        "help": f"{help_text} & operation" if measured.by_operation else help_text,
        "metrics": [
            {"labels": _labels(measured, *labels), "metricPoints": of_labels} for labels, of_labels in points.items()
        ],
    }


def _points(measured: Measured, value: ColumnElement[Any]) -> Any:
    step = EVENTS.c.started_at_unix_nano - EVENTS.c.started_at_unix_nano % measured.step_ns
    operation = EVENTS.c.name if measured.by_operation else literal_column("''")
    columns = (SERVICE.label("service"), operation.label("operation"), step.label("step"))
    return (
        select(*columns, value.label("value"))
        .join(RESOURCES, RESOURCES.c.id == EVENTS.c.resource_id)
        .where(
            EVENTS.c.started_at_unix_nano.between(measured.first, measured.end - 1),
            EVENTS.c.kind.in_(measured.kinds),
            SERVICE.in_(measured.services),
        )
        .group_by("service", "operation", "step")
        .order_by("service", "operation", "step")
    )


def _labels(measured: Measured, service: str, operation: str) -> list[dict[str, str]]:
    labels = [{"name": "service_name", "value": service}]
    return [*labels, {"name": "operation", "value": operation}] if measured.by_operation else labels


def _rfc_3339(unix_nano: int) -> str:
    moment = datetime.fromtimestamp(unix_nano // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f"{unix_nano % 10**9:09}".rstrip("0")
    return f"{moment}.{fraction}Z" if fraction else f"{moment}Z"
