"""The commands that reckon, run as processes against a real server."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest

Clew = Callable[..., subprocess.CompletedProcess[str]]

START = 1_750_000_000_000_000_000
A, B = "a1" * 16, "b2" * 16


def record(server: Any, run_id: str, *spans: tuple[int, int, str, str, int, int]) -> None:
    """Sends spans of a run: number, parent's number or 0, name, agent, start and end in milliseconds."""
    sent = [
        {
            "traceId": run_id,
            "spanId": f"{number:016x}",
            "parentSpanId": f"{parent:016x}" if parent else "",
            "name": name,
            "startTimeUnixNano": str(START + start * 10**6),
            "endTimeUnixNano": str(START + end * 10**6),
            "attributes": [{"key": "gen_ai.agent.name", "value": {"stringValue": agent}}],
        }
        for number, parent, name, agent, start, end in spans
    ]
    request = {"resourceSpans": [{"scopeSpans": [{"spans": sent}]}]}
    assert httpx.post(f"{server.http_url}/v1/traces", json=request).status_code == 200


def test_groups_are_called_as_filters_write_them(server: Any, clew: Clew) -> None:
    """Truth values and lists as JSON has them, texts as they are."""
    values = ({"boolValue": True}, {"arrayValue": {"values": [{"stringValue": "é"}]}}, {"stringValue": "plain"})
    spans = [
        {
            "traceId": A,
            "spanId": f"{number:016x}",
            "startTimeUnixNano": "1",
            "attributes": [{"key": "k", "value": value}],
        }
        for number, value in enumerate(values, 1)
    ]
    httpx.post(f"{server.http_url}/v1/traces", json={"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
    _, *rows = shown(clew, server, "figures", "--by", "attributes['k']")
    assert {row.split()[0] for row in rows} == {"true", '["é"]', "plain"}


def shown(clew: Clew, server: Any, *arguments: str) -> list[str]:
    done = clew(*arguments, "--url", server.http_url)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_figures_are_drawn(demo_server: Any, clew: Clew) -> None:
    """A line for each group with its figures, and a bar as long as its share of the largest."""
    header, first, *rest = shown(clew, demo_server, "figures", "--by", "agent,model")
    assert header.split()[:7] == ["agent", "model", "events", "errors", "p50", "p95", "p99"]
    assert first.split() == ["engineer", "(none)", "7", "14.3%", "900", "ms", "17.3", "s", "17.3", "s", "█" * 24]
    [codestral] = [line.split() for line in rest if "codestral" in line]
    assert codestral[-4:-1] == ["22,010", "1,440", "$0.0079"]
    assert len(rest) == 6


def test_figures_of_a_filter_and_by_time(demo_server: Any, clew: Clew) -> None:
    """The filter narrows what is counted; buckets say when they begin; without usage there are no tokens."""
    header, line = shown(clew, demo_server, "figures", "type = tool_call", "--every", "7d", "--no-usage")
    assert header.split() == ["from", "events", "errors", "p50", "p95", "p99"]
    assert line.split()[2:4] == ["4", "25.0%"]


def test_histograms_are_drawn(demo_server: Any, clew: Clew) -> None:
    """Under the group how many lasted up to how long."""
    lines = shown(clew, demo_server, "figures", "agent = engineer and model exists", "--histogram")
    assert lines[-2:] == ["all events", "≤ 5.0 s  3  " + "█" * 24]


def test_more_groups_are_hinted_at(demo_server: Any, clew: Clew) -> None:
    """How many there are more, and what shows them."""
    assert shown(clew, demo_server, "figures", "--by", "agent", "--limit", "1")[-1].startswith("… 3 more groups: ")


def test_what_took_a_run_its_time_is_drawn(demo_server: Any, clew: Clew) -> None:
    """The agents' shares; then events with their own time, its share of the run and a bar."""
    title, shares, header, first, *rest = shown(clew, demo_server, "critical-path")
    assert title.endswith("  48.2 s")
    assert shares == "engineer 36% · researcher 34% · planner 29% · (no agent) 1%"
    assert header.split() == ["event", "agent", "own", "time"]
    assert first.split()[:7] == ["●", "chat", "gpt-5", "planner", "6.9", "s", "14%"]
    assert rest[-2] == "… 5 more events on the path: a larger --limit shows more"


def test_two_runs_are_compared(server: Any, clew: Clew) -> None:
    """Both runs, the differences counted, and a line for each with its mark, as deep as it stands."""
    record(
        server, A, (1, 0, "work", "planner", 0, 100), (2, 1, "search", "planner", 1, 11), (3, 1, "write", "", 12, 20)
    )
    record(
        server, B, (1, 0, "work", "planner", 0, 100), (2, 1, "search", "planner", 1, 31), (4, 1, "check", "", 40, 45)
    )
    first, second, totals, *changes = shown(clew, server, "compare", "a1", "b2")
    assert first == f"a {A}  work  100 ms · 3 events · 0 errors"
    assert second.startswith(f"b {B}")
    assert totals == "2 pairs, 1 unchanged · + 1 added · - 1 missing · ▲ 1 slower"
    assert changes == ["▲    search  10 ms → 30 ms", "-    write   8 ms", "+    check   5 ms"]
    assert shown(clew, server, "compare", "a1", "b2", "--only", "added")[3:] == ["+    check  5 ms"]


def test_callers_are_drawn(server: Any, clew: Clew) -> None:
    """Who calls whom, how often, in how many runs and how long on average."""
    record(
        server, A, (1, 0, "plan", "planner", 0, 100), (2, 1, "do", "engineer", 0, 30), (3, 1, "do", "engineer", 0, 50)
    )
    header, line = shown(clew, server, "calls")
    assert header.split() == ["caller", "callee", "calls", "errors", "runs", "mean"]
    assert line.split() == ["planner", "→", "engineer", "2", "1", "40", "ms", "█" * 24]


def test_nothing_is_told(server: Any, clew: Clew) -> None:
    """Where there is nothing, a line says so."""
    record(server, A, (1, 0, "work", "planner", 0, 0))
    assert shown(clew, server, "figures", "name = nothing", "--by", "agent") == [
        "no such events; `clew runs` lists what there is"
    ]
    assert shown(clew, server, "critical-path")[-1] == "no event took any of its time"
    assert shown(clew, server, "calls") == ["no calls between agents: an event that names one must hang from another's"]


@pytest.mark.parametrize(
    ("arguments", "path"),
    [
        (("figures", "--by", "agent"), "/api/statistics?group_by=agent&limit=50"),
        (("calls", "--of", "services"), "/api/calls?of=services&limit=50"),
        (("critical-path",), "/api/runs/{run}/critical-path?limit=20"),
        (("compare", "{run}"), "/api/runs/compare?a={run}&b={run}"),
    ],
)
def test_json_is_the_apis(demo_server: Any, clew: Clew, arguments: tuple[str, ...], path: str) -> None:
    """--json prints what the API answers."""
    run = httpx.get(f"{demo_server.http_url}/api/runs").json()["runs"][0]["id"]
    [line] = shown(clew, demo_server, *(argument.format(run=run) for argument in arguments), "--json")
    assert json.loads(line) == httpx.get(demo_server.http_url + path.format(run=run)).json()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("figures", "--by", "nonsense"), "--by: there is no field 'nonsense'"),
        (("figures", "agent ="), "a value should be here"),
        (("figures", "--every", "soon"), "a duration such as"),
        (("compare", "f" * 32), f"there is no run {'f' * 32}"),
        (("compare", "{run}", "--only", "newer"), "--only: "),
        (("calls", "--of", "runs"), "of: "),
    ],
)
def test_mistakes_are_told(demo_server: Any, clew: Clew, arguments: tuple[str, ...], told: str) -> None:
    """On stderr, with exit code 1 and no traceback."""
    run = httpx.get(f"{demo_server.http_url}/api/runs").json()["runs"][0]["id"]
    refused = clew(*(argument.format(run=run) for argument in arguments), "--url", demo_server.http_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert told in refused.stderr
    assert "Traceback" not in refused.stderr


def test_only_the_filter_is_pointed_into(demo_server: Any, clew: Clew) -> None:
    """A mistake elsewhere says where, and no character of the filter is to blame for it."""
    pointed = clew("figures", "agent =", "--by", "agent", "--url", demo_server.http_url).stderr
    assert pointed.splitlines()[1:] == ["  agent =", "         ^"]
    elsewhere = clew("figures", "agent = engineer", "--by", "nonsense", "--url", demo_server.http_url).stderr
    assert len(elsewhere.splitlines()) == 1
