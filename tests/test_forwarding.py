"""Sending on: in order, at least once, whatever becomes of the target, of other targets and of clew."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from prometheus_client import CollectorRegistry

from clew.collector.projection import read_requests
from clew.exporter import batch
from clew.exporter.forwarding import ExportState, Forwarding
from clew.exporter.targets import targets_of
from clew.query.filter import parse
from clew.query.filter_sql import of_events
from clew.storage import Store

from . import log_requests
from .otlp_targets import (
    PROTOBUF,
    TAKEN,
    HttpAnswer,
    Judge,
    Received,
    Spans,
    free_port,
    grpc_target,
    http_target,
    own_certificate,
    socket_target,
)

PATIENCE_S = 20.0
ATarget = Callable[..., AbstractContextManager[Received]]
TEXT = {"content-type": "text/plain"}
BOTH = pytest.mark.parametrize("a_target", [http_target, grpc_target], ids=["http", "grpc"])


def write(store: Store, *numbers: int) -> list[str]:
    """Stores spans of these numbers in one transaction; gives their names."""
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in numbers:
        times = {"start_time_unix_nano": 10**18 + number, "end_time_unix_nano": 10**18 + number + 5}
        ids = {"trace_id": (1 + number // 10).to_bytes(16, "big"), "span_id": (1 + number).to_bytes(8, "big")}
        spans.add(name=f"span {number}", **ids, **times)
    read = read_requests([request.SerializeToString()]).batch
    assert read is not None
    store.write(read)
    return [f"span {number}" for number in numbers]


@contextmanager
def forwarding(store: Store, *urls: str) -> Iterator[Forwarding]:
    """What sends on to these targets inside the `with`."""
    targets = targets_of(urls)
    wheres = {target.name: of_events(parse(target.filter)) for target in targets if target.filter}
    sending = Forwarding(store, targets, wheres, CollectorRegistry())
    try:
        yield sending
    finally:
        sending.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be"
        time.sleep(0.01)


def state_of(sending: Forwarding, target: str, signal: str = "traces") -> ExportState:
    [state] = [state for state in sending.states() if (state.target, state.signal) == (target, signal)]
    return state


def until_told(sending: Forwarding, target: str, *words: str) -> ExportState:
    """Waits for a last error with all these words."""
    until(lambda: all(word in (state_of(sending, target).last_error or "") for word in words))
    return state_of(sending, target)


@BOTH
def test_spans_leave_in_the_order_of_commits(store: Store, a_target: ATarget) -> None:
    """Whatever they say of their own times."""
    with a_target() as target, forwarding(store, f"{target.url}?name=t") as sending:
        names = write(store, 8, 9) + write(store, 3) + write(store, *range(4, 8))
        until(lambda: state_of(sending, "t").sent == len(names))
        assert target.names == names
        assert state_of(sending, "t").lag_records == 0


@BOTH
def test_headers_are_sent_along(store: Store, a_target: ATarget) -> None:
    """With every request, compressed too."""
    said = "name=t&header=authorization:Bearer%20x&compression=gzip"
    with a_target() as target, forwarding(store, f"{target.url}?{said}") as sending:
        write(store, 1)
        until(lambda: state_of(sending, "t").sent == 1)
        assert {headers["authorization"] for headers in target.headers} == {"Bearer x"}


@BOTH
def test_a_certificate_has_to_be_known(store: Store, a_target: ATarget, tmp_path: Path) -> None:
    """Over TLS a target whose certificate nobody vouches for gets nothing; named as `ca` it is known."""
    tls = own_certificate(tmp_path)
    with a_target(tls=tls) as target, forwarding(store, f"{target.url}?name=t") as sending:
        names = write(store, 1)
        until_told(sending, "t", "add ?ca=FILE")
    with a_target(tls=tls) as target, forwarding(store, f"{target.url}?name=t&ca={tls.cert}") as sending:
        until(lambda: state_of(sending, "t").sent == 1)
        assert target.names == names


def test_a_new_target_begins_now(store: Store) -> None:
    """History is not sent to it; what comes from now on is."""
    write(store, 1, 2)
    with http_target() as target, forwarding(store, target.url) as sending:
        names = write(store, 3)
        until(lambda: state_of(sending, "127.0.0.1").sent == 1)
        assert target.names == names


def test_a_target_that_was_down_gets_everything_in_order(store: Store) -> None:
    """What was committed meanwhile waits in the store, and the lag says how much."""
    port = free_port()
    with forwarding(store, f"otlp-http://127.0.0.1:{port}?name=t") as sending:
        names = [name for first in range(0, 3000, 1000) for name in write(store, *range(first, first + 1000))]
        state = until_told(sending, "t", "Connection refused", "is the target running?")
        assert (state.state, state.sent, state.lag_records) == ("waiting", 0, 3000)
        assert state.lag_s > 0
        with http_target(port=port) as target:
            until(lambda: state_of(sending, "t").sent == 3000)
            assert target.names == names
        assert state_of(sending, "t").last_error is None


def test_a_cursor_outlives_the_server(store: Store) -> None:
    """What was sent is not sent again; what came while nothing was sent on is."""
    with http_target() as target:
        url = f"{target.url}?name=t"
        with forwarding(store, url) as sending:
            names = write(store, 1, 2)
            until(lambda: state_of(sending, "t").sent == 2)
        names += write(store, 3)
        with forwarding(store, url) as sending:
            until(lambda: state_of(sending, "t").sent == 3)
        assert target.names == names


def test_a_target_that_is_taken_out_keeps_its_cursor(store: Store) -> None:
    """While it is away its lag is told; when it comes back, under its name, it gets all that came since."""
    with http_target() as first, forwarding(store, f"{first.url}?name=t"):
        pass
    names = write(store, 1, 2)
    with forwarding(store) as sending:
        state = state_of(sending, "t")
        assert (state.state, state.address, state.lag_records) == ("away", None, 2)
    with http_target() as second, forwarding(store, f"{second.url}?name=t") as sending:
        until(lambda: state_of(sending, "t").sent == 2)
        assert second.names == names


def test_a_dead_target_delays_no_other(store: Store) -> None:
    """Nor does one that hangs."""
    with http_target() as target, socket_target(None, is_closing=False) as hanging:
        others = (f"otlp-http://127.0.0.1:{free_port()}?name=dead", f"otlp-grpc://127.0.0.1:{hanging}?name=hangs")
        with forwarding(store, f"{target.url}?name=t", *others) as sending:
            write(store, *range(50))
            until(lambda: state_of(sending, "t").sent == 50)
            assert [state_of(sending, name).sent for name in ("dead", "hangs")] == [0, 0]


def test_a_filter_chooses_spans(store: Store) -> None:
    """Only those that it means are sent, and only those count as waiting."""
    with http_target() as target, forwarding(store, f'{target.url}?name=t&filter=name = "span 7"') as sending:
        write(store, *range(10))
        write(store, 11)
        until(lambda: state_of(sending, "t").sent == 1)
        assert target.names == ["span 7"]
        assert state_of(sending, "t").lag_records == 0


# --- refusals ---------------------------------------------------------------------------------------------------------


def refusing(*names: str, answer: HttpAnswer) -> Judge:
    """Gives that answer to requests with spans of these names."""
    return lambda spans: answer if {span.name for span in spans} & set(names) else TAKEN


def test_only_what_is_refused_is_lost(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """Two spans that a target will never take cost those two; both are named in the log and counted."""
    judge = refusing("span 17", "span 60", answer=HttpAnswer(400, b"bad span", TEXT))
    with http_target(judge) as target, forwarding(store, f"{target.url}?name=t") as sending:
        names = write(store, *range(100))
        until(lambda: state_of(sending, "t").sent == 98)
        assert target.names == [name for name in names if name not in ("span 17", "span 60")]
        assert state_of(sending, "t").refused == 2
    for number in (17, 60):
        run_id, span_id = f"{1 + number // 10:032x}", f"{1 + number:016x}"
        assert f"t refused span {run_id}/{span_id}: HTTP 400: bad span" in caplog.text


def test_what_is_too_large_goes_in_parts(store: Store) -> None:
    """A target that takes three spans at a time gets them all, in order."""
    with (
        http_target(lambda spans: HttpAnswer(413) if len(spans) > 3 else TAKEN) as target,
        forwarding(store, f"{target.url}?name=t") as sending,
    ):
        names = write(store, *range(40))
        until(lambda: state_of(sending, "t").sent == 40)
        assert target.names == names
        asked = len(target.headers)
        names += write(store, *range(40, 80))
        until(lambda: state_of(sending, "t").sent == 80)
        assert target.names == names
        assert len(target.headers) - asked < asked  # it is known by now what fits


def test_partial_success_is_counted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What was taken of a request is sent, the rest refused, and the target's words are in the log."""
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans, said.partial_success.error_message = 3, "three are too old"
    with (
        http_target(lambda _: HttpAnswer(200, said.SerializeToString())) as target,
        forwarding(store, f"{target.url}?name=t") as sending,
    ):
        write(store, *range(10))
        until(lambda: state_of(sending, "t").sent == 7)
        assert state_of(sending, "t").refused == 3
    assert "t refused 3 of 10 spans: three are too old" in caplog.text


def test_an_error_that_stays_is_a_refusal(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A span on which a target fails every time, for minutes, blocks what follows no longer."""
    monkeypatch.setattr(batch, "UNCLEAR_S_MAX", 0.0)
    judge = refusing("span 3", answer=HttpAnswer(500, b"cannot digest this", TEXT))
    with http_target(judge) as target, forwarding(store, f"{target.url}?name=t") as sending:
        names = write(store, *range(6))
        until(lambda: state_of(sending, "t").sent == 5)
        assert target.names == [name for name in names if name != "span 3"]
    assert "cannot digest this" in caplog.text


@pytest.mark.parametrize("a_target", [partial(http_target, logs=HttpAnswer(404)), grpc_target], ids=["http", "grpc"])
def test_a_signal_that_a_target_does_not_know_is_no_error(store: Store, a_target: ATarget) -> None:
    """Spans go on; the logs are not taken, and that is told."""
    with a_target() as target, forwarding(store, f"{target.url}?name=t") as sending:
        log_requests.send(store, log_requests.request(log_requests.record()))
        write(store, 1)
        until(lambda: state_of(sending, "t").sent == 1)
        until(lambda: state_of(sending, "t", "logs").state == "not_taken")
        assert state_of(sending, "t", "logs").last_error is None


def test_logs_go_too(store: Store) -> None:
    """Where the target takes them."""
    with http_target() as target, forwarding(store, f"{target.url}?name=t") as sending:
        log_requests.send(store, log_requests.request(log_requests.record()))
        until(lambda: state_of(sending, "t", "logs").sent == 1)
        assert target.log_records == 1


# --- targets that have to be waited for -------------------------------------------------------------------------------


def test_retry_after_is_obeyed(store: Store) -> None:
    """A target that wants to be left alone for a second is."""
    asked: list[float] = []

    def judge(_: Spans) -> HttpAnswer:
        asked.append(time.monotonic())
        return HttpAnswer(429, headers={"retry-after": "1"}) if len(asked) == 1 else TAKEN

    with http_target(judge) as target, forwarding(store, f"{target.url}?name=t") as sending:
        write(store, 1)
        until(lambda: state_of(sending, "t").sent == 1)
    assert asked[1] - asked[0] >= 1


def test_retry_info_is_obeyed(store: Store) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo means later, not too large."""
    asked: list[float] = []

    def refusal(_: Spans, context: grpc.ServicerContext) -> None:
        asked.append(time.monotonic())
        if len(asked) == 1:
            detail = AnyMessage()
            detail.Pack(RetryInfo(retry_delay=Duration(seconds=1)))
            status = Status(code=8, message="slowly", details=[detail])
            context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "slowly")

    with grpc_target(refusal) as target, forwarding(store, f"{target.url}?name=t") as sending:
        write(store, 1, 2)
        until(lambda: state_of(sending, "t").sent == 2)
        assert [len(spans) for spans in target.taken] == [2]
    assert asked[1] - asked[0] >= 1


WAITED_OUT = {
    "wants a login": (HttpAnswer(401), "header=authorization"),
    "refuses everything": (HttpAnswer(400, b"no"), "refuses everything"),
    "has moved": (HttpAnswer(302, headers={"location": "https://elsewhere"}), "https://elsewhere"),
    "knows no such path": (HttpAnswer(404), "port and path"),
    "fails": (HttpAnswer(500, b"out of disk", TEXT), "out of disk"),
    "is busy": (HttpAnswer(503), "HTTP 503"),
    "answers a page": (HttpAnswer(200, b"<html>", {"content-type": "text/html"}), "is no OTLP"),
    "answers garbage": (HttpAnswer(200, b"\xff\xff\xff", {"content-type": PROTOBUF}), "is no OTLP"),
}


@pytest.mark.parametrize(("answer", "told"), WAITED_OUT.values(), ids=WAITED_OUT)
def test_what_is_not_the_data_s_fault_costs_no_data(store: Store, answer: HttpAnswer, told: str) -> None:
    """The target is named with what to do, and gets everything once it is put right."""
    answers = [answer]
    with http_target(lambda _: answers[0]) as target, forwarding(store, f"{target.url}?name=t") as sending:
        names = write(store, *range(5))
        state = until_told(sending, "t", told)
        assert (state.state, state.sent, state.refused, state.lag_records) == ("waiting", 0, 0, 5)
        answers[0], target.taken[:] = TAKEN, []
        until(lambda: state_of(sending, "t").sent == 5)
        assert target.names == names


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_login_over_grpc(store: Store, code: grpc.StatusCode) -> None:
    """Is asked for in `last_error`."""
    with (
        grpc_target(lambda _, context: context.abort(code, "who?")) as target,
        forwarding(store, f"{target.url}?name=t") as sending,
    ):
        write(store, 1)
        until_told(sending, "t", code.name, "who?", "header=authorization")


SOCKETS = {
    "http where grpc is meant": ("otlp-grpc", b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "no gRPC is spoken there"),
    "grpc where http is meant": ("otlp-http", b"\0\0\x06\x04\0\0\0\0\0", True, "no HTTP is spoken there"),
    "garbage to grpc": ("otlp-grpc", b"hello\r\n\r\n", True, "no gRPC is spoken there"),
    "closed on grpc": ("otlp-grpc", b"", True, "closes connections"),
    "closed on http": ("otlp-http", b"", True, "closes connections"),
    "closed in an answer": ("otlp-http", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", True, "closed"),
    "no tls": ("otlp-https", b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "no TLS is spoken there"),
    "silent to grpc": ("otlp-grpc", None, False, "no answer within 0.3 s"),
    "silent to http": ("otlp-http", None, False, "no answer within 0.3 s"),
}


@pytest.mark.parametrize(("scheme", "says", "is_closing", "told"), SOCKETS.values(), ids=SOCKETS)
def test_what_speaks_something_else_is_named(
    store: Store, scheme: str, says: bytes | None, is_closing: bool, told: str
) -> None:
    """With what to do about it; the spans stay."""
    with (
        socket_target(says, is_closing=is_closing) as port,
        forwarding(store, f"{scheme}://127.0.0.1:{port}?name=t&timeout=0.3") as sending,
    ):
        write(store, 1)
        state = until_told(sending, "t", told)
        assert (state.sent, state.refused, state.lag_records) == (0, 0, 1)
