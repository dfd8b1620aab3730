"""A running server as the other end of a transfer."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import Any

import httpx
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status

from ..client import Client, ClientError
from ..collector.signals import SIGNALS
from ..exporter.pages import Page
from .ends import IN_FLIGHT_MAX, Outcome, Total
from .errors import TransferError

# How long what a server cannot take now is tried again: long enough for it to be started anew.
PATIENCE_S = 60.0
_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_TRY_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class ServerSpans:
    """The spans of a server that `exporter.pages.ChosenSpans` would choose. Its methods raise ClientError."""

    client: Client
    run_ids: Sequence[str]
    since: int
    until: int

    def total(self) -> Total:
        """How much was chosen."""
        answer = json.loads(self._asked("/api/export/extent", {}).content)
        return Total(answer["spans"], self.since, answer["until_unix_nano"])

    def within(self, since: int, until: int) -> ServerSpans:
        """The same choice of runs that started in this time."""
        return replace(self, since=since, until=until)

    def page(self, cursor: str | None) -> Page:
        """The page after the one that gave `cursor`."""
        answer = self._asked("/api/export", {"cursor": cursor} if cursor else {})
        spans, next_cursor = answer.headers.get("clew-spans"), answer.headers.get("clew-next-cursor")
        if spans is None:
            raise ClientError(f"{self.client.url} does not answer as clew does; is that its HTTP port?")
        return Page(answer.content, int(spans), next_cursor)

    def _asked(self, path: str, more: dict[str, str]) -> httpx.Response:
        chosen: dict[str, Any] = {"run": list(self.run_ids), "since": self.since, "until": self.until}
        return _tried_again(lambda: self.client.fetch(path, {**chosen, **more}))


class ServerSink:
    """Takes requests to a server's OTLP port, some at a time."""

    def __init__(self, client: Client) -> None:
        self.name = client.url
        self._client = client
        self._senders = ThreadPoolExecutor(IN_FLIGHT_MAX, thread_name_prefix="clew-import")

    def accept(self, signal: str, payload: bytes) -> Future[Outcome]:
        """Sends a serialised request; the future resolves once it is stored, or carries why not."""
        return self._senders.submit(self._send, signal, payload)

    def holds(self, run_id: str, span_id: str) -> bool:
        """Whether the server has this span."""
        answer = self._client.fetch(f"/api/runs/{run_id}/events/{span_id}", {})
        return answer.is_success

    def close(self) -> None:
        self._senders.shutdown(cancel_futures=True)

    def _send(self, signal: str, payload: bytes) -> Outcome:
        answer = _tried_again(lambda: self._client.send(SIGNALS[signal].path, payload))
        try:
            said = SIGNALS[signal].response.FromString(answer.content).partial_success
        except DecodeError as error:
            raise ClientError(f"{self.name} does not answer as OTLP has it; is that its HTTP port?") from error
        return Outcome(getattr(said, SIGNALS[signal].rejected), said.error_message)


def _tried_again(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """What `ask` gives, asked again while the server says that it cannot now or is away, PATIENCE_S at most.

    Raises ClientError, and TransferError where the server said no for good.
    """
    deadline = time.monotonic() + PATIENCE_S
    for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
        answer = _answer(ask, is_last=time.monotonic() + pause_s > deadline)
        if answer is not None and answer.is_success:
            return answer
        time.sleep(max(pause_s, _retry_after_s(answer)))
    raise AssertionError("pauses do not end")


def _answer(ask: Callable[[], httpx.Response], *, is_last: bool) -> httpx.Response | None:
    """None for no answer, which the last time is an error, as is an answer that will not change."""
    try:
        answer = ask()
    except ClientError:
        if is_last:
            raise
        return None
    if not answer.is_success and (is_last or answer.status_code not in _TRY_AGAIN):
        raise TransferError(f"the server refused with status {answer.status_code}: {_reason(answer)}")
    return answer


def _retry_after_s(answer: httpx.Response | None) -> float:
    said = answer.headers.get("retry-after", "") if answer is not None else ""
    return min(float(said), PATIENCE_S) if said.isdecimal() else 0.0


def _reason(answer: httpx.Response) -> str:
    try:
        if answer.headers.get("content-type", "").startswith("application/x-protobuf"):
            return Status.FromString(answer.content).message
        return str(answer.json()["error"]["message"])
    except (DecodeError, ValueError, KeyError, TypeError):
        return answer.text[:200]
