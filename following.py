"""Following a server's live stream: whatever cuts it off, it is taken up where it was."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .client import Client, ClientError, Interrupted

RETRY_S = 1.0


@dataclass(frozen=True)
class Told:
    """A message of the stream: `event`, `run` or `gap`, and what it says, as the JSON that came."""

    event: str
    text: str

    @property
    def data(self) -> Any:
        return json.loads(self.text)


def follow(client: Client, **wanted: str | None) -> Iterator[Told]:
    """What /api/live tells, without end; `wanted` are its parameters, None for none. Once the stream has begun, a
    server that is away is waited for. Raises ClientError where it never begins, and where the server will not go on."""
    parameters = {name: value for name, value in wanted.items() if value is not None}
    last = ""
    while True:
        try:
            for fields in _messages(client.lines("/api/live", {"Last-Event-ID": last} if last else {}, parameters)):
                last = fields.get("id", last)
                if fields.get("event") == "failed":
                    raise ClientError(json.loads(fields["data"])["message"])
                if "data" in fields:
                    yield Told(fields["event"], fields["data"])
        except Interrupted:
            if not last:
                raise
        time.sleep(RETRY_S)


def _messages(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The fields of each message; comments have no name."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            yield fields
            fields = {}
