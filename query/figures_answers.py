"""What the API answers about figures, for the documentation at /docs; a test holds answers and models together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .answers import Answer, Cost, Cursor, Hex16, Percentiles, Run, TotalUsage, UnixNano


class Durations(Percentiles):
    """Of the events that lasted, in nanoseconds; null where none did."""

    total: int
    mean: int | None
    min: int | None
    max: int | None


class DurationBucket(Answer):
    """How many events lasted longer than `over_ns`, and `until_ns` at most; null for the last bucket, without end."""

    over_ns: int
    until_ns: int | None
    events: int


class GroupFigures(Answer):
    """The events that have these values in common."""

    started_at_unix_nano: Annotated[UnixNano | None, Field(description="Where the time bucket begins.")] = None
    group: Annotated[dict[str, Any], Field(description="The values by the names that were asked for.")]
    events: int
    errors: int
    error_rate: Annotated[float | None, Field(description="Errors by events; null without events.")]
    duration_ns: Durations
    histogram: list[DurationBucket] | None = None
    usage: TotalUsage | None = None


class Figures(Answer):
    """Figures of any events, by groups."""

    events: Annotated[int, Field(description="Events that are meant, in all groups.")]
    groups: Annotated[list[GroupFigures], Field(description="In order of time buckets, then the largest first.")]
    groups_left_out: Annotated[int, Field(description="How many more groups there are than `limit`.")]


class PathEvent(Answer):
    """An event on the critical path."""

    id: Hex16
    name: str
    event_type: str
    agent_name: str | None
    model: str | None
    status: str
    started_at_unix_nano: UnixNano
    duration_ns: int
    contribution_ns: Annotated[int, Field(description="How long the run waited for this event's own work.")]


class PathStep(Answer):
    """A stretch of the run, and whose it was."""

    event_id: Annotated[Hex16 | None, Field(description="Null where nobody on the path was at work.")]
    started_at_unix_nano: UnixNano
    duration_ns: int


class AgentContribution(Answer):
    """What an agent's events contributed."""

    agent_name: str | None
    contribution_ns: int


class TypeContribution(Answer):
    """What the events of a type contributed."""

    event_type: str
    contribution_ns: int


class CriticalPathAnswer(Answer):
    """The events that determined a run's duration. All contributions and `nobody_ns` add up to `duration_ns`."""

    run: Run
    duration_ns: int
    nobody_ns: Annotated[int, Field(description="Time in which nobody on the path was at work.")]
    event_count: Annotated[int, Field(description="Events on the path; `events` lists the largest of them.")]
    step_count: Annotated[int, Field(description="Steps of the path; `steps` lists the longest of them.")]
    by_agent: Annotated[
        list[AgentContribution],
        Field(description="Of the agents at work, the nearest above each event; the largest first."),
    ]
    by_event_type: list[TypeContribution]
    events: Annotated[list[PathEvent], Field(description="The largest contributions first.")]
    steps: Annotated[list[PathStep], Field(description="In order of time.")]


class ChangeCounts(Answer):
    """How many of each; a pair can have changed in several ways."""

    pairs: Annotated[int, Field(description="Events that both runs have.")]
    unchanged: int
    added: int
    missing: int
    slower: int
    faster: int
    status: int
    attributes: int


class ComparedEvent(Answer):
    """One side of a change."""

    id: Hex16
    status: str
    status_message: str | None
    started_at_unix_nano: UnixNano
    duration_ns: int
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Cost


class AttributeChange(Answer):
    """An attribute that differs; its values as JSON text, from where they begin to differ, null where there is none."""

    key: str
    a: str | None
    b: str | None


class EventChange(Answer):
    """Events of the same path, or one without partner."""

    name: str
    event_type: str
    agent_name: str | None
    depth: int
    changes: list[Literal["added", "missing", "slower", "faster", "status", "attributes"]]
    a: ComparedEvent | None
    b: ComparedEvent | None
    duration_change_ns: Annotated[int | None, Field(description="How much longer b's lasted; null without a pair.")]
    attributes: list[AttributeChange]
    attributes_left_out: Annotated[int, Field(description="How many more attributes differ than are listed.")]


class Comparison(Answer):
    """Two runs, event by event: `a` is what is compared with, `b` what is compared."""

    a: Run
    b: Run
    usage_a: TotalUsage
    usage_b: TotalUsage
    counts: ChangeCounts
    changes: Annotated[list[EventChange], Field(description="Depth first, in the order of `a`.")]
    next_cursor: Cursor


class Caller(Answer):
    """An agent or a service."""

    name: str
    events: int
    errors: int


class CallEdge(Answer):
    """Who called whom, how often."""

    caller: str
    callee: str
    calls: int
    errors: int
    runs: int
    duration_ns: Annotated[int, Field(description="The sum over the calls.")]


class Dependencies(Answer):
    """Who calls whom."""

    of: Literal["agents", "services"]
    nodes: list[Caller]
    edges: Annotated[list[CallEdge], Field(description="The busiest first.")]
    nodes_left_out: Annotated[int, Field(description="How many more nodes there are than are listed.")]
    edges_left_out: Annotated[int, Field(description="How many more edges there are than are listed.")]
