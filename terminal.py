"""Runs and what is in them, drawn in a terminal. Takes the API's JSON, knows nothing of where it comes from.

Colour where the console has it; the same lines without it when piped. Text from telemetry is shown only as far as it is
printable: a span's name cannot move the cursor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

BAR_CELLS = 28
BARS_FROM_CELLS = 100
FLEXIBLE_CELLS_MIN = 16
GUIDE_LEVELS_MAX = 12
PAGE_ROWS_MAX = 1_000
PIPED_CELLS = 10_000
SHORT_ID_DIGITS = 8
TEXT_LENGTH_MAX = 300

Record = Mapping[str, Any]

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
FILE_ROLES = {"output": ("wrote", "green"), "input": ("read", "blue")}
# unit, its nanoseconds, how many of it belong to the next unit, digits after the point
DURATION_UNITS = (("ns", 1, 1_000, 0), ("µs", 1_000, 1_000, 0), ("ms", 10**6, 1_000, 0), ("s", 10**9, 60, 1))


def console(file: TextIO | None = None) -> Console:
    """Where to draw: as wide as the terminal, or wide enough to cut nothing when piped."""
    drawn = Console(file=file, highlight=False)
    return drawn if drawn.is_terminal else Console(file=file, highlight=False, no_color=True, width=PIPED_CELLS)


def draw_runs(to: Console, page: Record) -> None:
    """One line a run, in the order given; says when there are more."""
    runs = page["runs"]
    header = ["run", "", "name", "agent", "started", "duration", "events", "errors"]
    digits = _distinct_digits([run["id"] for run in runs])
    rows = [_header(header), *(_run_row(run, digits) for run in runs)]
    _print_rows(to, rows, "<<<<<>>>", flexible=2)
    _tell_of_more(to, page, "older runs", len(runs))


def draw_tree(to: Console, tree: Record, *, depth_max: int, lines_max: int) -> None:
    """The run's events as a tree, down to `depth_max` below its top and at most `lines_max` lines; says what it left
    out and how to see it. `tree` is the API's answer: events in depth-first order, each with its depth."""
    run, events = tree["run"], tree["events"]
    top = min((event["depth"] for event in events), default=0)
    lines = _cut(events, top + depth_max, lines_max)
    to.print(_headline(run), soft_wrap=True)
    if lines:
        _print_rows(to, _tree_rows(lines, top, _bars(to, run)), "<<>>><", flexible=0)
    for note in _notes(tree, lines, top):
        _hint(to, note)


def draw_statistics(to: Console, statistics: Record) -> None:
    """The run summed up, then its event types, agents and models, each with what it used."""
    to.print(_summary(statistics), soft_wrap=True)
    models = {usage["model"]: usage["events"] for usage in statistics["usage_by_model"]}
    for key, counts in (
        ("event_type", statistics["event_types"]),
        ("agent_name", statistics["agent_call_counts"]),
        ("model", models),
    ):
        rows = _usage_rows(key, counts, statistics[f"usage_by_{key.removesuffix('_name')}"])
        if rows:
            to.print()
            header = [key.removesuffix("_name").replace("_", " "), "events", "tokens in", "tokens out", "cost"]
            _print_rows(to, [_header(header), *rows], "<>>>>", flexible=0)


def draw_files(to: Console, page: Record) -> None:
    """One line a file, in the order given, with the event that wrote or read it; says when there are more."""
    files = page["files"]
    if not files:
        _hint(to, "no files: a span event `clew.file` with the attribute `file.path` says that a span wrote one")
        return
    header = ["time", "", "file", "type", "bytes", "agent", "event"]
    _print_rows(to, [_header(header), *map(_file_row, files)], "<<<<><<", flexible=2)
    _tell_of_more(to, page, "more files", len(files))


def draw_messages(to: Console, page: Record, *, full: bool = False) -> None:
    """One line a message, in the order given, or with `full` its whole content below that line; says when there are
    more."""
    messages = page["messages"]
    if not messages:
        _hint(to, "no messages: spans with `gen_ai.input.messages`, or span events `clew.message`, tell what was said")
        return
    if full:
        for message in messages:
            _draw_message(to, message)
    else:
        rows = [[*_message_head(message), _text(_on_one_line(message["content"]))] for message in messages]
        _print_rows(to, [_header(["time", "from → to", "tokens", "content"]), *rows], "<<><", flexible=3)
    _tell_of_more(to, page, "later messages", len(messages))


def draw_graph(to: Console, graph: Record) -> None:
    """One line a node, in the order given, further right the longer the way to it, with arrows from what it waits
    for."""
    if not graph["nodes"]:
        _hint(to, "no nodes: spans with the attribute `clew.node.id` make them, `clew.node.depends_on` their order")
        return
    header = ["node", "", "type", "agent", "duration", "events", "waits for"]
    _print_rows(to, [_header(header), *_node_rows(graph)], "<<<<>><", flexible=6)


def duration_text(duration_ns: int) -> str:
    """A duration with the unit that suits it, three digits or so."""
    for unit, unit_ns, units_max, digits in DURATION_UNITS:
        units = round(duration_ns / unit_ns, digits)
        if units < units_max:
            return f"{units:.{digits}f} {unit}"
    minutes, seconds = divmod(round(duration_ns / 1_000_000_000), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} m" if hours else f"{minutes} m {seconds:02} s"


def cost_text(cost_usd: float | str | None) -> str:
    """Dollars to a hundredth of a cent; nothing where nothing is known. What is no number (NaN) comes as text."""
    return f"${cost_usd:,.4f}" if isinstance(cost_usd, int | float) else cost_usd or ""


def _clock_text(unix_nano: int) -> str:
    return _local(unix_nano).strftime("%Y-%m-%d %H:%M:%S")


def _day_text(unix_nano: int) -> str:
    """As `ls -l` writes it: the hour of what is recent, the year of what is not."""
    moment = _local(unix_nano)
    is_recent = abs(datetime.now().astimezone() - moment) < timedelta(days=180)
    return moment.strftime("%b %d %H:%M" if is_recent else "%b %d  %Y")


def _local(unix_nano: int) -> datetime:
    return datetime.fromtimestamp(unix_nano // 1_000_000_000).astimezone()


# Runs.


def _distinct_digits(ids: Sequence[str]) -> int:
    """How many digits of each id tell them apart."""
    enough = (digits for digits in range(SHORT_ID_DIGITS, 32) if len({run_id[:digits] for run_id in ids}) == len(ids))
    return next(enough, 32)


def _run_row(run: Record, id_digits: int) -> list[Text]:
    return [
        Text(str(run["id"])[:id_digits], "bold"),
        Text(*STATUS_MARKS.get(run["status"], OTHER_MARK)),
        _text(run["name"]),
        _text(run["agent"]),
        Text(_day_text(int(run["started_at_unix_nano"])), "dim"),
        Text(duration_text(run["duration_ns"])),
        Text(f"{run['event_count']:,}"),
        Text(f"{run['error_count']:,}", "red" if run["error_count"] else "dim"),
    ]


def _headline(run: Record) -> Text:
    told = [_clock_text(int(run["started_at_unix_nano"])), duration_text(run["duration_ns"])]
    told += [_counted(run["event_count"], "event"), _counted(run["error_count"], "error")]
    return Text.assemble(
        ("run ", "dim"), (str(run["id"]), "bold"), "  ", _status(run["status"]), "\n", " · ".join(told)
    )


# Trees.


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
    label = Text.assemble((guide, "dim"), ICONS.get(event["event_type"], OTHER_ICON), " ", _text(event["name"]))
    if event["status"] == "failed" and event["status_message"]:
        label.append_text(Text("  ")).append_text(_text(event["status_message"], "red"))
    for word, is_so in (("parent never came", event.get("orphan")), ("its own ancestor", event.get("cycle"))):
        label.append(f"  ({word})" if is_so else "", "yellow")
    return label.append(f"  +{line.hidden:,} below" if line.hidden else "", "dim")


def _figures(event: Record) -> list[Text]:
    tokens = (event["input_tokens"] or 0) + (event["output_tokens"] or 0)
    return [
        Text(*STATUS_MARKS.get(event["status"], OTHER_MARK)),
        Text(duration_text(event["duration_ns"])),
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
        (rest, f"… {_counted(rest, 'more event')} after these: --limit {len(events)} shows all"),
        (hidden, f"… {_counted(hidden, 'event')} below the last level shown: --depth {deepest} shows all"),
        (tree["orphans"], f"{_counted(tree['orphans'], 'event')} whose parent never came"),
        (tree["cycles"], f"{_counted(tree['cycles'], 'event')} on a cycle: its own ancestor"),
    ]
    return [note for number, note in notes if number]


# Statistics.


def _summary(statistics: Record) -> Text:
    usage = statistics["usage"]
    mean_ns, sum_ns = (int(statistics[name] * 1e6) for name in ("avg_duration_ms", "total_duration_ms"))
    events = [_counted(statistics["total_events"], "event"), _counted(statistics["errors"], "error")]
    percentiles = statistics["duration_percentiles_ns"].items()
    durations = [f"{name} {duration_text(value)}" for name, value in percentiles if value is not None]
    used = [f"{usage['input_tokens']:,} in", f"{usage['output_tokens']:,} out", cost_text(usage["cost_usd"])]
    lines = [
        ("run        ", [statistics["run_id"]]),
        ("events     ", [*events, f"{duration_text(sum_ns)} in all"]),
        ("durations  ", [f"mean {duration_text(mean_ns)}", *durations]),
        ("tokens     ", list(filter(None, used)) if usage["events"] else ["none reported"]),
    ]
    return Text("\n").join(Text.assemble((title, "dim"), " · ".join(told)) for title, told in lines)


def _usage_rows(key: str, counts: Mapping[str, int], usages: Iterable[Record]) -> list[list[Text]]:
    """One line a name, those that used most first, then those that were most often."""
    by_name = {usage[key]: usage for usage in usages}
    names = [*by_name, *sorted(counts.keys() - by_name.keys(), key=lambda name: (-counts[name], name))]
    return [[_name_cell(key, name), *_usage_cells(counts, name, by_name.get(name, {}))] for name in names]


def _name_cell(key: str, name: str | None) -> Text:
    if name is None:
        return Text("(none)", "dim")
    if key != "event_type":
        return _text(name)
    return Text.assemble(ICONS.get(name, OTHER_ICON), " ", _text(name))


def _usage_cells(counts: Mapping[str, int], name: str, usage: Record) -> list[Text]:
    tokens = [f"{usage[key]:,}" if usage.get(key) else "" for key in ("input_tokens", "output_tokens")]
    count = counts.get(name, usage.get("events", 0))
    return [Text(f"{count:,}"), *map(Text, tokens), Text(cost_text(usage.get("cost_usd")))]


# Files and messages.


def _file_row(file: Record) -> list[Text]:
    event = file["event"] or {}
    size = "" if file["size_bytes"] is None else f"{file['size_bytes']:,}"
    return [
        Text(_clock_text(int(file["created_at_unix_nano"])), "dim"),
        Text(*FILE_ROLES.get(file["role"], OTHER_MARK)),
        _text(file["file_path"]),
        _text(file["file_type"], "dim"),
        Text(size),
        _text(event.get("agent_name")),
        _text(event.get("name"), "dim"),
    ]


def _draw_message(to: Console, message: Record) -> None:
    to.print(Text("  ").join(cell for cell in _message_head(message) if cell), soft_wrap=True)
    for line in message["content"].splitlines():
        to.print(Text("  ") + Text(_printable(line)), soft_wrap=True)


def _on_one_line(content: str) -> str:
    return " ".join(content[: 2 * TEXT_LENGTH_MAX].split())


def _message_head(message: Record) -> list[Text]:
    sender, recipient = message["sender"] or message["role"], message["recipient"]
    said = Text(" → ", "dim").join(_text(name) for name in (sender, recipient) if name)
    tokens = "" if message["tokens"] is None else f"{message['tokens']:,}"
    return [Text(_clock_text(int(message["time_unix_nano"])), "dim"), said, Text(tokens)]


# Graphs.


def _node_rows(graph: Record) -> Iterator[list[Text]]:
    arrows: dict[str, list[Record]] = {node["id"]: [] for node in graph["nodes"]}
    for edge in graph["edges"]:
        arrows.setdefault(edge["to_node_id"], []).append(edge)
    levels: dict[str, int] = {}
    for node in graph["nodes"]:
        waits_for = arrows[node["id"]]
        levels[node["id"]] = max((levels.get(edge["from_node_id"], -1) for edge in waits_for), default=-1) + 1
        yield _node_row(node, levels[node["id"]], waits_for)


def _node_row(node: Record, level: int, waits_for: Iterable[Record]) -> list[Text]:
    label = Text("  " * min(level, GUIDE_LEVELS_MAX)).append_text(_text(node["id"]))
    label.append("  (waits for itself)" if node.get("cycle") else "", "yellow")
    times = (node["started_at_unix_nano"], node["completed_at_unix_nano"])
    lasted = duration_text(int(times[1]) - int(times[0])) if all(times) else ""
    return [
        label,
        Text(*STATUS_MARKS.get(node["status"], OTHER_MARK)),
        _text(node["node_type"], "dim"),
        _text(node["agent"]),
        Text(lasted),
        Text(f"{node['event_count']:,}"),
        Text(", ", "dim").join(_arrow(edge) for edge in waits_for),
    ]


def _arrow(edge: Record) -> Text:
    """Where the edge comes from; and what is special about it."""
    kind = "" if edge["dependency_type"] == "sequential" else edge["dependency_type"]
    special = ": ".join(filter(None, (kind, edge["condition"])))
    return Text.assemble(("← ", "blue"), _text(edge["from_node_id"]), _text(special and f" ({special})", "dim"))


# Lines of cells.


def _print_rows(to: Console, rows: Sequence[Sequence[Text]], aligns: str, flexible: int) -> None:
    """Columns as wide as their cells; when that is too wide, the flexible one gives way."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*rows, strict=True)]
    others = sum(width + 2 for index, width in enumerate(widths) if width and index != flexible)
    widths[flexible] = min(widths[flexible], max(to.width - others, FLEXIBLE_CELLS_MIN))
    for row in rows:
        shown = [_aligned(*cell) for cell in zip(row, widths, aligns, strict=True) if cell[1]]
        line = Text("  ").join(shown)
        line.rstrip()
        to.print(line, no_wrap=True, overflow="crop", crop=True)


def _aligned(cell: Text, width: int, align: str) -> Text:
    cell.truncate(width, overflow="ellipsis")
    cell.align("right" if align == ">" else "left", width)
    return cell


def _text(value: object, style: str = "") -> Text:
    return Text(_printable(str(value or "")[:TEXT_LENGTH_MAX]), style)


def _printable(text: str) -> str:
    return "".join(sign if sign.isprintable() else "�" for sign in text)


def _header(titles: Iterable[str]) -> list[Text]:
    return [Text(title, "dim") for title in titles]


def _hint(to: Console, told: str) -> None:
    to.print(Text(told, "dim"), soft_wrap=True)


def _tell_of_more(to: Console, page: Record, what: str, shown: int) -> None:
    how = f"--limit {min(2 * shown, PAGE_ROWS_MAX)} shows more" if shown < PAGE_ROWS_MAX else "see the API's pages"
    if page["next_cursor"]:
        _hint(to, f"… {what}: {how}")


def _status(status: str) -> Text:
    mark, colour = STATUS_MARKS.get(status, OTHER_MARK)
    return _text(f"{mark} {status}", colour)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
