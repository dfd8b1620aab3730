"""The names of resources that answers bear are right however many there are."""

from __future__ import annotations

import pyarrow as pa
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import select

from clew.collector.projection import read_requests
from clew.query import events
from clew.storage import Resource, Store


def test_names_are_known_beyond_as_many_as_are_kept(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was known before and what is asked for now are told together."""
    monkeypatch.setattr(events, "NAMES_KNOWN_MAX", 3)
    request = ExportTraceServiceRequest()
    for number in range(1, 5):
        block = request.resource_spans.add()
        block.resource.attributes.add(key="service.name").value.string_value = f"service {number}"
        block.scope_spans.add().spans.add(trace_id=bytes([number] * 16), span_id=bytes([number] * 8))
    store.write(read_requests([request.SerializeToString()]).batch)
    with store.read() as reader:
        named = {row["id"]: row["service_name"] for row in reader.rows(select(Resource.id, Resource.service_name))}
        names = events._Names(events.RESOURCES.c.service_name)
        for some in (list(named)[:2], list(named), list(named)[2:]):
            assert names.of(reader, pa.chunked_array([some], pa.int64())).to_pylist() == [named[id_] for id_ in some]
