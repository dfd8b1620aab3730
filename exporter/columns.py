"""Columns of stored rows, as what writes them to the wire takes them: ids as octets, numbers, attributes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from sqlalchemy import ColumnElement, LargeBinary, cast, func

from .wire import BYTES, Bools, Octets

# An id that no run has.
NO_RUN = "0" * 32
_RUN_ID_BYTES = 16


class Chosen(NamedTuple):
    """Which rows of a table are meant: a condition, always the same one for the same choice, and values for it."""

    condition: ColumnElement[bool]
    values: Mapping[str, Any]


def said_columns(table: Any, *names: str) -> tuple[ColumnElement[Any], ...]:
    """Columns of a table to be asked for: these, its ids of runs as bytes, and its attributes in the form that
    `variant_attributes` reads, null where they have none."""
    in_binary_form = getattr(func, "try")(func.variant_to_parquet_variant(table.c.attributes))
    of_runs = [cast(table.c[name], LargeBinary).label(name) for name in ("run_id", "linked_run_id") if name in table.c]
    return (*(table.c[name] for name in names), *of_runs, in_binary_form.label("attributes"))


def column(rows: pa.Table, name: str) -> pa.Array:
    """One column in one piece."""
    found = rows[name].combine_chunks()
    return pa.concat_arrays(found.chunks) if isinstance(found, pa.ChunkedArray) else found


def numbers(rows: pa.Table, name: str) -> npt.NDArray[Any]:
    """Numbers, 0 for null."""
    return pc.fill_null(column(rows, name), 0).to_numpy(zero_copy_only=False)


def present(rows: pa.Table, name: str) -> Bools:
    """Where it is not null."""
    there: Bools = column(rows, name).is_valid().to_numpy(zero_copy_only=False)
    return there


def residue(rows: pa.Table) -> tuple[pa.Array, Bools]:
    """What says of each row all that its columns cannot say exactly: fields on the wire, which are left out elsewhere.
    And which rows have none, so that columns say those fields."""
    return pc.fill_null(column(rows, "otlp_residue").cast(BYTES), b""), ~present(rows, "otlp_residue")


def run_ids(rows: pa.Table, name: str = "run_id") -> Octets:
    """Ids of runs, 16 bytes each; of zeros for null."""
    ids = pc.fill_null(column(rows, name).cast(pa.binary()), bytes(_RUN_ID_BYTES)).cast(pa.binary(_RUN_ID_BYTES))
    octets = np.frombuffer(ids.buffers()[1], np.uint8)
    return octets[ids.offset * _RUN_ID_BYTES :][: len(ids) * _RUN_ID_BYTES].reshape(-1, _RUN_ID_BYTES)


def event_ids(ids: npt.NDArray[Any]) -> Octets:
    """Ids of events, 8 bytes each, as they are written."""
    return np.ascontiguousarray(ids, ">i8").view(np.uint8).reshape(len(ids), 8)
