"""`clew export`: what the files say, that they say all of it, and that an export goes on where it was stopped."""

from __future__ import annotations

import gzip
import json
import os
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
import httpx
import pytest
import zstandard
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from clew.collector.intake import Intake
from clew.exporter import pages, portions
from clew.exporter.pages import ChosenSpans
from clew.exporter.wire import delimited
from clew.storage import Store
from clew.transfer import TransferError, export
from clew.transfer.database import StoredSpans
from clew.transfer.formats import FORMATS
from clew.transfer.input import opened
from clew.transfer.output import FileOutput, StreamOutput, output_to

from .any_otlp import DETERMINISTIC
from .test_lossless import requests, said_by

START = 1_750_000_000_000_000_000
Clew = Callable[..., Any]


def _traces(run: int, spans: Iterable[int], *, start: int = START) -> bytes:
    """A request of spans of a run, numbered, a millisecond apart."""
    request = ExportTraceServiceRequest()
    block = request.resource_spans.add()
    block.resource.attributes.add(key="service.name").value.string_value = f"service {run}"
    scope_spans = block.scope_spans.add()
    scope_spans.scope.name = "tests"
    for number in spans:
        at = start + run % 10**6 * 10**9 + number * 10**6
        span = scope_spans.spans.add(name=f"step {number}", kind=1, start_time_unix_nano=at, end_time_unix_nano=at + 1)
        span.trace_id, span.span_id = run.to_bytes(16, "big"), (number + 1).to_bytes(8, "big")
        span.attributes.add(key="number").value.int_value = number
    return request.SerializeToString()


def _store(store: Store, *payloads: bytes) -> None:
    intake = Intake(store)
    answers = [intake.accept(payload) for payload in payloads]
    assert {answer.result(30).rejected_spans for answer in answers} == {0}
    intake.close()


def _read(path: Path, name: str) -> list[TracesData]:
    """What is in a file of this format, frame by frame."""
    with opened(str(path)) as file:
        frames = list(FORMATS[name].frames(file))
    asked = [request for frame in frames for request in FORMATS[name].requests(frame.content)]
    assert {request.signal for request in asked} <= {"traces"}
    return [TracesData.FromString(request.payload) for request in asked]


def _keys(read: Iterable[TracesData]) -> list[tuple[int, int]]:
    """Run and number of every span, in the order of the file."""
    return [
        (int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big") - 1)
        for traces in read
        for block in traces.resource_spans
        for scope_spans in block.scope_spans
        for span in scope_spans.spans
    ]


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of five spans, read by two."""
    monkeypatch.setattr(pages, "PAGE_SPANS_MAX", 5)
    monkeypatch.setattr(portions, "_FIRST_RECORDS", 2)
    monkeypatch.setattr(portions, "_RECORDS_UNSEEN_MAX", 2)


def _all_pages(spans: ChosenSpans) -> Iterator[TracesData]:
    page = spans.page()
    yield TracesData.FromString(page.traces)
    while page.next_cursor:
        page = spans.page(page.next_cursor)
        assert page.spans <= pages.PAGE_SPANS_MAX
        yield TracesData.FromString(page.traces)


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the examples of a test share."""
    return tmp_path_factory.mktemp("formats")


@pytest.mark.parametrize("name", ["otlp-json", "otlp-proto", "parquet"])
def test_whatever_otlp_can_say_comes_back_from_a_file(folder: Path, name: str) -> None:
    """Arbitrary spans, written and read again, are equal in every field, with their resources and scopes."""

    @given(sent=requests())
    @DETERMINISTIC
    def comes_back(sent: list[ExportTraceServiceRequest]) -> None:
        writer = FORMATS[name].writer(None)
        written = [writer.page(request.SerializeToString()) for request in sent]
        path = folder / name
        path.write_bytes(b"".join([*written, writer.end()]) or b"\0\0\0\0")
        read = [said for traces in _read(path, name) for said in said_by(traces)]
        assert sorted(read) == sorted(said for request in sent for said in said_by(request))

    comes_back()


def test_json_lines_are_as_the_specification_has_them(store: Store, tmp_path: Path) -> None:
    """A line is a `TracesData`: ids in hex, 64-bit integers as text, enums as numbers, names in lowerCamelCase."""
    _store(store, _traces(0xABC, [0]))
    [line] = _exported(store, tmp_path / "spans.jsonl").read_text().splitlines()
    assert json.loads(line) == {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "service 2748"}}]},
                "scopeSpans": [
                    {
                        "scope": {"name": "tests"},
                        "spans": [
                            {
                                "traceId": "00000000000000000000000000000abc",
                                "spanId": "0000000000000001",
                                "name": "step 0",
                                "kind": 1,
                                "startTimeUnixNano": str(START + 2748 * 10**9),
                                "endTimeUnixNano": str(START + 2748 * 10**9 + 1),
                                "attributes": [{"key": "number", "value": {"intValue": "0"}}],
                            }
                        ],
                    }
                ],
            }
        ]
    }


def test_a_protobuf_message_comes_after_its_length(store: Store, tmp_path: Path) -> None:
    """4 bytes, big-endian, as the Collector's file exporter writes them."""
    _store(store, _traces(1, [0, 1]))
    content = _exported(store, tmp_path / "spans.binpb").read_bytes()
    assert struct.unpack(">I", content[:4])[0] == len(content) - 4
    assert _keys([TracesData.FromString(content[4:])]) == [(1, 0), (1, 1)]


def test_parquet_is_read_by_others(store: Store, tmp_path: Path) -> None:
    """A row a span, with times as times, numbers as numbers, attributes as JSON."""
    _store(store, _traces(1, [0, 1]))
    path = _exported(store, tmp_path / "spans.parquet")
    rows = duckdb.sql(
        "SELECT trace_id, name, kind, service_name, scope_name, epoch_ns(start_time), duration_ns,"
        f" (attributes->>'number')::INT, otlp FROM '{path}' ORDER BY start_time"
    ).fetchall()
    started = START + 10**9 + 10**6
    assert rows[1] == (f"{1:032x}", "step 1", "INTERNAL", "service 1", "tests", started, 1, 1, None)


def test_jaegers_json_is_what_its_api_answers(server: Any, clew: Clew, tmp_path: Path) -> None:
    """An exported trace is the one that `GET /api/traces/{id}` answers."""
    _send(server, _traces(7, range(5)))
    clew("export", "--all", "--format", "jaeger-json", "-o", str(tmp_path / "traces.json"), "--url", server.http_url)
    [exported] = json.loads((tmp_path / "traces.json").read_text())["data"]
    [answered] = httpx.get(f"{server.http_url}/api/traces/{7:032x}").json()["data"]
    assert exported == answered


# --- pages ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_pages")
def test_pages_have_every_span_once_and_runs_together(store: Store) -> None:
    """Small runs share a page, a large one takes several, and each begins where the one before ended."""
    _store(store, *(_traces(run, range(17 if run == 3 else 2)) for run in range(1, 8)))
    wanted = [(run, number) for run in range(1, 8) for number in range(17 if run == 3 else 2)]
    assert _keys(_all_pages(ChosenSpans(store))) == wanted


def test_runs_stay_together_whatever_they_come_from(store: Store) -> None:
    """The spans of a run stand one after another, and runs in their order, though their services come back."""
    request = ExportTraceServiceRequest()
    for service in "ab":
        part = ExportTraceServiceRequest.FromString(_traces(1, []))
        part.resource_spans[0].resource.attributes[0].value.string_value = service
        request.MergeFrom(part)
    for run, places in ((1, (0, 1)), (2, (1,)), (3, (0,)), (4, (1, 0))):
        for number, place in enumerate(places * 2):
            one = ExportTraceServiceRequest.FromString(_traces(run, [number]))
            request.resource_spans[place].scope_spans[0].spans.extend(one.resource_spans[0].scope_spans[0].spans)
    _store(store, request.SerializeToString())
    [page] = _all_pages(ChosenSpans(store))
    assert [run for run, _ in _keys([page])] == [1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 4, 4]
    services = [block.resource.attributes[0].value.string_value for block in page.resource_spans]
    spans = [len(block.scope_spans[0].spans) for block in page.resource_spans]
    assert list(zip(services, spans, strict=True)) == [("a", 2), ("b", 4), ("a", 4), ("b", 2)]


@pytest.mark.parametrize("name", FORMATS)
def test_deep_nesting_harms_nothing_beside_it(store: Store, tmp_path: Path, name: str) -> None:
    """What nests deeper than protobuf's parsers go is exported as far as it can be said, with all that is beside it."""
    depths = (20, *range(44, 54), 200)
    for depth in depths:
        span = ExportTraceServiceRequest.FromString(_traces(depth, [1])).resource_spans[0].scope_spans[0].spans[0]
        deep = span.SerializeToString() + delimited(9, delimited(1, b"deep") + delimited(2, _deep(depth)))
        _store(store, _traces(depth, [0, 2]), delimited(1, delimited(2, delimited(2, deep))))
    _export(store, tmp_path / "spans", name)
    wanted = [(depth, number) for depth in depths for number in range(3)]
    assert sorted(_keys(_read(tmp_path / "spans", name))) == wanted


def _deep(depth: int) -> bytes:
    """An AnyValue: a list within a list within a list …"""
    value = delimited(1, b"leaf")
    for _ in range(depth):
        value = delimited(5, delimited(1, value))
    return value


@pytest.mark.usefixtures("small_pages")
def test_a_late_span_that_moves_a_run_loses_and_repeats_nothing(store: Store) -> None:
    """A run whose start becomes earlier between two pages is gone on with, and no run before it is told again."""
    _store(store, *(_traces(run, range(6)) for run in (1, 2, 3)))
    page, keys = ChosenSpans(store).page(), []
    while page.next_cursor:
        keys += _keys([TracesData.FromString(page.traces)])
        if keys[-1] == (2, 4):
            _store(store, _traces(2, [50], start=START - 60 * 10**9))
        page = ChosenSpans(store).page(page.next_cursor)
    keys += _keys([TracesData.FromString(page.traces)])
    assert sorted(set(keys) - {(2, 50)}) == [(run, number) for run in (1, 2, 3) for number in range(6)]
    assert len(keys) == len(set(keys))


@pytest.mark.usefixtures("small_pages")
def test_runs_are_chosen_by_name_and_time(store: Store) -> None:
    """Named runs, and those that started in a time; runs that are not there are told."""
    _store(store, *(_traces(run, [0]) for run in range(1, 6)))
    named = [UUID(int=2), UUID(int=4), UUID(int=99)]
    assert [run for run, _ in _keys(_all_pages(ChosenSpans(store, named)))] == [2, 4]
    assert ChosenSpans(store, named).extent().missing == (UUID(int=99),)
    in_time = ChosenSpans(store, (), START + 2 * 10**9, START + 4 * 10**9)
    assert [run for run, _ in _keys(_all_pages(in_time))] == [2, 3]
    assert (in_time.extent().runs, in_time.extent().until) == (2, START + 3 * 10**9 + 1)


def test_a_page_is_bounded_in_bytes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is large goes in smaller pages."""
    _store(store, _traces(1, range(100)))
    monkeypatch.setattr(pages, "PAGE_BYTES_MAX", 1_000)
    sizes = [len(traces.SerializeToString()) for traces in _all_pages(ChosenSpans(store))]
    assert len(sizes) > 5
    assert max(sizes) <= 1_000


# --- stopping and going on --------------------------------------------------------------------------------------------


class _Stopped(Exception):
    """What ends an export in the midst."""


def _export(store: Store, path: Path, name: str, *, stop_at: int | None = None) -> int:
    def progress(done: int, _total: int) -> None:
        if stop_at is not None and done >= stop_at:
            raise _Stopped

    spans, choice = StoredSpans(ChosenSpans(store)), {"format": name}
    return export.export(spans, FileOutput(path, choice), FORMATS[name], progress)


def _exported(store: Store, path: Path) -> Path:
    name = next(name for name, each in FORMATS.items() if path.suffix in each.suffixes)
    _export(store, path, name)
    return path


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FORMATS)
def test_an_export_goes_on_where_it_was_stopped(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    """Stopped twice, with half a page behind the last checkpoint, the file has every span once; runs that started after
    the export did are not in it."""
    if name == "parquet" and suffix:
        pytest.skip("a Parquet file compresses itself")
    monkeypatch.setattr(export, "CHECKPOINT_S", 0.0)
    _store(store, *(_traces(run, range(13)) for run in range(1, 4)))
    path = tmp_path / f"spans{suffix}"
    for stop_at in (8, 20):
        with pytest.raises(_Stopped):
            _export(store, path, name, stop_at=stop_at)
        with (tmp_path / f"spans{suffix}.part").open("ab") as part:
            part.write(b"what was written after the last checkpoint")
        _store(store, _traces(100 + stop_at, [0]))
    assert not path.exists()
    written = _export(store, path, name)
    late = [] if FORMATS[name].writer(None).state is not None else [(108, 0), (120, 0)]
    assert _keys(_read(path, name)) == [(run, number) for run in range(1, 4) for number in range(13)] + late
    assert written == 39 + len(late)
    assert [left.name for left in tmp_path.glob("spans*")] == [path.name]


def test_what_another_export_left_is_not_touched(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
) -> None:
    """An export of another choice into the same file says so."""
    monkeypatch.setattr(export, "CHECKPOINT_S", 0.0)
    _store(store, _traces(1, range(13)))
    with pytest.raises(_Stopped):
        _export(store, tmp_path / "spans", "otlp-json", stop_at=5)
    before = (tmp_path / "spans.part").read_bytes()
    with pytest.raises(TransferError, match="is left from another export; remove it, or choose another --output"):
        _export(store, tmp_path / "spans", "otlp-proto")
    assert (tmp_path / "spans.part").read_bytes() == before


def test_what_is_begun_of_other_data_is_not_gone_on_with(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_pages: None
) -> None:
    """As where another database is served at the same address."""
    monkeypatch.setattr(export, "CHECKPOINT_S", 0.0)
    _store(store, _traces(1, range(13)))
    with pytest.raises(_Stopped):
        _export(store, tmp_path / "spans", "otlp-json", stop_at=8)
    with closing(Store.open(str(tmp_path / "other.duckdb"))) as other:
        _store(other, _traces(2, range(3)))
        with pytest.raises(TransferError, match="of other data; remove"):
            _export(other, tmp_path / "spans", "otlp-json")


def test_a_pipe_is_written_to_and_a_link_followed(tmp_path: Path) -> None:
    """Neither is replaced by a file."""
    pipe, link, file = (tmp_path / name for name in ("pipe", "link", "file"))
    os.mkfifo(pipe)
    link.symlink_to(file)
    with os.fdopen(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb") as reads:
        for path in (pipe, link):
            output = output_to(path, {})
            output.write(b"told")
            output.finish()
        assert reads.read() == file.read_bytes() == b"told"
    assert pipe.is_fifo()
    assert link.is_symlink()


def test_a_full_device_is_told() -> None:
    """It fails when what was written is flushed."""
    with Path("/dev/full").open("wb") as stream:
        output = StreamOutput(stream, "/dev/full")
        output.write(b"told")
        with pytest.raises(TransferError, match="/dev/full cannot be written: No space left on device"):
            output.finish()
        with pytest.raises(OSError, match="No space left"):
            stream.close()


def test_starts_too_late_for_any_time_are_exported(store: Store, tmp_path: Path) -> None:
    """They are kept as the end of all time."""
    _store(store, _traces(1, [0], start=2**63 + 7), _traces(2, [0]))
    assert _export(store, tmp_path / "spans.jsonl", "otlp-json") == 2


# --- the command ------------------------------------------------------------------------------------------------------


def _send(server: Any, *payloads: bytes) -> None:
    for payload in payloads:
        headers = {"Content-Type": "application/x-protobuf"}
        httpx.post(f"{server.http_url}/v1/traces", content=payload, headers=headers).raise_for_status()


def test_runs_are_exported_by_the_start_of_their_ids(server: Any, clew: Clew) -> None:
    """To stdout when no file is named, as OTLP JSON lines."""
    _send(server, _traces(0xAA << 120, [0]), _traces(0xBB << 120, [0]))
    told = clew("export", "aa", "--url", server.http_url)
    assert (told.returncode, told.stderr) == (0, "")
    [block] = json.loads(told.stdout)["resourceSpans"]
    assert block["scopeSpans"][0]["spans"][0]["traceId"] == f"{0xAA << 120:032x}"


def test_an_export_of_nothing_is_an_empty_one(server: Any, clew: Clew) -> None:
    """Also where all runs began before the time that was asked for."""
    _send(server, _traces(1, [0]))
    told = clew("export", "--since", "-1h", "--url", server.http_url)
    assert (told.returncode, told.stdout, told.stderr) == (0, "", "")


@pytest.mark.parametrize(("suffix", "reader"), [(".gz", gzip.open), (".zst", zstandard.open)])
def test_a_file_is_compressed_as_its_name_ends(
    server: Any, clew: Clew, tmp_path: Path, suffix: str, reader: Callable[..., Any]
) -> None:
    """.gz and .zst; the rest of the name speaks of the format."""
    _send(server, _traces(1, [0]))
    told = clew("export", "--all", "-o", f"spans.jsonl{suffix}", "--url", server.http_url)
    assert told.stdout == f"1 span exported to spans.jsonl{suffix}\n"
    with reader(tmp_path / f"spans.jsonl{suffix}", "rb") as content:
        assert content.read().startswith(b'{"resourceSpans":[')


def test_a_damaged_zst_file_is_told(server: Any, clew: Clew, tmp_path: Path) -> None:
    """As a damaged .gz is: by a checksum, since what is damaged may still be JSON."""
    _send(server, _traces(1, range(50)))
    clew("export", "--all", "-o", "spans.jsonl.zst", "--url", server.http_url)
    file = tmp_path / "spans.jsonl.zst"
    content = bytearray(file.read_bytes())
    content[-4] ^= 1  # the checksum itself: all else is whole
    file.write_bytes(content)
    told = clew("import", "spans.jsonl.zst", "--url", server.http_url)
    assert told.returncode == 1
    assert "not valid zstd" in told.stderr


def test_a_dash_is_standard_output(clew: Clew, tmp_path: Path) -> None:
    """As `-` is standard input for imports; no file gets that name."""
    path = str(tmp_path / "clew.duckdb")
    with closing(Store.open(path)) as store:
        _store(store, _traces(1, [0]))
    told = clew("export", "--all", "-o", "-", "--db", path)
    assert (told.returncode, told.stdout) == (0, clew("export", "--all", "--db", path).stdout)
    assert '"resourceSpans"' in told.stdout


def test_a_file_is_exported_without_a_server(clew: Clew, tmp_path: Path) -> None:
    """--db opens a database that no server holds."""
    path = str(tmp_path / "clew.duckdb")
    with closing(Store.open(path)) as store:
        _store(store, _traces(1, range(3)), _traces(2, [0]))
    told = clew("export", f"{1:032x}", "-o", "spans.binpb", "--db", path)
    assert told.stdout == "3 spans exported to spans.binpb\n", told.stderr
    assert _keys(_read(tmp_path / "spans.binpb", "otlp-proto")) == [(1, 0), (1, 1), (1, 2)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "name runs to export, or say --all; `clew runs` lists them"),
        (
            ("--all", "--format", "csv"),
            "there is no format 'csv'; there are otlp-json, otlp-proto, parquet, jaeger-json",
        ),
        (("f" * 32, "--all"), "name runs to export, or choose them by --all, --since and --until, not both"),
        (("f" * 32, "--since", "-1h"), "name runs to export, or choose them by --all, --since and --until, not both"),
        (("f" * 32,), f"there is no run {'f' * 32}"),
        (("ff",), "no run's id starts with ff; `clew runs` lists them"),
        (("--since", "yesterday"), "'yesterday' is not a time"),
        (("--since", "2", "--until", "1"), "--since is after --until"),
        (("--all", "-o", "nowhere/spans.jsonl"), "cannot be written: No such file or directory"),
        (("--all", "-o", "."), "is a folder; name a file in it"),
        (("--all", "-o", "a.parquet.gz"), "a Parquet file is compressed within; name it a.parquet"),
    ],
)
def test_a_mistake_is_told_in_one_line(server: Any, clew: Clew, arguments: tuple[str, ...], told: str) -> None:
    """What to do instead, on stderr, and exit code 1."""
    answer = clew("export", *arguments, "--url", server.http_url)
    assert (answer.returncode, answer.stdout, answer.stderr.count("\n")) == (1, "", 1)
    assert told in answer.stderr
