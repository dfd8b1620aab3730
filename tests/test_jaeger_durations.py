"""Durations as Jaeger's parameters have them."""

from __future__ import annotations

import pytest

from clew.query.jaeger.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("10us", 10_000),
        ("1.5ms", 1_500_000),
        (".5s", 500_000_000),
        ("1.s", 10**9),
        ("1h15m30.918s", 4_530_918_000_000),
        ("7d", 604_800 * 10**9),
        ("0.3ns", 0),
        ("999999999999999999h", (1 << 63) - 1),
    ],
)
def test_durations_as_go_writes_them(text: str, nanoseconds: int) -> None:
    """Parts add up exactly; what is too long is as long as can be."""
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["1", "s", "1 s", "1s ", "-1s", "1S", "1e3s", "١s"])
def test_what_is_no_duration(text: str) -> None:
    """It is refused with an example."""
    with pytest.raises(ValueError, match=r"1\.5s"):
        parse_duration(text)
