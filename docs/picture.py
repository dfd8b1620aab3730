"""Draws the README's picture: `clew tree` of the demo's run, as SVG.

    python docs/picture.py docs/tree.svg

It starts a server on a throw-away file, so what is drawn is what a reader gets.
"""

import json
import re
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console

from clew import terminal
from clew.cli import TREE_DEPTH, TREE_LINES
from clew.client import Client
from clew.exporter.demo import record
from clew.server import serving
from clew.settings import Settings

WIDTH_CELLS = 120
FONT_FROM_ELSEWHERE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def main(target: str) -> None:
    canvas = Console(file=StringIO(), record=True, width=WIDTH_CELLS, force_terminal=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(db=f"{folder}/picture.duckdb", grpc_port=0, http_port=0)
        with serving(settings, on_end=lambda: None) as addresses:
            tree = json.loads(Client(addresses.http).get(f"/api/runs/{record(addresses.otlp_grpc)}/tree"))
    terminal.draw_tree(canvas, tree, depth_max=TREE_DEPTH, lines_max=TREE_LINES)
    drawn = canvas.export_svg(title="clew tree")
    Path(target).write_text(FONT_FROM_ELSEWHERE.sub("", drawn))


if __name__ == "__main__":
    main(sys.argv[1])
