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
    "start_time": "When the span started, UTC; NULL for a time beyond the calendar (2262).",
    "end_time": "When the span ended, UTC; NULL while it is open.",
    "kind": "INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER or UNSPECIFIED.",
    "status_code": "UNSET, OK or ERROR.",
    "status_message": "What the span says of its status.",
    "duration_ns": "Nanoseconds from start to end; NULL while it is open.",
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
    "agent_name": "The agent that the span names.",
    "model": "The model that was called.",
    "input_tokens": "Tokens given to the model.",
    "output_tokens": "Tokens the model gave.",
    "cost_usd": "US dollars, reported by the sender or estimated from tokens; cost_records tells which.",
}

# Columns that mean the same in every table that has them, unless the table says otherwise.
_SHARED = {
    "run_id": "The run it belongs to.",
    "event_id": "The event it belongs to, a number; event_id_text(event_id) gives its 16 hex digits.",
    "step_id": "The step of the run in which it was.",
    "node_id": "The node of the run's graph in which it was.",
    "session_id": "The session it belongs to.",
    "task_id": "The task it belongs to.",
    "agent_name": "The agent.",
    "name": "Its name.",
    "status": "How far it has come.",
    "created_at_unix_nano": "When it was made, in nanoseconds since 1970.",
    "started_at_unix_nano": "When it started, in nanoseconds since 1970.",
    "completed_at_unix_nano": "When it ended, in nanoseconds since 1970.",
    "time_unix_nano": "When it was, in nanoseconds since 1970.",
    "event_started_at_unix_nano": "When its event started, in nanoseconds since 1970.",
    "schema_url": "OTLP's schema URL.",
    "resource_id": "The resource that sent it.",
    "scope_id": "The instrumentation library that made it.",
    "trace_state": "W3C trace state.",
    "flags": "W3C trace flags and OTLP's own.",
    "dropped_attributes_count": "How many attributes the sender dropped.",
    "attributes": 'Its attributes; one of them is attributes."gen_ai.tool.name"::text.',
    "log_index": "Which log of the event said it, NULL where the event itself did.",
    "otlp": "The OTLP message as it came, serialised.",
    "stored_at_unix_nano": "When it was stored, in nanoseconds since 1970.",
    "otlp_residue": "What OTLP said that the columns cannot say exactly, serialised.",
    "meta": "Whatever else was said, as JSON.",
    "id": "Its id.",
}

TABLES = {
    "sessions": Described(
        "Whose runs they are; a session's runs are seen by it alone.",
        {
            "user_id": "The user.",
            "last_active_at_unix_nano": "When whoever keeps it said that it was active, in nanoseconds since 1970.",
            "status": "active, archived or deleted.",
            "resource_limits": "What it may use, as JSON.",
        },
    ),
    "projects": Described("Runs of a session that belong together.", {"description": "What it is about."}),
    "tasks": Described(
        "What somebody asked for.",
        {
            "title": "The task in short.",
            "input_prompt": "The task as it was asked.",
            "status": "PENDING, RUNNING, SUCCEEDED, FAILED or CANCELLED.",
            "result_summary": "What came of it.",
            "updated_at_unix_nano": "When it last changed, in nanoseconds since 1970.",
        },
    ),
    "workflow_runs": Described(
        "Workflow executions: a run is a trace.",
        {
            "id": "The trace id, a UUID; answers show its 32 hex digits.",
            "project_id": "The project it belongs to.",
            "mode": "How it was to be worked, such as one_shot or planning_control.",
            "agent": "The agent it was given to.",
            "model": "The model it was given to.",
            "service_name": "The service that sent it.",
            "status": "By telemetry running, completed or failed.",
            "task_description": "What was to be done.",
            "root_event_id": "Its first event, a number.",
            "last_started_at_unix_nano": "When the latest of its events started, in nanoseconds since 1970.",
            "completed_at_unix_nano": "When the last of its events ended, in nanoseconds since 1970; 0 for none.",
            "last_heartbeat_at_unix_nano": "When it last said that it lives, in nanoseconds since 1970.",
            "checkpoint_frequency_minutes": "Minutes between checkpoints.",
            "event_count": "How many events it has.",
            "error_count": "How many of them failed.",
            "parts_counted": "Whether span_event_count and span_link_count tell of all there are; NULL if not known.",
            "revision": "Rises whenever its events are written.",
            "usage_revision": "The revision for which its events' usage_counts and usage_agent_name hold.",
        },
    ),
    "workflow_steps": Described(
        "Stretches of runs.",
        {
            "id": "Its id within the run.",
            "step_number": "Its place in the run.",
            "agent": "The agent that works it.",
            "status": "pending, running, paused, waiting_approval, completed, failed or skipped.",
            "progress_percentage": "How much of it is done.",
            "inputs": "What it was given, as JSON.",
            "outputs": "What came of it, as JSON.",
            "error_message": "Why it failed.",
        },
    ),
    "dag_nodes": Described(
        "Nodes of runs' graphs.",
        {
            "id": "Its name within the run.",
            "node_type": "planning, control, agent, approval, parallel_group or terminator.",
            "agent": "The agent that works it.",
            "status": "pending, running, completed, failed or skipped.",
            "order_index": "Its place in the order of working.",
        },
    ),
    "dag_edges": Described(
        "Which node of a run waits for which.",
        {
            "from_node_id": "The node that comes first.",
            "to_node_id": "The node that waits for it.",
            "dependency_type": "sequential, parallel or conditional.",
            "condition": "When it holds.",
            "source": "declared, workflow, handoff, link or manual.",
        },
    ),
    "agent_runs": Described(
        "Agents' turns: one row an invocation.",
        {
            "status": "STARTED, RUNNING, COMPLETED, FAILED or CANCELLED.",
            "finished_at_unix_nano": "When it ended, in nanoseconds since 1970; NULL while it lasts.",
            "output_summary": "What came of it.",
        },
    ),
    "execution_events": Described(
        "What was done: an event is a span.",
        {
            "id": "The span id, a number; event_id_text(id) gives its 16 hex digits.",
            "otel_span_id": "The span id as it was sent, where distinct spans of a run share one.",
            "parent_event_id": "The event above it, a number; NULL for a root.",
            "execution_order": "Its place in the run, where the sender says it.",
            "depth": "Its depth in the tree, where the sender says it.",
            "kind": "OTLP's span kind, 0 to 5.",
            "event_type": "What it does: agent_call, tool_call, code_exec, file_gen, handoff and so on.",
            "event_subtype": "start, complete, error, info, pending, approved or rejected.",
            "agent_role": "primary, helper or validator.",
            "model": "The model that was called.",
            "status": "pending, running, completed, failed or skipped.",
            "status_code": "OTLP's status code: 0 unset, 1 ok, 2 error.",
            "status_message": "What it says of its status.",
            "completed_at_unix_nano": "When it ended, in nanoseconds since 1970; 0 while it lasts.",
            "duration_ns": "Nanoseconds from start to end.",
            "input_tokens": "Tokens given to the model.",
            "output_tokens": "Tokens the model gave.",
            "cost_usd": "US dollars, reported by the sender or estimated from tokens; cost_records tells which.",
            "dropped_events_count": "How many span events the sender dropped.",
            "dropped_links_count": "How many links the sender dropped.",
            "span_event_count": "How many logs came within the span; NULL if it is not known.",
            "span_link_count": "How many links came within the span; NULL if it is not known.",
            "history_id": "Where the conversation that it repeats is kept once.",
            "compacted_at_unix_nano": "When its rows were folded, in nanoseconds since 1970.",
            "usage_counts": "Whether what it uses counts, and not that of events below it; NULL until worked out.",
            "usage_agent_name": "The agent that used it: its own, or its nearest ancestor's; NULL until worked out.",
        },
    ),
    "event_logs": Described(
        "Moments inside events, and log records.",
        {
            "log_index": "Its place among those of its span; a hash below zero for a log record.",
            "observed_time_unix_nano": "When a collector saw it, in nanoseconds since 1970.",
            "event_type": "LOG, MESSAGE, ERROR and so on; NULL for a moment inside an event.",
            "agent_role": "The role of the agent that wrote it.",
            "content": "The body of a log record, as text or JSON.",
            "severity_number": "OTel's severity: 9 for INFO, 17 for ERROR, 0 where untold.",
            "severity_text": "The severity in the sender's words.",
        },
    ),
    "event_links": Described(
        "Links of events to events, of the same or another run.",
        {
            "link_index": "Its place among those of its event.",
            "linked_run_id": "The run it points at.",
            "linked_event_id": "The event it points at, a number.",
        },
    ),
    "cost_records": Described(
        "What model calls cost; an agent's record may repeat the sum of those below it.",
        {
            "model": "The model.",
            "prompt_tokens": "Tokens given to the model.",
            "completion_tokens": "Tokens the model gave.",
            "total_tokens": "Both together.",
            "cached_tokens": "Of the tokens given, those from a cache.",
            "reasoning_tokens": "Of the tokens it gave, those spent on reasoning.",
            "cost_usd": "US dollars.",
            "source": "reported by the sender, or estimated from the tokens.",
        },
    ),
    "messages": Described(
        "What was said, each message once in its session.",
        {
            "sender": "Who said it.",
            "recipient": "To whom.",
            "role": "system, user, assistant, tool and the like.",
            "content": "What was said.",
            "content_hash": "A hash of session, sender, role and content.",
            "tokens": "How many tokens it has.",
        },
    ),
    "files": Described(
        "Files that events wrote or read.",
        {
            "file_path": "The file.",
            "file_type": "code, data, plot, log or other.",
            "role": "output where it was written, input where it was read.",
            "size_bytes": "Its size in bytes.",
            "content_hash": "SHA-256 of the content, in hex.",
        },
    ),
    "checkpoints": Described(
        "Runs' contexts at moments.",
        {
            "checkpoint_type": "step_complete, timed, manual, error or emergency.",
            "context_snapshot": "The context, as JSON.",
            "pickle_file_path": "The file that holds the whole context.",
            "pickle_digest": "What proves that the file was written by clew.",
        },
    ),
    "approval_requests": Described(
        "Questions to people.",
        {
            "id": "Its id within the run.",
            "status": "pending, approved, rejected or modified.",
            "requested_at_unix_nano": "When it was asked, in nanoseconds since 1970.",
            "resolved_at_unix_nano": "When it was answered, in nanoseconds since 1970.",
            "context_snapshot": "What it was about, as JSON.",
            "user_feedback": "What the person said.",
            "resolution": "What was decided.",
        },
    ),
    "branches": Described(
        "Runs that try another way from a point of their parent run.",
        {
            "parent_run_id": "The run it leaves.",
            "parent_step_id": "The step at which it leaves.",
            "parent_event_id": "The event at which it leaves, a number.",
            "child_run_id": "The run that tries.",
            "branch_name": "Its name.",
            "hypothesis": "What it tries.",
        },
    ),
    "workflow_metrics": Described(
        "Metric points.",
        {
            "point_id": "A hash of the point.",
            "metric_name": "The metric.",
            "metric_type": "gauge, sum, histogram, exponential_histogram or summary.",
            "metric_value": "The value, or the sum where there are several.",
            "unit": "The unit, as UCUM writes it.",
        },
    ),
    "resources": Described(
        "What sent telemetry, each once.",
        {"id": "A hash of the content.", "service_name": "service.name."},
    ),
    "scopes": Described(
        "Instrumentation libraries, each once.",
        {"id": "A hash of the content.", "name": "The library.", "version": "Its version."},
    ),
    "compacted_portions": Described(
        "Events that were made quick to search together.",
        {
            "compacted_at_unix_nano": "When, in nanoseconds since 1970: their `compacted_at_unix_nano`.",
            "attribute_keys": "The keys that their attributes have, NULL where that is not known.",
        },
    ),
    "text_filters": Described(
        "Which texts attributes are, of events that were made quick to search together.",
        {
            "compacted_at_unix_nano": "When that was, in nanoseconds since 1970.",
            "attribute_key": "The key of the attributes.",
            "text_filter": "Their texts as a Bloom filter: what it does not know, none of them is.",
        },
    ),
    "export_cursors": Described(
        "How far what is sent on to other backends has come.",
        {
            "target": "The name of the backend.",
            "signal": "traces, logs or metrics.",
            "position": "The place in the order of commits up to which it has answered.",
            "sent": "How many records it has taken.",
            "refused": "How many records it has refused for good.",
            "last_error": "Why it gets nothing at the moment, NULL while all is well.",
            "last_error_at_unix_nano": "When that was, in nanoseconds since 1970.",
            "updated_at_unix_nano": "When this last changed, in nanoseconds since 1970.",
        },
    ),
    "history_parts": Described(
        "Conversations that model calls repeat, each part once.",
        {
            "text": "The part, where it is one.",
            "parts": "The parts of which it is made, where there are several.",
        },
    ),
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


def table_sentence(table: str) -> str:
    """What the table or view is. Raises KeyError where it is not described."""
    return _described(table).sentence


def column_sentence(table: str, column: str) -> str:
    """What the column is. Raises KeyError where it is not described."""
    described = _described(table).columns
    return described[column] if column in described else _SHARED[column]


def _described(table: str) -> Described:
    return TABLES[table] if table in TABLES else VIEWS[table]
