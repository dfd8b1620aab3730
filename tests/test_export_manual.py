"""docs/export.md: what it shows can be typed, and its figures are the code's."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from clew.exporter import batch, forwarding, target_answers, targets
from clew.exporter.targets import Target

from .otlp_targets import grpc_target

MANUAL = (Path(__file__).resolve().parent.parent / "docs" / "export.md").read_text()
LINES = [
    line for block in re.findall(r"^```\n(.*?)^```", MANUAL, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
SERVING = [line.removeprefix("clew serve ") for line in LINES if line.startswith("clew serve ")]
SHOWING = [line.removeprefix("clew ") for line in LINES if line.startswith("clew exports")]
SENDING = [line.removeprefix("clew ") for line in LINES if line.startswith("clew export-to ")]
ADDRESSES = [line.removeprefix("GET ") for line in LINES if line.startswith("GET ")]


def test_every_line_is_a_command_or_an_address() -> None:
    """Nothing in a block goes without a test."""
    assert len(SERVING) + len(SHOWING) + len(SENDING) + len(ADDRESSES) == len(LINES) > 0


@pytest.mark.parametrize("options", SERVING)
def test_targets_are_understood(options: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each URL names a target, whose files are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ca.pem").touch()
    urls = [word for word in shlex.split(options) if word != "--export"]
    assert urls
    assert all(Target.parse(url).name for url in urls)


@pytest.mark.parametrize("command", SHOWING)
def test_commands_show(demo_server: Any, clew: Callable[..., subprocess.CompletedProcess[str]], command: str) -> None:
    """Each one something."""
    shown = clew(*shlex.split(command), "--url", demo_server.http_url)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout


@pytest.mark.parametrize("address", ADDRESSES)
def test_addresses_answer(demo_server: Any, address: str) -> None:
    """Each one."""
    assert httpx.get(demo_server.http_url + address, trust_env=False).status_code == 200


@pytest.mark.parametrize("command", SENDING)
def test_commands_send(demo_server: Any, clew: Callable[..., subprocess.CompletedProcess[str]], command: str) -> None:
    """Each one what it chooses of the demo's run, which is too young for the last one."""
    run = httpx.get(f"{demo_server.http_url}/api/runs", trust_env=False).json()["runs"][0]
    with grpc_target() as target:
        said = command.replace("otlp-grpc://127.0.0.1:14317", target.url).replace("RUN", run["id"])
        sent = clew(*shlex.split(said), "--url", demo_server.http_url)
        assert (sent.returncode, sent.stderr) == (0, "")
        assert len(target.names) == (0 if "--until" in said else run["event_count"])


def test_figures_in_the_manual_are_the_code_s() -> None:
    """Whoever changes one changes the other."""
    assert f"{targets.TARGETS_MAX} targets" in MANUAL
    assert f"up to {forwarding.PAUSE_S_MAX:g} s" in MANUAL
    assert (forwarding.LOOK_EVERY_S, forwarding.NOT_TAKEN_S) == (0.5, 3600.0)
    assert batch.UNCLEAR_S_MAX == 5 * 60
    assert target_answers.RETRY_AFTER_S_MAX == 3600.0
    assert all(f"`{name}`" in MANUAL for name in targets.PARAMETERS)
