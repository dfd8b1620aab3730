"""`clew files`, `clew messages`, `clew graph`: asked of a running server, as a user would."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from io import StringIO
from typing import Any

import httpx
import pytest
from rich.console import Console

from clew import terminal
from clew.storage import DAGEdge, DAGNode, File, Message

Clew = Callable[..., subprocess.CompletedProcess[str]]
RUN = "a1b2" * 8
COMMANDS = ("files", "messages", "graph")


@pytest.fixture
def ask(api_client: httpx.Client, clew: Clew) -> Clew:
    """Runs a command that asks the API over `store`."""
    return lambda *arguments: clew(*arguments, "--url", str(api_client.base_url))


@pytest.fixture
def workshop(rows: Any) -> Any:
    """A run with two files, two messages and three nodes; gives the writer of rows."""
    rows.run(RUN)
    planner = rows.event(RUN, 1, name="plan", agent_name="planner", node_id="planning")
    engineer = rows.event(RUN, 2, 1, name="write plot", agent_name="engineer", node_id="step_1")
    made = {"run_id": RUN, "file_type": "plot"}
    rows.add(
        File(id="01" * 16, event_id=planner, role="input", file_path="in.csv", created_at_unix_nano=rows.START, **made),
        File(
            id="02" * 16,
            event_id=engineer,
            role="output",
            file_path="out.png",
            size_bytes=12_345,
            created_at_unix_nano=rows.START + 10**9,
            **made,
        ),
    )
    draw = {"sender": "planner", "recipient": "engineer", "content": "draw\n  it\x1b[2J", "tokens": 1_200}
    done = {"role": "assistant", "content": "done " * 100}
    rows.add(Message(run_id=RUN, event_id=planner, time_unix_nano=rows.START, **draw))
    rows.add(Message(run_id=RUN, event_id=engineer, time_unix_nano=rows.START + 10**9, **done))
    times = {"started_at_unix_nano": rows.START, "completed_at_unix_nano": rows.START + 2 * 10**9}
    rows.add(
        DAGNode(run_id=RUN, id="planning", node_type="planning", agent="planner", status="completed", **times),
        DAGNode(run_id=RUN, id="step_1", node_type="agent", agent="engineer", status="running"),
        DAGNode(run_id=RUN, id="review", node_type="approval", status="pending"),
    )
    for start, end, condition in (("planning", "step_1", None), ("step_1", "review", "score < 3")):
        kind = "conditional" if condition else "sequential"
        edge = {"from_node_id": start, "to_node_id": end, "condition": condition, "dependency_type": kind}
        rows.add(DAGEdge(run_id=RUN, source="declared", **edge))
    return rows


def test_files_are_listed(workshop: Any, ask: Clew) -> None:
    """A header and a line a file: when, read or written, its path, type and size, by which agent, in which event."""
    header, read, wrote = ask("files", RUN).stdout.splitlines()
    assert header.split() == ["time", "file", "type", "bytes", "agent", "event"]
    assert read.split()[2:] == ["read", "in.csv", "plot", "planner", "plan"]
    assert wrote.split()[2:] == ["wrote", "out.png", "plot", "12,345", "engineer", "write", "plot"]


def test_files_can_be_chosen(workshop: Any, ask: Clew) -> None:
    """--role and --type leave out the files that are not meant."""
    [_, line] = ask("files", RUN, "--role", "output", "--type", "plot").stdout.splitlines()
    assert "out.png" in line
    assert ask("files", RUN, "--type", "code").stdout.startswith("no files")


def test_messages_are_listed(workshop: Any, ask: Clew) -> None:
    """A header and a line a message: when, from whom to whom, tokens, content on one line without control signs."""
    header, draw, done = ask("messages", RUN).stdout.splitlines()
    assert header.split() == ["time", "from", "→", "to", "tokens", "content"]
    assert draw.split()[2:] == ["planner", "→", "engineer", "1,200", "draw", "it�[2J"]
    assert done.split()[2:5] == ["assistant", "done", "done"]


def test_messages_can_be_chosen(workshop: Any, ask: Clew) -> None:
    """--sender, --recipient and --agent leave out the messages that are not meant."""
    [_, line] = ask("messages", RUN, "--sender", "planner", "--recipient", "engineer").stdout.splitlines()
    assert "draw it" in line
    [_, line] = ask("messages", RUN, "--agent", "engineer").stdout.splitlines()
    assert "done done" in line


def test_messages_are_shown_whole(workshop: Any, ask: Clew) -> None:
    """--full shows contents as they are, line by line below who said them to whom; control signs do nothing."""
    lines = ask("messages", RUN, "--full").stdout.splitlines()
    assert lines[0].endswith("planner → engineer  1,200")
    assert lines[1:3] == ["  draw", "    it�[2J"]
    assert lines[4] == "  " + "done " * 100


def test_a_graph_is_drawn(workshop: Any, ask: Clew) -> None:
    """A header and a line a node in working order, further right the more is before it, with what it waits for."""
    lines = [line.rstrip() for line in ask("graph", RUN).stdout.splitlines()]
    assert lines[0].split() == ["node", "type", "agent", "duration", "events", "waits", "for"]
    assert lines[1].split() == ["planning", "✓", "planning", "planner", "2.0", "s", "1"]
    assert lines[2].split() == ["step_1", "…", "agent", "engineer", "1", "←", "planning"]
    assert lines[3].split() == ["review", "·", "approval", "0", "←", "step_1", "(conditional:", "score", "<", "3)"]
    assert [len(line) - len(line.lstrip()) for line in lines[1:]] == [0, 2, 4]


def test_a_cycle_is_drawn(workshop: Any, ask: Clew) -> None:
    """Nodes of a cycle say that they wait for themselves, and an edge back is shown as any other."""
    workshop.add(
        DAGEdge(run_id=RUN, from_node_id="review", to_node_id="step_1", dependency_type="sequential", source="declared")
    )
    planning, *ring = ask("graph", RUN).stdout.splitlines()[1:]
    assert "waits for itself" not in planning
    assert [line.count("(waits for itself)") for line in ring] == [1, 1]
    assert "← planning, ← review" in " ".join(ring)


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_the_apis(workshop: Any, ask: Clew, api_client: httpx.Client, command: str) -> None:
    """--json prints what the API answers, and nothing besides; the start of an id suffices, as does none at all."""
    told = api_client.get(f"/api/runs/{RUN}/{command}").json()
    assert json.loads(ask(command, RUN[:3], "--json").stdout) == told
    assert json.loads(ask(command, "--json").stdout) == told


@pytest.mark.parametrize("command", ["files", "messages"])
def test_more_than_the_limit_is_hinted_at(workshop: Any, ask: Clew, command: str) -> None:
    """The first is listed, and a line says how to see later ones."""
    _, _, hint = ask(command, RUN, "--limit", "1").stdout.splitlines()
    assert hint.startswith("… ")
    assert "--limit 2" in hint


@pytest.mark.parametrize(
    ("command", "attribute"), [("files", "file.path"), ("messages", "clew.message"), ("graph", "clew.node.id")]
)
def test_nothing_there_tells_what_to_send(rows: Any, ask: Clew, command: str, attribute: str) -> None:
    """A run without any says so, and what telemetry makes some."""
    rows.run(RUN)
    told = ask(command, RUN)
    [line] = told.stdout.splitlines()
    assert told.returncode == 0
    assert line.startswith(f"no {command if command != 'graph' else 'nodes'}: ")
    assert attribute in line


@pytest.mark.parametrize("command", COMMANDS)
def test_mistakes_are_told(workshop: Any, ask: Clew, command: str) -> None:
    """One line on stderr that says what is wrong; exit code 1, no traceback."""
    refused = ask(command, "f" * 32)
    [line] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert line.startswith(f"clew: there is no run {'f' * 32}")


@pytest.mark.parametrize("command", COMMANDS)
def test_piped_output_is_plain(workshop: Any, ask: Clew, command: str) -> None:
    """No escape codes, no spaces at line ends."""
    shown = ask(command, RUN).stdout
    assert "\x1b" not in shown
    assert [line for line in shown.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize("width", [60, 120])
def test_lines_fit_the_terminal(workshop: Any, api_client: httpx.Client, width: int) -> None:
    """No line is wider than the terminal; what is long gives way."""
    paper = StringIO()
    console = Console(file=paper, width=width, highlight=False)
    terminal.draw_files(console, api_client.get(f"/api/runs/{RUN}/files").json())
    terminal.draw_messages(console, api_client.get(f"/api/runs/{RUN}/messages").json())
    terminal.draw_graph(console, api_client.get(f"/api/runs/{RUN}/graph").json())
    lengths = [len(line) for line in paper.getvalue().splitlines()]
    assert len(lengths) == 10
    assert max(lengths) <= width


@pytest.mark.parametrize(("shown", "told"), [(600, "--limit 1000 shows more"), (1_000, "see the API's pages")])
def test_hints_name_a_limit_that_is_accepted(shown: int, told: str) -> None:
    """Pages have at most 1,000 rows; past that the hint names no larger limit."""
    said = {"sender": "a", "recipient": "b", "role": None, "tokens": None, "content": "c", "time_unix_nano": "0"}
    paper = StringIO()
    console = Console(file=paper, width=80, highlight=False)
    terminal.draw_messages(console, {"messages": [said] * shown, "next_cursor": "more"})
    assert paper.getvalue().splitlines()[-1] == f"… later messages: {told}"
