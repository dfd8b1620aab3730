"""What a command says has to be written somewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLEW = (sys.executable, "-m", "clew")


@pytest.mark.parametrize("arguments", [("--version",), ("migrate", "history"), ("export", "--help")])
def test_a_full_disk_is_told_in_a_line(arguments: tuple[str, ...], environment: dict[str, str]) -> None:
    """Whether it shows while the command speaks or at its end."""
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            [*CLEW, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, check=False, env=environment
        )
    told = "clew: the output cannot be written: No space left on device; make room and try again\n"
    assert (ended.returncode, ended.stderr) == (1, told)


def test_a_closed_output_is_no_fault(environment: dict[str, str]) -> None:
    """As with `>&-`: nobody wants to read it."""
    shell = ["sh", "-c", '"$@" >&-', "sh", *CLEW, "migrate", "history"]
    ended = subprocess.run(shell, stderr=subprocess.PIPE, text=True, check=False, env=environment)
    assert (ended.returncode, ended.stderr) == (0, "")
