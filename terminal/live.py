"""Events as they come, a line each."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .cells import (
    ICONS,
    OTHER_ICON,
    OTHER_MARK,
    STATUS_MARKS,
    Record,
    clock_text,
    event_duration_text,
    printable,
    text_cell,
)
from .runs import SHORT_ID_DIGITS

NAME_CELLS = 40


def draw_event(to: Console, event: Record) -> None:
    """When it started, its run, what it is, who did it, how it ended and how long it took. Lines that come one by one
    know nothing of those to come: names have a fixed width, and longer ones push the rest to the right."""
    name = text_cell(event["name"])
    name.align("left", max(NAME_CELLS, name.cell_len))
    told = [
        Text(clock_text(int(event["started_at_unix_nano"])), "dim"),
        Text(event["run"]["id"][:SHORT_ID_DIGITS], "bold"),
        Text.assemble(ICONS.get(event["event_type"], OTHER_ICON), " ", name),
        Text(*STATUS_MARKS.get(event["status"], OTHER_MARK)),
        Text(event_duration_text(event).rjust(8)),
        text_cell(event["agent_name"]),
    ]
    if event["status"] == "failed" and event["status_message"]:
        told.append(Text(printable(event["status_message"].partition("\n")[0]), "red"))
    line = Text("  ").join(told)
    line.rstrip()
    to.print(line, soft_wrap=True)
