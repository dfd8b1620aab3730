"""Times as Python knows them: aware datetimes in UTC over columns of integer nanoseconds.

The nanoseconds stay the truth; a datetime holds whole microseconds of them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, overload

from sqlalchemy import BigInteger, ClauseElement, ColumnElement, Dialect, func, type_coerce
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(moment: datetime) -> int:
    """Nanoseconds since the epoch; a datetime without a zone is taken as UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1) * 1000


class Moment:
    """An attribute that shows the column `name` (nanoseconds) as a datetime, settable, and usable in queries.

    `absent` is what the column holds where there is no such moment. Values set may be SQL: `func.now()`.
    """

    def __init__(self, name: str, *, absent: int | None = None) -> None:
        self._name = name
        self._absent = absent

    @overload
    def __get__(self, row: None, owner: type) -> ColumnElement[datetime | None]: ...
    @overload
    def __get__(self, row: object, owner: type) -> datetime | None: ...
    def __get__(self, row: object | None, owner: type) -> Any:
        if row is None:
            return self._in_queries(getattr(owner, self._name))
        value = getattr(row, self._name)
        return None if value is None or value == self._absent else _datetime(value)

    def __set__(self, row: object, moment: datetime | ClauseElement | None) -> None:
        setattr(row, self._name, self._absent if moment is None else _stored(moment))

    def _in_queries(self, column: Any) -> ColumnElement[Any]:
        known = column if self._absent is None else func.nullif(column, self._absent)
        return type_coerce(known, _Nanoseconds)


def _datetime(value: int) -> datetime:
    return _EPOCH + timedelta(microseconds=value // 1000)


def _stored(moment: datetime | ClauseElement) -> Any:
    return _NanosecondsOf(moment) if isinstance(moment, ClauseElement) else nanoseconds(moment)


class _Nanoseconds(TypeDecorator[datetime]):
    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | int | None, dialect: Dialect) -> int | None:  # noqa: ARG002
        return nanoseconds(value) if isinstance(value, datetime) else value

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        return None if value is None else _datetime(value)


class _NanosecondsOf(FunctionElement[int]):
    type = BigInteger()
    inherit_cache = True


@compiles(_NanosecondsOf)
def _epoch_ns(element: Any, compiler: Any, **options: Any) -> str:
    return f"epoch_ns({compiler.process(element.clauses, **options)})"


@compiles(_NanosecondsOf, "postgresql")
def _epoch_in_postgresql(element: Any, compiler: Any, **options: Any) -> str:
    return f"CAST(extract(epoch FROM {compiler.process(element.clauses, **options)}) * 1000000000 AS BIGINT)"
