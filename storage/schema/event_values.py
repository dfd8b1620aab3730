"""What an event says without columns of their own, and what it need not say when it is written by hand.

`inputs`, `outputs` and `meta` live in the attributes, where telemetry has them too: an event reads the same whichever
way it came.
"""

from __future__ import annotations

import json
import time
from typing import Any

from sqlalchemy.engine.default import DefaultExecutionContext

OWN_PREFIX = "clew."
ENDED = ("completed", "failed", "skipped")
STATUS_CODE_ERROR = 2


class Data:
    """An attribute of the event that holds JSON text, as Python data. Text that is no JSON is given as it is."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __get__(self, event: Any, owner: type | None = None) -> Any:
        if event is None:
            return self
        value = (event.attributes or {}).get(self._key)
        try:
            return json.loads(value) if isinstance(value, str) else value
        except ValueError:
            return value

    def __set__(self, event: Any, data: Any) -> None:
        others = {key: value for key, value in (event.attributes or {}).items() if key != self._key}
        event.attributes = others if data is None else others | {self._key: json.dumps(data)}


class Meta:
    """The event's attributes that are not clew's own, as a dict; None where there are none."""

    def __get__(self, event: Any, owner: type | None = None) -> Any:
        if event is None:
            return self
        return _attributes(event, own=False) or None

    def __set__(self, event: Any, meta: dict[str, Any] | None) -> None:
        event.attributes = _attributes(event, own=True) | (meta or {})


def _attributes(event: Any, *, own: bool) -> dict[str, Any]:
    attributes = event.attributes or {}
    return {key: value for key, value in attributes.items() if key.startswith(OWN_PREFIX) == own}


def event_name(context: DefaultExecutionContext) -> str:
    """As OTel names spans of agents: the operation, then on what."""
    said = _said(context)
    return " ".join(filter(None, (said["event_type"], said.get("agent_name"))))


def status_code(context: DefaultExecutionContext) -> int:
    return STATUS_CODE_ERROR if _said(context)["status"] == "failed" else 0


def status_message(context: DefaultExecutionContext) -> str | None:
    """OTLP has a status where there is a code, and then an empty message at least."""
    return "" if _said(context)["status"] == "failed" else None


def completed_at(context: DefaultExecutionContext) -> int:
    """0 is OTLP's word for an event that has not ended."""
    said = _said(context)
    if said.get("duration_ns") is None and said["status"] not in ENDED:
        return 0
    return int(said["started_at_unix_nano"]) + (said.get("duration_ns") or 0)


def duration_ns(context: DefaultExecutionContext) -> int:
    said = _said(context)
    return max(0, said["completed_at_unix_nano"] - said["started_at_unix_nano"])


def time_of_log(context: DefaultExecutionContext) -> int:
    """An entry without an event is found by its own time."""
    return int(_said(context).get("time_unix_nano") or time.time_ns())


def _said(context: DefaultExecutionContext) -> dict[str, Any]:
    said: dict[str, Any] = context.get_current_parameters()  # type: ignore[no-untyped-call]
    return said
