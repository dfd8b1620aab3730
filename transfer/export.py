"""Spans out of a server or a store into an output."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ..exporter.pages import Page
from .ends import Spans, Total
from .errors import TransferError
from .formats import Format, uncollected
from .output import Output, State

CHECKPOINT_S = 5.0

# Told how many spans of how many are written.
Progress = Callable[[int, int], None]


def export(spans: Spans, output: Output, into: Format, progress: Progress) -> int:
    """Writes the spans, and gives how many there are. It goes on from where `output` was left; runs that start after
    the export did are left out. The next page is asked for while one is written. Raises what ends the transfer."""
    begun = output.resumed or _beginning(spans.total())
    spans = spans.within(begun["since"], begun["until"])
    writer = into.writer(begun["writer"])
    written, total = int(begun["spans"]), spans.total().spans
    if total < written:
        raise TransferError(f"{written:,} spans are begun with, of {total:,}: of other data; remove .part and .resume")
    checked_s = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="clew-export") as ahead:
        coming: Future[Page] | None = ahead.submit(spans.page, begun["cursor"])
        while coming is not None:
            page = coming.result()
            cursor = page.next_cursor
            coming = ahead.submit(spans.page, cursor) if cursor else None
            if page.spans:
                with uncollected():
                    content = writer.page(page.traces)
                output.write(content)
            written += page.spans
            if cursor and writer.state is not None and time.monotonic() - checked_s >= CHECKPOINT_S:
                output.checkpoint({**begun, "cursor": cursor, "spans": written, "writer": writer.state})
                checked_s = time.monotonic()
            progress(written, max(total, written))
    output.write(writer.end())
    output.finish()
    return written


def _beginning(total: Total) -> State:
    return {"since": total.since, "until": total.until, "cursor": None, "spans": 0, "writer": None}
