"""`clew runs`, `clew tree`, `clew stats`: asked of a running server, as a user would."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from rich.text import Text

Clew = Callable[..., subprocess.CompletedProcess[str]]


class _GivenIds(IdGenerator):
    """Trace ids as given, in this order."""

    def __init__(self, trace_ids: Sequence[int]) -> None:
        self._trace_ids = iter(trace_ids)
        self._span_id = 0

    def generate_trace_id(self) -> int:
        return next(self._trace_ids)

    def generate_span_id(self) -> int:
        self._span_id += 1
        return self._span_id


def _record(server: Any, *trace_ids: str, name: str = "work") -> None:
    """One run of one span for each id, a second apart."""
    provider = TracerProvider(id_generator=_GivenIds([int(text, 16) for text in trace_ids]))
    exporter = OTLPSpanExporter(endpoint=f"http://{server.grpc_target}", insecure=True)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for second, _ in enumerate(trace_ids):
        started_ns = 1_750_000_000_000_000_000 + second * 1_000_000_000
        provider.get_tracer("test").start_span(name, start_time=started_ns).end(started_ns + 1_500_000)
    provider.shutdown()


def _demo_run(demo_server: Any) -> str:
    return str(httpx.get(f"{demo_server.http_url}/api/runs").json()["runs"][0]["id"])


def test_runs_are_listed(demo_server: Any, clew: Clew) -> None:
    """A header and a line for each run: the start of its id, name, agent, duration, events, errors."""
    header, line = clew("runs", "--url", demo_server.http_url).stdout.splitlines()
    assert header.split() == ["run", "name", "agent", "started", "duration", "events", "errors"]
    run_id = _demo_run(demo_server)
    assert line.split()[:5] == [run_id[:8], "✓", "invoke_workflow", "churn-brief", "planner"]
    assert line.split()[-4:] == ["48.2", "s", "26", "2"]


def test_runs_can_be_chosen(demo_server: Any, clew: Clew) -> None:
    """--status, --session, --agent and --since leave out the runs that are not meant."""
    url = ("--url", demo_server.http_url)
    chosen = ("--status", "completed", "--session", "demo", "--agent", "engineer", "--since", "-1d")
    assert len(clew("runs", *url, *chosen).stdout.splitlines()) == 2
    assert clew("runs", *url, "--session", "another").stdout.startswith("no such runs; `clew runs` lists all")
    assert "say one of draft, planning" in clew("runs", *url, "--status", "done").stderr


def test_listed_ids_tell_runs_apart(server: Any, clew: Clew) -> None:
    """Ids that begin alike are listed with as many digits as it takes, so that what is listed can be typed."""
    _record(server, "ab" * 15 + "01", "ab" * 15 + "02", "cd" * 16)
    listed = clew("runs", "--url", server.http_url).stdout.splitlines()[1:]
    assert [line.split()[0] for line in listed] == ["cd" * 16, "ab" * 15 + "02", "ab" * 15 + "01"]


def test_more_runs_than_the_limit_are_hinted_at(server: Any, clew: Clew) -> None:
    """The newest run is listed, and a line says how to see older ones."""
    _record(server, "a1" * 16, "b2" * 16)
    listed = clew("runs", "--limit", "1", "--url", server.http_url).stdout.splitlines()
    assert [line.split()[0] for line in listed] == ["run", "b2b2b2b2", "…"]
    assert "--limit 2" in listed[-1]


def test_a_tree_is_drawn(demo_server: Any, clew: Clew) -> None:
    """The run with its id, then a line for each event with its branch, icon, name, mark and duration."""
    title, about, *lines = clew("tree", "--url", demo_server.http_url).stdout.splitlines()
    assert title == f"run {_demo_run(demo_server)}  ✓ completed"
    assert about.endswith("48.2 s · 26 events · 2 errors")
    assert len(lines) == 26
    assert lines[0].split() == ["●", "invoke_workflow", "churn-brief", "✓", "48.2", "s"]
    assert lines[1].startswith("├─ ● invoke_agent planner ")
    assert lines[8].startswith("│  ├─ ◆ execute_tool query_warehouse  TimeoutError: no answer within 5 s  ✗")
    assert lines[-1].startswith("   └─ ■ write brief.md ")


def test_a_tree_says_what_was_used(demo_server: Any, clew: Clew) -> None:
    """Model calls show their tokens, in and out together, and their cost."""
    [line] = [line for line in clew("tree", "--url", demo_server.http_url).stdout.splitlines() if "13,440" in line]
    assert line.split()[-4:] == ["s", "13,440", "tok", "$0.0297"]


def test_a_part_of_a_tree_is_drawn(demo_server: Any, clew: Clew) -> None:
    """--root draws an event and what is below it, as a tree of its own."""
    url, run_id = demo_server.http_url, _demo_run(demo_server)
    events = httpx.get(f"{url}/api/runs/{run_id}/tree").json()["events"]
    [engineer] = [event["id"] for event in events if event["name"] == "invoke_agent engineer"]
    lines = clew("tree", run_id, "--root", engineer, "--url", url).stdout.splitlines()[2:]
    assert lines[0].startswith("● invoke_agent engineer")
    assert len(lines) == 9


def test_a_large_tree_is_cut(demo_server: Any, clew: Clew) -> None:
    """What --depth and --limit leave out is counted, with the options that show it."""
    lines = clew("tree", "--depth", "1", "--limit", "4", "--url", demo_server.http_url).stdout.splitlines()[2:]
    assert lines[0].startswith("● invoke_workflow churn-brief ")
    assert lines[1].startswith("├─ ● invoke_agent planner  +2 below ")
    assert lines[4:] == [
        "… 14 more events after these: --limit 26 shows all",
        "… 8 events below the last level shown: --depth 3 shows all",
    ]


def test_statistics_are_summed_up(demo_server: Any, clew: Clew) -> None:
    """Events, errors, durations and tokens of the run, then the same by type, agent and model."""
    shown = clew("stats", "--url", demo_server.http_url).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["events", "26", "events", "·", "2", "errors", "·", "2", "m", "25", "s", "in", "all"] in lines
    assert ["tokens", "46,045", "in", "·", "4,130", "out", "·", "$0.0476"] in lines
    assert ["λ", "code_exec", "2"] in lines
    assert ["planner", "7", "13,200", "1,890", "$0.0354"] in lines
    by_agent = lines[lines.index(["agent", "events", "tokens", "in", "tokens", "out", "cost"]) + 1 :]
    by_agent = by_agent[: by_agent.index([])]
    assert ["(none)", "1"] in by_agent
    assert sum(int(line[1]) for line in by_agent) == 26
    assert ["codestral-2", "3", "22,010", "1,440", "$0.0079"] in lines


@pytest.mark.parametrize(("command", "path"), [("runs", ""), ("tree", "/tree"), ("stats", "/statistics")])
def test_json_is_the_apis(demo_server: Any, clew: Clew, command: str, path: str) -> None:
    """--json prints what the API answers, and nothing besides."""
    url = demo_server.http_url
    address = f"{url}/api/runs/{_demo_run(demo_server)}{path}" if path else f"{url}/api/runs"
    assert json.loads(clew(command, "--json", "--url", url).stdout) == httpx.get(address).json()


def test_the_start_of_an_id_suffices(server: Any, clew: Clew) -> None:
    """As few digits as only one run begins with; upper case and dashes are accepted."""
    first, second, third = "aa11" * 8, "aa22" * 8, "bb33" * 8
    _record(server, first, second, third)
    for prefix, run_id in (("b", third), ("aa2", second), ("AA11AA11-AA", first), (third, third)):
        assert clew("tree", prefix, "--url", server.http_url).stdout.startswith(f"run {run_id} ")


def test_an_ambiguous_start_lists_the_candidates(server: Any, clew: Clew) -> None:
    """Which run is meant is the user's to say; both ids are shown."""
    _record(server, "aa11" * 8, "aa22" * 8)
    refused = clew("tree", "aa", "--url", server.http_url)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[1:] == [f"  {'aa22' * 8}  work", f"  {'aa11' * 8}  work"]


def test_the_latest_run_is_meant_when_none_is_named(server: Any, clew: Clew) -> None:
    """`clew tree` draws the run that began last."""
    _record(server, "b1" * 16, "a2" * 16)
    assert clew("tree", "--url", server.http_url).stdout.startswith(f"run {'a2' * 16} ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("tree", "nonsense"), "'nonsense' is not a run id"),
        (("tree", "f" * 33), "is not a run id"),
        (("stats", "abc123"), "no run's id starts with abc123"),
        (("tree", "f" * 32), f"there is no run {'f' * 32}"),
        (("tree",), "has no runs yet"),
        (("runs", "--since", "yesterday"), "'yesterday' is not a time"),
    ],
)
def test_mistakes_are_told(server: Any, clew: Clew, arguments: tuple[str, ...], told: str) -> None:
    """One line on stderr that says what is wrong; exit code 1, no traceback."""
    refused = clew(*arguments, "--url", server.http_url)
    [line] = refused.stderr.splitlines()
    assert (refused.returncode, refused.stdout) == (1, "")
    assert line.startswith("clew: ")
    assert told in line


def test_no_server_is_told(clew: Clew) -> None:
    """The address that was asked, and how to start a server; the address comes from CLEW_URL too."""
    refused = clew("runs", variables={"CLEW_URL": "http://127.0.0.1:1"})
    assert refused.returncode == 1
    assert refused.stderr.startswith("clew: nothing answers at http://127.0.0.1:1; start a server with `clew serve`")


def test_another_server_is_told(server: Any, clew: Clew) -> None:
    """The gRPC port does not speak HTTP: the error asks for the HTTP port."""
    refused = clew("runs", "--url", f"http://{server.grpc_target}")
    assert refused.returncode == 1
    assert "is that its HTTP port?" in refused.stderr


def test_a_proxy_is_not_asked_for_this_machine(demo_server: Any, clew: Clew) -> None:
    """HTTP_PROXY is for the outer world."""
    listed = clew("runs", "--url", demo_server.http_url, variables={"HTTP_PROXY": "http://127.0.0.1:1"})
    assert listed.returncode == 0


def test_piped_output_is_plain(demo_server: Any, clew: Clew) -> None:
    """No escape codes, no spaces at line ends, nothing cut off."""
    for command in ("runs", "tree", "stats"):
        shown = clew(command, "--url", demo_server.http_url).stdout
        assert "\x1b" not in shown
        assert "…" not in shown
        assert [line for line in shown.splitlines() if line != line.rstrip()] == []


def test_a_closed_pipe_is_no_error(demo_server: Any, environment: dict[str, str]) -> None:
    """`clew tree | head -1` ends quietly."""
    command = f"{sys.executable} -m clew tree --url {demo_server.http_url} | head -1"
    shown = subprocess.run(
        ["bash", "-c", command], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("run ")
    assert shown.stderr == ""


@pytest.mark.parametrize("command", ["runs", "tree", "stats"])
@pytest.mark.parametrize("width", [80, 140])
def test_a_terminal_gets_colour_and_lines_that_fit(
    demo_server: Any, environment: dict[str, str], tmp_path: Path, command: str, width: int
) -> None:
    """In a terminal no line is wider than it."""
    environment = {**environment, "TERM": "xterm-256color", "COLUMNS": str(width)}
    shown = _in_terminal([sys.executable, "-m", "clew", command, "--url", demo_server.http_url], environment, tmp_path)
    assert "\x1b[" in shown
    lengths = [len(line) for line in _plain(shown).splitlines()]
    assert 40 < max(lengths) <= width


def test_a_wide_terminal_shows_when(demo_server: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """Each event's bar stands where it was in the run: the root's is as long as the run, the last agent's ends it."""
    environment = {**environment, "TERM": "xterm-256color", "COLUMNS": "140"}
    shown = _in_terminal([sys.executable, "-m", "clew", "tree", "--url", demo_server.http_url], environment, tmp_path)
    lines = _plain(shown).splitlines()[2:]
    left, right = lines[0].index("━"), len(lines[0])
    assert lines[0].endswith("━" * 28)
    assert lines[1].index("━") == left
    assert all(left <= line.index("━") and len(line) <= right for line in lines)
    assert len(lines[23]) == right


def _in_terminal(command: list[str], environment: dict[str, str], folder: Path) -> str:
    """What the command writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment, cwd=folder)
    os.close(follower)
    written = b""
    while select.select([leader], [], [], 60)[0]:
        try:
            written += os.read(leader, 65536)
        except OSError:  # how Linux says that the last writer has closed it
            break
    assert process.wait(60) == 0
    os.close(leader)
    return written.decode().replace("\r\n", "\n")


def _plain(shown: str) -> str:
    return Text.from_ansi(shown).plain
