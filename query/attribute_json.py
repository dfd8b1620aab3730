"""Attribute values as JSON.

The columns hold attributes as JSON can say them. What JSON cannot say is kept beside them as serialised OTLP; from
there bytes become base64 text, and NaN and the infinities become the strings that the proto3 JSON mapping uses.
"""

from __future__ import annotations

import json
import math
from base64 import b64encode
from collections.abc import Iterable
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
from google.protobuf.message import DecodeError
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


class AttributeOwner(Protocol):
    """A type of OTLP message that has attributes."""

    def FromString(self, data: bytes, /) -> Any: ...  # noqa: N802 - protobuf's name


def number_json(value: float) -> float | str:
    """The number, or its name where JSON has no such number."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def exact_attributes(texts: pa.Array, residues: pa.Array, owner: AttributeOwner) -> pa.Array:
    """JSON objects as text, one a row: from `texts`, or from the row's residue (a serialised `owner`) where that has
    attributes."""
    texts = pc.fill_null(texts, "{}")
    kept = residues.is_valid().to_numpy(zero_copy_only=False)
    if not kept.any():
        return texts
    rows = np.flatnonzero(kept)
    replaced = [_exact(texts[row].as_py(), residues[row].as_py(), owner) for row in rows.tolist()]
    return pc.replace_with_mask(texts, pa.array(kept), pa.array(replaced, texts.type))


def exact_attributes_text(text: str | None, residue: bytes | None, owner: AttributeOwner) -> str:
    """`exact_attributes` of one row."""
    return _exact(text or "{}", residue, owner) if residue is not None else text or "{}"


def _exact(text: str, residue: bytes, owner: AttributeOwner) -> str:
    try:
        pairs = owner.FromString(residue).attributes
    except DecodeError:
        # Nested deeper than protobuf reads: the columns say what can be said, in a JSON that may name NaN.
        return orjson.dumps(engine_json(text)).decode()
    return orjson.dumps(_members(pairs)).decode() if pairs else text


def engine_json(text: str) -> Any:
    """What the engine's JSON text says, which may name NaN and the infinities."""
    return _finite(json.loads(text))


def _members(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: value_json(pair.value) for pair in pairs}


def value_json(value: AnyValue) -> Any:
    """An OTLP value as JSON can say it."""
    match value.WhichOneof("value"):
        case "array_value":
            return [value_json(item) for item in value.array_value.values]
        case "kvlist_value":
            return _members(value.kvlist_value.values)
        case "double_value":
            return number_json(value.double_value)
        case "bytes_value":
            return b64encode(value.bytes_value).decode()
        case None:
            return None
        case kind:
            return getattr(value, kind)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return number_json(value)
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
