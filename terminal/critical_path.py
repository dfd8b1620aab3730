"""What took a run its time."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from .cells import ICONS, OTHER_ICON, Record, counted, duration_text, header_cells, hint, print_rows, text_cell
from .figures import bar
from .runs import SHORT_ID_DIGITS


def draw_critical_path(to: Console, path: Record) -> None:
    """How long the run took and which agents that was; then one line an event, the largest contribution first."""
    lasted = path["duration_ns"]
    to.print(Text.assemble(("run ", "dim"), (path["run"]["id"], "bold"), "  ", duration_text(lasted)), soft_wrap=True)
    agents = [(one["agent_name"] or "(no agent)", one["contribution_ns"]) for one in path["by_agent"]]
    told = [*agents, *([("(nobody)", path["nobody_ns"])] if path["nobody_ns"] else [])]
    to.print(text_cell(" · ".join(f"{name} {_share(part, lasted)}" for name, part in told)), soft_wrap=True)
    if not path["events"]:
        hint(to, "no event took any of its time")
        return
    header = ["event", "agent", "own time", "", ""]
    print_rows(to, [header_cells(header), *(_row(event, lasted) for event in path["events"])], "<<>><", flexible=0)
    left_out = path["event_count"] - len(path["events"])
    if left_out:
        hint(to, f"… {counted(left_out, 'more event')} on the path: a larger --limit shows more")
    first = path["events"][0]["id"]
    hint(to, f"→ clew tree {path['run']['id'][:SHORT_ID_DIGITS]} --root {first} shows what the first one did")


def _row(event: Record, lasted: int) -> list[Text]:
    part = event["contribution_ns"]
    return [
        Text.assemble(ICONS.get(event["event_type"], OTHER_ICON), " ", text_cell(event["name"])),
        text_cell(event["agent_name"]),
        Text(duration_text(part)),
        Text(_share(part, lasted)),
        Text(bar(part / lasted), "cyan"),
    ]


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.0%}" if whole else ""
