"""Ids at the edges: hex text outside, numbers inside.

A run id is 16 bytes (OTel trace id, W3C Trace Context section 3.2.2.3), written as 32 lower-case hex digits; dashes are
accepted. An event id is 8 bytes (OTel span id), written as 16 hex digits and stored as a signed 64-bit integer with the
same bits, big-endian.
"""

from uuid import UUID

_EVENT_ID_SPAN = 1 << 64


class InvalidId(ValueError):
    """Text that is not an id; the message says what one looks like."""


def parse_run_id(text: str) -> UUID:
    """The run id written as 32 hex digits, dashes allowed. Raises InvalidId."""
    digits = text.replace("-", "")
    if len(digits) != 32 or not _is_hex(digits) or not int(digits, 16):
        raise InvalidId(f"{text[:80]!r} is not a run id: 32 hex digits, not all zero")
    return UUID(digits)


def parse_event_id(text: str) -> int:
    """The event id written as 16 hex digits, as the signed integer that is stored. Raises InvalidId."""
    if len(text) != 16 or not _is_hex(text) or not int(text, 16):
        raise InvalidId(f"{text[:80]!r} is not an event id: 16 hex digits, not all zero")
    number = int(text, 16)
    return number - _EVENT_ID_SPAN if number >= _EVENT_ID_SPAN >> 1 else number


def run_id_text(run_id: UUID) -> str:
    """32 lower-case hex digits."""
    return run_id.hex


def event_id_text(event_id: int) -> str:
    """16 lower-case hex digits of the stored signed integer."""
    return f"{event_id % _EVENT_ID_SPAN:016x}"


def _is_hex(text: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in text)
