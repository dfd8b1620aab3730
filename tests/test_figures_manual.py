"""docs/figures.md: what it shows can be typed."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

MANUAL = (Path(__file__).resolve().parent.parent / "docs" / "figures.md").read_text()
EXAMPLES = [
    line for block in re.findall(r"^```\n(.*?)^```", MANUAL, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
COMMANDS = [line.removeprefix("clew ") for line in EXAMPLES if line.startswith("clew ")]
ADDRESSES = [line.removeprefix("GET ") for line in EXAMPLES if line.startswith("GET ")]


def test_every_example_is_a_command_or_an_address() -> None:
    """Nothing in a block goes without a test."""
    assert len(COMMANDS) + len(ADDRESSES) == len(EXAMPLES) > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_do_what_they_say(
    demo_server: Any, clew: Callable[..., subprocess.CompletedProcess[str]], command: str
) -> None:
    """Each command draws something of the demo's run."""
    run = httpx.get(f"{demo_server.http_url}/api/runs").json()["runs"][0]["id"]
    shown = clew(*shlex.split(command.replace("RUN", run)), "--url", demo_server.http_url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_answer(demo_server: Any, address: str) -> None:
    """Each address answers a question about the demo's run."""
    run = httpx.get(f"{demo_server.http_url}/api/runs").json()["runs"][0]["id"]
    answer = httpx.get(demo_server.http_url + address.replace("RUN", run))
    assert answer.status_code == 200, answer.text
