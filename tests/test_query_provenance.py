"""What belongs to events, over HTTP: files, messages, costs, and where a file comes from."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import httpx
import pytest

from clew.query import answers
from clew.query import provenance_answers as told
from clew.query.messages import FULL_CHARACTERS_MAX
from clew.query.parameters import CONTENT_CHARACTERS
from clew.storage import CostRecord, File, Message

RUN, OTHER = "a1" * 16, "b2" * 16


def _file(rows: Any, run_id: str, number: int, *, at: int = 0, path: str = "plot.png", **more: Any) -> str:
    """A file whose id is `number` in hex."""
    said = {"file_type": "plot", "role": "output", **more}
    rows.add(File(id=f"{number:032x}", run_id=run_id, file_path=path, created_at_unix_nano=rows.START + at, **said))
    return f"{number:032x}"


def _message(rows: Any, run_id: str, content: str, *, at: int = 0, **more: Any) -> None:
    rows.add(Message(run_id=run_id, content=content, time_unix_nano=rows.START + at, **more))


def _cost(rows: Any, run_id: str, event_id: str | None, usd: str | None, *, at: int = 0, **more: Any) -> None:
    cost_usd = None if usd is None else Decimal(usd)
    said = {"source": "reported", "cost_usd": cost_usd, "time_unix_nano": rows.START + at, **more}
    rows.add(CostRecord(run_id=run_id, event_id=event_id, **said))


# Runs.


def test_run_tells_what_it_works_on(rows: Any, api_reader: Any) -> None:
    """The project, the task and how it is worked on."""
    said = {"project_id": "cd" * 16, "task_id": "t", "mode": "one_shot", "model": "large", "task_description": "draw"}
    rows.run(RUN, **said)

    run = api_reader.get(f"/api/runs/{RUN}", answers.Run)

    assert {name: run[name] for name in said} == said


# Files of a run.


def test_file_tells_the_event_that_wrote_it(rows: Any, api_reader: Any) -> None:
    """A file comes with its event in few words, and with all that is known of the file."""
    event = rows.event(rows.run(RUN), 1, name="write plot", event_type="file_gen", agent_name="engineer")
    file = _file(rows, RUN, 1, at=5, event_id=event, size_bytes=7, content_hash="ab" * 32, node_id="n", step_id="s")

    assert api_reader.get(f"/api/runs/{RUN}/files", told.FilePage) == {
        "files": [
            {
                "id": file,
                "file_path": "plot.png",
                "file_type": "plot",
                "role": "output",
                "size_bytes": 7,
                "content_hash": "ab" * 32,
                "node_id": "n",
                "step_id": "s",
                "created_at_unix_nano": str(rows.START + 5),
                "event": {"id": event, "name": "write plot", "event_type": "file_gen", "agent_name": "engineer"},
            }
        ],
        "next_cursor": None,
    }


def test_file_whose_event_has_not_come(rows: Any, api_reader: Any) -> None:
    """A file can come before its event, which then is just an id; a file of no event has none."""
    rows.run(RUN)
    _file(rows, RUN, 1, event_id="00000000000000ff")
    _file(rows, RUN, 2, at=1)

    files = api_reader.get(f"/api/runs/{RUN}/files", told.FilePage)["files"]

    assert [file["event"] for file in files] == [
        {"id": "00000000000000ff", "name": None, "event_type": None, "agent_name": None},
        None,
    ]


def test_pages_hold_every_file_once_in_order_of_time(rows: Any, api_reader: Any) -> None:
    """Following the cursor meets every file of the run once, by time, then id; also where times are equal."""
    rows.run(RUN)
    rows.run(OTHER)
    files = [_file(rows, RUN, 100 - number, at=number // 3) for number in range(8)]
    _file(rows, OTHER, 200)

    met = api_reader.all_pages(f"/api/runs/{RUN}/files", told.FilePage, "files", limit=3)

    assert [file["id"] for file in met] == sorted(files, key=lambda file: ((100 - int(file, 16)) // 3, file))


def test_files_can_be_narrowed(rows: Any, api_reader: Any) -> None:
    """By role, by type, by both."""
    rows.run(RUN)
    for number, (role, file_type) in enumerate([("output", "plot"), ("input", "data"), ("output", "data")]):
        _file(rows, RUN, number + 1, role=role, file_type=file_type)

    def found(**filters: str) -> list[int]:
        return [
            int(file["id"], 16) for file in api_reader.get(f"/api/runs/{RUN}/files", told.FilePage, **filters)["files"]
        ]

    assert found(role="output") == [1, 3]
    assert found(file_type="data") == [2, 3]
    assert found(role="output", file_type="data") == [3]


# Messages.


def test_messages_come_in_order_with_their_events(rows: Any, api_reader: Any) -> None:
    """Messages stand by time, then as they came, by pages, each with its event."""
    event = rows.event(rows.run(RUN), 1, name="chat", event_type="agent_call", agent_name="planner")
    for at, content in ((9, "last"), (3, "first"), (5, "second"), (5, "third")):
        _message(rows, RUN, content, at=at, event_id=event, sender="ada", recipient="planner", role="user", tokens=3)

    met = api_reader.all_pages(f"/api/runs/{RUN}/messages", told.MessagePage, "messages", limit=2)

    assert [message["content"] for message in met] == ["first", "second", "third", "last"]
    assert {name: value for name, value in met[0].items() if name != "id"} == {
        "sender": "ada",
        "recipient": "planner",
        "role": "user",
        "content": "first",
        "content_length": 5,
        "tokens": 3,
        "node_id": None,
        "step_id": None,
        "time_unix_nano": str(rows.START + 3),
        "event": {"id": event, "name": "chat", "event_type": "agent_call", "agent_name": "planner"},
    }


def test_messages_can_be_narrowed(rows: Any, api_reader: Any) -> None:
    """By sender, by recipient, by the agent of the event."""
    rows.run(RUN)
    planner, engineer = (rows.event(RUN, number, agent_name=name) for number, name in ((1, "planner"), (2, "engineer")))
    _message(rows, RUN, "plan", sender="ada", recipient="planner", event_id=planner)
    _message(rows, RUN, "build", sender="planner", recipient="engineer", event_id=planner)
    _message(rows, RUN, "done", sender="engineer", recipient="planner", event_id=engineer)

    def found(**filters: str) -> list[str]:
        page = api_reader.get(f"/api/runs/{RUN}/messages", told.MessagePage, **filters)
        return [message["content"] for message in page["messages"]]

    assert found(sender="planner") == ["build"]
    assert found(recipient="planner") == ["plan", "done"]
    assert found(agent_name="planner") == ["plan", "build"]
    assert found(agent_name="planner", recipient="planner") == ["plan"]


def test_long_contents_are_cut_unless_asked_for(rows: Any, api_reader: Any) -> None:
    """Contents are cut after so many characters, not bytes; `full` gives all of them; the length is told both times."""
    rows.run(RUN)
    contents = ["é" * CONTENT_CHARACTERS, "é" * CONTENT_CHARACTERS + "x", "short"]
    for at, content in enumerate(contents):
        _message(rows, RUN, content, at=at)

    cut = api_reader.get(f"/api/runs/{RUN}/messages", told.MessagePage)["messages"]
    full = api_reader.get(f"/api/runs/{RUN}/messages", told.MessagePage, full=True)["messages"]

    assert [message["content"] for message in cut] == [content[:CONTENT_CHARACTERS] for content in contents]
    assert [message["content"] for message in full] == contents
    lengths = [CONTENT_CHARACTERS, CONTENT_CHARACTERS + 1, 5]
    assert [[message["content_length"] for message in page] for page in (cut, full)] == [lengths, lengths]


def test_full_contents_have_a_limit(
    rows: Any, api_client: httpx.Client, api_reader: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full contents beyond what an answer may hold are refused; fewer of them are given."""
    assert FULL_CHARACTERS_MAX > 64 << 20, "one message, as large as a request may be, fits"
    monkeypatch.setattr("clew.query.messages.FULL_CHARACTERS_MAX", 5_000)
    rows.run(RUN)
    for at in range(2):
        _message(rows, RUN, "x" * 3_000, at=at)

    refused = api_client.get(f"/api/runs/{RUN}/messages?full=true")

    assert (refused.status_code, refused.json()["error"]["code"]) == (422, "answer_too_large")
    assert len(api_reader.all_pages(f"/api/runs/{RUN}/messages", told.MessagePage, "messages", full=True, limit=1)) == 2


# Costs.


def test_costs_are_summed_up_by_model_and_agent(rows: Any, api_reader: Any) -> None:
    """The sums are exact, of all records whatever the page, dearest first; what is estimated is told apart."""
    event = rows.event(rows.run(RUN), 1, agent_name="planner")
    _cost(rows, RUN, event, "0.1", model="small", agent_name="planner", prompt_tokens=7, total_tokens=9)
    _cost(rows, RUN, None, "0.2", model="small", agent_name="engineer", at=1, source="estimated")
    _cost(rows, RUN, None, "0.7", model="large", agent_name="engineer", at=2)
    _cost(rows, RUN, None, None, at=3)

    page = api_reader.get(f"/api/runs/{RUN}/costs", told.CostPage, limit=1)

    assert (page["total"]["records"], page["total"]["cost_usd"], page["total"]["estimated_usd"]) == (4, 1.0, 0.2)
    assert (page["total"]["prompt_tokens"], page["total"]["total_tokens"]) == (7, 9)
    assert [(one["model"], one["records"], one["cost_usd"]) for one in page["by_model"]] == [
        ("large", 1, 0.7),
        ("small", 2, 0.3),
        (None, 1, None),
    ]
    assert [(one["agent_name"], one["cost_usd"]) for one in page["by_agent"]] == [
        ("engineer", 0.9),
        ("planner", 0.1),
        (None, None),
    ]
    assert [(cost["source"], cost["cost_usd"], cost["event"]["agent_name"]) for cost in page["costs"]] == [
        ("reported", 0.1, "planner")
    ]
    listed = api_reader.all_pages(f"/api/runs/{RUN}/costs", told.CostPage, "costs", limit=1)
    assert [cost["cost_usd"] for cost in listed] == [0.1, 0.2, 0.7, None]
    estimated = api_reader.get(f"/api/runs/{RUN}/costs", told.CostPage, source="estimated")
    assert (estimated["total"]["records"], estimated["total"]["cost_usd"]) == (1, 0.2)


# Where a file comes from.


def test_file_tells_message_and_cost_of_each_event(rows: Any, api_reader: Any) -> None:
    """Newest first and across runs: the run, the event, the latest message of the nearest event on the way up that has
    one, and the cost of the event and all below it."""
    rows.run(RUN, name="brief", agent="planner")
    rows.run(OTHER, at=100)
    top = rows.event(RUN, 1, agent_name="planner")
    asked = rows.event(RUN, 2, 1, at=1)
    wrote = rows.event(RUN, 3, 2, at=2, agent_name="engineer")
    below = rows.event(RUN, 4, 3, at=3)
    beside = rows.event(RUN, 5, 2, at=4)
    read = rows.event(OTHER, 3, at=100)
    _message(rows, RUN, "of the top", event_id=top, at=9)
    _message(rows, RUN, "first", event_id=asked, at=1)
    _message(rows, RUN, "draw it", event_id=asked, at=2, sender="planner", recipient="engineer", role="user")
    _message(rows, RUN, "of a neighbour", event_id=beside, at=9)
    _message(rows, OTHER, "of another run's event with the same id", event_id=read)
    for event, usd in ((wrote, "0.1"), (below, "0.2"), (beside, "4"), (top, "8")):
        _cost(rows, RUN, event, usd)
    _file(rows, RUN, 1, at=2, event_id=wrote)
    _file(rows, OTHER, 2, at=100, event_id=read, role="input")
    _file(rows, OTHER, 3, at=100, path="plot.png.bak")

    newer, older = api_reader.get("/api/files", told.FileEventPage, path="plot.png")["file_events"]

    assert (newer["run"]["id"], newer["role"], newer["cost_usd"]) == (OTHER, "input", None)
    assert newer["message"]["content"] == "of another run's event with the same id"
    assert older["run"] == {"id": RUN, "session_id": "default", "name": "brief", "agent": "planner"}
    assert (older["event"]["id"], older["event"]["agent_name"], older["role"]) == (wrote, "engineer", "output")
    assert (older["message"]["content"], older["message"]["event_id"]) == ("draw it", asked)
    assert (older["message"]["sender"], older["message"]["recipient"]) == ("planner", "engineer")
    assert older["cost_usd"] == 0.3


def test_message_of_a_call_beside_it_leads_to_a_file(rows: Any, api_reader: Any) -> None:
    """Where nothing was said on the way up, what was said last before the event counts, in the order of the tree; what
    was said after it does not."""
    rows.run(RUN)
    for number, parent in ((1, None), (2, 1), (3, 1), (4, 1), (5, 1)):
        rows.event(RUN, number, parent, at=number)
    for number in (2, 3, 5):
        _message(rows, RUN, f"said by {number}", event_id=f"{number:016x}", at=number)
    _file(rows, RUN, 1, event_id=f"{4:016x}")

    [file] = api_reader.get("/api/files", told.FileEventPage, path="plot.png")["file_events"]

    assert file["message"]["content"] == "said by 3"


def test_file_of_an_event_that_never_came(rows: Any, api_reader: Any) -> None:
    """A file of no event, or of one that has not come, knows no cost; a message of that event is known already."""
    rows.run(RUN)
    _file(rows, RUN, 1)
    _file(rows, RUN, 2, event_id="00000000000000ff")
    _message(rows, RUN, "early", event_id="00000000000000ff")
    _cost(rows, RUN, "00000000000000fe", "1")

    early, none = api_reader.get("/api/files", told.FileEventPage, path="plot.png")["file_events"]

    assert (early["event"]["id"], early["message"]["content"], early["cost_usd"]) == ("00000000000000ff", "early", None)
    assert (none["event"], none["message"], none["cost_usd"]) == (None, None, None)


def test_files_are_found_by_the_start_of_their_path(rows: Any, api_reader: Any) -> None:
    """`path_prefix` means what it says, also where it holds signs that SQL patterns use; pages hold each once."""
    rows.run(RUN)
    rows.run(OTHER)
    for number, path in enumerate(["out/a_1", "out/a_2", "out/ab2", "in/out/a_3", "out/a_4"]):
        _file(
            rows, RUN if number % 2 else OTHER, number + 1, at=7, path=path, role="input" if number == 1 else "output"
        )

    def found(**parameters: str | int) -> list[str]:
        met = api_reader.all_pages("/api/files", told.FileEventPage, "file_events", **parameters)
        return [file["file_path"] for file in met]

    assert found(path_prefix="out/a_", limit=2) == ["out/a_4", "out/a_2", "out/a_1"]
    assert found(path_prefix="out/a_", role="input") == ["out/a_2"]
    assert found(path="out/a_") == []


# What cannot be answered.


@pytest.mark.parametrize(
    ("path", "status", "parameter"),
    [(f"/api/runs/{OTHER}/{part}", 404, "run_id") for part in ("files", "messages", "graph", "history", "costs")]
    + [
        ("/api/nodes/nowhere/events", 404, "node_id"),
        (f"/api/nodes/nowhere/events?run_id={RUN}", 404, "node_id"),
        (f"/api/nodes/nowhere/events?run_id={OTHER}", 404, "run_id"),
        ("/api/nodes/n/events?run_id=x", 400, "run_id"),
        (f"/api/runs/{RUN}/files?cursor=x", 400, "cursor"),
        (f"/api/runs/{RUN}/messages?cursor=WzEsIjEyMzQ1Njc4OTAxMjM0NTY3ODkwIl0", 400, "cursor"),
        (f"/api/runs/{RUN}/files?limit=1001", 400, "limit"),
        ("/api/files?path=a&limit=101", 400, "limit"),
    ],
)
def test_what_cannot_be_answered_is_told(
    rows: Any, api_client: httpx.Client, path: str, status: int, parameter: str
) -> None:
    """The error names the parameter to blame."""
    rows.run(RUN)

    response = api_client.get(path)

    assert (response.status_code, response.json()["error"]["parameter"]) == (status, parameter)


@pytest.mark.parametrize("query", ["", "?path=a&path_prefix=b"])
def test_files_across_runs_have_to_be_named(api_client: httpx.Client, query: str) -> None:
    """One of `path` and `path_prefix`, and the error says so."""
    refused = api_client.get(f"/api/files{query}")

    assert (refused.status_code, refused.json()["error"]["parameter"]) == (400, "path")
    assert "?path_prefix=" in refused.json()["error"]["message"]


def test_run_without_any(rows: Any, api_reader: Any) -> None:
    """A run that has none of it answers with empty lists and no cost."""
    rows.run(RUN)

    assert api_reader.get(f"/api/runs/{RUN}/graph", told.Graph) == {"run_id": RUN, "nodes": [], "edges": []}
    costs = api_reader.get(f"/api/runs/{RUN}/costs", told.CostPage)
    assert (costs["total"]["records"], costs["total"]["cost_usd"], costs["by_model"], costs["costs"]) == (
        0,
        None,
        [],
        [],
    )
    for part, model in (("files", told.FilePage), ("messages", told.MessagePage)):
        assert api_reader.get(f"/api/runs/{RUN}/{part}", model) == {part: [], "next_cursor": None}
