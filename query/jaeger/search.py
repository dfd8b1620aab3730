"""Traces found by what one of their spans is like."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from ...storage import Reader, Row
from ..errors import AnswerTooLarge, InvalidParameter
from ..events import EVENTS
from ..runs import RUNS
from .services import resources_of
from .tags import Searched, matches_tag

TRACES_DEFAULT = 100
# As many as Jaeger's own page lets one ask for.
TRACES_MAX = 1_500
TAGS_MAX = 32
# What an answer may hold; 200,000 spans are some 200 MB as JSON.
SPANS_MAX = 200_000
ANSWER_BYTES_MAX = 256 << 20


@dataclass(frozen=True)
class TraceSearch:
    """What to look for: traces with a span that starts from `first` to `last` (ns since 1970, both included), and is
    all that the other fields say, where they say something. Durations are in nanoseconds, both bounds included."""

    first: int
    last: int
    service: str = ""
    operation: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    duration_min_ns: int = 0
    duration_max_ns: int = 0
    limit: int = TRACES_DEFAULT

    def __post_init__(self) -> None:
        if not 1 <= self.limit <= TRACES_MAX:
            raise InvalidParameter(f"a search gives 1 to {TRACES_MAX:,} traces, not {self.limit}", parameter="limit")
        if len(self.tags) > TAGS_MAX:
            raise InvalidParameter(f"a search takes {TAGS_MAX} tags at most, not {len(self.tags)}", parameter="tags")
        if self.duration_max_ns and self.duration_min_ns > self.duration_max_ns:
            raise InvalidParameter("the smallest duration is larger than the largest", parameter="maxDuration")


def find_traces(reader: Reader, search: TraceSearch) -> Sequence[Row]:
    """The runs of the traces found, those that started last first."""
    overlaps = and_(RUNS.c.started_at_unix_nano <= search.last, RUNS.c.last_started_at_unix_nano >= search.first)
    found = RUNS.c.id.in_(select(EVENTS.c.run_id).where(*_conditions(reader, search)))
    newest_first = (RUNS.c.started_at_unix_nano.desc(), RUNS.c.id.desc())
    return reader.rows(select(RUNS).where(overlaps, found).order_by(*newest_first).limit(search.limit))


def traces_by_id(reader: Reader, run_ids: Sequence[UUID]) -> Sequence[Row]:
    """The runs of these ids, as far as there are such and they have spans: log records may come first. Raises
    InvalidParameter past TRACES_MAX ids."""
    if len(run_ids) > TRACES_MAX:
        raise InvalidParameter(f"at most {TRACES_MAX:,} traces can be asked for by id", parameter="traceID")
    order = (RUNS.c.started_at_unix_nano.desc(), RUNS.c.id.desc())
    return reader.rows(select(RUNS).where(RUNS.c.id.in_(run_ids), RUNS.c.event_count > 0).order_by(*order))


def of_runs(table: Any, runs: Sequence[Row], *, start: str = "started_at_unix_nano") -> ColumnElement[bool]:
    """Rows of `table` that belong to one of the runs; `start` is the column that holds the event's start. At least one
    run must be given."""
    first = min(run["started_at_unix_nano"] for run in runs)
    last = max(run["last_started_at_unix_nano"] for run in runs)
    return and_(table.c.run_id.in_([run["id"] for run in runs]), table.c[start].between(first, last))


def check_size(runs: Sequence[Row]) -> None:
    """Raises AnswerTooLarge when the runs have more than SPANS_MAX spans together."""
    spans = sum(run["event_count"] for run in runs)
    if spans > SPANS_MAX:
        told = f"the {len(runs)} traces have {spans:,} spans, an answer {SPANS_MAX:,} at most"
        raise AnswerTooLarge(f"{told}; ask for fewer traces, or for a shorter time", parameter="limit")


def check_bytes(size: int) -> None:
    """Raises AnswerTooLarge when the answer has become larger than ANSWER_BYTES_MAX."""
    if size > ANSWER_BYTES_MAX:
        told = f"the answer would be larger than {ANSWER_BYTES_MAX >> 20} MiB"
        raise AnswerTooLarge(f"{told}; ask for fewer traces, or over gRPC, which has no such limit", parameter="limit")


def _conditions(reader: Reader, search: TraceSearch) -> list[ColumnElement[bool]]:
    conditions = [EVENTS.c.started_at_unix_nano.between(search.first, search.last)]
    if search.service:
        conditions.append(EVENTS.c.resource_id.in_(resources_of(search.service)))
    if search.operation:
        conditions.append(EVENTS.c.name == search.operation)
    if search.duration_min_ns:
        conditions.append(EVENTS.c.duration_ns >= search.duration_min_ns)
    if search.duration_max_ns:
        conditions.append(EVENTS.c.duration_ns <= search.duration_max_ns)
    searched = Searched(reader, search.first, search.last)
    return conditions + [matches_tag(searched, key, text) for key, text in search.tags.items()]
