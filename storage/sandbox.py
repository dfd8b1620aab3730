"""What SQL from outside may say: one SELECT over clew's tables and views, with functions that only reckon.

The engine's own parser says what a statement is, and what it does not name here is refused: kinds of nodes, tables,
table functions; functions that are not pure by the engine's own word, or that this module names with a reason. The
connection is read-only and finds no variables of Python besides; this is what keeps files, settings and the network out
of reach, since the engine can forbid them only to itself as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import duckdb
import orjson

from .engine import CATALOG
from .errors import QueryRefused
from .query_columns import check_columns
from .schema import VIEWS, Base

QUERY_BYTES_MAX = 64 * 1024
BRACKETS_MAX = 500
WIDTH_MAX = 1_000
NAMES_MAX = 50

TABLES = frozenset(Base.metadata.tables) | frozenset(VIEWS)

_QUERY_NODES = {"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"}
_SOURCES = {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SUBQUERY", "TABLE_FUNCTION"}
_MODIFIERS = {"DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "ORDER_MODIFIER"}
_ORDERS = {"ASCENDING", "DESCENDING", "ORDER_DEFAULT"}
_KINDS = _QUERY_NODES | _SOURCES | _MODIFIERS | _ORDERS
_EXPRESSIONS = {
    "BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA",
    "LAMBDA_REF", "OPERATOR", "PARAMETER", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW",
}  # fmt: skip
_TABLE_FUNCTIONS = {"generate_series", "json_each", "json_tree", "range", "unnest"}

# Not pure by the engine's word, and harmless: the time, and chance.
_TIMES = ("now", "today", "current_date", "current_localtime", "current_localtimestamp", "get_current_time")
_CHANCES = ("gen_random_uuid", "random", "uuid", "uuidv4", "uuidv7")
_IMPURE = {*_TIMES, "get_current_timestamp", "transaction_timestamp", *_CHANCES}

_UNBOUNDED = "it can make a value of any size, past every limit"
_ENDLESS = "it cannot be stopped once it has begun"
_DEEP = "the engine fails where values are nested deeply"
_INTERNAL = "it is for the engine's own use"
_REFUSED = {
    **dict.fromkeys(("repeat", "range", "generate_series", "list_resize", "array_resize", "bar"), _UNBOUNDED),
    **dict.fromkeys(("list_reduce", "array_reduce", "reduce", "reservoir_quantile"), _UNBOUNDED),
    **dict.fromkeys(("levenshtein", "editdist3", "damerau_levenshtein"), _ENDLESS),
    **dict.fromkeys(("jaro_similarity", "jaro_winkler_similarity"), _ENDLESS),
    **dict.fromkeys(("json_contains", "json_structure", "json_group_structure"), _DEEP),
    **dict.fromkeys(("json_transform", "json_transform_strict", "from_json", "from_json_strict"), _DEEP),
    **dict.fromkeys(("json_serialize_plan", "json_serialize_sql", "json_deserialize_sql"), "it reads SQL out of text"),
    **dict.fromkeys(("to_aggregate_state", "finalize", "combine", "combine_aggr", "invoke"), _INTERNAL),
    **dict.fromkeys(("variant_bytes_to_variant", "index_key", "cast_to_type", "create_sort_key"), _INTERNAL),
}
_WIDTHS = {"lpad", "rpad", "bitstring"}
# These call the function that they are told.
_CALLING = {"list_aggregate", "list_aggr", "array_aggregate", "array_aggr", "aggregate"}
_FORMATS = {"format", "printf"}
_WIDE = re.compile(r"\d{4}|\*|\{[^}]*\{")
# What the parser reads by going deeper, which takes it longer the deeper it is: brackets, and signs before signs.
_DEEPER = re.compile(r"[(\[{]|[-+~]\s*(?=[-+~(/])")


class Sandbox:
    """Judges SQL. Knows the functions of the engine that it is opened on."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        functions = connection.execute(_FUNCTIONS).fetchall()
        self._functions = {name for name, is_pure in functions if _is_allowed(name, is_pure)} | {"unnest"}
        # A macro may do what the functions may that it is made of, which may be macros.
        waiting = dict(connection.execute(_MACROS).fetchall())
        while harmless := {name for name, made_of in waiting.items() if self._is_harmless(connection, made_of)}:
            self._functions |= harmless
            waiting = {name: made_of for name, made_of in waiting.items() if name not in harmless}

    def check(self, connection: duckdb.DuckDBPyConnection, query: str) -> None:
        """Raises QueryRefused with the reason where `query` is not a SELECT as described above, or is none at all."""
        _check_size(query)
        _check_statement(connection, query)
        parsed = _parsed(connection, query)
        check_columns(parsed)
        for part in _parts(parsed):
            self._check_part(*part)

    def _check_part(self, part: dict[str, Any], names: frozenset[str]) -> None:
        kind, expression = part.get("type"), part.get("class")
        if expression is not None:
            self._check_expression(part, str(expression))
        elif isinstance(kind, str) and kind not in _KINDS and not kind.endswith("_TYPE_INFO"):
            raise QueryRefused(_no_such_part(kind))
        if kind == "BASE_TABLE":
            _check_table(part, names)
        elif kind == "TABLE_FUNCTION":
            _check_table_function(part["function"])

    def _check_expression(self, part: dict[str, Any], expression: str) -> None:
        if expression not in _EXPRESSIONS:
            raise QueryRefused(_no_such_part(expression))
        if expression == "COLUMN_REF" and len(part["column_names"]) > NAMES_MAX:
            raise QueryRefused(f"a name has {NAMES_MAX} parts at most, with dots between")
        if expression == "TYPE" and part["type_name"].lower() == "variant":
            raise QueryRefused(f"nothing is cast to VARIANT: {_DEEP}")
        # A table function was judged with its source.
        if expression in ("FUNCTION", "WINDOW") and not part.get("is_source"):
            self._check_function(part["function_name"].lower(), part.get("arguments") or part.get("children") or [])

    def _check_function(self, name: str, arguments: list[Any]) -> None:
        if name in _REFUSED:
            raise QueryRefused(f"{name}() is not allowed: {_REFUSED[name]}")
        if name not in self._functions:
            raise QueryRefused(f"{name}() is not allowed: only functions that work on values, and on nothing else, are")
        if name in _CALLING:
            self._check_function(_named_in(name, arguments), [])
        if name in _WIDTHS and not _is_small(_constant(arguments, 1)):
            raise QueryRefused(f"{name}() is allowed to a length written as a number of at most {WIDTH_MAX} only")
        if name in _FORMATS and not _is_narrow(_constant(arguments, 0)):
            raise QueryRefused(f"{name}() is allowed with a plain text as its format only, and widths below 1,000")

    def _is_harmless(self, connection: duckdb.DuckDBPyConnection, definitions: list[str]) -> bool:
        try:
            for definition in definitions:
                self.check(connection, f"SELECT {definition}")
        except QueryRefused:
            return False
        return True


_FUNCTIONS = """
    SELECT function_name, bool_and(stability = 'CONSISTENT' AND NOT has_side_effects)
    FROM duckdb_functions() WHERE function_type IN ('scalar', 'aggregate', 'window') GROUP BY function_name
"""
_MACROS = """
    SELECT function_name, list(macro_definition) FROM duckdb_functions() WHERE function_type = 'macro'
    GROUP BY function_name
"""


def _is_allowed(name: str, is_pure: bool | None) -> bool:
    return (is_pure is not False or name in _IMPURE) and name not in _REFUSED and not name.startswith("__")


def _check_size(query: str) -> None:
    if len(query.encode(errors="replace")) > QUERY_BYTES_MAX:
        raise QueryRefused(f"the query is longer than {QUERY_BYTES_MAX // 1024} KiB; give values as parameters")
    if sum(1 for _ in _DEEPER.finditer(query)) > BRACKETS_MAX:
        raise QueryRefused(f"the query has more than {BRACKETS_MAX} brackets; give lists of values as parameters")
    if "\0" in query:
        raise QueryRefused("the query holds a zero byte")


def _check_statement(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise QueryRefused(str(error)) from error
    if len(statements) != 1:
        raise QueryRefused(f"one SELECT is answered at a time; these are {len(statements)} statements")
    kind = _kind(statements[0])
    if kind != duckdb.StatementType.SELECT:
        raise QueryRefused(f"only SELECT is answered; this is {kind.name if kind else 'something else'}")


def _kind(statement: duckdb.Statement) -> duckdb.StatementType | None:
    try:
        return statement.type
    except ValueError:  # Python has no name for some.
        return None


def without_end(query: str) -> str:
    """The query without what may stand behind a statement: semicolons and comments."""
    written = query.encode()
    for place, kind in reversed(duckdb.tokenize(query)):
        if kind != duckdb.token_type.comment and written[place : place + 1] != b";":
            break
        written = written[:place]
    return written.decode()


def _parsed(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    rows = connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchall()
    try:
        parsed = orjson.loads(rows[0][0])
    except orjson.JSONDecodeError as error:
        raise QueryRefused("the query is nested too deeply") from error
    if parsed["error"]:
        raise QueryRefused(parsed["error_message"])
    return parsed["statements"]


def _parts(parsed: Any) -> Iterator[tuple[dict[str, Any], frozenset[str]]]:
    """Every object in the syntax tree, with the names of the WITH queries that can be seen from it."""
    waiting: list[tuple[Any, frozenset[str]]] = [(parsed, frozenset())]
    while waiting:
        part, names = waiting.pop()
        if isinstance(part, list):
            waiting.extend((item, names) for item in part)
        elif isinstance(part, dict):
            yield part, names
            waiting.extend(_below(part, names))


def _below(part: dict[str, Any], names: frozenset[str]) -> Iterable[tuple[Any, frozenset[str]]]:
    if part.get("type") == "TABLE_FUNCTION":
        part["function"]["is_source"] = True
    for common in (part.get("cte_map") or {}).get("map", []):
        yield common["value"], names
        names |= {common["key"].lower()}
    for name, value in part.items():
        if name == "right" and part.get("type") == "RECURSIVE_CTE_NODE":
            yield value, names | {part["cte_name"].lower()}
        elif name != "cte_map":
            yield value, names


_SCHEMA = "GET /api/sql/schema, and `tables` and `schema TABLE` in the shell of `clew sql`,"


def _check_table(part: dict[str, Any], names: frozenset[str]) -> None:
    name = part["table_name"].lower()
    where = [part.get("catalog_name") or CATALOG, part.get("schema_name") or "main"]
    is_common = name in names and not part.get("catalog_name") and not part.get("schema_name")
    # A WITH query called like a file is never meant well.
    is_ours = name in TABLES and [place.lower() for place in where] == [CATALOG, "main"]
    if not is_ours and not (is_common and re.fullmatch(r"\w+", name)):
        raise QueryRefused(f"there is no table or view {part['table_name'][:80]!r}; {_SCHEMA} list them")


def _check_table_function(function: dict[str, Any]) -> None:
    name = function["function_name"].lower()
    if name not in _TABLE_FUNCTIONS:
        listed = ", ".join(sorted(_TABLE_FUNCTIONS))
        raise QueryRefused(f"{name}() is not allowed in FROM, only tables, views, and of functions {listed}")


def _no_such_part(kind: str) -> str:
    if kind == "SHOW_REF":
        return f"only SELECT is answered; {_SCHEMA} describe tables and columns"
    return f"only SELECT is answered; {kind} is not a part of it"


def _named_in(name: str, arguments: list[Any]) -> str:
    called = _constant(arguments, 1)
    if called is None:
        raise QueryRefused(f"{name}() is allowed with a function that is named in plain text only")
    return called.lower()


def _constant(arguments: list[Any], position: int) -> str | None:
    """The constant that is written as this argument."""
    if len(arguments) <= position:
        return None
    literal = arguments[position].get("expression", {}).get("literal")
    return str(literal["text"]) if isinstance(literal, dict) and "text" in literal else None


def _is_small(width: str | None) -> bool:
    return width is not None and width.isdecimal() and int(width) <= WIDTH_MAX


def _is_narrow(form: str | None) -> bool:
    return form is not None and not _WIDE.search(form)
