"""docs/transfer.md: what it shows can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from clew.transfer.formats import FORMATS

MANUAL = (Path(__file__).resolve().parent.parent / "docs" / "transfer.md").read_text()
COMMANDS = [
    shlex.split(line, comments=True)
    for block in re.findall(r"^```\w*\n(.*?)^```", MANUAL, re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def test_the_commands_do_what_they_say(
    demo_server: Any, clew: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    """One after the other: each export has every span of the demo's run, and importing them again adds none."""
    [run] = _runs(demo_server)
    assert {command[:2] for command in map(tuple, COMMANDS)} == {("clew", "export"), ("clew", "import")}
    for _, *arguments in COMMANDS:
        told = clew(*arguments, "--url", demo_server.http_url)
        assert (told.returncode, told.stderr) == (0, ""), arguments
        assert told.stdout.startswith(f"{run['event_count']} spans "), arguments
        if "-o" in arguments:
            assert (tmp_path / arguments[arguments.index("-o") + 1]).stat().st_size
    assert _runs(demo_server) == [run]


def test_the_formats_are_those_that_there_are() -> None:
    """In the order in which `--format` tells them."""
    assert re.findall(r"^\| `([a-z-]+)`", MANUAL, re.MULTILINE) == list(FORMATS)


def _runs(server: Any) -> list[dict[str, Any]]:
    return list(httpx.get(f"{server.http_url}/api/runs", trust_env=False).json()["runs"])
