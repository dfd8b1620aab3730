"""How far other backends have got what is sent on to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from .cells import Record, clock_text, duration_text, header_cells, hint, print_rows, printable, text_cell

_MARKS = {
    "sending": ("✓ sending", "green"),
    "waiting": ("✗ waiting", "red"),
    "not_taken": ("· not taken", "dim"),
    "away": ("· not configured", "yellow"),
}


def draw_exports(to: Console, answer: Record) -> None:
    """One line for each signal of each target that had something to send, then what is in the way."""
    exports = answer["exports"]
    if not exports:
        hint(to, "nothing is sent on; `clew serve --export otlp-grpc://HOST:4317` does it")
        return
    shown = [export for export in exports if _says_something(export)]
    print_rows(to, list(_rows(shown)), "<<<>>>><", flexible=7)
    for export in shown:
        if export["last_error"]:
            since = clock_text(export["last_error_at_unix_nano"])
            told = f"{export['target']} gets no {export['signal']} ({since}): {export['last_error']}"
            to.print(Text(printable(told), "red"), soft_wrap=True)


def _says_something(export: Record) -> bool:
    is_quiet = export["state"] == "sending" and not (export["sent"] or export["refused"] or export["lag_records"])
    return export["signal"] == "traces" or not is_quiet


def _rows(exports: Sequence[Record]) -> Iterator[list[Text]]:
    yield header_cells(["target", "signal", "state", "sent", "refused", "waiting", "for", "address"])
    for export in exports:
        lag = export["lag_records"]
        yield [
            text_cell(export["target"], "bold"),
            Text(export["signal"]),
            Text(*_MARKS.get(export["state"], (export["state"], ""))),
            Text(f"{export['sent']:,}"),
            Text(f"{export['refused']:,}" if export["refused"] else "", "red"),
            Text(f"{lag:,}" if lag else ""),
            Text(duration_text(round(export["lag_s"] * 1_000_000_000)) if lag else ""),
            text_cell(export["address"], "dim"),
        ]
