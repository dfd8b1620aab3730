"""What the tables are made of: column types that mean the same in every engine, hex text and datetimes to Python."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    JSON,
    BigInteger,
    BindParameter,
    ColumnElement,
    Dialect,
    Double,
    LargeBinary,
    Numeric,
    Text,
    Uuid,
    cast,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.types import TypeDecorator, UserDefinedType

from ..ids import event_id_text, parse_event_id, parse_run_id, run_id_text


class Variant(UserDefinedType[Any]):
    """A map of typed values: `VARIANT` in DuckDB, `JSONB` in PostgreSQL. A Python dict, bound as JSON; read from DuckDB
    it has the types that the writer gave its values."""

    cache_ok = True

    def get_col_spec(self, **_: Any) -> str:
        return "VARIANT"

    def bind_processor(self, dialect: Dialect) -> Callable[[Any], str | None]:  # noqa: ARG002
        return lambda value: None if value is None else json.dumps(value, allow_nan=False)

    def bind_expression(self, bindvalue: BindParameter[Any]) -> ColumnElement[Any]:
        return cast(cast(bindvalue, JSON), Variant)


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

    def settled(self, value: Any) -> str:
        """`value`, an id in any way it may be given, as it is read. Raises InvalidId."""
        bound: Any = parse_run_id(value) if isinstance(value, str) else value
        return run_id_text(bound)


class HexInt64(TypeDecorator[str]):
    """A signed 64-bit column; 16 hex digits of its bits to Python, the integer accepted. Raises InvalidId for other
    text."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: str | int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return parse_event_id(value) if isinstance(value, str) else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else event_id_text(value)

    def settled(self, value: Any) -> str:
        """`value`, an id in any way it may be given, as it is read. Raises InvalidId."""
        bound: Any = parse_event_id(value) if isinstance(value, str) else value
        return event_id_text(bound)


class Word(TypeDecorator[str]):
    """Text out of a vocabulary, an `enum` to Python. Raises ValueError for other text; a word that is stored but not
    known (a newer clew may have written it) is read as the text it is."""

    impl = Text
    cache_ok = True

    def __init__(self, enum: type[StrEnum]) -> None:
        super().__init__()
        self.enum = enum

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return None if value is None else self.enum(value).value

    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:  # noqa: ARG002
        return self.enum(value) if value in tuple(self.enum) else value


def new_id(digits: int) -> Callable[[], str]:
    """Makes random ids of that many hex digits."""
    return lambda: secrets.token_hex(digits // 2)


# The types of mapped attributes: `Mapped[RunId]`.
RunId = Annotated[str, mapped_column(HexUuid)]
EventId = Annotated[str, mapped_column(HexInt64, autoincrement=False)]
OwnId = Annotated[str, mapped_column(HexUuid, primary_key=True, default=new_id(32))]
Written = Annotated[int, mapped_column(default=time.time_ns)]
Cost = Annotated[Decimal, mapped_column(Numeric(18, 12))]


class Base(DeclarativeBase):
    # Rows are deleted by `storage.deleting`; what the ORM deletes after that is gone already.
    __mapper_args__ = {"confirm_deleted_rows": False}  # noqa: RUF012
    type_annotation_map = {  # noqa: RUF012
        int: BigInteger,
        str: Text,
        float: Double,
        bytes: LargeBinary,
        dict[str, Any]: JSON().with_variant(JSONB(), "postgresql"),
    }


class OfRun:
    """Rows of a run. Whose they are is said once, by the run: a `session_id` given to one is compared with the run's
    when it is stored."""

    run_id: Any
    session_id_said: str | None = None

    def _session_id(self) -> str | None:
        run = getattr(self, "run", None)
        return run.session_id if run else self.session_id_said

    def _say_session_id(self, value: Any) -> None:
        self.session_id_said = value

    @classmethod
    def _session_id_of_run(cls) -> ColumnElement[str]:
        runs = Base.metadata.tables["workflow_runs"]
        return select(runs.c.session_id).where(runs.c.id == cls.run_id).scalar_subquery()

    session_id = hybrid_property(_session_id, _say_session_id, expr=_session_id_of_run)
