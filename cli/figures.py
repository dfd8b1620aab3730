"""The commands that reckon: figures of any events, two runs beside one another, what took a run its time, who calls
whom."""

import json
from typing import Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import AsJson, Limit, RunId, Url, asking, listed, one_of, say

CHANGES = ("added", "missing", "slower", "faster", "status", "attributes")

Since = Annotated[str | None, typer.Option(help="Only events that started after this: -1h, -7d, a date, or RFC 3339.")]
Until = Annotated[str | None, typer.Option(help="Only events that started before this.")]


def figures(
    text: Annotated[
        str | None, typer.Argument(metavar="FILTER", help="Which events: 'agent = engineer and duration > 1s'.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="""What to group by: agent,model or 'attributes["its.key"]'.""")
    ] = None,
    every: Annotated[str | None, typer.Option(help="Also by time, in buckets of 5m, 1h, 1d …")] = None,
    since: Since = None,
    until: Until = None,
    histogram: Annotated[bool, typer.Option("--histogram", help="Draw how many events lasted how long.")] = False,
    usage: Annotated[bool, typer.Option(help="Count tokens and cost; over millions of events that takes long.")] = True,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many groups at most.")] = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Reckon over the events of all runs: counts, errors, durations, tokens and cost, by any fields and by time."""
    wanted = {"filter": text, "group_by": by, "every": every, "since": since, "until": until, "limit": limit}
    with asking(url, text, group_by="--by") as client:
        answer = client.get("/api/statistics", **wanted, usage=usage, histogram=histogram)
    if as_json:
        say(answer)
    else:
        terminal.draw_figures(terminal.console(), json.loads(answer))


def compare(
    a: Annotated[str, typer.Argument(metavar="RUN", help="The run to compare with: its id or the start of it.")],
    b: Annotated[str | None, typer.Argument(metavar="RUN", help="The run to compare; else the latest run.")] = None,
    only: Annotated[
        str | None,
        typer.Option(help=f"Only {listed(CHANGES)}.", autocompletion=one_of(CHANGES)),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="By what share the longer exceeds the shorter to be shown.")
    ] = 0.1,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Compare two runs: what only one of them did, what took longer, what failed instead."""
    with asking(url, change="--only") as client:
        runs = {"a": client.run_id(a), "b": client.run_id(b)}
        answer = client.get("/api/runs/compare", **runs, change=only, tolerance=str(tolerance), limit=limit)
    if as_json:
        say(answer)
    else:
        terminal.draw_comparison(terminal.console(), json.loads(answer))


def critical_path(
    run: RunId = None,
    limit: Limit = 20,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Show what took a run its time: the events it waited for, and how long for each."""
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/critical-path", limit=limit)
    if as_json:
        say(answer)
    else:
        terminal.draw_critical_path(terminal.console(), json.loads(answer))


def calls(
    of: Annotated[str, typer.Option(help="agents or services.")] = "agents",
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List who calls whom: agents, or services, over all runs."""
    with asking(url) as client:
        answer = client.get("/api/calls", of=of, since=since, until=until, limit=limit)
    if as_json:
        say(answer)
    else:
        terminal.draw_calls(terminal.console(), json.loads(answer))
