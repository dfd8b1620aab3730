"""Durations as Go writes them, in which Jaeger's parameters come: `1.5s`, `250ms`, `1h30m`."""

from __future__ import annotations

import re
from fractions import Fraction

_NANOSECONDS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
# Go ends at hours; Jaeger's page looks back by days and weeks too.
_NANOSECONDS |= {"h": 3600 * 10**9, "d": 86400 * 10**9, "w": 7 * 86400 * 10**9}
_PART = re.compile(r"(\d{1,18}(?:\.\d{0,18})?|\.\d{1,18})(ns|us|µs|μs|ms|s|m|h|d|w)", re.ASCII)
_INT64_MAX = (1 << 63) - 1


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises ValueError for what is no duration, or a negative one."""
    if text in {"0", ""}:
        return 0
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text[:80]!r} is not a duration; write it as 1.5s, 250ms, 10us or 1h30m")
    return min(int(sum(Fraction(_whole(number)) * _NANOSECONDS[unit] for number, unit in parts)), _INT64_MAX)


def _whole(number: str) -> str:
    return f"0{number}0" if number.endswith(".") else f"0{number}"
