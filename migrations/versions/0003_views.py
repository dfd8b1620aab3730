"""Views for the questions people ask first, and functions that write ids as everybody knows them."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_FUNCTIONS = {"run_id_text": "uuid", "event_id_text": "bigint"}
_TOOL_NAMES = ("gen_ai.tool.name", "tool.name", "ai.toolCall.name", "tool_name", "traceloop.entity.name")
_SILENT_NS = 10 * 60 * 1_000_000_000


def _postgresql() -> bool:
    return bool(op.get_bind().dialect.name == "postgresql")


def upgrade() -> None:
    for name, written in _functions().items():
        op.execute(_create_function(name, written))
    for name, query in _views().items():
        op.execute(f"CREATE VIEW {name} AS {query}")


def downgrade() -> None:
    for name in reversed(_views()):
        op.execute(f"DROP VIEW {name}")
    for name in _FUNCTIONS:
        op.execute(f"DROP FUNCTION {name}" if _postgresql() else f"DROP MACRO {name}")


def _functions() -> dict[str, str]:
    to_hex = "to_hex(id)" if _postgresql() else "lower(hex(id))"
    return {"run_id_text": "replace(CAST(id AS VARCHAR), '-', '')", "event_id_text": f"lpad({to_hex}, 16, '0')"}


def _create_function(name: str, written: str) -> str:
    if _postgresql():
        kind = _FUNCTIONS[name]
        return f"CREATE FUNCTION {name}(id {kind}) RETURNS text LANGUAGE sql IMMUTABLE RETURN {written}"
    return f"CREATE MACRO {name}(id) AS {written}"


def _views() -> dict[str, str]:
    return {
        "slowest_agents": _slowest_agents(),
        "cost_by_day_and_model": _cost_by_day_and_model(),
        "failing_tools": _failing_tools(),
        "files_by_agent": _files_by_agent(),
        "stuck_runs": _stuck_runs(),
    }


def _slowest_agents() -> str:
    longest = "duration_ns"
    return f"""
    SELECT agent_name,
        count(*) AS turns,
        count(*) FILTER (WHERE status = 'FAILED') AS failed_turns,
        avg(duration_ns) AS average_duration_ns,
        percentile_disc(0.95) WITHIN GROUP (ORDER BY duration_ns) AS p95_duration_ns,
        max(duration_ns) AS longest_duration_ns,
        sum(duration_ns) AS total_duration_ns,
        run_id_text({_of_most("run_id", longest)}) AS longest_run_id,
        event_id_text({_of_most("event_id", longest)}) AS longest_event_id
    FROM (
        SELECT *, finished_at_unix_nano - started_at_unix_nano AS duration_ns
        FROM agent_runs WHERE finished_at_unix_nano > 0
    ) AS turn
    GROUP BY agent_name
    ORDER BY average_duration_ns DESC, agent_name
    """  # noqa: S608 our own names


def _cost_by_day_and_model() -> str:
    """An agent's event often repeats the sum of the calls below it: a record counts unless an event below its own has
    one too. UNION keeps each event above once, so rings of parents end."""
    return f"""
    WITH RECURSIVE above (run_id, event_id) AS (
        SELECT e.run_id, e.parent_event_id
        FROM execution_events e JOIN cost_records c ON c.run_id = e.run_id AND c.event_id = e.id
        WHERE e.parent_event_id <> e.id
        UNION
        SELECT e.run_id, e.parent_event_id
        FROM above JOIN execution_events e ON e.run_id = above.run_id AND e.id = above.event_id
        WHERE e.parent_event_id <> e.id
    )
    SELECT {_day("time_unix_nano")} AS day,
        model,
        count(*) AS calls,
        sum(prompt_tokens) AS input_tokens,
        sum(completion_tokens) AS output_tokens,
        sum(cost_usd) AS cost_usd,
        sum(cost_usd) FILTER (WHERE source = 'estimated') AS estimated_usd
    FROM cost_records c
    WHERE NOT EXISTS (SELECT 1 FROM above WHERE above.run_id = c.run_id AND above.event_id = c.event_id)
    GROUP BY 1, 2
    ORDER BY 1 DESC, 6 DESC NULLS LAST, 2
    """  # noqa: S608 our own names


def _failing_tools() -> str:
    named = ", ".join(_attribute(key) for key in _TOOL_NAMES)
    last = "failed_at_unix_nano"
    return f"""
    SELECT tool,
        count(*) AS calls,
        count(failed_at_unix_nano) AS failures,
        CAST(count(failed_at_unix_nano) AS DOUBLE PRECISION) / count(*) AS failed_share,
        {_of_most("status_message", last)} AS last_message,
        max({_timestamp(last)}) AS last_failed_at,
        run_id_text({_of_most("run_id", last)}) AS last_run_id,
        event_id_text({_of_most("id", last)}) AS last_event_id
    FROM (
        SELECT run_id, id, status_message, coalesce({named}, name) AS tool,
            CASE status WHEN 'failed' THEN started_at_unix_nano END AS failed_at_unix_nano
        FROM execution_events
        WHERE event_type IN ('tool_call', 'code_exec') AND status IN ('completed', 'failed')
    ) AS call
    GROUP BY tool
    HAVING count(failed_at_unix_nano) > 0
    ORDER BY failures DESC, tool
    """  # noqa: S608 our own names


def _files_by_agent() -> str:
    last = "f.created_at_unix_nano"
    return f"""
    SELECT e.agent_name,
        f.file_path,
        f.role,
        count(*) AS times,
        {_of_most("f.file_type", last)} AS file_type,
        {_of_most("f.size_bytes", last)} AS size_bytes,
        max({_timestamp(last)}) AS last_at,
        run_id_text({_of_most("f.run_id", last)}) AS last_run_id,
        event_id_text({_of_most("f.event_id", last)}) AS last_event_id
    FROM files f LEFT JOIN execution_events e ON e.run_id = f.run_id AND e.id = f.event_id
    GROUP BY e.agent_name, f.file_path, f.role
    ORDER BY e.agent_name, f.file_path, f.role
    """  # noqa: S608 our own names


def _stuck_runs() -> str:
    return f"""
    SELECT run_id_text(run_id) AS run_id,
        name,
        agent,
        status,
        started_at,
        last_heard_at,
        silent_ns,
        open_event,
        open_agent
    FROM (
        SELECT r.id AS run_id, r.name, r.agent, r.status,
            {_timestamp("r.started_at_unix_nano")} AS started_at,
            {_timestamp("heard.at_unix_nano")} AS last_heard_at,
            {_now_ns()} - heard.at_unix_nano AS silent_ns,
            opened.name AS open_event,
            opened.agent_name AS open_agent
        FROM workflow_runs r
        JOIN (
            SELECT id, greatest(last_started_at_unix_nano, completed_at_unix_nano,
                                coalesce(last_heartbeat_at_unix_nano, 0)) AS at_unix_nano
            FROM workflow_runs
        ) AS heard ON heard.id = r.id
        LEFT JOIN (
            SELECT run_id,
                {_of_most("name", "started_at_unix_nano")} AS name,
                {_of_most("agent_name", "started_at_unix_nano")} AS agent_name
            FROM execution_events WHERE status IN ('pending', 'running') GROUP BY run_id
        ) AS opened ON opened.run_id = r.id
        WHERE r.status IN ('planning', 'executing', 'running')
    ) AS unfinished
    WHERE silent_ns >= {_SILENT_NS}
    ORDER BY silent_ns DESC, run_id
    """  # noqa: S608 our own names


def _of_most(column: str, number: str) -> str:
    """The value of `column` where `number` is the largest in the group."""
    if _postgresql():
        return f"(array_agg({column} ORDER BY {number} DESC NULLS LAST))[1]"
    return f"arg_max_null({column}, {number})"


def _attribute(key: str) -> str:
    return f"attributes ->> '{key}'" if _postgresql() else f'CAST(attributes."{key}" AS VARCHAR)'


def _timestamp(unix_nano: str) -> str:
    return f"to_timestamp({unix_nano} / 1e9)" if _postgresql() else f"TRY(make_timestamp_ns({unix_nano}))"


def _day(unix_nano: str) -> str:
    """The calendar day in UTC."""
    if _postgresql():
        return f"CAST(to_timestamp({unix_nano} / 1e9) AT TIME ZONE 'UTC' AS DATE)"
    return f"CAST(TRY(make_timestamp_ns({unix_nano})) AS DATE)"


def _now_ns() -> str:
    return "CAST(extract(epoch FROM now()) * 1e9 AS BIGINT)" if _postgresql() else "epoch_ns(now())"
