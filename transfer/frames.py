"""What a file is cut into, and what the pieces are made into."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

# As much as a server takes in one request.
FRAME_BYTES_MAX = 64 << 20


@dataclass(frozen=True)
class Frame:
    """A piece of a file that can be read by itself: the `number`th from 1, at `place`, as a user would look for it.
    `broken` says why it cannot be read at all, "" where it may be."""

    number: int
    place: str
    content: Any
    broken: str = ""


class Request(NamedTuple):
    """A serialised OTLP request of a signal (`traces`, `logs`, `metrics`) and what is to be said about it, or ""."""

    signal: str
    payload: bytes
    warning: str = ""


def too_long(size: int, size_max: int, kind: str) -> str:
    """What is wrong with a piece of this kind that is larger than it may be."""
    return f"it has {sized(size)}; {sized(size_max)} is the most that a {kind} may have"


def sized(size: int) -> str:
    """Bytes in a unit that suits them."""
    return f"{size / (1 << 20):,.1f} MiB" if size >= 1 << 20 else f"{size:,} bytes"
