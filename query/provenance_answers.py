"""What the API answers about what belongs to events, for the documentation at /docs; as `answers` has the rest."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from .answers import Answer, Cursor, Event, Hex16, Hex32, UnixNano
from .parameters import CONTENT_CHARACTERS

Dollars = Annotated[float | None, Field(description="Null where nothing is told of a cost.")]


class EventBrief(Answer):
    """Which event it was. All but the id are null for an event that has not come yet."""

    id: Hex16
    name: str | None
    event_type: str | None
    agent_name: str | None


class FileAnswer(Answer):
    """A file at the moment it was written or read."""

    id: Hex32
    file_path: str
    file_type: str
    role: Annotated[str | None, Field(description="output: written; input: read.")]
    size_bytes: int | None
    content_hash: Annotated[str | None, Field(description="SHA-256 in hex.")]
    node_id: str | None
    step_id: str | None
    created_at_unix_nano: UnixNano
    event: Annotated[EventBrief | None, Field(description="The event that wrote or read it.")]


class FilePage(Answer):
    """Files of a run in order of time."""

    files: list[FileAnswer]
    next_cursor: Cursor


class MessageContent(Answer):
    """What was said."""

    id: int
    sender: str | None
    recipient: str | None
    role: str | None
    content: Annotated[str, Field(description=f"Its first {CONTENT_CHARACTERS:,} characters; with `full` all of it.")]
    content_length: Annotated[int, Field(description="How many characters it has in all.")]
    tokens: int | None
    node_id: str | None
    step_id: str | None
    time_unix_nano: UnixNano


class MessageAnswer(MessageContent):
    """What was said, and the event that said it."""

    event: EventBrief | None


class MessagePage(Answer):
    """Messages of a run in order of time."""

    messages: list[MessageAnswer]
    next_cursor: Cursor


class Node(Answer):
    """A node of a run's graph."""

    id: Annotated[str, Field(description="Its name; unique within the run.")]
    node_type: str
    agent: str | None
    status: str
    order_index: int | None
    started_at_unix_nano: UnixNano | None
    completed_at_unix_nano: UnixNano | None
    event_count: Annotated[int, Field(description="Events of the run that name this node.")]
    meta: dict[str, Any] | None
    cycle: Annotated[Literal[True] | None, Field(description="Only where the node waits for itself.")] = None


class Edge(Answer):
    """`to_node_id` waits for `from_node_id`."""

    from_node_id: str
    to_node_id: str
    dependency_type: str
    condition: str | None
    source: Annotated[str, Field(description="Who says so: declared, workflow, handoff, link or manual.")]


class Graph(Answer):
    """A run's graph. Nodes stand after those they wait for; those of a cycle together, in declared order."""

    run_id: Hex32
    nodes: list[Node]
    edges: Annotated[list[Edge], Field(description="In the order of the nodes.")]


class NodeEventPage(Answer):
    """Events of a node by start, then id."""

    run_id: Annotated[Hex32, Field(description="The run that was meant; pass it along with `cursor`.")]
    node_id: str
    events: list[Event]
    next_cursor: Cursor


class Spent(Answer):
    """A sum of the cost records that count. Cached and reasoning tokens are parts of the others."""

    records: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: Dollars
    estimated_usd: Annotated[float | None, Field(description="How much of `cost_usd` is estimated from tokens.")]


class ModelSpent(Spent):
    """What one model cost."""

    model: str | None


class AgentSpent(Spent):
    """What one agent cost."""

    agent_name: str | None


class CostAnswer(Answer):
    """What one event reports that it cost."""

    id: int
    agent_name: Annotated[str | None, Field(description="The event's agent, or the nearest above that is named.")]
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    total_tokens: int | None
    cached_tokens: int | None
    reasoning_tokens: int | None
    cost_usd: Dollars
    counts: Annotated[bool, Field(description="False where events below report usage: sums take in theirs.")]
    source: Annotated[str, Field(description="`reported` by the producer, or `estimated` from tokens.")]
    step_id: str | None
    time_unix_nano: UnixNano
    event: EventBrief | None


class CostPage(Answer):
    """Cost records of a run in order of time, and the sums of all that the filters leave, whichever the page."""

    run_id: Hex32
    total: Spent
    by_model: Annotated[list[ModelSpent], Field(description="The dearest first.")]
    by_agent: Annotated[list[AgentSpent], Field(description="The dearest first.")]
    costs: list[CostAnswer]
    next_cursor: Cursor


class SessionAnswer(Answer):
    """Whose runs they are."""

    id: str
    user_id: str | None
    name: str | None
    status: str | None
    created_at_unix_nano: UnixNano
    last_active_at_unix_nano: UnixNano | None


class SessionPage(Answer):
    """Sessions, newest first."""

    sessions: list[SessionAnswer]
    next_cursor: Cursor


class SessionFigures(SessionAnswer):
    """A session and what its runs amount to."""

    run_count: int
    runs_by_status: dict[str, int]
    event_count: int
    error_count: int
    last_activity_unix_nano: Annotated[UnixNano, Field(description="When one of its runs was last heard of.")]
    costs: Spent


class RunBrief(Answer):
    """Which run it was."""

    id: Hex32
    session_id: str
    name: str | None
    agent: str | None


class PathMessage(MessageContent):
    """The message that led to an event: the latest of the event itself, else of the nearest event above that has one,
    else of the nearest before it. Its content is cut."""

    event_id: Hex16


class FileEvent(FileAnswer):
    """An event that wrote or read the file. Message and cost know nothing of runs too large to build a tree of."""

    run: RunBrief
    message: PathMessage | None
    cost_usd: Annotated[float | None, Field(description="Of the event and all below it; null where nothing is told.")]


class FileEventPage(Answer):
    """Events that wrote or read a file, newest first."""

    file_events: list[FileEvent]
    next_cursor: Cursor
