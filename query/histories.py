"""Events' attributes as they came: what repeats a conversation is stored once, and put back here."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, Text, cast, func, literal

from ..storage import ExecutionEvent, Histories, Reader, Variant, run_id_text
from .errors import AnswerTooLarge

_HISTORY_ID: Any = ExecutionEvent.__table__.c.history_id

# Histories are small while stored; put together, every call repeats those before it.
HISTORIES_CHARACTERS_MAX = 1 << 29


def whole_attributes(reader: Reader, rows: pa.Table) -> pa.Table:
    """Rows of events with the columns `attributes` (JSON text) and `history_id`, their attributes whole. Raises
    AnswerTooLarge where histories have more than HISTORIES_CHARACTERS_MAX characters together."""
    kept = rows["history_id"].is_valid().to_numpy()
    if not kept.any():
        return rows
    ids = [run_id_text(UUID(history_id)) for history_id in rows["history_id"].drop_null().to_pylist()]
    histories = Histories(reader.rows, ids)
    _must_fit(sum(map(histories.length, ids)))
    texts = rows["attributes"].cast(pa.large_string())
    others = texts.filter(pa.array(kept)).to_pylist()
    whole = [_joined(other, histories.text(history_id)) for other, history_id in zip(others, ids, strict=True)]
    column = pc.replace_with_mask(texts, pa.array(kept), pa.array(whole, pa.large_string()))
    return rows.set_column(rows.schema.get_field_index("attributes"), "attributes", column)


def value_apart(key: str) -> ColumnElement[Any]:
    """The event's attribute of this key as a VARIANT, where it is stored apart; else NULL."""
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    return cast(func.json_extract(func.history_text(_HISTORY_ID), literal(pointer, Text)), Variant)


def _must_fit(length: int) -> None:
    if length > HISTORIES_CHARACTERS_MAX:
        message = f"the events' histories have {length:,} characters, an answer {HISTORIES_CHARACTERS_MAX:,} at most"
        raise AnswerTooLarge(f"{message}; ask for fewer events, with a smaller limit or ?root=EVENT_ID")


def _joined(attributes: str, history: str) -> str:
    """Two JSON objects as one."""
    return history if attributes == "{}" else f"{attributes[:-1]},{history[1:]}"
