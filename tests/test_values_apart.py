"""Attributes that are stored apart, as long conversations are: whoever asks for one finds it as any other."""

from __future__ import annotations

import orjson
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sqlalchemy import func, select

from clew.collector.projection import read_requests
from clew.query.figures import figures
from clew.query.figures_parameters import FiguresWanted
from clew.query.jaeger.search import TraceSearch, find_traces
from clew.query.search import search_events
from clew.query.search_parameters import SearchWanted
from clew.storage import ExecutionEvent, Reader, Store

START = 10**18
LONG = "word " * 600
SHORT_RUN, LONG_RUN = f"{1:032x}", f"{2:032x}"
HELD_APART = select(func.count(ExecutionEvent.history_id).label("events"))


@pytest.fixture
def said(store: Store) -> Store:
    """Two runs of an event with the same input; one of them has so long an output that both are stored apart."""
    built = ExportTraceServiceRequest()
    spans = built.resource_spans.add().scope_spans.add().spans
    for number, output in ((1, "brief"), (2, LONG)):
        span = spans.add(trace_id=number.to_bytes(16, "big"), span_id=number.to_bytes(8, "big"), name="call")
        span.start_time_unix_nano, span.end_time_unix_nano = START + number, START + number + 1
        span.attributes.add(key="input.value").value.string_value = "said"
        span.attributes.add(key="output.value").value.string_value = output
        span.attributes.add(key="other").value.string_value = "said"
    store.write(read_requests([built.SerializeToString()]).batch)
    return store


def _runs_found(reader: Reader, filter_text: str) -> list[str]:
    wanted = SearchWanted.model_validate({"filter": filter_text})
    return sorted(event["run"]["id"] for event in orjson.loads(search_events(reader, wanted))["events"])


def _traces_found(reader: Reader, key: str, text: str) -> list[str]:
    search = TraceSearch(START, START + 100, tags={key: text})
    return sorted(run["id"] for run in find_traces(reader, search))


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("input.value", "said", [SHORT_RUN, LONG_RUN]),
        ("output.value", LONG, [LONG_RUN]),
        ("output.value", "brief", [SHORT_RUN]),
        ("input.value", "unsaid", []),
        ("other", "said", [SHORT_RUN, LONG_RUN]),
    ],
)
def test_they_are_found_by_their_value(said: Store, key: str, text: str, found: list[str]) -> None:
    """By filters and as Jaeger's tags."""
    with said.read() as reader:
        assert reader.rows(HELD_APART)[0]["events"] == 1
        assert _runs_found(reader, f'attributes["{key}"] = "{text}"') == found
        assert _traces_found(reader, key, text) == found


def test_events_are_grouped_by_them(said: Store) -> None:
    """As by any other attribute."""
    with said.read() as reader:
        told = figures(reader, FiguresWanted.model_validate({"group_by": 'attributes["input.value"]'}))
    assert [(*group["group"].values(), group["events"]) for group in told["groups"]] == [("said", 2)]
