"""Spans out of a server or a store to a target that takes OTLP.

How far it has come is remembered between two runs of the command, for the same choice and the same target and for a
day: what was interrupted goes on there, with the runs that there were then. One that went through begins anew when it
is run again, which is harmless for a target that knows a span when it comes again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain, repeat
from pathlib import Path
from typing import NamedTuple

from platformdirs import user_state_path

from ..exporter.batch import Batch
from ..exporter.outgoing import Signal
from ..exporter.pages import Page
from ..exporter.senders import Sends
from ..exporter.target_answers import Answer, Verdict
from .ends import Spans
from .errors import TransferError
from .export import Progress
from .output import State, replace_durably

REMEMBERED_S = 24 * 3600.0
# How long a target that cannot now is tried again.
PATIENCE_S = 60.0
_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# What will be the same in a minute.
_FOR_GOOD = (Verdict.MISTAKEN, Verdict.NOT_TAKEN)


class Sent(NamedTuple):
    """How many spans the target has taken, and how many it has refused for good: the log names them."""

    taken: int
    refused: int


@dataclass
class Bookmark:
    """How far a choice of spans has come on its way to a target."""

    path: Path

    @classmethod
    def of(cls, choice: Mapping[str, object]) -> Bookmark:
        """That of this choice, which says the target too."""
        key = blake2b(json.dumps(choice, sort_keys=True).encode(), digest_size=16).hexdigest()
        return cls(user_state_path("clew", appauthor=False) / "exports" / f"{key}.json")

    def read(self) -> State | None:
        """What was remembered last; None where nothing was, or not as a whole, or too long ago."""
        try:
            if time.time() - self.path.stat().st_mtime > REMEMBERED_S:
                return None
            state: State = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        return state

    def set(self, state: State) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        replace_durably(self.path, json.dumps(state).encode())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def send(spans: Spans, target: str, sender: Sends, bookmark: Bookmark, progress: Progress) -> Sent:
    """Sends the spans to the target of that name, a page at a time, and counts them, those of an interrupted run of the
    command included. Runs that start after it began are left out. Raises TransferError where the target takes no more,
    and what ends the transfer at the other end."""
    begun = bookmark.read() or _beginning(spans)
    spans = spans.within(begun["since"], begun["until"])
    total = spans.total().spans
    sent = Sent(begun["taken"], begun["refused"])
    for page in _pages(spans, begun["cursor"]):
        batch = Batch(target, Signal.TRACES, page.traces, page.spans)
        while page.spans and not batch.is_done:
            _step(batch, sender)
        sent = Sent(sent.taken + batch.sent, sent.refused + batch.refused)
        if page.next_cursor:
            bookmark.set({**begun, "cursor": page.next_cursor, **sent._asdict()})
        progress(sum(sent), max(total, sum(sent)))
    bookmark.remove()
    return sent


def _beginning(spans: Spans) -> State:
    total = spans.total()
    return {"since": total.since, "until": total.until, "cursor": None, "taken": 0, "refused": 0}


def _pages(spans: Spans, cursor: str | None) -> Iterator[Page]:
    """The next one is asked for while one is sent."""
    with ThreadPoolExecutor(1, thread_name_prefix="clew-export") as ahead:
        coming: Future[Page] | None = ahead.submit(spans.page, cursor)
        while coming is not None:
            page = coming.result()
            coming = ahead.submit(spans.page, page.next_cursor) if page.next_cursor else None
            yield page


def _step(batch: Batch, sender: Sends) -> None:
    """One step of the batch, tried again while the target says that it cannot now, PATIENCE_S at most."""
    deadline = time.monotonic() + PATIENCE_S
    for pause_s in chain(_PAUSES_S, repeat(_PAUSES_S[-1])):
        answer = batch.step(sender)
        if answer is None:
            return
        wait_s = max(pause_s, answer.retry_after_s or 0.0)
        if answer.verdict in _FOR_GOOD or time.monotonic() + wait_s > deadline:
            raise TransferError(_given_up(answer))
        time.sleep(wait_s)


def _given_up(answer: Answer) -> str:
    wanted = f" (it asks to be left alone for {answer.retry_after_s:.0f} s)" if answer.retry_after_s else ""
    return f"the target takes no more: {answer.message}{wanted}. Run again, the command goes on where it was"
