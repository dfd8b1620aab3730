"""What a coding agent can ask: tools of the Model Context Protocol. Each puts its question to the HTTP API, so that it
answers as that does; answers are kept short, since whoever reads them pays by the word."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import httpx
from fastapi import FastAPI
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.types import CallToolResult, InputRequiredResult, ToolAnnotations
from pydantic import Field, ValidationError

from .. import __version__

ANSWER_CHARACTERS_MAX = 100_000
TEXT_CHARACTERS_MAX = 4_000
ROWS_MAX = 1_000
# As many as fit into an answer, in all that is told of them.
TREE_EVENTS_MAX = 400
# Characters of a text and items of a list that are told of an event; where that is too much, the next.
_CUTS = ((TEXT_CHARACTERS_MAX, ANSWER_CHARACTERS_MAX), (1_000, 100), (250, 20))

_INSTRUCTIONS = (
    "clew has the traces of agents' workflows: a run is one workflow, its events are the spans: model calls, tool "
    "calls, agents' turns, hand-overs. Begin with `search` or `runs`, look at a run with `tree`, at one event with "
    "`event`; reckon with `statistics`, or with `sql` after `schema`. Nothing can be changed."
)
_SHOWN = (
    *("id", "parent_event_id", "depth", "name", "event_type", "agent_name", "model", "status", "status_message"),
    *("started_at_unix_nano", "duration_ns", "input_tokens", "output_tokens", "cost_usd", "run"),
)

RunId = Annotated[str, Field(description="The run's id: 32 hex digits.")]
Filter = Annotated[
    str,
    Field(
        description='Such as: agent = "engineer" and duration > 1s and not status = "completed". Fields are name, '
        "event_type, agent, model, service, status (running, completed, failed), duration, input_tokens, "
        "output_tokens, cost and columns of execution_events; attributes are "
        'attributes["http.route"]. Operators are = != < <= > >= =~ (a pattern) in (...) exists, and, or, not, '
        "parentheses. Words in quotes are looked for in all texts."
    ),
]
Cursor = Annotated[str | None, Field(description="The next_cursor of the page before, to go on behind it.")]
Time = Annotated[
    str | None, Field(description="RFC 3339, a date, nanoseconds since 1970, or a time before now such as -1h.")
]


def mcp_server(app: FastAPI) -> MCPServer[Any]:
    """A server whose tools ask `app`."""
    with _logging_left_alone():
        server = _Server("clew", version=__version__, instructions=_INSTRUCTIONS)
    tools = Tools(httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://clew"))
    for tool in (tools.search, tools.runs, tools.tree, tools.event, tools.statistics, tools.sql, tools.schema):
        only_reads = ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False)
        server.tool(annotations=only_reads, structured_output=False)(tool)
    return server


@contextmanager
def _logging_left_alone() -> Iterator[None]:
    """Within, mcp would have the whole process log from INFO on, questions that are asked among it, did nobody log."""
    root, somebody = logging.getLogger(), logging.NullHandler()
    root.addHandler(somebody)
    try:
        yield
    finally:
        root.removeHandler(somebody)


class _Server(MCPServer[Any]):
    """Refuses arguments that a tool does not take, since an answer that leaves them out would look like one to them; of
    others it tells in a line what is wrong."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        for tool in await self.list_tools():
            taken = tool.input_schema.get("properties", {})
            if tool.name == name and (unknown := [said for said in arguments if said not in taken]):
                raise ToolError(f"{name} takes no {unknown[0]!r}; it takes {', '.join(taken) or 'nothing'}")
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if isinstance(error.__cause__, ValidationError):
                raise ToolError(_mistake(name, error.__cause__)) from error
            raise


def _mistake(name: str, error: ValidationError) -> str:
    """What is wrong with the arguments of the tool, the first of it."""
    first = error.errors()[0]
    return f"{name}: {'.'.join(map(str, first['loc']))}: {first['msg']}"


class Tools:
    """The tools. Their names, signatures and docstrings are what an agent reads of them. Each answers JSON; what cannot
    be answered is said in a sentence."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def search(
        self,
        filter: Filter = "",  # noqa: A002 as the API calls it
        since: Time = None,
        until: Time = None,
        limit: Annotated[int, Field(ge=1, le=200)] = 20,
        cursor: Cursor = None,
    ) -> str:
        """Find events across all runs, newest first: failures, slow calls, what an agent did, words in prompts."""
        asked = {"filter": filter, "since": since, "until": until, "limit": limit, "cursor": cursor}
        found = await self._get("/api/search", **asked)
        return _told({**found, "events": [_brief(event) for event in found["events"]]})

    async def runs(
        self,
        status: Annotated[str | None, Field(description="running, completed or failed")] = None,
        agent: str | None = None,
        since: Time = None,
        limit: Annotated[int, Field(ge=1, le=200)] = 20,
        cursor: Cursor = None,
    ) -> str:
        """List runs, newest first: name, agent, status, duration, how many events and errors."""
        asked = {"status": status, "agent": agent, "since": since, "limit": limit, "cursor": cursor}
        return _told(await self._get("/api/runs", **asked))

    async def tree(
        self,
        run_id: RunId,
        root: Annotated[str | None, Field(description="Only this event and what is below it: 16 hex digits.")] = None,
        limit: Annotated[int, Field(ge=1, le=TREE_EVENTS_MAX)] = 200,
    ) -> str:
        """A run's events depth first, each with its depth: what called what, how long it took, what failed."""
        tree = await self._get(f"/api/runs/{run_id}/tree", root=root, limit=limit)
        return _told({**tree, "events": [_brief(event) for event in tree["events"]]})

    async def event(
        self, run_id: RunId, event_id: Annotated[str, Field(description="The event's id: 16 hex digits.")]
    ) -> str:
        """One event with everything it has: attributes (prompts, inputs, outputs), logs, links. Long texts are cut, and
        where there is too much of them lists too."""
        event = await self._get(f"/api/runs/{run_id}/events/{event_id}")
        cuts = (_cut(event, *most) for most in _CUTS)
        return _told(next((cut for cut in cuts if len(_text(cut)) <= ANSWER_CHARACTERS_MAX), event))

    async def statistics(
        self,
        run_id: Annotated[
            str | None, Field(description="The figures of this run; else of the events of all runs.")
        ] = None,
        filter: Filter = "",  # noqa: A002
        group_by: Annotated[str | None, Field(description="Fields by commas, such as agent,model.")] = None,
        since: Time = None,
    ) -> str:
        """Events, errors, durations, tokens and cost: of one run, or of any events by any fields."""
        if run_id is not None and not (filter or group_by or since):
            return _told(await self._get(f"/api/runs/{run_id}/statistics"))
        if run_id is not None:
            filter = f"run_id = {run_id}" + (f" and ({filter})" if filter else "")  # noqa: A001
        return _told(await self._get("/api/statistics", filter=filter, group_by=group_by, since=since))

    async def sql(self, query: str, limit: Annotated[int, Field(ge=1, le=ROWS_MAX)] = 100) -> str:
        """Answer one SELECT (DuckDB's SQL, read-only) over the tables and views that `schema` tells of."""
        return _told(await self._answer("POST", "/api/sql", json={"query": query, "limit": limit}))

    async def schema(
        self, table: Annotated[str | None, Field(description="Only this table or view; else all of them.")] = None
    ) -> str:
        """The tables and views that `sql` can ask of, and their columns, with a sentence each."""
        schema = await self._get("/api/sql/schema")
        named = [each for each in schema["tables"] if table in (None, each["name"])]
        if not named:
            names = ", ".join(each["name"] for each in schema["tables"])
            raise ToolError(f"there is no table or view {table!r}; there are {names}")
        return _told({**schema, "tables": named})

    async def _get(self, path: str, **asked: str | int | None) -> Any:
        given = {name: value for name, value in asked.items() if value is not None and value != ""}
        return await self._answer("GET", path, params=given)

    async def _answer(self, method: str, path: str, **asked: Any) -> Any:
        answer = await self._http.request(method, path, **asked)
        if not answer.is_success:
            raise ToolError(answer.json()["error"]["message"])
        return answer.json()


def _brief(event: dict[str, Any]) -> dict[str, Any]:
    """What is worth reading of many events."""
    return {name: event[name] for name in _SHOWN if event.get(name) is not None}


def _cut(value: Any, characters: int, items: int) -> Any:
    if isinstance(value, dict):
        return {key: _cut(inner, characters, items) for key, inner in value.items()}
    if isinstance(value, list):
        left_out = [f"… ({len(value):,} items)"] if len(value) > items else []
        return [_cut(inner, characters, items) for inner in value[:items]] + left_out
    if isinstance(value, str) and len(value) > characters:
        return f"{value[:characters]}… ({len(value):,} characters)"
    return value


def _told(answer: Any) -> str:
    text = _text(answer)
    if len(text) > ANSWER_CHARACTERS_MAX:
        raise ToolError(
            f"the answer has {len(text):,} characters, {ANSWER_CHARACTERS_MAX:,} are the most; ask for less: a smaller "
            "limit, a narrower filter, or some columns with `sql`"
        )
    return text


def _text(answer: Any) -> str:
    return json.dumps(answer, ensure_ascii=False, separators=(",", ":"))
