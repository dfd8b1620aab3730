"""Two runs beside one another."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from .cells import (
    GUIDE_LEVELS_MAX,
    Record,
    cost_text,
    counted,
    duration_text,
    print_rows,
    tell_of_more,
    text_cell,
)

# The first of an event's changes gives its mark.
MARKS = {
    "added": ("+", "green"),
    "missing": ("-", "red"),
    "status": ("!", "yellow"),
    "slower": ("▲", "red"),
    "faster": ("▼", "green"),
    "attributes": ("~", "cyan"),
}
KEYS_MAX = 5


def draw_comparison(to: Console, comparison: Record) -> None:
    """Both runs and how they differ as a whole; then one line for each event that differs, as deep as it stands."""
    for side in ("a", "b"):
        to.print(_headline(side, comparison[side], comparison[f"usage_{side}"]), soft_wrap=True)
    to.print(Text(" · ".join(_totals(comparison["counts"]))), soft_wrap=True)
    changes = comparison["changes"]
    if changes:
        print_rows(to, [_row(change) for change in changes], "<<<", flexible=2)
    tell_of_more(to, comparison, "more changes", len(changes))


def _headline(side: str, run: Record, usage: Record) -> Text:
    tokens = usage["input_tokens"] + usage["output_tokens"]
    told = [
        duration_text(run["duration_ns"]),
        counted(run["event_count"], "event"),
        counted(run["error_count"], "error"),
    ]
    told += [f"{tokens:,} tokens"] * bool(tokens) + [cost_text(usage["cost_usd"])] * bool(usage["cost_usd"])
    return Text.assemble((f"{side} ", "dim"), (run["id"], "bold"), "  ", text_cell(run["name"]), "  ", " · ".join(told))


def _totals(counts: Record) -> Iterator[str]:
    yield f"{counted(counts['pairs'], 'pair')}, {counts['unchanged']:,} unchanged"
    for name in MARKS:
        if counts[name]:
            yield f"{MARKS[name][0]} {counts[name]:,} {name}"


def _row(change: Record) -> list[Text]:
    mark = next(MARKS[name] for name in MARKS if name in change["changes"])
    label = Text("  " * min(change["depth"], GUIDE_LEVELS_MAX)).append_text(text_cell(change["name"]))
    return [Text(*mark), label, Text("  ").join(_differences(change))]


def _differences(change: Record) -> Iterator[Text]:
    a, b, changes = change["a"], change["b"], change["changes"]
    if "status" in changes:
        yield text_cell(f"{a['status']} → {b['status']}", "yellow")
        yield text_cell(b["status_message"] or "", "red")
    if change["duration_change_ns"] is None:
        yield Text(duration_text((a or b)["duration_ns"]), "dim")
    elif {"slower", "faster"} & set(changes):
        style = MARKS["slower" if "slower" in changes else "faster"][1]
        yield Text(f"{duration_text(a['duration_ns'])} → {duration_text(b['duration_ns'])}", style)
    if change["attributes"]:
        keys = [attribute["key"] for attribute in change["attributes"]]
        more = len(keys) - KEYS_MAX + change["attributes_left_out"]
        yield text_cell(", ".join(keys[:KEYS_MAX]) + (f" and {more:,} more" if more > 0 else ""), "cyan")
