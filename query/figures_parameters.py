"""What a question about figures may say: statistics, comparisons, critical paths, who calls whom."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ..storage.ids import parse_run_id
from .filter import parse, parse_fields
from .filter_fields import FIELDS, Kind, Owner, read_value
from .filter_fields import Field as Column
from .parameters import PAGE_ROWS_DEFAULT, Limit, StartedBetween

TOLERANCE = 0.1
EDGES_MAX = 1_000
GROUP_FIELDS_MAX = 5
GROUPS_DEFAULT = 100
GROUPS_MAX = 10_000
BUCKET_NS_MIN = 1_000_000
BUCKET_NS_MAX = 50_000 * 86_400 * 10**9

_Run = Annotated[
    UUID,
    BeforeValidator(parse_run_id),
    WithJsonSchema({"type": "string", "examples": ["5b8efff798038103d269b633813fc60c"]}),
]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class GroupField:
    """A field to group by, under the name that it was asked for with."""

    name: str
    column: Column


_GROUP_OWNERS = (Owner.EVENT, Owner.RUN, Owner.RESOURCE, Owner.SCOPE)
_GROUP_KINDS = (Kind.TEXT, Kind.WHOLE, Kind.RUN_ID, Kind.EVENT_ID, Kind.ANY)


def parse_group_by(text: str) -> tuple[GroupField, ...]:
    """The fields named in `text`, as the filter language names them, with commas between. Raises ValueError."""
    fields = [_group_field(said, column) for said, column in parse_fields(text)]
    if len(fields) > GROUP_FIELDS_MAX or len({field.name for field in fields}) < len(fields):
        raise ValueError(f"name at most {GROUP_FIELDS_MAX} fields, each once")
    return tuple(fields)


def _group_field(said: str, column: Column) -> GroupField:
    if column.owner not in _GROUP_OWNERS:
        raise ValueError(f"an event has many of {said}; group by a field of events, runs, resources or scopes")
    if column.kind not in _GROUP_KINDS:
        raise ValueError(f"{said} is {column.kind.value}, nearly each event's own; for times there is `every`")
    return GroupField(said, column)


_WIDTH = replace(FIELDS["duration_ns"], name="a time bucket's width")


def parse_every(text: str) -> int:
    """A width in nanoseconds, from BUCKET_NS_MIN to BUCKET_NS_MAX. Raises ValueError."""
    width = int(read_value(_WIDTH, text, quoted=False))
    if width < BUCKET_NS_MIN or width > BUCKET_NS_MAX:
        raise ValueError("a time bucket is from 1ms to 50000d wide: write 1m, 1h, 1d")
    return width


_TEXT = WithJsonSchema({"type": "string"})
# Not typed as what they become: one text each, not a list.
Filter = Annotated[Any, BeforeValidator(parse), _TEXT]
GroupFields = Annotated[Any, BeforeValidator(parse_group_by), _TEXT]


class FiguresWanted(StartedBetween):
    """Which events, by what, and what is told of each group."""

    filter: Filter | None = Field(None, description="Only events that are meant by this filter, see docs/search.md.")
    group_by: GroupFields = Field(
        (), description='Fields by commas, as a filter names them: `agent,model`, `attributes["gen_ai.tool.name"]`.'
    )
    every: Annotated[int, BeforeValidator(parse_every), _TEXT] | None = Field(
        None, description="Also by time: buckets of this width, such as 5m, 1h or 1d, that begin at multiples of it."
    )
    usage: bool = Field(True, description="Tokens and cost too.")
    histogram: bool = Field(False, description="How many events lasted how long, too.")
    limit: Annotated[int, Field(ge=1, le=GROUPS_MAX, description="How many groups at most.")] = GROUPS_DEFAULT


class Change(StrEnum):
    """In what a pair of events differs, or that there is no pair."""

    ADDED = "added"
    MISSING = "missing"
    SLOWER = "slower"
    FASTER = "faster"
    STATUS = "status"
    ATTRIBUTES = "attributes"


class ComparisonWanted(_Parameters):
    """Which two runs, and which of their differences."""

    a: _Run = Field(description="The run that is compared with: 32 hex digits.")
    b: _Run = Field(description="The run that is compared.")
    change: list[Change] = Field(
        default_factory=list, description="Only changes of these kinds (may be repeated); all without it."
    )
    tolerance: float = Field(
        TOLERANCE, ge=0, le=1_000, description="By what share the longer event exceeds the shorter to be told."
    )
    limit: Limit = PAGE_ROWS_DEFAULT
    cursor: Annotated[str, Field(pattern=r"^\d{1,9}$")] | None = Field(
        None, description="`next_cursor` of the page before."
    )


class CriticalPathWanted(_Parameters):
    """How much of the path."""

    limit: Limit = PAGE_ROWS_DEFAULT


class Callers(StrEnum):
    """Who calls whom: agents, or services."""

    AGENTS = "agents"
    SERVICES = "services"


class DependenciesWanted(StartedBetween):
    """Whose calls, and when."""

    of: Callers = Field(Callers.AGENTS, description="`agents` or `services`.")
    limit: Annotated[int, Field(ge=1, le=EDGES_MAX, description="How many edges at most, the busiest first.")] = 200


FiguresQuery = Annotated[FiguresWanted, Query()]
ComparisonQuery = Annotated[ComparisonWanted, Query()]
CriticalPathQuery = Annotated[CriticalPathWanted, Query()]
DependenciesQuery = Annotated[DependenciesWanted, Query()]
