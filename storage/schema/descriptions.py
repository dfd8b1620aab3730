"""What every table, view and column is, in a sentence each: what people who write SQL are told."""

from __future__ import annotations

from typing import NamedTuple


class Described(NamedTuple):
    """A table or view, and its columns by name."""

    sentence: str
    columns: dict[str, str]


_SPAN_COLUMNS = {
    "trace_id": "Trace id, 32 hex digits: the run's id.",
    "span_id": "Span id as it was sent, 16 hex digits.",
    "parent_span_id": "Span id of the parent, NULL for a root.",
    "name": "Name of the span.",
    "start_time": "When the span started, UTC.",
    "end_time": "When the span ended, UTC; 1970-01-01 while it is open.",
    "kind": "INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED.",
    "status_code": "UNSET, OK or ERROR.",
    "status_message": "What the span says of its status.",
    "duration_ns": "Nanoseconds from start to end.",
    "trace_state": "W3C trace state.",
    "flags": "W3C trace flags and OTLP's own.",
    "service_name": "service.name of the resource.",
    "resource_attributes": "Attributes of the resource.",
    "resource_schema_url": "Schema URL of the resource.",
    "scope_name": "Name of the instrumentation library.",
    "scope_version": "Version of the instrumentation library.",
    "scope_attributes": "Attributes of the instrumentation library.",
    "scope_schema_url": "Schema URL of the instrumentation library.",
    "attributes": 'Attributes of the span; one of them is attributes."gen_ai.tool.name"::text.',
    "dropped_attributes_count": "How many attributes the sender dropped.",
    "dropped_events_count": "How many span events the sender dropped.",
    "dropped_links_count": "How many links the sender dropped.",
    "event_type": "What the span does: agent_call, tool_call, code_exec, file_gen, handoff and so on.",
    "agent_name": "The agent at work.",
    "model": "The model that was called.",
    "input_tokens": "Tokens given to the model.",
    "output_tokens": "Tokens the model gave.",
    "cost_usd": "US dollars, as the sender reported them.",
}

VIEWS = {
    "spans": Described("Every span in OpenTelemetry's words, with its resource and scope.", _SPAN_COLUMNS),
    "slowest_agents": Described(
        "How long agents take over a turn, the slowest first.",
        {
            "agent_name": "The agent.",
            "turns": "How many turns it has finished.",
            "failed_turns": "How many of them failed.",
            "average_duration_ns": "Nanoseconds of a turn on average.",
            "p95_duration_ns": "Nanoseconds within which 95 of 100 turns end.",
            "longest_duration_ns": "Nanoseconds of the longest turn.",
            "total_duration_ns": "Nanoseconds of all turns together.",
            "longest_run_id": "Run of the longest turn, 32 hex digits.",
            "longest_event_id": "Event of the longest turn, 16 hex digits.",
        },
    ),
    "cost_by_day_and_model": Described(
        "What each model cost on each day, the latest day and the dearest model first; an agent's sum of the calls "
        "below it is left out.",
        {
            "day": "Day in UTC.",
            "model": "The model, NULL where the record names none.",
            "calls": "How many calls there were.",
            "input_tokens": "Tokens given to the model.",
            "output_tokens": "Tokens the model gave.",
            "cost_usd": "US dollars, reported or estimated; NULL where nothing is known.",
            "estimated_usd": "The part of cost_usd that is estimated from tokens.",
        },
    ),
    "failing_tools": Described(
        "Tools that failed at least once, those with the most failures first.",
        {
            "tool": "Name of the tool, or of the span where it names none.",
            "calls": "How many calls have ended.",
            "failures": "How many of them failed.",
            "failed_share": "Failures by calls, from 0 to 1.",
            "last_message": "What the latest failure said.",
            "last_failed_at": "When the latest failed call started, UTC.",
            "last_run_id": "Run of the latest failure, 32 hex digits.",
            "last_event_id": "Event of the latest failure, 16 hex digits.",
        },
    ),
    "files_by_agent": Described(
        "Which agent wrote and read which files.",
        {
            "agent_name": "The agent, NULL where no event says who it was.",
            "file_path": "The file.",
            "role": "output where it was written, input where it was read.",
            "times": "How often.",
            "file_type": "code, data, plot, log or other, as told last.",
            "size_bytes": "Size in bytes, as told last.",
            "last_at": "When it was last written or read, UTC.",
            "last_run_id": "Run of the last time, 32 hex digits.",
            "last_event_id": "Event of the last time, 16 hex digits.",
        },
    ),
    "stuck_runs": Described(
        "Runs that have not ended and that nothing has been heard of for ten minutes, the most silent first.",
        {
            "run_id": "The run, 32 hex digits.",
            "name": "Name of the run.",
            "agent": "The agent it was given to.",
            "status": "planning, executing or running.",
            "started_at": "When it started, UTC.",
            "last_heard_at": "When it last said something: an event that started or ended, or a heartbeat; UTC.",
            "silent_ns": "Nanoseconds since then.",
            "open_event": "The latest of its events that have not ended.",
            "open_agent": "The agent of that event.",
        },
    ),
}
