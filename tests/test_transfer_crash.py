"""The short form of `tests/transfer_crash.py`."""

from __future__ import annotations

from collections.abc import Callable


def test_a_killed_export_or_import_gone_on_with_has_every_span_once(run_script: Callable[..., str]) -> None:
    """Each is killed twice, with SIGKILL, and run again: the file and the database have every span exactly once."""
    arguments = ("--spans", "10000", "--kills", "2", "--format", "jaeger-json")
    said = run_script("transfer_crash.py", *arguments, seconds_max=170)
    assert "export killed 2 times, import 2 times: nothing lost, nothing twice" in said
