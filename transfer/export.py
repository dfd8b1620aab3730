"""Spans out of a server or a store into an output."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from ..exporter.pages import Page
from .ends import Spans
from .formats import Format
from .output import Output

CHECKPOINT_S = 5.0

# Told how many spans of how many are written.
Progress = Callable[[int, int], None]


def export(spans: Spans, output: Output, into: Format, progress: Progress) -> int:
    """Writes the spans, and gives how many there are. It goes on from where `output` was left; runs that start after
    the export did are left out. The next page is asked for while one is written. Raises what ends the transfer."""
    state = output.resumed or {"until": spans.total().until, "cursor": None, "spans": 0, "writer": None}
    spans = spans.before(state["until"])
    writer = into.writer(state["writer"])
    written, total = int(state["spans"]), spans.total().spans
    checked_s = time.monotonic()
    with ThreadPoolExecutor(1, thread_name_prefix="clew-export") as ahead:
        coming: Future[Page] | None = ahead.submit(spans.page, state["cursor"])
        while coming is not None:
            page = coming.result()
            cursor = page.next_cursor
            coming = ahead.submit(spans.page, cursor) if cursor else None
            if page.spans:
                output.write(writer.page(page.traces))
            written += page.spans
            progress(written, max(total, written))
            if cursor and writer.state is not None and time.monotonic() - checked_s >= CHECKPOINT_S:
                output.checkpoint({"until": state["until"], "cursor": cursor, "spans": written, "writer": writer.state})
                checked_s = time.monotonic()
    output.write(writer.end())
    output.finish()
    return written
