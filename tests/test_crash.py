"""The short form of `tests/crash.py`."""

from __future__ import annotations

from collections.abc import Callable


def test_a_killed_server_loses_nothing_that_it_acknowledged(run_script: Callable[..., str]) -> None:
    """Two rounds of load, SIGKILL, restart and everything again: every acknowledged span is there, once."""
    assert "nothing lost, nothing twice" in run_script("crash.py", "--rounds", "2", seconds_max=120)
