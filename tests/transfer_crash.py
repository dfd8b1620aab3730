"""Kills `clew export` and `clew import` in the middle, again and again, and counts what came of it.

    python tests/transfer_crash.py --spans 100000 --kills 5

For each format a real `clew export` writes a file of all spans of a database and is killed with SIGKILL so many times,
each time after it has come further; then it is run to its end. The file must have every span exactly once. A real
`clew import` of the file into a new database is killed likewise; in the end the database must have every span exactly
once. Exits 1 on any that has not.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData
from sqlalchemy import text

from clew.collector.projection import read_requests
from clew.storage import Store
from clew.transfer.formats import FORMATS
from clew.transfer.input import opened

SPANS_PER_RUN = 100
RUNS_PER_COMMIT = 50
MORE_S = 0.1
END_S = 300.0
# The command, which notes how far it has come after every page or request.
COMMAND = """
import sys
from clew.cli import main
from clew.exporter import pages
from clew.transfer import export, imports, marks
pages.PAGE_SPANS_MAX, export.CHECKPOINT_S, marks.WRITTEN_EVERY_S = int(sys.argv.pop(1)), 0.0, 0.0
imports.REQUEST_BYTES = 20_000
main()
"""

SpanKey = tuple[int, int]


def fill(path: Path, spans: int) -> Counter[SpanKey]:
    """Stores so many spans, and gives their keys."""
    runs = range(1, spans // SPANS_PER_RUN + 1)
    with closing(Store.open(str(path))) as store:
        for first in range(0, len(runs), RUNS_PER_COMMIT):
            request = ExportTraceServiceRequest()
            block = request.resource_spans.add().scope_spans.add()
            block.spans.extend(span for run in runs[first : first + RUNS_PER_COMMIT] for span in _spans(run))
            store.write(read_requests([request.SerializeToString()]).batch)
    return Counter((run, number) for run in runs for number in range(1, SPANS_PER_RUN + 1))


def _spans(run: int) -> Iterator[Span]:
    for number in range(1, SPANS_PER_RUN + 1):
        start = 10**18 + run * 10**6 + number
        moments = [Span.Event(name="moment")] * (number % 5 == 0)
        ids = {"trace_id": run.to_bytes(16, "big"), "span_id": number.to_bytes(8, "big")}
        yield Span(**ids, name="step", start_time_unix_nano=start, end_time_unix_nano=start + run, events=moments)


def in_file(path: Path, name: str) -> Counter[SpanKey]:
    """The keys of the spans in a file of this format."""
    found: Counter[SpanKey] = Counter()
    with opened(str(path)) as file:
        for frame in FORMATS[name].frames(file):
            for request in FORMATS[name].requests(frame.content):
                found.update(_keys(TracesData.FromString(request.payload)))
    return found


def _keys(traces: TracesData) -> Iterator[SpanKey]:
    for block in traces.resource_spans:
        for scope_spans in block.scope_spans:
            for span in scope_spans.spans:
                yield int.from_bytes(span.trace_id, "big"), int.from_bytes(span.span_id, "big")


def in_store(path: Path) -> Counter[SpanKey]:
    """The keys of the spans in a database."""
    with closing(Store.open(str(path))) as store, store.read() as reader:
        rows = reader.rows(text("SELECT run_id, id FROM execution_events"))
    return Counter((row["run_id"].int, row["id"]) for row in rows)


def killed(command: list[str], folder: Path, kills: int, progress: Callable[[], object]) -> int:
    """Runs the command to its end, killed so many times before, each time some moments after `progress` says something
    new; gives how many times it was killed. Raises RuntimeError where it fails."""
    done = 0
    while True:
        before = progress()
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env=_environment(folder))
        while process.poll() is None and done < kills and progress() == before:
            time.sleep(0.001)
        if done < kills:
            time.sleep(random.uniform(0, MORE_S))
            process.kill()
        code = process.wait(END_S)
        if code == 0:
            return done
        if code > 0:
            raise RuntimeError(f"it ended with code {code}: {' '.join(command[3:])}")
        done += 1


def _environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "XDG_STATE_HOME": str(folder / "state")}


def _content(folder: Path, pattern: str) -> bytes:
    """Of the file that notes how far a command has come."""
    try:
        return b"".join(path.read_bytes() for path in folder.glob(pattern))
    except FileNotFoundError:  # it is at its end
        return b""


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def check(folder: Path, name: str, wanted: Counter[SpanKey], kills: int) -> bool:
    """Exports and imports in this format; says what came of it, and gives whether nothing is lost or there twice."""
    page_spans = str(max(1, wanted.total() // 50))
    clew = [sys.executable, "-c", COMMAND, page_spans]
    export = [*clew, "export", "--all", "--db", "from.duckdb", "--format", name, "-o", f"spans.{name}"]
    # What has begun a Parquet file cannot be gone on with; it has come somewhere when there is something of it.
    resumes = FORMATS[name].writer(None).state is not None
    notes = f"spans.{name}.{'resume' if resumes else 'part'}"
    exports = killed(export, folder, kills, lambda: _content(folder, notes) if resumes else _size(folder / notes))
    is_right = in_file(folder / f"spans.{name}", name) == wanted
    marks = "state/clew/imports/*.json"
    to_import = [*clew, "import", f"spans.{name}", "--db", f"{name}.duckdb"]
    imports = killed(to_import, folder, kills, lambda: _content(folder, marks))
    is_right &= in_store(folder / f"{name}.duckdb") == wanted
    said = "nothing lost, nothing twice" if is_right else "NOT EVERY SPAN ONCE"
    print(f"{name}: export killed {exports} times, import {imports} times: {said}", flush=True)
    return is_right and min(exports, imports) > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--spans", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--format", choices=FORMATS, action="append", help="several may be given; else all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        wanted = fill(folder / "from.duckdb", options.spans)
        results = [check(folder, each, wanted, options.kills) for each in options.format or FORMATS]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
