"""Events as JSON: made one by one or by columns, they read the same."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from clew.query.event_json import FIELDS, OPTIONAL_FIELDS, texts_by_columns, texts_one_by_one

ids = st.integers(-(2**63), 2**63 - 1)
texts = st.sampled_from(["", "planner", 'a "quoted" \\ name', "line\nbreak", "\u2028 \x00 ö 🙂"])
numbers = st.integers(0, 2**63 - 1)
costs = st.sampled_from([0.0, 0.1, 1e-9, 1e300, float("nan"), float("inf"), float("-inf")])
attributes = st.sampled_from(["{}", '{"a":1}', '{"b":{"c":[null,"ö"]}}'])

VALUES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "id": (pa.int64(), ids),
    "kind": (pa.int32(), st.integers(0, 9)),
    "cost_usd": (pa.float64(), st.none() | costs),
    "attributes": (pa.large_string(), attributes),
    "parent_event_id": (pa.int64(), st.none() | ids),
    "otel_span_id": (pa.int64(), st.none() | ids),
    "orphan": (pa.bool_(), st.none() | st.booleans()),
    "cycle": (pa.bool_(), st.none() | st.booleans()),
}
TEXTS = {
    *("name", "event_type", "event_subtype", "agent_name", "agent_role", "model", "status", "status_message"),
    *("service_name", "scope_name"),
}
COLUMNS = {
    name: VALUES.get(name, (pa.string(), st.none() | texts) if name in TEXTS else (pa.int64(), st.none() | numbers))
    for name, _ in (*FIELDS, *OPTIONAL_FIELDS)
}
events = st.lists(st.fixed_dictionaries({name: values for name, (_, values) in COLUMNS.items()}), max_size=5)


@settings(derandomize=True, database=None, deadline=None, max_examples=300)
@given(events)
def test_events_read_the_same_however_many_are_told(rows: list[dict[str, Any]]) -> None:
    """To the byte, so that an answer does not depend on how many events are in it."""
    table = pa.Table.from_pylist(rows, pa.schema([(name, kind) for name, (kind, _) in COLUMNS.items()]))
    one_by_one = texts_one_by_one(table).to_pylist()
    assert one_by_one == texts_by_columns(table).to_pylist()
    for text, row in zip(one_by_one, rows, strict=True):
        told = orjson.loads(text + "}")
        assert (told["name"], told["started_at_unix_nano"]) == (row["name"], _as_text(row["started_at_unix_nano"]))
        assert ("orphan" in told) == bool(row["orphan"])


def _as_text(number: int | None) -> str | None:
    return None if number is None else str(number)
