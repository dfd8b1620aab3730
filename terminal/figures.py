"""Figures of any events, by groups, and who calls whom."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from .cells import Record, clock_text, cost_text, duration_text, header_cells, hint, print_rows, printable, text_cell

BAR_CELLS = 24
EIGHTHS = " ▏▎▍▌▋▊▉"


def draw_figures(to: Console, figures: Record) -> None:
    """One line a group, with a bar for its events; then, where asked for, how many of each lasted how long."""
    groups = figures["groups"]
    if not groups:
        hint(to, "no such events; `clew runs` lists what there is")
        return
    print_rows(to, list(_figure_rows(groups)), _aligns(groups), flexible=_names_at(groups))
    for group in groups:
        if group.get("histogram"):
            to.print()
            to.print(Text(" · ".join(_words(group)) or "all events", "bold"))
            print_rows(to, list(_histogram_rows(group["histogram"])), ">><", flexible=2)
    if figures["groups_left_out"]:
        hint(to, f"… {figures['groups_left_out']:,} more groups: a larger --limit shows more, a filter narrows them")


def draw_calls(to: Console, graph: Record) -> None:
    """One line for each who calls another, the busiest first."""
    if not graph["edges"]:
        hint(to, f"no calls between {graph['of']}: an event that names one must hang from another's")
        return
    most = max(edge["calls"] for edge in graph["edges"])
    header = ["caller", "", "callee", "calls", "errors", "runs", "mean", ""]
    print_rows(to, [header_cells(header), *(_call_row(edge, most) for edge in graph["edges"])], "<<<>>>><", flexible=2)
    if graph["edges_left_out"]:
        hint(to, f"… {graph['edges_left_out']:,} more: a larger --limit shows more")


def bar(share: float, cells: int = BAR_CELLS) -> str:
    """A bar as long as the share of the cells, to an eighth of one; never nothing for more than nothing."""
    eighths = max(round(share * cells * 8), 1 if share > 0 else 0)
    return ("█" * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def _names_at(groups: Sequence[Record]) -> int:
    """The first of the columns that may give way: a name, or the bar."""
    return int("started_at_unix_nano" in groups[0]) if groups[0]["group"] else 0


def _aligns(groups: Sequence[Record]) -> str:
    names = len(groups[0]["group"]) + ("started_at_unix_nano" in groups[0])
    return "<" * names + ">" * (8 if "usage" in groups[0] else 5) + "<"


def _figure_rows(groups: Sequence[Record]) -> Iterator[list[Text]]:
    first, most = groups[0], max(group["events"] for group in groups)
    when = ["from"] if "started_at_unix_nano" in first else []
    used = ["tokens in", "tokens out", "cost"] if "usage" in first else []
    yield header_cells([*when, *first["group"], "events", "errors", "p50", "p95", "p99", *used, ""])
    for group in groups:
        yield [*_group_cells(group), *_figure_cells(group), Text(bar(group["events"] / most if most else 0), "cyan")]


def _group_cells(group: Record) -> Iterator[Text]:
    if "started_at_unix_nano" in group:
        yield Text(clock_text(int(group["started_at_unix_nano"])))
    for value in group["group"].values():
        yield Text("(none)", "dim") if value is None else text_cell(_said(value))


def _words(group: Record) -> Iterator[str]:
    """When and whose the group's events are."""
    if "started_at_unix_nano" in group:
        yield clock_text(int(group["started_at_unix_nano"]))
    yield from (printable(_said(value)) for value in group["group"].values())


def _said(value: object) -> str:
    """Texts as they are, what else an attribute may be as JSON."""
    if value is None:
        return "(none)"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _figure_cells(group: Record) -> Iterator[Text]:
    rate = group["error_rate"]
    yield Text(f"{group['events']:,}")
    yield Text(f"{rate:.1%}" if rate else "", "red")
    for name in ("p50", "p95", "p99"):
        value = group["duration_ns"][name]
        yield Text("" if value is None else duration_text(value))
    if "usage" in group:
        usage = group["usage"]
        yield from (Text(f"{usage[key]:,}" if usage[key] else "") for key in ("input_tokens", "output_tokens"))
        yield Text(cost_text(usage["cost_usd"]))


def _histogram_rows(buckets: Sequence[Record]) -> Iterator[list[Text]]:
    most = max(bucket["events"] for bucket in buckets)
    for bucket in buckets:
        until = bucket["until_ns"]
        label = f"> {duration_text(bucket['over_ns'])}" if until is None else f"≤ {duration_text(until)}"
        yield [Text(label, "dim"), Text(f"{bucket['events']:,}"), Text(bar(bucket["events"] / most), "cyan")]


def _call_row(edge: Record, most: int) -> list[Text]:
    return [
        text_cell(edge["caller"]),
        Text("→", "blue"),
        text_cell(edge["callee"]),
        Text(f"{edge['calls']:,}"),
        Text(f"{edge['errors']:,}" if edge["errors"] else "", "red"),
        Text(f"{edge['runs']:,}"),
        Text(duration_text(edge["duration_ns"] // edge["calls"])),
        Text(bar(edge["calls"] / most), "cyan"),
    ]
