"""What runs cost: cost records, and their sums by model and by agent. A record whose event does not count (see `usage`)
is listed, not summed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, Subquery, and_, func, select, true, tuple_

from ..storage import CostRecord, Reader, Row, run_id_text, usage_of
from .event_brief import event_briefs
from .events import EVENTS, of_run
from .paging import Order
from .parameters import CostsWanted
from .runs import find_run

COSTS: Any = CostRecord.__table__
TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "reasoning_tokens")

# What GROUPING(model, user) says: a bit for each that a row is not about.
_ALL, _MODEL, _AGENT = 0b11, 0b01, 0b10


def cost_page(reader: Reader, run_id: UUID, wanted: CostsWanted) -> dict[str, Any]:
    """The records in order of time, by pages, and the sums of all of them, whichever the page. Raises NotFound."""
    run = find_run(reader, run_id)
    statement = _cost_records(of_run(EVENTS, run)).where(COSTS.c.run_id == run_id)
    if wanted.source is not None:
        statement = statement.where(COSTS.c.source == wanted.source)
    rows, next_cursor = Order(COSTS.c.time_unix_nano, COSTS.c.id).page(reader, statement, wanted)
    events = event_briefs(reader, run, (row["event_id"] for row in rows))
    return {
        "run_id": run_id_text(run_id),
        **_sums(reader, statement.subquery()),
        "costs": [_cost_json(row) | {"event": events[row["event_id"]]} for row in rows],
        "next_cursor": next_cursor,
    }


def spent_by_runs(reader: Reader, runs: Select[Any], since: int, until: int) -> dict[str, Any]:
    """What the runs with these ids, whose events start between the two times, cost together."""
    events = and_(EVENTS.c.started_at_unix_nano.between(since, until), EVENTS.c.run_id.in_(runs))
    records = _cost_records(events).where(COSTS.c.run_id.in_(runs)).subquery()
    [sums] = reader.rows(select(*_spent_columns(records)))
    return _spent(sums)


def _cost_records(events: ColumnElement[bool]) -> Select[Any]:
    """With whether each `counts` and the agent it is put down to, its `user`. `events`: those of all runs concerned."""
    used = usage_of(events)
    counts, user = func.coalesce(~used.c.superseded, true()), func.coalesce(COSTS.c.agent_name, used.c.user)
    of_event = and_(used.c.run_id == COSTS.c.run_id, used.c.id == COSTS.c.event_id)
    return select(COSTS, counts.label("counts"), user.label("user")).join_from(COSTS, used, of_event, isouter=True)


def _spent(row: Row) -> dict[str, Any]:
    return {
        "records": row["records"],
        **{name: int(row[name] or 0) for name in TOKENS},
        **{name: dollars(row[name]) for name in ("cost_usd", "estimated_usd")},
    }


def _spent_columns(records: Subquery) -> list[Any]:
    """What a group of cost records amounts to. Dollars are NULL where no record says any."""
    counts, cost_usd = records.c.counts, records.c.cost_usd
    return [
        func.count(records.c.id).filter(counts).label("records"),
        *(func.sum(records.c[name]).filter(counts).label(name) for name in TOKENS),
        func.sum(cost_usd).filter(counts).label("cost_usd"),
        func.sum(cost_usd).filter(counts, records.c.source == "estimated").label("estimated_usd"),
    ]


def dollars(exact: Any) -> float | None:
    """Dollars as a JSON number."""
    return None if exact is None else float(exact)


def _sums(reader: Reader, records: Subquery) -> dict[str, Any]:
    by = (records.c.model, records.c.user)
    sets = func.grouping_sets(tuple_(), *(tuple_(column) for column in by))
    groups = reader.rows(select(func.grouping(*by).label("about"), *by, *_spent_columns(records)).group_by(sets))
    [total] = [row for row in groups if row["about"] == _ALL]
    return {
        "total": _spent(total),
        "by_model": _dearest_first("model", "model", (row for row in groups if row["about"] == _MODEL)),
        "by_agent": _dearest_first("agent_name", "user", (row for row in groups if row["about"] == _AGENT)),
    }


def _dearest_first(name: str, column: str, groups: Iterable[Row]) -> list[dict[str, Any]]:
    sums = [{name: row[column]} | _spent(row) for row in groups if row["records"]]
    return sorted(sums, key=lambda one: (-(one["cost_usd"] or 0), -one["total_tokens"], one[name] or ""))


def _cost_json(row: Row) -> dict[str, Any]:
    return {
        **{name: row[name] for name in ("id", "model", *TOKENS, "counts")},
        "agent_name": row["user"],
        "cost_usd": dollars(row["cost_usd"]),
        "source": row["source"],
        "step_id": row["step_id"],
        "time_unix_nano": str(row["time_unix_nano"]),
    }
