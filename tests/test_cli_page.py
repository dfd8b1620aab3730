"""What the README and the help say is so."""

from __future__ import annotations

import dataclasses
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer

from clew.cli import app
from clew.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
COMMAND = typer.main.get_command(app)
HEAVY = {"duckdb", "fastapi", "grpc", "httpx", "opentelemetry.sdk", "pyarrow", "sqlalchemy", "uvicorn"}
Clew = Callable[..., subprocess.CompletedProcess[str]]


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_first_example_runs_as_it_stands(server: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """The Python example and the two variables above it record a run that `clew tree` can draw."""
    [exports] = [block for block in _blocks("sh") if "OTEL_EXPORTER" in block]
    variables = dict(word.split("=", 1) for word in shlex.split(exports) if "=" in word)
    assert variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "http://127.0.0.1:4318"
    variables["OTEL_EXPORTER_OTLP_ENDPOINT"] = server.http_url
    (tmp_path / "example.py").write_text(_blocks("python")[0])
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env={**environment, **variables}, check=True)
    [run] = httpx.get(f"{server.http_url}/api/runs").json()["runs"]
    tree = httpx.get(f"{server.http_url}/api/runs/{run['id']}/tree").json()
    shown = [(event["depth"], event["name"], event["event_type"], event["agent_name"]) for event in tree["events"]]
    assert shown == [
        (0, "invoke_agent scout", "agent_call", "scout"),
        (1, "execute_tool search", "tool_call", None),
    ]


def test_the_example_in_clews_words_runs_as_it_stands(server: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """And leaves a run with its agents, tool, file and approval."""
    (tmp_path / "notes.md").write_text("found")
    (tmp_path / "example.py").write_text(_blocks("python")[1])
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": server.http_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env={**environment, **variables}, check=True)
    [run] = httpx.get(f"{server.http_url}/api/runs").json()["runs"]
    assert (run["session_id"], run["mode"], run["status"]) == ("anna", "one_shot", "completed")
    tree = httpx.get(f"{server.http_url}/api/runs/{run['id']}/tree").json()
    types = Counter(event["event_type"] for event in tree["events"])
    assert types == {"agent_call": 3, "tool_call": 1, "handoff": 1, "approval_requested": 1}
    [file] = httpx.get(f"{server.http_url}/api/runs/{run['id']}/files").json()["files"]
    assert (file["file_path"], file["size_bytes"]) == ("notes.md", 5)


def test_the_example_by_hand_runs_as_it_stands(start_server: Any, environment: dict[str, str], tmp_path: Path) -> None:
    """And a server started afterwards shows what it wrote."""
    (tmp_path / "example.py").write_text(_blocks("python")[2])
    subprocess.run([sys.executable, "example.py"], cwd=tmp_path, env=environment, check=True)
    server = start_server("--db", str(tmp_path / "by-hand.duckdb"))
    [run] = httpx.get(f"{server.http_url}/api/runs").json()["runs"]
    assert (run["session_id"], run["event_count"]) == ("my-session", 1)


def test_the_checks_run_the_readmes_test_line() -> None:
    """What a newcomer pastes is what every change has passed."""
    [line] = [line for block in _blocks("sh") for line in block.splitlines() if line.endswith("pytest")]
    assert line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_every_setting_is_in_the_readme() -> None:
    """Option, variable and default of each setting, and no setting that there is not."""
    section = README.split("## Settings")[1].split("## ")[0]
    told = re.findall(r"^\| `(--[a-z-]+)` \| `([A-Z_]+)` \| (.*?) \|", section, re.MULTILINE)
    options = {parameter.name: parameter for parameter in COMMAND.commands["serve"].params}
    settings = [options[setting.name] for setting in dataclasses.fields(Settings) if options[setting.name].envvar]
    assert [(name, variable) for name, variable, _ in told] == [(each.opts[0], each.envvar) for each in settings]
    defaults = [str(each.default) for each in settings if each.default is not None]
    assert [default.strip("`") for _, _, default in told if default.strip("`") in defaults] == defaults


def test_every_command_is_in_the_readme() -> None:
    """No command is left for the reader to find, none is promised that there is not."""
    told = set(re.findall(r"^\| `clew ([a-z-]+)", README, re.MULTILINE))
    assert told == set(COMMAND.commands)
    migrations = re.search(r"^\| `clew migrate` \| (.*?) of", README, re.MULTILINE)
    assert migrations
    assert set(re.findall(r"`([a-z]+)`", migrations[1])) == set(COMMAND.commands["migrate"].commands)


def test_help_loads_nothing_heavy(clew: Clew) -> None:
    """`clew --help` does not wait for the engine, the servers or the SDK to be imported."""
    code = "import sys, clew.cli; print(' '.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd="/", capture_output=True, text=True, check=True)
    assert set(loaded.stdout.split()) & HEAVY == set()
    assert clew("--help").returncode == 0


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("clew st", ["stats"]),
        ("clew export --all --format ot", ["otlp-json", "otlp-proto"]),
        ("clew import --format pa", ["parquet"]),
        ("clew runs --status f", ["failed"]),
        ("clew compare run --only s", ["slower", "status"]),
    ],
)
def test_the_shell_can_complete(clew: Clew, typed: str, completed: list[str]) -> None:
    """Typing that and Tab gives the commands and values that begin so."""
    asked = {"_CLEW_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    assert clew(variables=asked).stdout.split() == completed
