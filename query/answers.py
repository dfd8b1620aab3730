"""What the API answers, for the documentation at /docs. Answers are not made from these models (they are written by
columns); a test holds the two together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Hex16 = Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
Hex32 = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
UnixNano = Annotated[
    str, Field(pattern="^[0-9]+$", description="Nanoseconds since 1970; text, since JSON numbers may lose the last.")
]
Attributes = Annotated[
    dict[str, Any], Field(description="Bytes are base64 text; NaN, Infinity and -Infinity are those words as text.")
]
Cursor = Annotated[str | None, Field(description="Pass it as `cursor` for the next page; null on the last.")]
Cost = float | Literal["NaN", "Infinity", "-Infinity"] | None


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    """What went wrong and what to do about it."""

    code: Annotated[str, Field(description="For programs: invalid_parameter, not_found, busy, timeout …")]
    message: Annotated[str, Field(description="For people: what was found and what to do.")]
    parameter: Annotated[str | None, Field(description="The parameter to blame, if one is.")]
    position: Annotated[
        int | None, Field(description="Only where a character of the parameter is to blame: which, from 0.")
    ] = None


class ErrorAnswer(Answer):
    """Every error has this shape."""

    error: Problem


class Run(Answer):
    """One workflow execution, one OTel trace."""

    id: Annotated[Hex32, Field(description="The trace id.")]
    session_id: str
    project_id: Hex32 | None
    task_id: str | None
    name: str | None
    mode: Annotated[str | None, Field(description="How it was to be worked, such as one_shot or planning_control.")]
    agent: str | None
    model: str | None
    service_name: str | None
    status: Annotated[str, Field(description="By telemetry running, completed or failed.")]
    task_description: str | None
    root_event_id: Hex16 | None
    started_at_unix_nano: UnixNano
    last_started_at_unix_nano: Annotated[UnixNano, Field(description="When the latest of its events started.")]
    completed_at_unix_nano: UnixNano
    duration_ns: int
    event_count: int
    error_count: int


class RunPage(Answer):
    """Runs, newest first."""

    runs: list[Run]
    next_cursor: Cursor


class Event(Answer):
    """One action of a run, one OTel span. Depth, order, self time and children are those of the whole run's tree; null
    for events of a run too large to build a tree of."""

    id: Annotated[Hex16, Field(description="The span id; unique within the run.")]
    otel_span_id: Annotated[Hex16 | None, Field(description="Only where distinct spans share a span id.")] = None
    parent_event_id: Hex16 | None
    depth: int | None
    execution_order: Annotated[int | None, Field(description="Position in depth-first order, from 0.")]
    orphan: Annotated[Literal[True] | None, Field(description="Only where the parent never came.")] = None
    cycle: Annotated[Literal[True] | None, Field(description="Only where the event is its own ancestor.")] = None
    name: str
    kind: Annotated[str, Field(description="OTel's span kind: INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER.")]
    event_type: str
    event_subtype: str | None
    agent_name: str | None
    agent_role: str | None
    model: str | None
    status: Annotated[str, Field(description="running, completed or failed.")]
    status_message: str | None
    started_at_unix_nano: UnixNano
    completed_at_unix_nano: UnixNano
    duration_ns: int
    self_time_ns: Annotated[int | None, Field(description="Duration less the time that children cover.")]
    child_count: int | None
    input_tokens: int | None
    output_tokens: int | None
    cost_usd: Cost
    service_name: str | None
    scope_name: str | None
    log_count: int
    link_count: int
    attributes: Attributes


class NestedEvent(Event):
    """With `shape=nested`: an event and what is below it."""

    children: list[NestedEvent]


class TreeAnswer(Answer):
    """A run's events, depth first; siblings by start, then id."""

    run: Run
    event_count: Annotated[int, Field(description="Events in this answer.")]
    left_out: Annotated[int, Field(description="Events that `limit` kept out of it.")]
    roots: Annotated[int, Field(description="Events at the top, orphans and cycles not counted.")]
    orphans: Annotated[int, Field(description="Events whose parent never came; shown at the top, after the roots.")]
    cycles: Annotated[int, Field(description="Events that are their own ancestors; the ring is cut at its earliest.")]
    events: list[Event] | list[NestedEvent]


class EventPage(Answer):
    """Events of a run by start, then id."""

    events: list[Event]
    next_cursor: Cursor


class ResourceAnswer(Answer):
    """What produced the telemetry."""

    service_name: str | None
    schema_url: str | None
    dropped_attributes_count: int
    attributes: Attributes


class ScopeAnswer(Answer):
    """The instrumentation library."""

    name: str | None
    version: str | None
    schema_url: str | None
    dropped_attributes_count: int
    attributes: Attributes


class LogAnswer(Answer):
    """A moment inside an event, or a log record."""

    log_index: Annotated[int, Field(description="Place among those of its span; a hash below zero for a log record.")]
    name: str
    event_type: Annotated[str | None, Field(description="LOG, MESSAGE, ERROR …; null for a moment inside an event.")]
    agent_role: str | None
    severity_number: Annotated[int | None, Field(description="OTel's: 9 for INFO, 17 for ERROR; 0 where untold.")]
    severity_text: str | None
    content: Annotated[str | None, Field(description="A log record's body: text as it is, anything else as JSON.")]
    time_unix_nano: UnixNano
    observed_time_unix_nano: UnixNano | None
    dropped_attributes_count: int
    attributes: Attributes


class RunLog(LogAnswer):
    """A log and whose it is."""

    event_id: Annotated[Hex16 | None, Field(description="Null for a log record of no event; the event may never come.")]
    content_length: Annotated[int | None, Field(description="How many characters the content has in all.")]


class LogPage(Answer):
    """Logs of a run in order of time."""

    logs: list[RunLog]
    next_cursor: Cursor


class LinkAnswer(Answer):
    """A link to an event of the same or another run."""

    link_index: int
    linked_run_id: Hex32 | None
    linked_event_id: Hex16 | None
    trace_state: str | None
    flags: int
    dropped_attributes_count: int
    attributes: Attributes


class EventDetail(Event):
    """An event with everything OTLP said about it."""

    run_id: Hex32
    status_code: Annotated[str, Field(description="OTel's status code: UNSET, OK or ERROR.")]
    trace_state: str | None
    flags: int
    dropped_attributes_count: int
    dropped_events_count: int
    dropped_links_count: int
    resource: ResourceAnswer
    scope: ScopeAnswer
    logs: list[LogAnswer]
    links: list[LinkAnswer]


class Usage(Answer):
    """Tokens and cost, counted once: an event counts only when no event below it reports usage."""

    events: Annotated[int, Field(description="Events that counted.")]
    input_tokens: int
    output_tokens: int
    cost_usd: Annotated[Cost, Field(description="Null where no event told a cost.")]


class TotalUsage(Usage):
    """The usage of the whole run."""

    superseded_events: Annotated[int, Field(description="Events that did not count: events below them report usage.")]


class AgentUsage(Usage):
    """The usage of one agent."""

    agent_name: str | None


class EventTypeUsage(Usage):
    """The usage of one type of event."""

    event_type: str


class ModelUsage(Usage):
    """The usage of one model."""

    model: str | None


class Percentiles(Answer):
    """Of the durations of events that lasted; null where none did."""

    p50: int | None
    p90: int | None
    p95: int | None
    p99: int | None


class Statistics(Answer):
    """A run's figures."""

    run_id: Hex32
    total_events: int
    event_types: Annotated[dict[str, int], Field(description="Events of each type.")]
    agents_involved: list[str]
    agent_call_counts: Annotated[dict[str, int], Field(description="Events of each agent.")]
    avg_duration_ms: Annotated[float, Field(description="Of the events that lasted.")]
    total_duration_ms: Annotated[float, Field(description="Sum over all events; what ran side by side adds up.")]
    duration_percentiles_ns: Percentiles
    errors: int
    usage: TotalUsage
    usage_by_agent: list[AgentUsage]
    usage_by_event_type: list[EventTypeUsage]
    usage_by_model: list[ModelUsage]


class State(Answer):
    """How the server is."""

    status: Literal["ok"]


class Addresses(Answer):
    """What the server answers to."""

    name: str
    version: str
    addresses: Annotated[dict[str, str], Field(description="Method and path, and what is there.")]
