"""What a run cost: its cost records, and their sums by model and by agent."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, Select, func, select, tuple_

from ..storage import CostRecord, Reader, run_id_text
from .event_brief import event_briefs
from .paging import Order
from .parameters import CostsWanted
from .runs import find_run

COSTS: Any = CostRecord.__table__
TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")

# What GROUPING(model, agent_name) says: a bit for each that a row is not about.
_ALL, _MODEL, _AGENT = 0b11, 0b01, 0b10


def cost_page(reader: Reader, run_id: UUID, wanted: CostsWanted) -> dict[str, Any]:
    """The records in order of time, by pages, and the sums of all of them, whichever the page. Raises NotFound."""
    run = find_run(reader, run_id)
    statement = select(COSTS).where(COSTS.c.run_id == run_id)
    if wanted.source is not None:
        statement = statement.where(COSTS.c.source == wanted.source)
    rows, next_cursor = Order(COSTS.c.time_unix_nano, COSTS.c.id).page(reader, statement, wanted)
    events = event_briefs(reader, run, (row["event_id"] for row in rows))
    return {
        "run_id": run_id_text(run_id),
        **_sums(reader, statement),
        "costs": [_cost_json(row) | {"event": events[row["event_id"]]} for row in rows],
        "next_cursor": next_cursor,
    }


def spent(row: RowMapping) -> dict[str, Any]:
    """The sums of `spent_columns` as JSON."""
    return {
        "records": row["records"],
        **{name: int(row[name] or 0) for name in TOKENS},
        **{name: dollars(row[name]) for name in ("cost_usd", "estimated_usd")},
    }


def spent_columns() -> list[Any]:
    """What a group of cost records amounts to. Dollars are NULL where no record says any."""
    cost_usd = COSTS.c.cost_usd
    return [
        func.count(COSTS.c.id).label("records"),
        *(func.sum(COSTS.c[name]).label(name) for name in TOKENS),
        func.sum(cost_usd).label("cost_usd"),
        func.sum(cost_usd).filter(COSTS.c.source == "estimated").label("estimated_usd"),
    ]


def dollars(exact: Any) -> float | None:
    """Dollars as a JSON number."""
    return None if exact is None else float(exact)


def _sums(reader: Reader, records: Select[Any]) -> dict[str, Any]:
    by = (COSTS.c.model, COSTS.c.agent_name)
    sets = func.grouping_sets(tuple_(), *(tuple_(column) for column in by))
    columns = (func.grouping(*by).label("about"), *by, *spent_columns())
    groups = reader.rows(records.with_only_columns(*columns).group_by(sets))
    [total] = [row for row in groups if row["about"] == _ALL]
    return {
        "total": spent(total),
        "by_model": _dearest_first("model", [row for row in groups if row["about"] == _MODEL]),
        "by_agent": _dearest_first("agent_name", [row for row in groups if row["about"] == _AGENT]),
    }


def _dearest_first(name: str, groups: list[RowMapping]) -> list[dict[str, Any]]:
    sums = [{name: row[name]} | spent(row) for row in groups]
    return sorted(sums, key=lambda one: (-(one["cost_usd"] or 0), -one["total_tokens"], one[name] or ""))


def _cost_json(row: RowMapping) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("id", "agent_name", "model", *TOKENS)},
        "cost_usd": dollars(row["cost_usd"]),
        "source": row["source"],
        "step_id": row["step_id"],
        "time_unix_nano": str(row["time_unix_nano"]),
    }
