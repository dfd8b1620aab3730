"""What a search found, and where a filter cannot be read."""

from __future__ import annotations

from rich.cells import cell_len
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
    header_cells,
    hint,
    print_rows,
    printable,
    tell_of_more,
    text_cell,
)
from .runs import SHORT_ID_DIGITS, draw_runs


def draw_found(to: Console, page: Record) -> None:
    """One line an event, or a run, in the order given; says how to see one of them in its place, and when there may be
    more."""
    if page.get("runs"):
        draw_runs(to, page)
    elif page.get("events"):
        _draw_events(to, page)
    elif page["searched_to_unix_nano"] is None:
        hint(to, "nothing found; `clew runs` lists what there is")
    if page["searched_to_unix_nano"] is not None:
        searched_to = int(page["searched_to_unix_nano"])
        hint(to, f"… searched back to {clock_text(searched_to)} for now: --until {searched_to} goes on from there")


def pointed_at(text: str, position: int) -> str:
    """The text on a line, and below it a caret under the character at the position."""
    line = printable(text.replace("\n", " "))
    return f"  {line}\n  {' ' * cell_len(line[:position])}^"


def _draw_events(to: Console, page: Record) -> None:
    events = page["events"]
    header = ["time", "run", "", "name", "agent", "", "duration"]
    print_rows(to, [header_cells(header), *map(_event_row, events)], "<<<<<<>", flexible=3)
    if page["searched_to_unix_nano"] is None:
        tell_of_more(to, page, "older events", len(events))
    first = events[0]
    hint(to, f"→ clew tree {first['run']['id'][:SHORT_ID_DIGITS]} --root {first['id']} shows the first in its place")


def _event_row(event: Record) -> list[Text]:
    failure = event["status_message"] if event["status"] == "failed" else None
    name = text_cell(event["name"])
    if failure:
        name = Text.assemble(name, ("  " + printable(failure.partition("\n")[0]), "red"))
    return [
        Text(clock_text(int(event["started_at_unix_nano"])), "dim"),
        Text(event["run"]["id"][:SHORT_ID_DIGITS], "bold"),
        Text(*ICONS.get(event["event_type"], OTHER_ICON)),
        name,
        text_cell(event["agent_name"]),
        Text(*STATUS_MARKS.get(event["status"], OTHER_MARK)),
        Text(event_duration_text(event)),
    ]
