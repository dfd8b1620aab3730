"""`clew serve --demo`: the first thing a newcomer sees."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Clew = Callable[..., subprocess.CompletedProcess[str]]


def _tree(server: Any) -> dict[str, Any]:
    [run] = httpx.get(f"{server.http_url}/api/runs").json()["runs"]
    tree: dict[str, Any] = httpx.get(f"{server.http_url}/api/runs/{run['id']}/tree").json()
    return tree


def test_it_shows_the_tree(demo_server: Any, clew: Clew) -> None:
    """What it prints is what `clew tree` prints."""
    drawn = clew("tree", "--url", demo_server.http_url).stdout
    assert len(drawn.splitlines()) == 28
    assert drawn in demo_server.rest


def test_the_commands_it_names_work(demo_server: Any, clew: Clew) -> None:
    """Each line under "look at it" can be pasted: commands, and an address."""
    *commands, address = demo_server.rest.rstrip().split("look at it from another terminal\n")[1].splitlines()
    pasted = [line.split()[-4:] for line in commands]
    assert [words[0] for words in pasted] == ["tree", "stats", "files", "messages", "graph"]
    for words in pasted:
        shown = clew(*words)
        assert (shown.returncode, bool(shown.stdout)) == (0, True)
    assert httpx.get(address.strip()).json() == _tree(demo_server)


def test_the_run_is_whole(demo_server: Any) -> None:
    """One root, no event without its parent, the run ended well, its events failed where the story says."""
    tree = _tree(demo_server)
    assert (tree["roots"], tree["orphans"], tree["cycles"]) == (1, 0, 0)
    assert (tree["run"]["status"], tree["run"]["session_id"]) == ("completed", "demo")
    failed = [(event["name"], event["status_message"]) for event in tree["events"] if event["status"] == "failed"]
    assert failed == [
        ("execute_tool query_warehouse", "TimeoutError: no answer within 5 s"),
        ("run churn.py", "KeyError: 'closed_at'"),
    ]


def test_the_run_has_something_of_everything(demo_server: Any) -> None:
    """Agents' turns and model calls, tools, code, files, hand-overs and an approval, each told apart."""
    assert Counter(event["event_type"] for event in _tree(demo_server)["events"]) == {
        "agent_call": 12,
        "tool_call": 4,
        "file_gen": 4,
        "handoff": 3,
        "code_exec": 2,
        "approval_requested": 1,
    }


def test_a_retry_points_at_what_failed(demo_server: Any) -> None:
    """The second attempt links to the first as its cause."""
    tree = _tree(demo_server)
    first, second = (event for event in tree["events"] if event["name"] == "run churn.py")
    url = f"{demo_server.http_url}/api/runs/{tree['run']['id']}/events"
    [link] = httpx.get(f"{url}/{second['id']}").json()["links"]
    assert (link["linked_event_id"], link["attributes"]) == (first["id"], {"clew.link.type": "caused_by"})


def test_files_are_told_of(demo_server: Any) -> None:
    """A file that was written is a log of the event that wrote it, with path, size and type."""
    tree = _tree(demo_server)
    [brief] = [event["id"] for event in tree["events"] if event["name"] == "write brief.md"]
    [log] = httpx.get(f"{demo_server.http_url}/api/runs/{tree['run']['id']}/events/{brief}").json()["logs"]
    assert log["name"] == "clew.file"
    assert (log["attributes"]["file.path"], log["attributes"]["file.size"]) == ("brief.md", 7_316)


def test_it_works_again_and_leaves_real_data_alone(start_server: Callable[..., Any]) -> None:
    """The demo keeps a file of its own, which a second demo adds to; the everyday database is not touched."""
    demo = start_server("--demo")
    demo.read_until("/tree")
    demo.restart()
    demo.read_until("/tree")
    assert demo.db.name == "demo.duckdb"
    assert len(httpx.get(f"{demo.http_url}/api/runs").json()["runs"]) == 2
    assert list(demo.db.parent.glob("clew.duckdb*")) == []


def test_it_goes_where_it_is_told(start_server: Callable[..., Any], tmp_path: Path) -> None:
    """With --db the demo's run lies beside whatever is there."""
    demo = start_server("--demo", "--db", str(tmp_path / "mine.duckdb"))
    demo.read_until("/tree")
    assert demo.db == tmp_path / "mine.duckdb"
    assert len(httpx.get(f"{demo.http_url}/api/runs").json()["runs"]) == 1


def test_an_sdk_that_is_switched_off_is_told(clew: Clew, tmp_path: Path) -> None:
    """The demo records as applications do; where they would record nothing, it says why."""
    refused = clew(
        *("serve", "--demo", "--db", str(tmp_path / "x.duckdb"), "--grpc-port", "0", "--http-port", "0"),
        variables={"OTEL_SDK_DISABLED": "true"},
    )
    assert refused.returncode == 1
    assert refused.stderr == "clew: the OpenTelemetry SDK is switched off; unset OTEL_SDK_DISABLED\n"


def test_its_agents_call_one_another(demo_server: Any, clew: Clew) -> None:
    """The hand-overs of the run are calls."""
    drawn = clew("calls", "--url", demo_server.http_url).stdout
    calls = [line.split()[:4] for line in drawn.splitlines()[1:]]
    assert sorted((caller, callee, count) for caller, _, callee, count in calls) == [
        ("engineer", "planner", "1"),
        ("planner", "researcher", "1"),
        ("researcher", "engineer", "1"),
    ]
