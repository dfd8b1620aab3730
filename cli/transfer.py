"""`clew export` and `clew import`: spans out of clew into files, and from files into it."""

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..settings import LOCAL_URL
from .asking import Url, asking, interruption_told, listed, mistakes_told, one_of, say, warn

if TYPE_CHECKING:
    from ..client import Client
    from ..transfer.ends import Sink, Spans
    from ..transfer.imports import Tally
    from ..transfer.output import Output

STDOUT = "-"
_NAMES = ("otlp-json", "otlp-proto", "parquet", "jaeger-json")
FORMATS = listed(_NAMES)
FORMAT_NAMES = one_of(_NAMES)

Database = Annotated[
    str | None,
    typer.Option("--db", metavar="PATH", help="A file that no server holds, instead of a server.", show_default=False),
]
Progress = Callable[[int, int], None]
RunsSince = Annotated[
    str | None, typer.Option(help="Only runs that began then or later: -1h, -7d, a date, or RFC 3339.")
]
RunsUntil = Annotated[str | None, typer.Option(help="Only runs that began before then.")]


def export_spans(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs' ids or the start of them.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Export all runs.")] = False,
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"{FORMATS}; else what --output's name speaks of.",
            autocompletion=FORMAT_NAMES,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to; .gz and .zst are compressed. Else, or with -, stdout."
        ),
    ] = None,
    since: RunsSince = None,
    until: RunsUntil = None,
    url: Url = LOCAL_URL,
    db: Database = None,
) -> None:
    """Export runs as OTLP, Parquet or Jaeger's JSON."""
    from ..client import ClientError
    from ..storage import StorageError
    from ..transfer import TransferError, formats
    from ..transfer.export import export

    with mistakes_told(TransferError, StorageError, ClientError), ExitStack() as stack:
        if not (runs or every or since or until):
            raise TransferError("name runs to export, or say --all; `clew runs` lists them")
        if runs and (every or since or until):
            raise TransferError("name runs to export, or choose them by --all, --since and --until, not both")
        output = None if output == Path(STDOUT) else output
        name = formats.checked(format_name) if format_name else formats.named(output.name if output else "")
        into = formats.FORMATS[name]
        spans = stack.enter_context(chosen_spans(runs or [], since, until, url, db))
        choice: dict[str, object] = {"runs": runs, "since": since, "until": until, "format": name, "from": db or url}
        written_to = _output(output, choice, into.is_text)
        if written_to.resumed:
            warn(f"going on after {written_to.resumed['spans']:,} spans that are in {output}.part already")
        goes_on = bool(output) and name != "parquet"
        what_now = "the same command goes on from here" if goes_on else "the same command starts again"
        with interruption_told(what_now), progress_bar("exporting", "spans") as progress:
            count = export(spans, written_to, into, progress)
        if output:
            say(f"{counted(count, 'span')} exported to {output}")


def import_files(
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, compressed or not; - for stdin.")],
    format_name: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help=f"{FORMATS}; else found out from the file.",
            autocompletion=FORMAT_NAMES,
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="Leave out lines and messages that cannot be read, and go on.")
    ] = False,
    url: Url = LOCAL_URL,
    db: Database = None,
) -> None:
    """Import files of OTLP, Parquet or Jaeger's JSON. What is there already is not stored twice."""
    from ..client import ClientError
    from ..storage import StorageError
    from ..transfer import TransferError, formats
    from ..transfer.imports import Import

    with mistakes_told(TransferError, StorageError, ClientError), ExitStack() as stack:
        of = formats.FORMATS[formats.checked(format_name)] if format_name else None
        _must_exist(files)  # before a file of spans is made for them
        sink = stack.enter_context(_sink(url, db))
        what_now = "what was taken is stored, and importing again stores nothing twice"
        with interruption_told(what_now), progress_bar("importing", "bytes") as progress:
            importing = Import(sink, warn, progress, keep_going)
            try:
                for file in files:
                    importing.file(file, of)
            except (TransferError, StorageError, ClientError):
                if importing.tally.taken:
                    _tell(importing.tally)
                raise
        _tell(importing.tally)
        if importing.tally.unread or importing.tally.rejected.total():
            raise typer.Exit(1)


def _must_exist(files: list[str]) -> None:
    from ..transfer import TransferError

    for file in files:
        if file != STDOUT and not Path(file).exists():
            raise TransferError(f"{file} cannot be opened: No such file or directory")


@contextmanager
def chosen_spans(runs: list[str], since: str | None, until: str | None, url: str, db: str | None) -> "Iterator[Spans]":
    """The spans chosen, of a server or of a file."""
    from ..transfer import TransferError
    from ..transfer.database import StoredSpans, opened_store, run_ids
    from ..transfer.server import ServerSpans

    first, last = _instant(since, 0), _instant(until, (1 << 63) - 1)
    if first > last:
        raise TransferError("--since is after --until: no run can have started between them")
    if db is None:
        with _server(url) as client:
            yield ServerSpans(client, [client.run_id(run) for run in runs], first, last)
    else:
        with opened_store(db, must_exist=True) as store:
            yield StoredSpans.of(store, run_ids(store, runs), first, last)


@contextmanager
def _sink(url: str, db: str | None) -> "Iterator[Sink]":
    from ..transfer.database import StoreSink, opened_store
    from ..transfer.server import ServerSink

    if db is None:
        with _server(url) as client, closing(ServerSink(client)) as to_server:
            yield to_server
    else:
        with opened_store(db) as store, closing(StoreSink(store)) as to_store:
            yield to_store


@contextmanager
def _server(url: str) -> "Iterator[Client]":
    with asking(url) as client:
        client.get("/readyz")
        yield client


def _instant(text: str | None, otherwise: int) -> int:
    from ..query.parameters import parse_instant
    from ..transfer import TransferError

    try:
        return otherwise if text is None else parse_instant(text)
    except ValueError as error:
        raise TransferError(str(error)) from error


def _output(path: Path | None, choice: dict[str, object], is_text: bool) -> "Output":
    from ..transfer import TransferError
    from ..transfer.output import CODING_SUFFIXES, StreamOutput, output_to

    if path is not None and choice["format"] == "parquet" and path.suffix in CODING_SUFFIXES:
        raise TransferError(f"a Parquet file is compressed within; name it {path.with_suffix('').name}")
    if path is not None:
        return output_to(path, choice)
    if sys.stdout.isatty() and not is_text:
        raise TransferError("this format is not for a terminal; name a file with --output, or pipe it on")
    return StreamOutput(sys.stdout.buffer)


@contextmanager
def progress_bar(doing: str, unit: str) -> Iterator[Progress]:
    """A bar on stderr; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    count = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeRemainingColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total or None)


def _tell(tally: "Tally") -> None:
    if tally.skipped:
        say(f"{counted(tally.skipped, 'part')} imported before")
    nouns = {"traces": "span", "logs": "log record", "metrics": "data point"}
    told = [counted(tally.taken[signal], noun) for signal, noun in nouns.items() if tally.taken[signal]]
    say(f"{', '.join(told) or 'nothing'} imported")
    for signal, noun in nouns.items():
        if tally.rejected[signal]:
            warn(f"{counted(tally.rejected[signal], noun)} refused by the server")
    if tally.unread:
        warn(f"{counted(tally.unread, 'part')} left out, which could not be read")


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
