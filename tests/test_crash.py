"""The short form of `tests/crash.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("crash.py")


def test_a_killed_server_loses_nothing_that_it_acknowledged(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two rounds of load, SIGKILL, restart and everything again: every acknowledged span is there, once."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "2"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "nothing lost, nothing twice" in ended.stdout
