"""SQL's answers in their three forms, and the schema it is asked of.

Every form says the same of a value: ids that are UUIDs are 32 hex digits, VARIANT is JSON, times are text or Arrow's
own. JSON holds a number where it can hold it exactly, else its text.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.csv
from sqlalchemy import text

from ..storage import Reader, SqlAnswer, column_sentence, table_sentence
from .attribute_json import number_json

ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv"

_EXACT_MAX = 1 << 53
_AS_IT_IS = "{}"
_AS_TEXT = "{}::VARCHAR"
_AS_JSON = "to_json({})::VARCHAR"
_UUID = "replace({}::VARCHAR, '-', '')"
_NESTED = ("list", "array", "struct", "map", "tuple", "union", "variant")
_INTEGERS = ("tinyint", "smallint", "integer", "bigint", "utinyint", "usmallint", "uinteger", "ubigint", "hugeint")
_NUMBERS = (*_INTEGERS, "decimal", "float", "double")
# What Arrow or its readers have no type for, wherever in a type it stands.
_NOT_IN_ARROW = ("VARIANT", "UHUGEINT", "BIGNUM", "BIT", "UNION", "GEOMETRY", "TIME WITH TIME ZONE", "ENUM")


def written_as_text(kind: Any) -> str:
    """The SQL that writes a value of the type `kind` for JSON and CSV."""
    if kind.id in _NESTED:
        return _AS_JSON
    if kind.id in (*_NUMBERS, "boolean", "varchar"):
        return _AS_IT_IS
    return {"uuid": _UUID, "blob": "to_base64({})"}.get(kind.id, _AS_TEXT)


def written_for_arrow(kind: Any) -> str:
    """The SQL that writes a value of the type `kind` for Arrow."""
    if kind.id == "uuid":
        return _UUID
    if not any(name in str(kind) for name in _NOT_IN_ARROW):
        return _AS_IT_IS
    return _AS_JSON if kind.id in _NESTED else _AS_TEXT


def answer_json(answer: SqlAnswer) -> bytes:
    """`{columns, rows, truncated}`; rows are lists in the order of the columns."""
    values = [_values(kind, rows) for (_, kind), rows in zip(answer.columns, answer.rows.columns, strict=True)]
    columns = [column._asdict() for column in answer.columns]
    rows = list(zip(*values, strict=True))
    return orjson.dumps({"columns": columns, "rows": rows, "truncated": answer.truncated})


def answer_csv(answer: SqlAnswer) -> bytes:
    """A line of names, then a line a row; text is quoted and NULL is nothing at all."""
    written = pa.BufferOutputStream()
    pyarrow.csv.write_csv(_named(answer), written)
    return bytes(written.getvalue())


def answer_arrow(answer: SqlAnswer) -> bytes:
    """An Arrow stream, whose schema says `truncated` too."""
    named = _named(answer).replace_schema_metadata({"truncated": str(answer.truncated).lower()})
    written = pa.BufferOutputStream()
    with pa.ipc.new_stream(written, named.schema) as stream:
        stream.write_table(named)
    return bytes(written.getvalue())


def _named(answer: SqlAnswer) -> pa.Table:
    return answer.rows.rename_columns([column.name for column in answer.columns])


def _values(kind: str, rows: pa.ChunkedArray) -> list[Any]:
    values = rows.to_pylist()
    held = rows.type
    if pa.types.is_decimal(held) or pa.types.is_integer(held):
        return [_exact_number(value) for value in values]
    if pa.types.is_floating(held):
        return [None if value is None else number_json(value) for value in values]
    if pa.types.is_string(held) and _is_json(kind):
        return [None if value is None else _parsed(value) for value in values]
    return list(values)


def _is_json(kind: str) -> bool:
    return kind in ("JSON", "VARIANT") or kind.endswith("]") or kind.startswith(("STRUCT(", "MAP(", "TUPLE(", "UNION("))


def _parsed(written: str) -> Any:
    """The text, where it is no JSON or nested deeper than is written."""
    try:
        value = json.loads(written, parse_int=_exact_integer, parse_float=_exact_float, parse_constant=str)
        return orjson.Fragment(orjson.dumps(value))
    except (ValueError, RecursionError, orjson.JSONEncodeError):
        return written


def _exact_number(value: Decimal | int | None) -> int | float | str | None:
    if value is None:
        return None
    if value == int(value):
        return _exact_integer(value)
    number = float(value)
    return number if Decimal(repr(number)) == value else format(value, "f")


def _exact_integer(written: str | int | Decimal) -> int | str:
    value = int(written)
    return value if -_EXACT_MAX <= value <= _EXACT_MAX else str(value)


def _exact_float(written: str) -> float | str:
    number = float(written)
    said = repr(number)  # mostly the same: what else is exact is told by its decimals, which takes longer
    return number if said == written or Decimal(said) == Decimal(written) else written


def schema_answer(reader: Reader) -> dict[str, Any]:
    """Every table and view that SQL may name, with a sentence for it and for each of its columns."""
    tables: dict[str, dict[str, Any]] = {}
    for row in reader.rows(text(_COLUMNS)):
        name = row["table_name"]
        if name not in tables:
            tables[name] = {"name": name, "kind": row["kind"], "description": table_sentence(name), "columns": []}
        described = column_sentence(name, row["column_name"])
        column = {"name": row["column_name"], "type": row["data_type"], "description": described}
        tables[name]["columns"].append(column)
    return {"tables": list(tables.values())}


_COLUMNS = """
    SELECT c.table_name, c.column_name, c.data_type, CASE t.table_type WHEN 'VIEW' THEN 'view' ELSE 'table' END AS kind
    FROM information_schema.columns c JOIN information_schema.tables t USING (table_catalog, table_schema, table_name)
    WHERE c.table_catalog = current_database() AND c.table_schema = 'main' AND c.table_name <> 'alembic_version'
    ORDER BY kind DESC, c.table_name, c.ordinal_position
"""
