"""How much memory the process may take on, while something runs that could ask for any amount.

Allocations beyond that fail, in the engine as an error of the query that asked, instead of the system ending the
process. The limit is the whole process's: others would fail as well while somebody stays at it. So it lies far above
what is meant to be used, where only what asks for much at once comes to it, and fails by it first. Linux only; nothing
is limited elsewhere.
"""

from __future__ import annotations

import resource
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATM = Path("/proc/self/statm")
_RESIDENT, _DATA = 1, 5  # proc_pid_statm(5), in pages

_turn = threading.Lock()
_running = 0
_usual = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)


@contextmanager
def growth_limited(bytes_max: int) -> Iterator[None]:
    """Lets the process grow by so much, counted from the first of those that run at the same time."""
    _enter(bytes_max)
    try:
        yield
    finally:
        _leave()


def resident_bytes() -> int:
    """The memory that this process holds; 0 where the system does not tell."""
    return _figure(_RESIDENT)


def _enter(bytes_max: int) -> None:
    global _running, _usual  # noqa: PLW0603 the limit is the process's
    with _turn:
        _running += 1
        if _running == 1:
            _usual = resource.getrlimit(resource.RLIMIT_DATA)
            _limit_to(_figure(_DATA) + bytes_max)


def _leave() -> None:
    global _running  # noqa: PLW0603
    with _turn:
        _running -= 1
        if not _running:
            resource.setrlimit(resource.RLIMIT_DATA, _usual)


def _limit_to(wanted: int) -> None:
    """Never to more than it is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if sys.platform == "linux" and (soft == resource.RLIM_INFINITY or wanted < soft):
        resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))


def _figure(place: int) -> int:
    try:
        return int(_STATM.read_text().split()[place]) * resource.getpagesize()
    except OSError:
        return 0
