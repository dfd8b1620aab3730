"""Rows of SQL, and the schema it is asked of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from .cells import Record, counted, header_cells, hint, print_rows, printable, text_cell

_NUMBERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "DECIMAL", "DOUBLE", "FLOAT", "BIGNUM")
_CELL_LENGTH_MAX = 300


def draw_rows(to: Console, answer: Record) -> None:
    """A line of names and one a row; says how many, and whether there were more."""
    columns = answer["columns"]
    if columns:
        rows = [[_cell(value) for value in row] for row in answer["rows"]]
        lines = [header_cells(printable(column["name"]) for column in columns), *rows]
        print_rows(to, lines, "".join(_align(column["type"]) for column in columns), _widest(lines))
    more = ", cut off: there are more" if answer["truncated"] else ""
    hint(to, counted(len(answer["rows"]), "row") + more)


def draw_tables(to: Console, schema: Record) -> None:
    """One line a table or view."""
    tables = schema["tables"]
    lines = [[Text(one["name"], "bold"), Text(one["kind"], "dim"), text_cell(one["description"])] for one in tables]
    print_rows(to, [header_cells(["name", "", "what it is"]), *lines], "<<<", flexible=2)


def draw_columns(to: Console, table: Record) -> None:
    """One line a column of one table or view."""
    hint(to, table["description"])
    columns = table["columns"]
    lines = [[Text(one["name"], "bold"), Text(one["type"], "dim"), text_cell(one["description"])] for one in columns]
    print_rows(to, [header_cells(["column", "type", "what it is"]), *lines], "<<<", flexible=2)


def _cell(value: Any) -> Text:
    if value is None:
        return Text("NULL", "dim")
    said = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return Text(printable(said[:_CELL_LENGTH_MAX]))


def _align(kind: str) -> str:
    is_number = kind.removeprefix("U").startswith(_NUMBERS) and not kind.endswith("]")
    return ">" if is_number else "<"


def _widest(lines: Sequence[Sequence[Text]]) -> int:
    """The column that can give way best."""
    widths = [max(cell.cell_len for cell in column) for column in zip(*lines, strict=True)]
    return widths.index(max(widths))
