"""How many columns SQL from outside may come to, and how many fields one of them, reckoned before the engine does.

`*, *` of what is `*, *` of something doubles columns each time, and so does `{'a': s, 'b': s}` the fields of `s`; while
the engine names them it cannot be stopped, nor does it stop for want of memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .errors import QueryRefused
from .schema import Base

COLUMNS_MAX = 10_000
FIELDS_MAX = 10_000
# Of the views as well, and of what is not looked into.
_COLUMNS_OF_A_TABLE = max(len(table.columns) for table in Base.metadata.tables.values())


class _Shape(NamedTuple):
    """How many columns something has at most, how many fields the widest of them, and the names that mean all of it."""

    columns: int
    fields: int = 1
    names: frozenset[str] = frozenset()


_Shapes = Mapping[str, _Shape]
_Part = dict[str, Any]
_TABLE = _Shape(_COLUMNS_OF_A_TABLE)


def check_columns(parsed: Any) -> None:
    """Raises QueryRefused where a query or a part of one, given as the engine's syntax tree, has too many columns, or
    one of too many fields."""
    try:
        for node in _queries_in(parsed):
            _shape(node, {}, 1)
    except RecursionError as error:
        raise QueryRefused("the query is nested too deeply") from error


def _shape(part: _Part, shapes: _Shapes, outer: int) -> _Shape:
    """Of a query or a source, given those of the WITH queries that it can see, and how many fields what is around it
    has, whose columns it may name as well."""
    for common in (part.get("cte_map") or {}).get("map", []):
        shapes = {**shapes, common["key"].lower(): _shape(common["value"]["query_node"], shapes, outer)}
    found = _reckoned(part, shapes, outer)
    if found.columns > COLUMNS_MAX:
        raise QueryRefused(f"the query has a part of more than {COLUMNS_MAX:,} columns; name those that are wanted")
    if found.fields > FIELDS_MAX:
        raise QueryRefused(f"the query has values of more than {FIELDS_MAX:,} fields; put fewer into one another")
    return found


def _reckoned(part: _Part, shapes: _Shapes, outer: int) -> _Shape:
    source = _shape(part["from_table"], shapes, outer) if part["type"] == "SELECT_NODE" else _Shape(1)
    around = max(outer, source.fields)
    said = {name: inner for name, inner in part.items() if name not in _LOOKED_AT_APART}
    # Each query is looked at once: two looks at what is within another were as many as there is room for.
    fields = max([1, *(_fields(each, _Shape(1, around), {}, shapes) for each in _expressions_in(said))])
    for node in _queries_in(said, within_expressions=False):
        _shape(node, shapes, around)
    match part["type"]:
        case "BASE_TABLE":
            return shapes.get(part["table_name"].lower(), _TABLE)
        case "SELECT_NODE":
            named = frozenset(_names_of(part["from_table"]))
            return _selected(part["select_list"], _Shape(source.columns, around, named), shapes)
        case "RECURSIVE_CTE_NODE":
            first = _shape(part["left"], shapes, outer)
            return _widest([first, _shape(part["right"], {**shapes, part["cte_name"].lower(): first}, outer)])
        case "SET_OPERATION_NODE" if part["setop_type"] != "UNION_BY_NAME":
            return _widest([_shape(inner, shapes, outer) for inner in _sources_in(part)])
    found = _TABLE._replace(fields=fields)
    for inner in _sources_in(part):  # what is joined may name what stands before it
        joined = _shape(inner, shapes, max(outer, found.fields))
        found = _Shape(found.columns + joined.columns, max(found.fields, joined.fields))
    return found


def _widest(shapes: list[_Shape]) -> _Shape:
    return _Shape(max(shape.columns for shape in shapes), max(shape.fields for shape in shapes))


def _selected(items: list[_Part], source: _Shape, shapes: _Shapes) -> _Shape:
    """What a SELECT of these from the source has. An item may name those before it, and be all fields of a column."""
    columns, fields, named = 0, source.fields, dict[str, int]()
    for item in items:
        of_item = _fields(item, source, named, shapes)
        columns += max(source.columns, of_item) if _has_star(item) else of_item if _is_unnested(item) else 1
        named[str(item.get("alias") or "").lower()] = of_item
        fields = max(fields, of_item)
    return _Shape(columns, fields)


def _fields(said: _Part, source: _Shape, named: Mapping[str, int], shapes: _Shapes) -> int:
    """How many fields the value of an expression has at most: as many as one of those that it is made of, or together
    where it puts them into one another."""
    within = [1, *(_fields(each, source, named, shapes) for each in _expressions_in(said))]
    match said["class"]:
        case "COLUMN_REF":
            names = {name.lower() for name in said["column_names"]}
            whole = source.columns * source.fields if names <= source.names else 1
            return max(source.fields, whole, *(named.get(name, 1) for name in names))
        case "POSITIONAL_REFERENCE":
            return source.fields
        case "STAR":
            return max(source.columns, source.fields)
        case "SUBQUERY":
            around = max([source.fields, *named.values()])
            return max(*within, _shape(said["subquery"]["node"], shapes, around).fields)
        case "FUNCTION" if said["function_name"].lower().startswith(_CONSTRUCTORS):
            return sum(within)
    return max(within)


# How the names begin of what makes a value of several.
_CONSTRUCTORS = ("struct", "row", "list", "array", "map", "union", "remap")


def _expressions_in(said: Any) -> Iterator[_Part]:
    """The outermost expressions within, but for subqueries."""
    for inner in said.values() if isinstance(said, dict) else said if isinstance(said, list) else ():
        if isinstance(inner, dict) and "class" in inner:
            yield inner
        elif not (isinstance(inner, dict) and "node" in inner):
            yield from _expressions_in(inner)


def _is_unnested(item: _Part) -> bool:
    return item.get("class") == "FUNCTION" and item["function_name"].lower() == "unnest"


_SOURCES = {"from_table", "left", "right", "source", "subquery", "children"}
_LOOKED_AT_APART = _SOURCES | {"cte_map", "select_list"}


def _sources_in(part: _Part) -> Iterator[_Part]:
    """The queries and sources that a source or a set operation is made of."""
    for name in part.keys() & _SOURCES:
        inner = part[name] or []
        yield from inner if isinstance(inner, list) else [inner.get("node", inner)]


def _names_of(source: _Part) -> Iterator[str]:
    """What tables and subqueries of a source are called."""
    yield from (str(source.get(name) or "").lower() for name in ("alias", "table_name"))
    for inner in _sources_in(source):
        yield from _names_of(inner)


def _queries_in(part: Any, *, within_expressions: bool = True) -> Iterator[_Part]:
    """The outermost queries within."""
    for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        if isinstance(inner, dict) and "node" in inner:
            yield inner["node"]
        elif within_expressions or not (isinstance(inner, dict) and "class" in inner):
            yield from _queries_in(inner, within_expressions=within_expressions)


def _has_star(item: Any) -> bool:
    if isinstance(item, dict):
        return item.get("class") == "STAR" or any(map(_has_star, item.values()))
    return isinstance(item, list) and any(map(_has_star, item))
