"""The commands that read one run, or list runs."""

import json
from typing import Annotated

import typer

from .. import terminal
from ..settings import LOCAL_URL
from .asking import AsJson, Limit, RunId, Url, asking, listed, one_of, say

TREE_DEPTH = 12
TREE_LINES = 200
STATUSES = ("running", "completed", "failed")


def runs(
    session: Annotated[str | None, typer.Option(help="Only runs of this session.")] = None,
    status: Annotated[
        str | None,
        typer.Option(help=f"Only {listed(STATUSES)} runs.", autocompletion=one_of(STATUSES)),
    ] = None,
    agent: Annotated[str | None, typer.Option(help="Only runs of this agent.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only runs that began after this: -1h, -7d, a date, or RFC 3339.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Only runs that began before this.")] = None,
    limit: Limit = 20,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List runs, newest first."""
    began = {"since": since, "until": until}
    filters = {"session_id": session, "status": status, "agent": agent, **began, "limit": limit}
    with asking(url) as client:
        answer = client.get("/api/runs", **filters)
    if as_json:
        say(answer)
    else:
        terminal.draw_runs(terminal.console(), json.loads(answer))


def tree(
    run: RunId = None,
    root: Annotated[str | None, typer.Option(metavar="EVENT", help="Draw this event and what is below it.")] = None,
    depth: Annotated[int, typer.Option(min=0, help="How many levels below the top to draw.")] = TREE_DEPTH,
    limit: Annotated[int, typer.Option(min=1, help="How many lines to draw at most.")] = TREE_LINES,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """Draw a run as a tree of its events."""
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/tree", root=root)
    if as_json:
        say(answer)
    else:
        terminal.draw_tree(terminal.console(), json.loads(answer), depth_max=depth, lines_max=limit)


def stats(run: RunId = None, url: Url = LOCAL_URL, as_json: AsJson = False) -> None:
    """Sum a run up: durations, errors, tokens and cost, by agent, type and model."""
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/statistics")
    if as_json:
        say(answer)
    else:
        terminal.draw_statistics(terminal.console(), json.loads(answer))


def files(
    run: RunId = None,
    role: Annotated[str | None, typer.Option(help="Only output (written) or input (read) files.")] = None,
    file_type: Annotated[str | None, typer.Option("--type", help="Only files of this type.")] = None,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List the files of a run and who wrote or read them, in order of time."""
    filters = {"role": role, "file_type": file_type, "limit": limit}
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/files", **filters)
    if as_json:
        say(answer)
    else:
        terminal.draw_files(terminal.console(), json.loads(answer))


def messages(
    run: RunId = None,
    sender: Annotated[str | None, typer.Option(help="Only messages from this sender.")] = None,
    recipient: Annotated[str | None, typer.Option(help="Only messages to this recipient.")] = None,
    agent: Annotated[str | None, typer.Option(help="Only messages of this agent's events.")] = None,
    full: Annotated[bool, typer.Option("--full", help="Show contents whole, not one line each.")] = False,
    limit: Limit = 50,
    url: Url = LOCAL_URL,
    as_json: AsJson = False,
) -> None:
    """List the messages of a run: who said what to whom, in order of time."""
    filters = {"sender": sender, "recipient": recipient, "agent_name": agent, "full": full or None, "limit": limit}
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/messages", **filters)
    if as_json:
        say(answer)
    else:
        terminal.draw_messages(terminal.console(), json.loads(answer), full=full)


def graph(run: RunId = None, url: Url = LOCAL_URL, as_json: AsJson = False) -> None:
    """Draw the graph of a run: its nodes in working order, each with what it waits for."""
    with asking(url) as client:
        answer = client.get(f"/api/runs/{client.run_id(run)}/graph")
    if as_json:
        say(answer)
    else:
        terminal.draw_graph(terminal.console(), json.loads(answer))
