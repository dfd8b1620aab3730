"""The addresses of what belongs to events: files, messages, costs, the graph; of the sessions that runs belong to; and
of a file's history across runs."""

from __future__ import annotations

from fastapi import APIRouter, Response

from . import answers
from . import provenance_answers as told
from .api import ERRORS, Ask, json_response
from .costs import cost_page
from .files import file_page
from .graph import graph
from .history import history_page, node_event_page
from .messages import message_page
from .parameters import (
    CostsQuery,
    EventsQuery,
    FileEventsQuery,
    FilesQuery,
    MessagesQuery,
    NodeEventsQuery,
    NodeId,
    RunId,
    SessionId,
    SessionsQuery,
)
from .provenance import file_event_page
from .sessions import session_answer, session_page

provenance = APIRouter(prefix="/api", responses=ERRORS)


@provenance.get("/runs/{run_id}/files", response_model=told.FilePage, tags=["runs"], summary="The files of a run")
async def list_files(asker: Ask, run_id: RunId, wanted: FilesQuery) -> Response:
    """In order of time, each with the event that wrote or read it."""
    return json_response(await asker.ask(file_page, run_id, wanted))


@provenance.get(
    "/runs/{run_id}/messages", response_model=told.MessagePage, tags=["runs"], summary="The messages of a run"
)
async def list_messages(asker: Ask, run_id: RunId, wanted: MessagesQuery) -> Response:
    """In order of time, each with the event that said it. Contents are cut unless asked for with `full`."""
    return json_response(await asker.ask(message_page, run_id, wanted))


@provenance.get("/runs/{run_id}/costs", response_model=told.CostPage, tags=["runs"], summary="What a run cost")
async def list_costs(asker: Ask, run_id: RunId, wanted: CostsQuery) -> Response:
    """Cost records in order of time, and their sums by model and by agent. Each says whether the producer reported it
    or it is estimated."""
    return json_response(await asker.ask(cost_page, run_id, wanted))


@provenance.get("/runs/{run_id}/graph", response_model=told.Graph, tags=["runs"], summary="The graph of a run")
async def get_graph(asker: Ask, run_id: RunId) -> Response:
    """The nodes in an order in which they can be worked, and what waits for what."""
    return json_response(await asker.ask(graph, run_id))


@provenance.get(
    "/runs/{run_id}/history", response_model=answers.EventPage, tags=["runs"], summary="What was done in a run"
)
async def list_history(asker: Ask, run_id: RunId, wanted: EventsQuery) -> Response:
    """The events by start, then id, without those of subtype `start` and without the changes of nodes' states."""
    return json_response(await asker.ask(history_page, run_id, wanted))


@provenance.get(
    "/nodes/{node_id:path}/events", response_model=told.NodeEventPage, tags=["nodes"], summary="The events of a node"
)
async def list_node_events(asker: Ask, node_id: NodeId, wanted: NodeEventsQuery) -> Response:
    """By start, then id. Names of nodes recur: without `run_id` the latest run that has the node is meant, and the
    answer says which."""
    return json_response(await asker.ask(node_event_page, node_id, wanted))


@provenance.get("/sessions", response_model=told.SessionPage, tags=["sessions"], summary="Sessions, newest first")
async def list_sessions(asker: Ask, wanted: SessionsQuery) -> Response:
    """Follow `next_cursor` with the same filters for older sessions."""
    return json_response(await asker.ask(session_page, wanted))


@provenance.get(
    "/sessions/{session_id:path}", response_model=told.SessionFigures, tags=["sessions"], summary="One session"
)
async def get_session(asker: Ask, session_id: SessionId) -> Response:
    """What its runs amount to: how many in which status, events, errors, tokens and cost, when it was last active."""
    return json_response(await asker.ask(session_answer, session_id))


@provenance.get("/files", response_model=told.FileEventPage, tags=["files"], summary="Who wrote or read a file")
async def list_file_events(asker: Ask, wanted: FileEventsQuery) -> Response:
    """Newest first and across runs: which event of which agent, from which message, at what cost."""
    return json_response(await asker.ask(file_event_page, wanted))
