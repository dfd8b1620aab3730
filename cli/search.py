"""The command that searches all runs."""

import json
from typing import Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import AsJson, Limit, Url, asking, say


def search(
    text: Annotated[
        str, typer.Argument(metavar="FILTER", help="What is meant: 'agent = engineer and duration > 1s', or words.")
    ],
    runs: Annotated[bool, typer.Option("--runs", help="List the runs that have such an event.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Only what began after this: -1h, -7d, a date, or RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only what began before this.")] = None,
    limit: Limit = 20,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Search all runs for events, newest first: by words, fields and attributes."""
    wanted = {"for": "runs" if runs else "events", "filter": text, "since": since, "until": until, "limit": limit}
    with asking(url, text) as client:
        answer = client.get("/api/search", **wanted)
    if as_json:
        say(answer)
    else:
        terminal.draw_found(terminal.console(), json.loads(answer))
