"""The short form of `tests/chain.py`."""

from __future__ import annotations

from collections.abc import Callable


def test_a_chain_loses_nothing_when_its_middle_is_killed(run_script: Callable[..., str]) -> None:
    """Two rounds of load with SIGKILL to the middle one of three servers: the last one has every span, once."""
    assert "all there, once" in run_script("chain.py", "--rounds", "2", "--senders", "1", seconds_max=150)
