"""What a question about figures may say: statistics, comparisons, critical paths, who calls whom."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ..storage.ids import parse_run_id
from .parameters import PAGE_ROWS_DEFAULT, Instant, Limit

TOLERANCE = 0.1
EDGES_MAX = 1_000

_Run = Annotated[
    UUID,
    BeforeValidator(parse_run_id),
    WithJsonSchema({"type": "string", "examples": ["5b8efff798038103d269b633813fc60c"]}),
]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid")


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


class DependenciesWanted(_Parameters):
    """Whose calls, and when."""

    of: Callers = Field(Callers.AGENTS, description="`agents` or `services`.")
    since: Instant | None = Field(
        None, description="Only calls that started then or later: RFC 3339, nanoseconds since 1970, or `-1h`."
    )
    until: Instant | None = Field(None, description="Only calls that started before then, written as `since` is.")
    limit: Annotated[int, Field(ge=1, le=EDGES_MAX, description="How many edges at most, the busiest first.")] = 200


ComparisonQuery = Annotated[ComparisonWanted, Query()]
CriticalPathQuery = Annotated[CriticalPathWanted, Query()]
DependenciesQuery = Annotated[DependenciesWanted, Query()]
