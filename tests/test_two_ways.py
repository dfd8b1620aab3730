"""A run recorded while it happens, and the same run written by hand, are told the same way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

import clew
from clew.storage import (
    CostRepository,
    DAGRepository,
    EventRepository,
    File,
    Message,
    WorkflowRepository,
    get_db_session,
    init_database,
)
from clew.storage.database import close_database

from .conftest import ServerProcess

SESSION = "thesis"
USED = {"prompt_tokens": 1200, "completion_tokens": 80, "total_tokens": 1280}


def _record(server: ServerProcess) -> str:
    with clew.run("Map all stores", mode="one_shot", session=SESSION, endpoint=f"http://{server.grpc_target}") as run:
        with run.node("plan", node_type="planning"), run.agent_call("planner", role="primary") as call:
            call.usage(input_tokens=1200, output_tokens=80, cost_usd=0.5)
            call.message("Who left?", sender="planner", recipient="engineer", tokens=3)
        with run.node("draw", depends_on=["plan"]), run.agent_call("engineer", role="helper") as call:
            with call.code_exec("python", "print(1)") as code:
                code.outputs("1")
            call.file("plot.png", file_type="plot", size_bytes=7)
        return run.run_id


def _write(path: str) -> str:
    init_database(path)
    with get_db_session(path) as session:
        workflows, dag = WorkflowRepository(session, SESSION), DAGRepository(session, SESSION)
        events = EventRepository(session, SESSION)
        run_id = workflows.create_run(task_description="Map all stores", mode="one_shot", status="completed").id
        dag.create_node(run_id, "plan", node_type="planning", status="completed")
        dag.create_node(run_id, "draw", node_type="agent", depends_on=["plan"], status="completed")

        def event(event_type: str, order: int, parent: Any = None, node_id: str | None = None, **values: Any) -> Any:
            above = {"parent_event_id": parent and parent.id, "node_id": node_id, "event_subtype": "complete"}
            return events.create_event(run_id, event_type, order, **above, **values)

        root = event("agent_call", 0)
        plan = event("info", 1, root, "plan")
        usage = {"input_tokens": 1200, "output_tokens": 80, "cost_usd": 0.5}
        planner = event("agent_call", 2, plan, "plan", agent_name="planner", agent_role="primary", **usage)
        draw = event("info", 3, root, "draw")
        engineer = event("agent_call", 4, draw, "draw", agent_name="engineer", agent_role="helper")
        event("code_exec", 5, engineer, "draw", agent_name="engineer")
        said = {"sender": "planner", "recipient": "engineer", "content": "Who left?", "tokens": 3}
        session.add(Message(run_id=run_id, event_id=planner.id, node_id="plan", **said))
        made = {"file_path": "plot.png", "file_type": "plot", "role": "output", "size_bytes": 7}
        session.add(File(run_id=run_id, event_id=engineer.id, node_id="draw", **made))
        session.commit()
        CostRepository(session, SESSION).create_cost_record(
            run_id, event_id=planner.id, agent_name="planner", **USED, cost_usd=0.5, source="reported"
        )
    close_database(path)
    return str(run_id)


def _told(server: ServerProcess, run_id: str) -> dict[str, Any]:
    """What the API tells of the run, without ids, names and times."""

    def get(path: str = "") -> Any:
        return httpx.get(f"{server.http_url}/api/runs/{run_id}{path}").raise_for_status().json()

    def picked(rows: list[dict[str, Any]], *names: str) -> list[Any]:
        return [tuple(row[name] for name in names) for row in rows]

    of_event = ("depth", "execution_order", "event_type", "event_subtype", "agent_name", "agent_role", "status")
    totals = ("total_events", "event_types", "agents_involved", "agent_call_counts", "errors")
    graph, files, messages, statistics = get("/graph"), get("/files"), get("/messages"), get("/statistics")
    return {
        "run": picked([get()], "session_id", "status", "mode", "task_description", "event_count", "error_count"),
        "tree": picked(get("/tree")["events"], *of_event),
        "statistics": {name: statistics[name] for name in totals},
        "usage": statistics["usage_by_agent"],
        "costs": get("/costs")["total"],
        "files": picked(files["files"], "file_path", "file_type", "role", "size_bytes", "node_id"),
        "written by": [file["event"]["agent_name"] for file in files["files"]],
        "messages": picked(messages["messages"], "sender", "recipient", "content", "tokens", "node_id"),
        "nodes": picked(graph["nodes"], "id", "node_type", "status", "event_count"),
        "edges": picked(graph["edges"], "from_node_id", "to_node_id"),
        "history": len(get("/history")["events"]),
    }


def test_recorded_or_written_a_run_reads_the_same(
    server: ServerProcess, start_server: Callable[..., ServerProcess], tmp_path: Path
) -> None:
    """Its tree, statistics, costs, files, messages, graph and history."""
    recorded = _told(server, _record(server))
    path = str(tmp_path / "by-hand.duckdb")
    run_id = _write(path)
    written = _told(start_server("--db", path), run_id)
    for about, told in recorded.items():
        assert written[about] == told, about
