"""Figures of any events: how many, how many failed, how long they took, what they used; by any fields, and by time.

Durations are those of the events that lasted: a moment (0 ns) and an event that has not ended have none. Percentiles
are exact, durations that occurred: in the engine picking them out is cheaper than a sketch that estimates them.

Tokens and cost are counted once, as `storage.usage` says: whether an event counts depends on all events below it. That
is written down beside the events when the store has time (`storage.counting`); the runs of which it is not, new ones
and very long ones, are looked at whole, some at a time, which takes ten times as long as all other figures of them.
What is asked for then picks among the events that count; so the groups' figures add up to those of the whole. An
event's usage is its `user`'s where agents are grouped by: a group can have used something without having events of its
own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
from sqlalchemy import (
    JSON,
    ColumnElement,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)

from ..storage import RUN_COLUMNS, USAGE, USAGE_IS_CURRENT, Reader, Row, may_be_history, usage_of, whole_runs
from .attribute_json import engine_json, number_json
from .events import EVENTS, RESOURCES, SCOPES
from .figures_parameters import FiguresWanted, GroupField
from .filter_fields import Kind, Owner
from .filter_sql import Where, of_events
from .histories import value_apart
from .runs import RUNS
from .statistics import PERCENTILES

# 1, 2, 5, 10 … microseconds up to five days; what lasted longer is in the last bucket.
HISTOGRAM_BOUNDS_NS = tuple(factor * 10**power for power in range(3, 15) for factor in (1, 2, 5))

_INT64_MAX = (1 << 63) - 1
_JOINS: Mapping[Owner, tuple[Any, Any]] = {
    Owner.RUN: (RUNS, EVENTS.c.run_id),
    Owner.RESOURCE: (RESOURCES, EVENTS.c.resource_id),
    Owner.SCOPE: (SCOPES, EVENTS.c.scope_id),
}
_IS_OUTDATED = not_(USAGE_IS_CURRENT)
_REPORTS = or_(*(EVENTS.c[name].is_not(None) for name in USAGE))

Key = tuple[Any, ...]
Json = dict[str, Any]


def figures(reader: Reader, wanted: FiguresWanted) -> Json:
    """The groups with most events first, by time where there are buckets; at most `wanted.limit`, and how many more
    there are."""
    condition = _condition(reader, wanted)
    rows = reader.rows(_groups(wanted, condition))
    groups = {_key(wanted, row): _figures_json(row) for row in rows}
    told = rows[0]["group_count"] if rows else 0
    if wanted.usage:
        _add_usage(groups, _usage(reader, wanted, condition), wanted, may_add=told <= wanted.limit)
        told = max(told, len(groups))
    in_order = sorted(groups, key=lambda key: _place(wanted, key, groups[key]))
    return {
        "events": int(rows[0]["all_events"]) if rows else 0,
        "groups": [_group_json(wanted, key, groups[key]) for key in in_order[: wanted.limit]],
        "groups_left_out": max(0, told - wanted.limit),
    }


def _condition(reader: Reader, wanted: FiguresWanted) -> ColumnElement[bool]:
    in_time = and_(true(), *_in_time(wanted))
    if wanted.filter is None:
        return in_time
    return and_(in_time, of_events(wanted.filter, replace(Where.known_to(reader), events_where=in_time)))


def _in_time(wanted: FiguresWanted) -> Iterator[ColumnElement[bool]]:
    if wanted.since is not None:
        yield EVENTS.c.started_at_unix_nano >= wanted.since
    if wanted.until is not None:
        yield EVENTS.c.started_at_unix_nano < wanted.until


def _keys(wanted: FiguresWanted) -> list[ColumnElement[Any]]:
    """The values that a group has in common, by number: the time bucket, then the fields."""
    started_at = EVENTS.c.started_at_unix_nano
    every = [] if wanted.every is None else [started_at - started_at % literal_column(str(wanted.every))]
    fields = [_value(field) for field in wanted.group_by]
    return [value.label(f"key_{number}") for number, value in enumerate([*every, *fields])]


def _value(field: GroupField) -> ColumnElement[Any]:
    column = field.column
    if column.kind is not Kind.ANY:
        found: ColumnElement[Any] = column.column
        return found
    value = _json(func.variant_extract(column.column, literal(column.key, Text)))
    is_apart = column.owner is Owner.EVENT and may_be_history(column.key or "")
    return func.coalesce(value, _json(value_apart(column.key or ""))) if is_apart else value


def _json(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Bytes have no JSON; they are with what is missing."""
    return case((func.variant_typeof(value) != "BLOB", cast(cast(value, JSON), Text)))


def _from(wanted: FiguresWanted, first: Any) -> Any:
    """`first`, which has the events, with the tables that fields are in."""
    for owner in {field.column.owner for field in wanted.group_by} - {Owner.EVENT}:
        table, reference = _JOINS[owner]
        first = first.join(table, table.c.id == reference)
    return first


def _groups(wanted: FiguresWanted, condition: ColumnElement[bool]) -> Select[Any]:
    columns = (EVENTS.c.status, func.nullif(EVENTS.c.duration_ns, 0).label("lasted"))
    event = select(*_keys(wanted), *columns).select_from(_from(wanted, EVENTS)).where(condition).subquery("event")
    keys = [column for column in event.c if column.name.startswith("key_")]
    events, lasted = func.count(), event.c.lasted
    fractions: ColumnElement[Any] = literal_column(f"ARRAY[{', '.join(f'0.{number}' for number in PERCENTILES)}]")
    told = [
        *keys,
        events.label("events"),
        func.count().filter(event.c.status == "failed").label("errors"),
        func.count(lasted).label("lasting_events"),
        func.sum(lasted).label("total_ns"),
        func.min(lasted).label("min_ns"),
        func.max(lasted).label("max_ns"),
        func.percentile_disc(fractions).within_group(lasted).label("percentiles"),
    ]
    if wanted.histogram:
        bounds: ColumnElement[Any] = literal_column(f"{list(HISTOGRAM_BOUNDS_NS)}::BIGINT[]")
        told.append(func.histogram(lasted, bounds).label("histogram"))
    # Kept, then counted: a window over the groups would have them finished, percentiles picked out, by one thread.
    group = select(*told).group_by(*keys).cte("grouped").prefix_with("MATERIALIZED")
    group_count, all_events = (
        select(count).select_from(group).scalar_subquery() for count in (func.count(), func.sum(group.c.events))
    )
    in_time = [group.c.key_0] if wanted.every is not None else []
    return (
        select(*group.c, group_count.label("group_count"), all_events.label("all_events"))
        .order_by(*in_time, group.c.events.desc(), *(group.c[key.name] for key in keys))
        .limit(wanted.limit)
    )


def _place(wanted: FiguresWanted, key: Key, group: Json) -> tuple[Any, ...]:
    """Where the statement's order has the group, be it one that was added to what the statement found."""
    in_time = key[:1] if wanted.every is not None else ()
    return (*in_time, -group["events"], *((value is None, value) for value in key))


def _key(wanted: FiguresWanted, row: Row) -> Key:
    return tuple(row[f"key_{number}"] for number in range(len(wanted.group_by) + (wanted.every is not None)))


def _figures_json(row: Row) -> Json:
    percentiles = row["percentiles"] or [None] * len(PERCENTILES)
    lasting = row["lasting_events"]
    told: Json = {
        "events": row["events"],
        "errors": row["errors"],
        "error_rate": row["errors"] / row["events"] if row["events"] else None,
        "duration_ns": {
            "total": min(int(row["total_ns"] or 0), _INT64_MAX),
            "mean": int(row["total_ns"]) // lasting if lasting else None,
            "min": row["min_ns"],
            **{f"p{number}": value for number, value in zip(PERCENTILES, percentiles, strict=True)},
            "max": row["max_ns"],
        },
    }
    return told | ({"histogram": _histogram_json(row["histogram"])} if "histogram" in row else {})


def _histogram_json(counts: Mapping[int, int] | None) -> list[Json]:
    """From the first to the last bucket that holds something; `until_ns` belongs to a bucket, and is null for the
    last of all."""
    bounds = [*HISTOGRAM_BOUNDS_NS, _INT64_MAX]
    filled = [place for place, bound in enumerate(bounds) if (counts or {}).get(bound)]
    buckets = range(filled[0], filled[-1] + 1) if filled else ()
    return [
        {
            "over_ns": bounds[place - 1] if place else 0,
            "until_ns": bounds[place] if place < len(HISTOGRAM_BOUNDS_NS) else None,
            "events": (counts or {}).get(bounds[place], 0),
        }
        for place in buckets
    ]


def _add_usage(groups: dict[Key, Json], used: Mapping[Key, Json], wanted: FiguresWanted, *, may_add: bool) -> None:
    """To each group what it used; groups that used something and have no events are added where they may be."""
    nothing = _NO_EVENTS | ({"histogram": None} if wanted.histogram else {})
    for key in used if may_add else ():
        groups.setdefault(key, _figures_json(nothing))
    for key, group in groups.items():
        group["usage"] = _usage_json(used.get(key, {}))


_NO_EVENTS: Any = dict.fromkeys(("total_ns", "min_ns", "max_ns", "percentiles")) | dict.fromkeys(
    ("events", "errors", "lasting_events"), 0
)


def _usage_json(used: Mapping[str, Any]) -> Json:
    cost = used.get("cost_usd")
    return {
        "events": used.get("usage_events", 0),
        "superseded_events": used.get("superseded_events", 0),
        "input_tokens": min(int(used.get("input_tokens") or 0), _INT64_MAX),
        "output_tokens": min(int(used.get("output_tokens") or 0), _INT64_MAX),
        "cost_usd": None if cost is None else number_json(cost),
    }


def _group_json(wanted: FiguresWanted, key: Key, group: Json) -> Json:
    bucket = {} if wanted.every is None else {"started_at_unix_nano": str(key[0])}
    values = key if wanted.every is None else key[1:]
    said = {field.name: _value_json(field, value) for field, value in zip(wanted.group_by, values, strict=True)}
    return bucket | {"group": said} | group


def _value_json(field: GroupField, value: Any) -> Any:
    if value is None or field.column.kind is not Kind.ANY:
        return {number: word for word, number in field.column.words}.get(value, value)
    return engine_json(value)


def _usage(reader: Reader, wanted: FiguresWanted, condition: ColumnElement[bool]) -> dict[Key, Json]:
    """What each group used: as it is written down where it still holds, worked out for the other runs."""
    sums: dict[Key, Json] = {}
    outdated = _outdated(reader)
    rows = list(reader.rows(_written_down(wanted, condition, of_all=outdated is None)))
    if outdated is not None:
        for some in whole_runs(_runs_to_work_out(reader, and_(outdated, condition))):
            rows += reader.rows(_worked_out(wanted, condition, some))
    for row in rows:
        _add(sums.setdefault(_key(wanted, row), {}), row)
    return sums


def _outdated(reader: Reader) -> ColumnElement[bool] | None:
    """Of events: may it be of a run of which nothing that holds is written down? None where there is no such run."""
    first, last = func.min(RUNS.c.started_at_unix_nano), func.max(RUNS.c.last_started_at_unix_nano)
    [bounds] = reader.rows(select(first.label("first"), last.label("last")).where(_IS_OUTDATED))
    return None if bounds["last"] is None else EVENTS.c.started_at_unix_nano.between(*bounds.values())


def _written_down(wanted: FiguresWanted, condition: ColumnElement[bool], *, of_all: bool) -> Select[Any]:
    """Of all runs, or of those for which it holds: to tell, all ids of runs have to be read."""
    holds = EVENTS.c.usage_counts.is_not(None)
    if not of_all:
        outdated = select(RUNS.c.id).where(RUNS.c.usage_revision != RUNS.c.revision)
        holds = and_(holds, EVENTS.c.run_id.not_in(outdated))
    return _sums(
        wanted, _from(wanted, EVENTS), and_(holds, condition), EVENTS.c.usage_counts, EVENTS.c.usage_agent_name
    )


def _worked_out(wanted: FiguresWanted, condition: ColumnElement[bool], whole: ColumnElement[bool]) -> Select[Any]:
    used = usage_of(whole)
    same = and_(used.c.run_id == EVENTS.c.run_id, used.c.id == EVENTS.c.id)
    events = _from(wanted, EVENTS.join(used, same))
    return _sums(wanted, events, and_(whole, _REPORTS, condition), used.c.counts, used.c.user)


def _sums(wanted: FiguresWanted, events: Any, condition: ColumnElement[bool], counts: Any, user: Any) -> Select[Any]:
    of_agents = {f"key_{n + (wanted.every is not None)}": user for n in _agents_among(wanted.group_by)}
    keys = [of_agents.get(key.name, key.element).label(key.name) for key in _keys(wanted)]
    told = (counts.label("counts"), *(EVENTS.c[name] for name in USAGE))
    event = select(*keys, *told).select_from(events).where(condition).subquery("event")
    group = [column for column in event.c if column.name.startswith("key_")]
    # Grouped by whether it counts, since a FILTER for each sum takes the engine a fifth longer.
    sums = (func.sum(event.c[name]).label(name) for name in USAGE)
    return select(*group, event.c.counts, func.count().label("events"), *sums).group_by(*group, event.c.counts)


def _runs_to_work_out(reader: Reader, condition: ColumnElement[bool]) -> pa.Table:
    """The runs (RUN_COLUMNS, by start) of which nothing that holds is written down, and that have an event that is
    meant and reports usage."""
    reporting = select(EVENTS.c.run_id).where(condition, _REPORTS)
    runs = select(*RUN_COLUMNS).where(_IS_OUTDATED, RUNS.c.id.in_(reporting))
    return reader.arrow(runs.order_by(RUNS.c.started_at_unix_nano))


def _agents_among(fields: Sequence[GroupField]) -> Iterator[int]:
    return (number for number, field in enumerate(fields) if field.column.name == "agent_name")


def _add(sums: Json, row: Row) -> None:
    events = "usage_events" if row["counts"] else "superseded_events"
    sums[events] = sums.get(events, 0) + row["events"]
    for name in USAGE if row["counts"] else ():
        given = [value for value in (sums.get(name), row[name]) if value is not None]
        sums[name] = sum(given) if given else None
