"""`clew search`: what it draws, and how it says that a filter cannot be read."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from clew.query.search_answers import FoundEvents
from clew.terminal import console, draw_found, pointed_at

Clew = Callable[..., subprocess.CompletedProcess[str]]


def test_events_are_listed(demo_server: Any, clew: Clew) -> None:
    """A header, a line an event with the start of its run's id and why it failed, and a command that can be pasted."""
    url = ("--url", demo_server.http_url)
    header, newest, oldest, hint = clew("search", "status = failed", *url).stdout.splitlines()
    assert header.split() == ["time", "run", "name", "agent", "duration"]
    assert newest.split()[3:] == ["λ", "run", "churn.py", "KeyError:", "'closed_at'", "engineer", "✗", "900", "ms"]
    assert oldest.split()[3:7] == ["◆", "execute_tool", "query_warehouse", "TimeoutError:"]
    pasted = hint.split()[2:6]
    assert pasted[:2] == ["tree", newest.split()[2]]
    assert "run churn.py" in clew(*pasted, *url).stdout


def test_runs_are_listed(demo_server: Any, clew: Clew) -> None:
    """--runs lists the runs that have such an event, as `clew runs` does."""
    url = ("--url", demo_server.http_url)
    assert clew("search", "KeyError", "--runs", *url).stdout == clew("runs", *url).stdout


def test_a_time_and_a_limit_bound_what_is_listed(demo_server: Any, clew: Clew) -> None:
    """--since and --until leave out what began before and after; past the limit a line says how to see more."""
    url = ("--url", demo_server.http_url)
    assert "nothing found" in clew("search", "name exists", "--until", "-1d", *url).stdout
    *_, more, _ = clew("search", "name exists", "--since", "-1d", "--limit", "3", *url).stdout.splitlines()
    assert more == "… older events: --limit 6 shows more"


def test_the_answer_is_printed_as_it_came(demo_server: Any, clew: Clew) -> None:
    """--json prints what the API answers."""
    printed = clew("search", "type = tool_call", "--json", "--url", demo_server.http_url).stdout
    assert len(FoundEvents.model_validate_json(printed, strict=True).events) == 4


@pytest.mark.parametrize("command", ["search", "tail", "figures"])
def test_a_filter_that_cannot_be_read_is_pointed_at(demo_server: Any, clew: Clew, command: str) -> None:
    """The message, the filter, and a caret under the character; exit code 1 and nothing on stdout."""
    refused = clew(command, "status = failed and agnet = x", "--url", demo_server.http_url)
    assert (refused.returncode, refused.stdout) == (1, "")
    message, line, caret = refused.stderr.splitlines()
    assert message == "clew: filter: there is no field 'agnet'; agent is one (character 21)"
    assert line[caret.index("^") :] == "agnet = x"


@pytest.mark.parametrize(
    ("text", "position"), [("a\nb = ", 6), ("名 = x", 0), ("'名' and é = 1", 8), ("\x1b[1m = 1", 2)]
)
def test_a_caret_stands_under_its_character(text: str, position: int) -> None:
    """Also behind characters of two cells and ends of lines; what could move the cursor is not printed."""
    line, caret = pointed_at(text, position).split("\n")
    wide = sum(character == "名" for character in text[:position])
    assert caret.index("^") - wide == 2 + position
    assert line.isprintable()


def test_a_search_that_stopped_says_how_to_go_on() -> None:
    """Whatever was found by then, the time to go on from can be pasted."""
    page = json.dumps({"events": [], "searched_to_unix_nano": "1750000000000000005", "next_cursor": "x"})
    drawn = io.StringIO()
    draw_found(console(drawn), json.loads(page))
    assert "--until 1750000000000000005 goes on from there" in drawn.getvalue()
    assert "nothing found" not in drawn.getvalue()
