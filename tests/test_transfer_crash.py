"""The short form of `tests/transfer_crash.py`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("transfer_crash.py")


def test_a_killed_export_or_import_gone_on_with_has_every_span_once(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Each is killed twice, with SIGKILL, and run again: the file and the database have every span exactly once."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "--spans", "10000", "--kills", "2", "--format", "jaeger-json"],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=tmp_path,
        env=environment,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "export killed 2 times, import 2 times: nothing lost, nothing twice" in ended.stdout
