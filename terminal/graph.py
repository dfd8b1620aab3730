"""The graph of a run: its nodes in working order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.text import Text

from .cells import (
    GUIDE_LEVELS_MAX,
    OTHER_MARK,
    STATUS_MARKS,
    Record,
    duration_text,
    header_cells,
    hint,
    print_rows,
    text_cell,
)


def draw_graph(to: Console, graph: Record) -> None:
    """One line a node, in the order given, further right the longer the way to it, with arrows from what it waits
    for."""
    if not graph["nodes"]:
        hint(to, "no nodes: spans with the attribute `clew.node.id` make them, `clew.node.depends_on` their order")
        return
    header = ["node", "", "type", "agent", "duration", "events", "waits for"]
    print_rows(to, [header_cells(header), *_node_rows(graph)], "<<<<>><", flexible=6)


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
    label = Text("  " * min(level, GUIDE_LEVELS_MAX)).append_text(text_cell(node["id"]))
    label.append("  (waits for itself)" if node.get("cycle") else "", "yellow")
    times = (node["started_at_unix_nano"], node["completed_at_unix_nano"])
    lasted = duration_text(int(times[1]) - int(times[0])) if all(times) else ""
    return [
        label,
        Text(*STATUS_MARKS.get(node["status"], OTHER_MARK)),
        text_cell(node["node_type"], "dim"),
        text_cell(node["agent"]),
        Text(lasted),
        Text(f"{node['event_count']:,}"),
        Text(", ", "dim").join(_arrow(edge) for edge in waits_for),
    ]


def _arrow(edge: Record) -> Text:
    """Where the edge comes from; and what is special about it."""
    kind = "" if edge["dependency_type"] == "sequential" else edge["dependency_type"]
    special = ": ".join(filter(None, (kind, edge["condition"])))
    return Text.assemble(("← ", "blue"), text_cell(edge["from_node_id"]), text_cell(special and f" ({special})", "dim"))
