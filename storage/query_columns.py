"""How many columns SQL from outside may come to, reckoned before the engine does.

`*, *` of what is `*, *` of something doubles them each time, and the engine cannot be stopped while it names columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .errors import QueryRefused
from .schema import Base

COLUMNS_MAX = 10_000
# Of the views as well, and of what is not looked into.
_COLUMNS_OF_A_TABLE = max(len(table.columns) for table in Base.metadata.tables.values())

_Widths = Mapping[str, int]
_Part = dict[str, Any]


def check_columns(parsed: Any) -> None:
    """Raises QueryRefused where a query or a part of one, given as the engine's syntax tree, has too many columns."""
    try:
        for node in _queries_in(parsed):
            _columns(node, {})
    except RecursionError as error:
        raise QueryRefused("the query is nested too deeply") from error


def _columns(part: _Part, widths: _Widths) -> int:
    """How many columns a query or a source has at most, given how many the WITH queries have that it can see."""
    for common in (part.get("cte_map") or {}).get("map", []):
        widths = {**widths, common["key"].lower(): _columns(common["value"]["query_node"], widths)}
    found = _counted(part, widths)
    if found > COLUMNS_MAX:
        raise QueryRefused(f"the query has a part of more than {COLUMNS_MAX:,} columns; name those that are wanted")
    return found


def _counted(part: _Part, widths: _Widths) -> int:
    for name in part.keys() - _SOURCES - {"cte_map"}:
        for node in _queries_in(part[name]):
            _columns(node, widths)
    match part["type"]:
        case "BASE_TABLE":
            return widths.get(part["table_name"].lower(), _COLUMNS_OF_A_TABLE)
        case "SELECT_NODE":
            source = _columns(part["from_table"], widths)
            return sum(source if _has_star(item) else 1 for item in part["select_list"])
        case "RECURSIVE_CTE_NODE":
            first = _columns(part["left"], widths)
            return max(first, _columns(part["right"], {**widths, part["cte_name"].lower(): first}))
        case "SET_OPERATION_NODE" if part["setop_type"] != "UNION_BY_NAME":
            return max(_columns(inner, widths) for inner in _sources_in(part))
    return _COLUMNS_OF_A_TABLE + sum(_columns(inner, widths) for inner in _sources_in(part))


_SOURCES = {"from_table", "left", "right", "source", "subquery", "children"}


def _sources_in(part: _Part) -> Iterator[_Part]:
    """The queries and sources that a source or a set operation is made of."""
    for name in part.keys() & _SOURCES:
        inner = part[name] or []
        yield from inner if isinstance(inner, list) else [inner.get("node", inner)]


def _queries_in(part: Any) -> Iterator[_Part]:
    """The outermost queries within."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        if isinstance(inner, dict) and "node" in inner:
            yield inner["node"]
        else:
            yield from _queries_in(inner)


def _has_star(item: Any) -> bool:
    if isinstance(item, dict):
        return item.get("class") == "STAR" or any(map(_has_star, item.values()))
    return isinstance(item, list) and any(map(_has_star, item))
