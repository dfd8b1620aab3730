"""What everything drawn is made of: lines of cells, and how values are written in them.

Colour where the console has it; the same lines without it when piped. Text from telemetry is shown only as far as it is
printable: a span's name cannot move the cursor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

Record = Mapping[str, Any]

FLEXIBLE_CELLS_MIN = 16
GUIDE_LEVELS_MAX = 12
PAGE_ROWS_MAX = 1_000
PIPED_CELLS = 10_000
TEXT_LENGTH_MAX = 300
ICONS = {
    "agent_call": ("●", "cyan"),
    "tool_call": ("◆", "yellow"),
    "code_exec": ("λ", "magenta"),
    "file_gen": ("■", "green"),
    "handoff": ("→", "blue"),
    "approval_requested": ("?", "bright_yellow"),
    "state_transition": ("~", "bright_blue"),
    "error": ("!", "red"),
}
OTHER_ICON = ("○", "white")
STATUS_MARKS = {"completed": ("✓", "green"), "failed": ("✗", "red"), "running": ("…", "yellow")}
OTHER_MARK = ("·", "white")
# They make one sign of several, as emoji and some scripts do.
_JOINERS = "\u200c\u200d"
# unit, its nanoseconds, how many of it belong to the next unit, digits after the point
DURATION_UNITS = (("ns", 1, 1_000, 0), ("µs", 1_000, 1_000, 0), ("ms", 10**6, 1_000, 0), ("s", 10**9, 60, 1))


def console(file: TextIO | None = None) -> Console:
    """Where to draw: as wide as the terminal, or wide enough to cut nothing when piped."""
    drawn = Console(file=file, highlight=False)
    return drawn if drawn.is_terminal else Console(file=file, highlight=False, no_color=True, width=PIPED_CELLS)


def print_rows(to: Console, rows: Sequence[Sequence[Text]], aligns: str, flexible: int) -> None:
    """Columns as wide as their cells; when that is too wide, the flexible one gives way, and then the end of the line,
    marked as cut."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    others = sum(width + 2 for index, width in enumerate(widths) if width and index != flexible)
    widths[flexible] = min(widths[flexible], max(to.width - others, FLEXIBLE_CELLS_MIN))
    for row in rows:
        shown = [_aligned(*cell) for cell in zip(row, widths, aligns, strict=True) if cell[1]]
        line = Text("  ").join(shown)
        line.rstrip()
        # A number that is cut without a sign reads as another number.
        line.truncate(to.width, overflow="ellipsis")
        to.print(line, no_wrap=True, overflow="crop", crop=True)


def _aligned(cell: Text, width: int, align: str) -> Text:
    cell.truncate(width, overflow="ellipsis")
    cell.align("right" if align == ">" else "left", width)
    return cell


def text_cell(value: object, style: str = "") -> Text:
    return Text(printable(str(value or "")[:TEXT_LENGTH_MAX]), style)


def task_cell(run: Record, style: str = "") -> Text:
    """The first line of the run's task: recorded runs are mostly called alike."""
    return text_cell(str(run.get("task_description") or "").partition("\n")[0], style)


def printable(text: str) -> str:
    return "".join(sign if sign.isprintable() or sign in _JOINERS else "�" for sign in text)


def header_cells(titles: Iterable[str]) -> list[Text]:
    return [Text(title, "dim") for title in titles]


def hint(to: Console, told: str) -> None:
    to.print(Text(told, "dim"), soft_wrap=True)


def tell_of_more(to: Console, page: Record, what: str, shown: int) -> None:
    how = f"--limit {min(2 * shown, PAGE_ROWS_MAX)} shows more" if shown < PAGE_ROWS_MAX else "see the API's pages"
    if page["next_cursor"]:
        hint(to, f"… {what}: {how}")


def status_cell(status: str) -> Text:
    mark, colour = STATUS_MARKS.get(status, OTHER_MARK)
    return text_cell(f"{mark} {status}", colour)


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration_text(duration_ns: int) -> str:
    """A duration with the unit that suits it, three digits or so."""
    for unit, unit_ns, units_max, digits in DURATION_UNITS:
        units = round(duration_ns / unit_ns, digits)
        if units < units_max:
            return f"{units:.{digits}f} {unit}"
    minutes, seconds = divmod(round(duration_ns / 1_000_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} m" if hours else f"{minutes} m {seconds:02} s"


def event_duration_text(event: Record) -> str:
    """How long the event lasted; nothing while it has not ended."""
    return "" if event["completed_at_unix_nano"] == "0" else duration_text(event["duration_ns"])


def cost_text(cost_usd: float | str | None) -> str:
    """Dollars to a hundredth of a cent; nothing where nothing is known. What is no number (NaN) comes as text."""
    return f"${cost_usd:,.4f}" if isinstance(cost_usd, int | float) else cost_usd or ""


def clock_text(unix_nano: int) -> str:
    return _local(unix_nano).strftime("%Y-%m-%d %H:%M:%S")


def day_text(unix_nano: int) -> str:
    """As `ls -l` writes it: the hour of what is recent, the year of what is not."""
    moment = _local(unix_nano)
    is_recent = abs(datetime.now().astimezone() - moment) < timedelta(days=180)
    return moment.strftime("%b %d %H:%M" if is_recent else "%b %d  %Y")


def _local(unix_nano: int) -> datetime:
    return datetime.fromtimestamp(unix_nano // 1_000_000_000).astimezone()
