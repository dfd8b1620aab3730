"""The short form of `tests/chain.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("chain.py")


def test_a_chain_loses_nothing_when_its_middle_is_killed(tmp_path: Path, environment: dict[str, str]) -> None:
    """Two rounds of load with SIGKILL to the middle one of three servers: the last one has every span, once."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--rounds", "2", "--senders", "1"],
        capture_output=True,
        text=True,
        timeout=150,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "all there, once" in ended.stdout
