"""Runs, listed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from .cells import (
    OTHER_MARK,
    STATUS_MARKS,
    Record,
    day_text,
    duration_text,
    header_cells,
    hint,
    print_rows,
    task_cell,
    tell_of_more,
    text_cell,
)

SHORT_ID_DIGITS = 8


def draw_runs(to: Console, page: Record) -> None:
    """One line a run, in the order given; says when there are more."""
    runs = page["runs"]
    if not runs:
        hint(to, "no such runs; `clew runs` lists all, once an OpenTelemetry SDK has sent some")
        return
    header = ["run", "", "name", "agent", "started", "duration", "events", "errors"]
    digits = _distinct_digits([run["id"] for run in runs])
    rows = [header_cells(header), *(_run_row(run, digits) for run in runs)]
    print_rows(to, rows, "<<<<<>>>", flexible=2)
    tell_of_more(to, page, "older runs", len(runs))


def _distinct_digits(ids: Sequence[str]) -> int:
    """How many digits of each id tell them apart."""
    enough = (digits for digits in range(SHORT_ID_DIGITS, 32) if len({run_id[:digits] for run_id in ids}) == len(ids))
    return next(enough, 32)


def _title(run: Record) -> Text:
    name, task = text_cell(run["name"]), task_cell(run, "dim")
    return Text.assemble(name, "  ", task) if task else name


def _run_row(run: Record, id_digits: int) -> list[Text]:
    return [
        Text(str(run["id"])[:id_digits], "bold"),
        Text(*STATUS_MARKS.get(run["status"], OTHER_MARK)),
        _title(run),
        text_cell(run["agent"]),
        Text(day_text(int(run["started_at_unix_nano"])), "dim"),
        Text(duration_text(run["duration_ns"])),
        Text(f"{run['event_count']:,}"),
        Text(f"{run['error_count']:,}", "red" if run["error_count"] else "dim"),
    ]
