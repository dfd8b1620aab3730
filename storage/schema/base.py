"""What the tables are made of: column types that mean the same in every engine, and hex text to Python."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import JSON, BigInteger, Dialect, Double, LargeBinary, Numeric, Text, Uuid
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator, UserDefinedType

from ..ids import event_id_text, parse_event_id, parse_run_id, run_id_text


class Variant(UserDefinedType[Any]):
    """A map of typed values: `VARIANT` in DuckDB, `JSONB` in PostgreSQL. Read natively it is a Python dict."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARIANT"


@compiles(Variant, "postgresql")
def _variant_in_postgresql(_type: Variant, _compiler: Any, **_: Any) -> str:
    return "JSONB"


class HexUuid(TypeDecorator[str]):
    """A UUID column; 32 hex digits to Python, dashes or a `UUID` accepted. Raises InvalidId for other text."""

    impl = Uuid
    cache_ok = True

    def process_bind_param(self, value: str | UUID | None, dialect: Dialect) -> UUID | None:  # noqa: ARG002
        return parse_run_id(value) if isinstance(value, str) else value

    def process_result_value(self, value: UUID | str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else run_id_text(UUID(str(value)))


class HexInt64(TypeDecorator[str]):
    """A signed 64-bit column; 16 hex digits of its bits to Python, the integer accepted. Raises InvalidId for other
    text."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: str | int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return parse_event_id(value) if isinstance(value, str) else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else event_id_text(value)


def new_id(digits: int) -> Callable[[], str]:
    """Makes random ids of that many hex digits."""
    return lambda: secrets.token_hex(digits // 2)


# The types of mapped attributes: `Mapped[RunId]`.
RunId = Annotated[str, mapped_column(HexUuid)]
EventId = Annotated[str, mapped_column(HexInt64, autoincrement=False)]
OwnId = Annotated[str, mapped_column(HexUuid, primary_key=True, default=new_id(32))]
Cost = Annotated[Decimal, mapped_column(Numeric(18, 12))]


class Base(DeclarativeBase):
    type_annotation_map = {  # noqa: RUF012
        int: BigInteger,
        str: Text,
        float: Double,
        bytes: LargeBinary,
        dict[str, Any]: JSON().with_variant(JSONB(), "postgresql"),
    }
