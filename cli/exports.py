"""The commands about other backends: how what is sent on to them gets there, and history to send."""

import json
from contextlib import ExitStack, closing
from typing import Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import AsJson, Url, asking, interruption_told, mistakes_told, say, warn
from .transfer import Database, RunsSince, RunsUntil, chosen_spans, counted, progress_bar


def exports(url: Url = LOCAL_URL, as_json: AsJson = False) -> None:
    """Show how far each backend has got what `clew serve --export` sends on to it."""
    with asking(url) as client:
        answer = client.get("/api/exports")
    if as_json:
        say(answer)
    else:
        terminal.draw_exports(terminal.console(), json.loads(answer))


def export_to(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where to, as for `serve --export`: a URL.")],
    run: Annotated[list[str] | None, typer.Option(help="Only this run: its id or the start of it; repeatable.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Send all runs.")] = False,
    since: RunsSince = None,
    until: RunsUntil = None,
    url: Url = LOCAL_URL,
    db: Database = None,
) -> None:
    """Send runs that are here already to another backend. Interrupted, the same command goes on where it was."""
    from ..client import ClientError
    from ..exporter.senders import sender_to
    from ..exporter.targets import BadTarget, Target
    from ..storage import StorageError
    from ..transfer import TransferError
    from ..transfer.sending import Bookmark, send

    with mistakes_told(BadTarget, TransferError, StorageError, ClientError), ExitStack() as stack:
        if not (run or every or since or until):
            raise TransferError("name runs to send with --run or --since, or say --all; `clew runs` lists them")
        to = Target.parse(target)
        if to.filter:
            raise TransferError("whole runs are sent: leave the filter out of the URL, and choose runs with --run")
        sender = stack.enter_context(closing(sender_to(to)))
        spans = stack.enter_context(chosen_spans(run or [], since, until, url, db))
        bookmark = Bookmark.of({"to": to.address, "runs": run, "since": since, "until": until, "from": db or url})
        if begun := bookmark.read():
            warn(f"going on after {counted(begun['taken'], 'span')} that were sent already")
        with interruption_told("the same command goes on from here"), progress_bar("sending", "spans") as progress:
            sent = send(spans, to.name, sender, bookmark, progress)
        say(f"{counted(sent.taken, 'span')} sent to {to.address}")
        if sent.refused:
            warn(f"{counted(sent.refused, 'span')} refused by the target; they are named above")
            raise typer.Exit(1)
