"""What the SQL addresses take and answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from .answers import Answer

PARAMETERS_MAX = 1_000
# The engine cannot be stopped within a value, and a pattern takes it six seconds over one of this size, four times as
# long over two of them. It is what a query itself may have.
PARAMETER_BYTES_MAX = 64 * 1024


def _of_short_texts(given: Any) -> Any:
    if any(len(text.encode(errors="replace")) > PARAMETER_BYTES_MAX for text in _texts_in(given)):
        raise ValueError(f"a text is longer than {PARAMETER_BYTES_MAX // 1024} KiB; give several, in a list")
    return given


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in (*value, *value.values()) if isinstance(value, dict) else value:
            yield from _texts_in(inner)


class SqlQuestion(BaseModel):
    """One SELECT, its parameters, and how many rows are wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)

    query: Annotated[str, Field(description="One SELECT over the tables and views of GET /api/sql/schema.")]
    parameters: Annotated[
        list[Any] | dict[str, Any],
        Field(max_length=PARAMETERS_MAX, description="A list for `?` and `$1`, or an object for `$name`."),
        AfterValidator(_of_short_texts),
    ] = Field(default_factory=list)
    limit: Annotated[int | None, Field(ge=1, description="At most so many rows; the server's own limit holds too.")] = (
        None
    )


class SqlColumnAnswer(Answer):
    """A column of the answer."""

    name: str
    type: Annotated[str, Field(description="The engine's type, such as VARCHAR or BIGINT.")]


class SqlRows(Answer):
    """Rows, each a list in the order of the columns. A number that JSON cannot hold exactly (an integer beyond 2^53, a
    long DECIMAL, NaN) is text; a UUID is 32 hex digits; a BLOB is base64; times are text in UTC; VARIANT, JSON, LIST,
    STRUCT and MAP are JSON's own."""

    columns: list[SqlColumnAnswer]
    rows: list[list[Any]]
    truncated: Annotated[bool, Field(description="Whether there were more rows than may be answered.")]


class DescribedColumn(Answer):
    """A column, in a sentence."""

    name: str
    type: str
    description: str


class DescribedTable(Answer):
    """A table or view, in a sentence."""

    name: str
    kind: Literal["table", "view"]
    description: str
    columns: list[DescribedColumn]


class SqlSchema(Answer):
    """What SQL can be asked of."""

    tables: list[DescribedTable]
