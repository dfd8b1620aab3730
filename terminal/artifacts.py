"""The files and messages of a run."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .cells import (
    OTHER_MARK,
    TEXT_LENGTH_MAX,
    Record,
    clock_text,
    header_cells,
    hint,
    print_rows,
    printable,
    tell_of_more,
    text_cell,
)

FILE_ROLES = {"output": ("wrote", "green"), "input": ("read", "blue")}


def draw_files(to: Console, page: Record) -> None:
    """One line a file, in the order given, with the event that wrote or read it; says when there are more."""
    files = page["files"]
    if not files:
        hint(to, "no files: a span event `clew.file` with the attribute `file.path` says that a span wrote one")
        return
    header = ["time", "", "file", "type", "bytes", "agent", "event"]
    print_rows(to, [header_cells(header), *map(_file_row, files)], "<<<<><<", flexible=2)
    tell_of_more(to, page, "more files", len(files))


def draw_messages(to: Console, page: Record, *, full: bool = False) -> None:
    """One line a message, in the order given, or with `full` its whole content below that line; says when there are
    more."""
    messages = page["messages"]
    if not messages:
        hint(to, "no messages: spans with `gen_ai.input.messages`, or span events `clew.message`, tell what was said")
        return
    if full:
        for message in messages:
            _draw_message(to, message)
    else:
        rows = [[*_message_head(message), text_cell(_on_one_line(message["content"]))] for message in messages]
        print_rows(to, [header_cells(["time", "from → to", "tokens", "content"]), *rows], "<<><", flexible=3)
    tell_of_more(to, page, "later messages", len(messages))


def _file_row(file: Record) -> list[Text]:
    event = file["event"] or {}
    size = "" if file["size_bytes"] is None else f"{file['size_bytes']:,}"
    return [
        Text(clock_text(int(file["created_at_unix_nano"])), "dim"),
        Text(*FILE_ROLES.get(file["role"], OTHER_MARK)),
        text_cell(file["file_path"]),
        text_cell(file["file_type"], "dim"),
        Text(size),
        text_cell(event.get("agent_name")),
        text_cell(event.get("name"), "dim"),
    ]


def _draw_message(to: Console, message: Record) -> None:
    to.print(Text("  ").join(cell for cell in _message_head(message) if cell), soft_wrap=True)
    for line in message["content"].splitlines():
        to.print(Text("  ") + Text(printable(line)), soft_wrap=True)


def _on_one_line(content: str) -> str:
    return " ".join(content[: 2 * TEXT_LENGTH_MAX].split())


def _message_head(message: Record) -> list[Text]:
    sender, recipient = message["sender"] or message["role"], message["recipient"]
    said = Text(" → ", "dim").join(text_cell(name) for name in (sender, recipient) if name)
    tokens = "" if message["tokens"] is None else f"{message['tokens']:,}"
    return [Text(clock_text(int(message["time_unix_nano"])), "dim"), said, Text(tokens)]
