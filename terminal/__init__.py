"""What the commands draw. Takes the API's JSON, knows nothing of where it comes from. Each module draws what it is
named after; `cells.py` is what they draw with."""

from __future__ import annotations

from .artifacts import draw_files, draw_messages
from .cells import ICONS, console, cost_text, duration_text
from .comparison import draw_comparison
from .critical_path import draw_critical_path
from .exports import draw_exports
from .figures import draw_calls, draw_figures
from .graph import draw_graph
from .live import draw_event
from .runs import SHORT_ID_DIGITS, draw_runs
from .search import draw_found, pointed_at
from .sql import draw_columns, draw_rows, draw_tables
from .statistics import draw_statistics
from .tree import draw_tree

__all__ = [
    "ICONS",
    "SHORT_ID_DIGITS",
    "console",
    "cost_text",
    "draw_calls",
    "draw_columns",
    "draw_comparison",
    "draw_critical_path",
    "draw_event",
    "draw_exports",
    "draw_figures",
    "draw_files",
    "draw_found",
    "draw_graph",
    "draw_messages",
    "draw_rows",
    "draw_runs",
    "draw_statistics",
    "draw_tables",
    "draw_tree",
    "duration_text",
    "pointed_at",
]
