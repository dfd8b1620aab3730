"""A run as a tree of its events."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from .cells import (
    GUIDE_LEVELS_MAX,
    ICONS,
    OTHER_ICON,
    OTHER_MARK,
    STATUS_MARKS,
    Record,
    clock_text,
    cost_text,
    counted,
    duration_text,
    event_duration_text,
    hint,
    print_rows,
    status_cell,
    task_cell,
    text_cell,
)

BAR_CELLS = 28
BARS_FROM_CELLS = 100


def draw_tree(to: Console, tree: Record, *, depth_max: int, lines_max: int) -> None:
    """The run's events as a tree, down to `depth_max` below its top and at most `lines_max` lines; says what it left
    out and how to see it. `tree` is the API's answer: events in depth-first order, each with its depth."""
    run, events = tree["run"], tree["events"]
    top = min((event["depth"] for event in events), default=0)
    lines = _cut(events, top + depth_max, lines_max)
    to.print(_headline(run), soft_wrap=True)
    if lines:
        print_rows(to, _tree_rows(lines, top, _bars(to, run)), "<<>>><", flexible=0)
    for note in _notes(tree, lines, top):
        hint(to, note)


def _headline(run: Record) -> Text:
    told = [clock_text(int(run["started_at_unix_nano"])), duration_text(run["duration_ns"])]
    told += [counted(run["event_count"], "event"), counted(run["error_count"], "error")]
    lines = [Text.assemble(("run ", "dim"), (str(run["id"]), "bold"), "  ", status_cell(run["status"]))]
    return Text("\n").join(filter(None, [*lines, task_cell(run), Text(" · ".join(told))]))


@dataclass
class _Line:
    """An event that is drawn, and how many below it are not."""

    event: Record
    hidden: int = 0


def _cut(events: Iterable[Record], depth_max: int, lines_max: int) -> list[_Line]:
    """The lines to draw. In depth-first order what is too deep follows the line it hangs from."""
    lines: list[_Line] = []
    for event in events:
        if event["depth"] > depth_max and lines:
            lines[-1].hidden += 1
        elif len(lines) < lines_max:
            lines.append(_Line(event))
        else:
            break
    return lines


def _guides(depths: Sequence[int]) -> list[str]:
    """What stands before each line of a tree, for lines of these depths in depth-first order. Read from the end, since
    only what follows tells whether a branch goes on."""
    drawn: list[str] = []
    goes_on: list[bool] = []  # by depth: a sibling follows
    for depth in reversed(depths):
        goes_on += [False] * (depth + 1 - len(goes_on))
        del goes_on[depth + 1 :]
        first = max(1, depth - GUIDE_LEVELS_MAX)
        trunk = "".join("│  " if open_ else "   " for open_ in goes_on[first:depth])
        branch = "├─ " if goes_on[depth] else "└─ "
        drawn.append(("⋯ " if first > 1 else "") + trunk + (branch if depth else ""))
        goes_on[depth] = True
    return drawn[::-1]


def _tree_rows(lines: Sequence[_Line], top: int, bar: Callable[[Record], Text]) -> list[list[Text]]:
    guides = _guides([line.event["depth"] - top for line in lines])
    return [
        [_label(guide, line), *_figures(line.event), bar(line.event)] for guide, line in zip(guides, lines, strict=True)
    ]


def _label(guide: str, line: _Line) -> Text:
    event = line.event
    label = Text.assemble((guide, "dim"), ICONS.get(event["event_type"], OTHER_ICON), " ", text_cell(event["name"]))
    if event["status"] == "failed" and event["status_message"]:
        label.append_text(Text("  ")).append_text(text_cell(event["status_message"], "red"))
    for word, is_so in (("parent never came", event.get("orphan")), ("its own ancestor", event.get("cycle"))):
        label.append(f"  ({word})" if is_so else "", "yellow")
    return label.append(f"  +{line.hidden:,} below" if line.hidden else "", "dim")


def _figures(event: Record) -> list[Text]:
    tokens = (event["input_tokens"] or 0) + (event["output_tokens"] or 0)
    return [
        Text(*STATUS_MARKS.get(event["status"], OTHER_MARK)),
        Text(event_duration_text(event)),
        Text(f"{tokens:,} tok" if tokens else "", "dim"),
        Text(cost_text(event["cost_usd"] or None), "dim"),
    ]


def _bars(to: Console, run: Record) -> Callable[[Record], Text]:
    """When each event was, as a bar along the run; nothing where the terminal is too narrow for it."""
    if not to.is_terminal or to.width < BARS_FROM_CELLS:
        return lambda _event: Text("")
    started_ns = int(run["started_at_unix_nano"])
    cell_ns = max(run["duration_ns"], 1) / BAR_CELLS

    def bar(event: Record) -> Text:
        offset_ns = int(event["started_at_unix_nano"]) - started_ns
        left = min(max(int(offset_ns / cell_ns), 0), BAR_CELLS - 1)
        right = min(max(round((offset_ns + event["duration_ns"]) / cell_ns), left + 1), BAR_CELLS)
        return Text(" " * left + "━" * (right - left), ICONS.get(event["event_type"], OTHER_ICON)[1])

    return bar


def _notes(tree: Record, lines: Sequence[_Line], top: int) -> list[str]:
    events = tree["events"]
    hidden = sum(line.hidden for line in lines)
    rest = len(events) - len(lines) - hidden
    deepest = max((event["depth"] for event in events), default=0) - top
    notes = [
        (rest, f"… {counted(rest, 'more event')} after these: --limit {len(events)} shows all"),
        (hidden, f"… {counted(hidden, 'event')} below the last level shown: --depth {deepest} shows all"),
        (tree["orphans"], f"{counted(tree['orphans'], 'event')} whose parent never came"),
        (tree["cycles"], f"{counted(tree['cycles'], 'event')} on a cycle: its own ancestor"),
    ]
    return [note for number, note in notes if number]
