"""docs/live.md, docs/client.md and docs/mcp.md: what they show works."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from clew.query import live, live_api, mcp_tools

DOCS = Path(__file__).resolve().parent.parent / "docs"
LIVE, CLIENT, MCP = ((DOCS / f"{name}.md").read_text() for name in ("live", "client", "mcp"))
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```", LIVE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
COMMANDS = [line.removeprefix("clew ") for line in LINES if line.startswith("clew ")]
ADDRESSES = [line.removeprefix("GET ") for line in LINES if line.startswith("GET ")]


@pytest.fixture
def run_id(demo_server: Any) -> str:
    """The id of the demo's run."""
    return str(httpx.get(f"{demo_server.http_url}/api/runs", trust_env=False).json()["runs"][0]["id"])


def test_every_line_is_a_command_or_an_address() -> None:
    """Nothing in a block goes without a test."""
    assert len(COMMANDS) + len(ADDRESSES) == len(LINES) > 0


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_follow(demo_server: Any, run_id: str, environment: dict[str, str], command: str) -> None:
    """Those that look back show the demo's events."""
    arguments = shlex.split(command.replace("RUN", run_id))
    whole = [sys.executable, "-u", "-m", "clew", *arguments, "--url", demo_server.http_url]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(whole, text=True, env=environment, **pipes) as process:  # type: ignore[call-overload]
        if "--since" in arguments:
            assert process.stdout.readline().strip()
        assert process.poll() is None, process.stderr.read()
        process.kill()


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_stream(demo_server: Any, run_id: str, address: str) -> None:
    """Each begins to tell."""
    asked = demo_server.http_url + address.replace("RUN", run_id)
    with httpx.stream("GET", asked, trust_env=False) as answer:
        assert answer.status_code == 200
        assert next(answer.iter_lines()).startswith("id: ")


def test_the_examples_in_python_run(demo_server: Any, run_id: str, tmp_path: Path) -> None:
    """As they stand, one after the other; they find the demo's run."""
    closed = Path(shutil.copy(demo_server.db, tmp_path / "copy.duckdb"))
    if (log := demo_server.db.with_name(f"{demo_server.db.name}.wal")).exists():
        shutil.copy(log, tmp_path / "copy.duckdb.wal")
    examples = re.findall(r"^```python\n(.*?)^```", CLIENT, re.DOTALL | re.MULTILINE)
    script = "\n".join(examples).replace("URL", repr(demo_server.http_url)).replace("FILE", repr(str(closed)))
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert run_id in ended.stdout


def test_the_settings_of_an_agent_are_json() -> None:
    """And name the address that there is."""
    [settings] = re.findall(r"^```json\n(.*?)^```", MCP, re.DOTALL | re.MULTILINE)
    assert json.loads(settings)["mcpServers"]["clew"]["url"].endswith("/mcp")


def test_figures_in_the_manuals_are_the_code_s() -> None:
    """Whoever changes one changes the other."""
    assert f"{live_api.STREAMS_MAX} streams" in LIVE
    assert f"reads {live.PAGE_EVENTS} events" in LIVE
    assert f"every {live_api.HEARTBEAT_S:g} seconds" in LIVE
    assert f"{mcp_tools.TEXT_CHARACTERS_MAX:,} characters" in MCP
    assert f"nothing over {mcp_tools.ANSWER_CHARACTERS_MAX:,}" in MCP
