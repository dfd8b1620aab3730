"""/mcp, asked by the protocol's own client: what a coding agent can find out about its runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from mcp.client import Client

from clew.query import mcp_tools
from clew.storage import Store

RUN = "0000000000000000000000000000000a"
TOOLS = {"search", "runs", "tree", "event", "statistics", "sql", "schema"}


@pytest.fixture
def url(rows: Any, api_client: httpx.Client) -> str:
    """The address of a server with a run of two events."""
    rows.run(RUN, agent="engineer")
    rows.event(RUN, 1, event_type="agent_call", agent_name="engineer", attributes={"letter": "x" * 10_000})
    rows.event(RUN, 2, 1, at=5, status="failed", status_message="no bread")
    return f"{api_client.base_url}/mcp"


def _asked(url: str, tool: str, **arguments: object) -> Any:
    """What the tool answers a client."""

    async def ask() -> Any:
        async with Client(url) as client:
            return await client.call_tool(tool, arguments)

    return anyio.run(ask)


def _answer(url: str, tool: str, **arguments: object) -> Any:
    answer = _asked(url, tool, **arguments)
    assert not answer.is_error, answer.content
    return json.loads(answer.content[0].text)


def test_an_agent_is_told_what_it_can_ask(url: str) -> None:
    """Every tool with a sentence about it, and that it only reads; and where to begin."""

    async def list_tools() -> Any:
        async with Client(url) as client:
            return client.instructions, (await client.list_tools()).tools

    instructions, tools = anyio.run(list_tools)
    assert {tool.name for tool in tools} == TOOLS
    assert all(tool.description and tool.annotations.read_only_hint for tool in tools)
    assert all(f"`{word}`" in instructions for word in TOOLS)


ANSWERS: dict[str, tuple[dict[str, object], Callable[[Any], Any], Any]] = {
    "search": ({"filter": 'status = "failed"'}, lambda told: told["events"][0]["status_message"], "no bread"),
    "runs": ({"agent": "engineer"}, lambda told: [run["id"] for run in told["runs"]], [RUN]),
    "tree": ({"run_id": RUN}, lambda told: [event["depth"] for event in told["events"]], [0, 1]),
    "event": ({"run_id": RUN, "event_id": "0000000000000002"}, lambda told: told["status"], "failed"),
    "statistics": ({"run_id": RUN}, lambda told: told["errors"], 1),
    "sql": ({"query": "SELECT 6 * 7 AS answer"}, lambda told: told["rows"], [[42]]),
    "schema": ({}, lambda told: "execution_events" in json.dumps(told), True),
}


@pytest.mark.parametrize("tool", sorted(TOOLS))
def test_each_tool_answers(url: str, tool: str) -> None:
    """What the API says, in short."""
    arguments, found, expected = ANSWERS[tool]
    assert found(_answer(url, tool, **arguments)) == expected


def test_figures_of_any_events(url: str) -> None:
    """Without a run, statistics are those of what the filter means, by fields."""
    told = json.dumps(_answer(url, "statistics", filter="agent exists", group_by="agent"))
    assert "engineer" in told


def test_answers_are_short(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trees are cut at the limit and say so; long texts are cut; what is too long all the same is refused."""
    tree = _answer(url, "tree", run_id=RUN, limit=1)
    assert (len(tree["events"]), tree["left_out"]) == (1, 1)
    assert "attributes" not in tree["events"][0]
    letter = _answer(url, "event", run_id=RUN, event_id="0000000000000001")["attributes"]["letter"]
    assert letter.endswith("(10,000 characters)")
    assert len(letter) < 5_000
    monkeypatch.setattr(mcp_tools, "ANSWER_CHARACTERS_MAX", 100)
    refused = _asked(url, "schema")
    assert refused.is_error
    assert "100 are the most" in refused.content[0].text


def test_events_that_say_much_are_cut_more(url: str, rows: Any) -> None:
    """Many long texts in lists, as conversations are, still make an answer: shorter ones, and the first of lists."""
    rows.event(RUN, 3, 1, at=6, attributes={"messages": [{"role": "user", "content": "x" * 3_500}] * 300})
    messages = _answer(url, "event", run_id=RUN, event_id="0000000000000003")["attributes"]["messages"]
    assert messages[0] == {"role": "user", "content": "x" * 250 + "… (3,500 characters)"}
    assert messages[20:] == ["… (300 items)"]


def test_agents_turn_pages(url: str) -> None:
    """What is found goes on behind a cursor."""
    first = _answer(url, "search", limit=1)
    second = _answer(url, "search", limit=1, cursor=first["next_cursor"])
    assert [page["events"][0]["id"] for page in (first, second)] == ["0000000000000002", "0000000000000001"]


def test_one_table_is_told_of(url: str) -> None:
    """An agent that knows which it asks of need not read of all."""
    told = _answer(url, "schema", table="sessions")
    assert [table["name"] for table in told["tables"]] == ["sessions"]


def test_questions_are_not_logged(server: Any) -> None:
    """The protocol's package would have the server tell of each on standard error, in many lines."""
    url = f"{server.http_url}/mcp"
    assert _answer(url, "search", filter="secret") == _answer(url, "search", filter="nothing")
    assert _asked(url, "search", filter="name =").is_error
    assert server.stderr == ""


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("search", {"filter": "name ="}, "a value should be here"),
        ("tree", {"run_id": "f" * 32}, "there is no run"),
        ("sql", {"query": "DROP TABLE sessions"}, "SELECT"),
        ("statistics", {"run": RUN}, "statistics takes no 'run'; it takes run_id, filter"),
        ("schema", {"table": "span"}, "there is no table or view 'span'; there are "),
        ("tree", {"run_id": RUN, "limit": 401}, "tree: limit: Input should be less than or equal to 400"),
        ("search", {"limit": 0}, "search: limit: Input should be greater than or equal to 1"),
        ("tree", {}, "tree: run_id: Field required"),
    ],
)
def test_mistakes_are_said_to_the_agent(url: str, tool: str, arguments: dict[str, object], message: str) -> None:
    """As the API says them, so that it can mend its question."""
    answer = _asked(url, tool, **arguments)
    assert answer.is_error
    assert message in answer.content[0].text
    assert "\n" not in answer.content[0].text


@pytest.mark.parametrize(
    ("header", "status"), [({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)]
)
def test_a_page_of_another_site_is_refused(
    url: str, api_client: httpx.Client, header: dict[str, str], status: int
) -> None:
    """A name that was made to point here is not ours."""
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accepted = {"Accept": "application/json, text/event-stream"}
    assert api_client.post("/mcp", json=ping, headers=accepted).status_code < 400
    assert api_client.post("/mcp", json=ping, headers=accepted | header).status_code == status


def test_serving_does_not_wait_for_the_protocol(store: Store) -> None:
    """Its package is imported with the first question; without it, the question is answered with what to install."""
    script = """
import sys
sys.modules["mcp"] = None
import anyio, httpx
from prometheus_client import CollectorRegistry
from clew.query.app import build_app
from clew.storage import Store
async def ask(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
        return await client.post("/mcp", json={})
store = Store.open(sys.argv[1])
print(anyio.run(ask, build_app(store, registry=CollectorRegistry())).text)
"""
    path = str(store.path.with_name("other.duckdb"))
    ended = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True)
    assert "install clew[mcp]" in json.loads(ended.stdout)["error"]["message"]
