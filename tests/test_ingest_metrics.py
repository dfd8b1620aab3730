"""OTLP metrics: taken over both transports, stored once point by point, linked by their exemplars, and given back as
they came."""

from __future__ import annotations

import gzip
import math
from base64 import b64encode
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import httpx
import pytest
from google.protobuf.json_format import MessageToJson
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import (
    Exemplar,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
    Summary,
    SummaryDataPoint,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from prometheus_client import CollectorRegistry
from sqlalchemy import select

from clew.collector.intake import Intake
from clew.collector.metric_points import read_metric_requests
from clew.collector.otlp_json import request_from_json
from clew.collector.outcomes import Malformed
from clew.collector.signals import METRICS
from clew.exporter.otlp import metrics_as_otlp
from clew.storage import Row, Store, WorkflowMetric, WorkflowRun, WriteOutcome

EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"
PROTOBUF = {"content-type": "application/x-protobuf"}
RUN, EVENT = UUID(int=7), (9).to_bytes(8, "big")
TIMEOUT_S = 60
DETERMINISTIC = settings(derandomize=True, database=None, deadline=None, max_examples=60)

EXEMPLAR = Exemplar(trace_id=RUN.bytes, span_id=EVENT, time_unix_nano=40, as_int=3)
ONE_OF_EACH = (
    Metric(name="g", gauge=Gauge(data_points=[NumberDataPoint(as_double=1.5, time_unix_nano=50)])),
    Metric(
        name="s",
        unit="1",
        sum=Sum(
            is_monotonic=True,
            aggregation_temporality=2,
            data_points=[NumberDataPoint(as_int=3, time_unix_nano=51, start_time_unix_nano=5, exemplars=[EXEMPLAR])],
        ),
    ),
    Metric(
        name="h",
        histogram=Histogram(
            data_points=[HistogramDataPoint(count=2, sum=7.5, bucket_counts=[1, 1], time_unix_nano=52)]
        ),
    ),
    Metric(
        name="e",
        exponential_histogram=ExponentialHistogram(
            data_points=[ExponentialHistogramDataPoint(count=2, scale=3, zero_count=1, time_unix_nano=53)]
        ),
    ),
    Metric(name="q", summary=Summary(data_points=[SummaryDataPoint(count=2, sum=4.0, time_unix_nano=54)])),
)


def gauge(*values: int, name: str = "g", exemplars: Sequence[Exemplar] = ()) -> Metric:
    points = [NumberDataPoint(as_int=value, time_unix_nano=50, exemplars=exemplars) for value in values]
    return Metric(name=name, gauge=Gauge(data_points=points))


def request(*metrics: Metric, service: str = "") -> bytes:
    block = ResourceMetrics(scope_metrics=[ScopeMetrics(metrics=metrics)])
    if service:
        block.resource.attributes.add(key="service.name", value=AnyValue(string_value=service))
    return ExportMetricsServiceRequest(resource_metrics=[block]).SerializeToString()


def send(store: Store, *requests: bytes) -> WriteOutcome:
    """Stores the requests as one group."""
    return store.write(read_metric_requests(list(requests)).batch)


def stored(store: Store) -> Sequence[Row]:
    points = WorkflowMetric.__table__
    with store.read() as reader:
        return reader.rows(select(points).order_by(points.c.time_unix_nano, points.c.id))


# --- once, and whole --------------------------------------------------------------------------------------------------


def test_a_point_of_every_shape(store: Store) -> None:
    """Its type, its value or the sum of its values, its unit and its times are in columns."""
    send(store, request(*ONE_OF_EACH))
    assert [(row["metric_name"], row["metric_type"], row["metric_value"]) for row in stored(store)] == [
        ("g", "gauge", 1.5),
        ("s", "sum", 3.0),
        ("h", "histogram", 7.5),
        ("e", "exponential_histogram", None),
        ("q", "summary", 4.0),
    ]
    of_sum = stored(store)[1]
    assert (of_sum["unit"], of_sum["started_at_unix_nano"], of_sum["time_unix_nano"]) == ("1", 5, 51)


def test_a_point_sent_again_is_stored_once(tmp_path: Path) -> None:
    """In one group, in a later one, after a restart; a batch cut differently adds what is new."""
    path = str(tmp_path / "clew.duckdb")
    store = Store.open(path)
    sent = request(*ONE_OF_EACH)
    assert send(store, sent, sent) == WriteOutcome(stored=5, repeated=5, replaced=0)
    assert send(store, sent, request(gauge(9))) == WriteOutcome(stored=1, repeated=5, replaced=0)
    store.close()
    store = Store.open(path)
    assert send(store, sent) == WriteOutcome(stored=0, repeated=5, replaced=0)
    assert len(stored(store)) == 6
    store.close()


def test_points_that_differ_in_anything_are_kept(store: Store) -> None:
    """In their value, their metric or just in what sent them."""
    assert send(store, request(gauge(1, 2), gauge(1, name="other")), request(gauge(1), service="planner")).stored == 4


def test_an_exemplar_links_its_point(store: Store) -> None:
    """To its event and its run, which is made where nobody has told of it, about the time of the exemplar."""
    send(store, request(gauge(1, exemplars=[Exemplar(as_int=1), EXEMPLAR]), gauge(2)))
    linked, alone = sorted(stored(store), key=lambda row: float(row["metric_value"]))
    assert (linked["run_id"], linked["event_id"]) == (RUN.hex, EVENT.hex())
    assert (alone["run_id"], alone["event_id"]) == (None, None)
    with store.read() as reader:
        [run] = reader.rows(select(WorkflowRun.__table__))
    assert (run["id"], run["status"], run["event_count"]) == (RUN.hex, "running", 0)
    assert (run["started_at_unix_nano"], run["last_started_at_unix_nano"]) == (40, 40)


def test_a_point_without_any_time_is_of_its_run_when_it_arrives(store: Store) -> None:
    """Not of 1970, when its run would have begun."""
    timeless = Exemplar(trace_id=RUN.bytes, span_id=EVENT)
    point = NumberDataPoint(as_int=1, exemplars=[timeless])
    send(store, request(Metric(name="g", gauge=Gauge(data_points=[point]))))
    with store.read() as reader:
        [run] = reader.rows(select(WorkflowRun.__table__))
    assert run["started_at_unix_nano"] > 10**18
    assert [row["time_unix_nano"] for row in stored(store)] == [0]


# --- what cannot be stored --------------------------------------------------------------------------------------------


def test_ids_of_wrong_length_harm_only_their_point(store: Store) -> None:
    """The others are stored, and the request's fate names the bad one."""
    bad = gauge(1, name="bad one", exemplars=[Exemplar(trace_id=b"short")])
    reading = read_metric_requests([request(bad, gauge(2)), request(gauge(3))])
    assert [len(fate.rejections) for fate in reading.fates] == [1, 0]
    assert "'bad one': trace_id of an exemplar is 5 bytes long, not 16" in reading.fates[0].rejections[0]
    assert store.write(reading.batch).stored == 2


def test_a_broken_request_harms_no_other(store: Store) -> None:
    """Nor does text that is not UTF-8, which is mended."""
    not_utf8 = request(gauge(1, name="abc")).replace(b"abc", b"\xffbc")
    reading = read_metric_requests([request(gauge(2)), b"\xff garbage", not_utf8, b""])
    assert [bool(fate.malformed) for fate in reading.fates] == [False, True, False, False]
    assert reading.fates[2].warning
    store.write(reading.batch)
    assert {row["metric_name"] for row in stored(store)} == {"g", "\ufffdbc"}


def test_the_intake_counts_points(store: Store) -> None:
    """By what became of them."""
    registry = CollectorRegistry()
    intake = Intake(store, registry=registry)
    bad = gauge(1, exemplars=[Exemplar(trace_id=b"short")])
    try:
        for sent in (request(*ONE_OF_EACH), request(*ONE_OF_EACH, bad), request()):
            intake.accept(sent, METRICS).result(TIMEOUT_S)
        with pytest.raises(Malformed):
            intake.accept(b"\xff garbage", METRICS).result(TIMEOUT_S)
    finally:
        intake.close()
    counted = {
        outcome: registry.get_sample_value("clew_metric_points_total", {"outcome": outcome})
        for outcome in ("stored", "repeated", "rejected")
    }
    assert counted == {"stored": 5, "repeated": 5, "rejected": 1}


# --- lossless ---------------------------------------------------------------------------------------------------------

texts = st.text(max_size=8) | st.sampled_from(["", "\0", "a\0b", "𝔘"])
times = st.sampled_from([0, 1, 2**63, 2**64 - 1]) | st.integers(0, 2**64 - 1)
uint64s = st.integers(0, 2**64 - 1)
uint32s = st.integers(0, 2**32 - 1)
doubles = st.sampled_from([math.nan, math.inf, -0.0]) | st.floats()
values = st.builds(AnyValue, string_value=texts) | st.builds(AnyValue, double_value=doubles) | st.just(AnyValue())
attributes = st.lists(st.builds(KeyValue, key=texts, value=st.none() | values), max_size=2)
numbers = st.fixed_dictionaries({"as_double": doubles}) | st.fixed_dictionaries(
    {"as_int": st.integers(-(2**63), 2**63 - 1)}
)
exemplars = st.builds(
    lambda number, **more: Exemplar(**number, **more),
    number=numbers,
    filtered_attributes=attributes,
    time_unix_nano=times,
    trace_id=st.sampled_from([b"", bytes(16), b"\xff" * 16]),
    span_id=st.sampled_from([b"", bytes(8), b"\xff" * 8]),
)
shared: dict[str, Any] = {"attributes": attributes, "start_time_unix_nano": times, "time_unix_nano": times}
shared["flags"] = uint32s
with_exemplars = shared | {"exemplars": st.lists(exemplars, max_size=2)}
number_points = st.builds(lambda number, **more: NumberDataPoint(**number, **more), number=numbers, **with_exemplars)
some_sum = st.none() | doubles
histogram_points = st.builds(
    HistogramDataPoint,
    count=uint64s,
    sum=some_sum,
    min=some_sum,
    max=some_sum,
    bucket_counts=st.lists(uint64s, max_size=3),
    explicit_bounds=st.lists(doubles, max_size=2),
    **with_exemplars,
)
exponential_points = st.builds(
    ExponentialHistogramDataPoint,
    count=uint64s,
    sum=some_sum,
    scale=st.integers(-10, 20),
    zero_count=uint64s,
    zero_threshold=doubles,
    positive=st.none()
    | st.builds(
        ExponentialHistogramDataPoint.Buckets, offset=st.integers(-5, 5), bucket_counts=st.lists(uint64s, max_size=3)
    ),
    **with_exemplars,
)
quantiles = st.builds(SummaryDataPoint.ValueAtQuantile, quantile=doubles, value=doubles)
summary_points = st.builds(
    SummaryDataPoint, count=uint64s, sum=doubles, quantile_values=st.lists(quantiles, max_size=2), **shared
)
temporality = st.integers(0, 3)


def points_of(points: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(points, max_size=2)


shapes = st.one_of(
    st.fixed_dictionaries({"gauge": st.builds(Gauge, data_points=points_of(number_points))}),
    st.fixed_dictionaries(
        {
            "sum": st.builds(
                Sum,
                data_points=points_of(number_points),
                aggregation_temporality=temporality,
                is_monotonic=st.booleans(),
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "histogram": st.builds(
                Histogram, data_points=points_of(histogram_points), aggregation_temporality=temporality
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "exponential_histogram": st.builds(
                ExponentialHistogram, data_points=points_of(exponential_points), aggregation_temporality=temporality
            )
        }
    ),
    st.fixed_dictionaries({"summary": st.builds(Summary, data_points=points_of(summary_points))}),
)
metrics = st.builds(
    lambda shape, **more: Metric(**shape, **more),
    shape=shapes,
    name=texts,
    description=texts,
    unit=texts,
    metadata=attributes,
)
blocks = st.builds(
    ResourceMetrics,
    resource=st.none() | st.builds(Resource, attributes=attributes, dropped_attributes_count=uint32s),
    schema_url=texts,
    scope_metrics=st.lists(
        st.builds(
            ScopeMetrics,
            scope=st.none() | st.builds(InstrumentationScope, name=texts, attributes=attributes),
            schema_url=texts,
            metrics=st.lists(metrics, max_size=3),
        ),
        max_size=2,
    ),
)
example_numbers = count(1)


def said_by(data: ExportMetricsServiceRequest | MetricsData, example: str) -> set[tuple[bytes, ...]]:
    """Every point of the example alone in its metric, with its resource and its scope."""
    said = set()
    for block in data.resource_metrics:
        for scope_block in block.scope_metrics:
            for metric in scope_block.metrics:
                if metric.name.startswith(example):
                    origin = (*presence(block, "resource"), *presence(scope_block, "scope"))
                    said |= {(point, *origin) for point in one_by_one(metric)}
    return said


def one_by_one(metric: Metric) -> Iterator[bytes]:
    shape = metric.WhichOneof("data")
    for point in getattr(metric, shape).data_points if shape else ():
        alone = Metric()
        alone.CopyFrom(metric)
        del getattr(alone, shape or "").data_points[:]
        getattr(alone, shape or "").data_points.append(point)
        yield alone.SerializeToString(deterministic=True)


def presence(block: Any, name: str) -> tuple[bytes, bytes]:
    message = getattr(block, name).SerializeToString(deterministic=True) if block.HasField(name) else b"absent"
    return message, block.schema_url.encode()


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = Store.open(str(tmp_path_factory.mktemp("metrics") / "clew.duckdb"))
    yield opened
    opened.close()


@given(drawn=st.lists(blocks, min_size=1, max_size=2))
@DETERMINISTIC
def test_every_point_comes_back_as_it_was_sent(shared_store: Store, drawn: list[ResourceMetrics]) -> None:
    """Arbitrary points of all shapes are read back equal, with their metric and what sent them, and nothing else is."""
    example = f"{next(example_numbers)} "
    sent = ExportMetricsServiceRequest(resource_metrics=drawn)
    for block in sent.resource_metrics:
        for scope_block in block.scope_metrics:
            for metric in scope_block.metrics:
                metric.name = example + metric.name
    reading = read_metric_requests([sent.SerializeToString()])
    assert not any(fate.rejections or fate.malformed or fate.warning for fate in reading.fates)
    if reading.batch is not None:
        shared_store.write(reading.batch)
    given_back = MetricsData.FromString(metrics_as_otlp(shared_store))
    assert said_by(given_back, example) == said_by(sent, example)


# --- on the wire ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_the_sdk_measures_into_a_server(server: Any, transport: str) -> None:
    """What the SDK's own exporter sends is in the file once the server has ended."""
    exporter: Any
    if transport == "grpc":
        exporter = GrpcMetricExporter(endpoint=server.grpc_target, insecure=True)
    else:
        exporter = HttpMetricExporter(endpoint=f"{server.http_url}/v1/metrics")
    provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)])
    meter = provider.get_meter("test")
    meter.create_counter("calls", unit="1").add(3, {"tool": "search"})
    meter.create_histogram("latency").record(2.5)
    meter.create_gauge("depth").set(4)
    assert provider.force_flush()
    provider.shutdown()
    server.stop()
    store = Store.open(str(server.db))
    found = {row["metric_name"]: (row["metric_type"], row["metric_value"]) for row in stored(store)}
    store.close()
    assert found == {"calls": ("sum", 3.0), "latency": ("histogram", 2.5), "depth": ("gauge", 4.0)}


def test_partial_success_over_both_transports(server: Any) -> None:
    """200 and OK, with the number of points that were rejected and which; in JSON as OTLP writes it."""
    sent = request(gauge(1, name="bad one", exemplars=[Exemplar(trace_id=b"short")]), gauge(2))
    url = f"{server.http_url}/v1/metrics"
    answer = httpx.post(url, content=gzip.compress(sent), headers=PROTOBUF | {"content-encoding": "gzip"})
    assert answer.status_code == 200
    with grpc.insecure_channel(server.grpc_target) as channel:
        over_grpc = channel.unary_unary(EXPORT)(sent, timeout=TIMEOUT_S)
    for response in (answer.content, over_grpc):
        told = ExportMetricsServiceResponse.FromString(response).partial_success
        assert told.rejected_data_points == 1
        assert "bad one" in told.error_message
    point = {"asInt": "3", "timeUnixNano": "50", "exemplars": [{"traceId": "00"}]}
    as_json = {"resourceMetrics": [{"scopeMetrics": [{"metrics": [{"name": "g", "gauge": {"dataPoints": [point]}}]}]}]}
    assert httpx.post(url, json=as_json).json()["partialSuccess"]["rejectedDataPoints"] == "1"
    assert "clew_metric_points_total" in httpx.get(f"{server.http_url}/metrics").text


def test_json_says_what_protobuf_says() -> None:
    """Every shape, its 64-bit numbers as text, NaN and the infinities by name, exemplars' ids in hex."""
    sent = ExportMetricsServiceRequest.FromString(request(*ONE_OF_EACH))
    histogram = sent.resource_metrics[0].scope_metrics[0].metrics[3].exponential_histogram.data_points[0]
    histogram.positive.offset, histogram.sum, histogram.zero_threshold = -2, math.inf, -math.inf
    histogram.positive.bucket_counts.extend([1, 2**64 - 1])
    body = MessageToJson(sent)
    for in_base64, in_hex in ((RUN.bytes, RUN.hex), (EVENT, EVENT.hex())):
        body = body.replace(b64encode(in_base64).decode(), in_hex.upper())
    read, warning = request_from_json(body.encode(), ExportMetricsServiceRequest)
    assert (ExportMetricsServiceRequest.FromString(read), warning) == (sent, "")


def test_a_body_over_the_limit_is_refused(server: Any) -> None:
    """After it is unpacked too."""
    bomb = gzip.compress(bytes((64 << 20) + 1))
    answer = httpx.post(f"{server.http_url}/v1/metrics", content=bomb, headers=PROTOBUF | {"content-encoding": "gzip"})
    assert answer.status_code == 413
