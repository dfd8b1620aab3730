"""The addresses below /api: runs, their trees, events and statistics. Each hands its question to the `Asker` of the
application and writes the answer down."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from . import answers
from .asking import Asker
from .event_detail import event_detail
from .events import event_page
from .logs import log_page
from .parameters import EventId, EventsQuery, LogsQuery, RunId, RunsQuery, TreeQuery
from .runs import no_run, run_answer, run_page
from .statistics import statistics
from .tree_answer import tree_answer

JSON = "application/json"
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": answers.ErrorAnswer, "description": "The question cannot be answered; the message tells why."},
    "5XX": {"model": answers.ErrorAnswer, "description": "Not now (busy, out of time) or a fault of the server."},
}

api = APIRouter(prefix="/api/runs", tags=["runs"], responses=ERRORS)
otlp = APIRouter(prefix="/api/runs", tags=["runs"], responses=ERRORS)


async def asker_of(request: Request) -> Asker:
    """The application's own. Asynchronous, as all dependencies are: others go to a thread, which takes 0.4 ms."""
    return request.app.state.asker


Ask = Annotated[Asker, Depends(asker_of)]


def json_response(content: Any) -> Response:
    """JSON out of plain values, or out of bytes that are JSON already."""
    return Response(content if isinstance(content, bytes) else orjson.dumps(content), media_type=JSON)


@api.get("", response_model=answers.RunPage, summary="Runs, newest first")
async def list_runs(asker: Ask, wanted: RunsQuery) -> Response:
    """Every filter narrows the answer further. Follow `next_cursor` with the same filters for older runs."""
    return json_response(await asker.ask(run_page, wanted))


@api.get("/{run_id}", response_model=answers.Run, summary="One run")
async def get_run(asker: Ask, run_id: RunId) -> Response:
    """When it started and ended, how many events and errors it has."""
    return json_response(await asker.ask(run_answer, run_id))


@api.get("/{run_id}/tree", response_model=answers.TreeAnswer, summary="The events of a run as a tree")
async def get_tree(asker: Ask, run_id: RunId, wanted: TreeQuery) -> Response:
    """All events depth first, each with its depth, so that the list draws as a tree from top to bottom; or nested.

    An event whose parent never came stands at the top, marked `orphan`. Events that are their own ancestors are marked
    `cycle`. With `root`, depth and execution order stay those of the whole run."""
    answer = await asker.ask(tree_answer, run_id, wanted)
    return json_response(answer) if isinstance(answer, bytes) else StreamingResponse(answer, media_type=JSON)


@api.get("/{run_id}/events", response_model=answers.EventPage, summary="The events of a run by pages")
async def list_events(asker: Ask, run_id: RunId, wanted: EventsQuery) -> Response:
    """By start, then id. Follow `next_cursor` with the same filters for later events."""
    return json_response(await asker.ask(event_page, run_id, wanted))


@api.get("/{run_id}/events/{event_id}", response_model=answers.EventDetail, summary="One event with all it has")
async def get_event(asker: Ask, run_id: RunId, event_id: EventId) -> Response:
    """Attributes, resource, scope, logs, links, trace state, flags and what was dropped on the way."""
    return json_response(await asker.ask(event_detail, run_id, event_id))


@api.get("/{run_id}/logs", response_model=answers.LogPage, summary="The logs of a run by pages")
async def list_logs(asker: Ask, run_id: RunId, wanted: LogsQuery) -> Response:
    """Moments inside events and log records, in order of time. Contents are cut unless asked for with `full`."""
    return json_response(await asker.ask(log_page, run_id, wanted))


@api.get("/{run_id}/statistics", response_model=answers.Statistics, summary="The figures of a run")
async def get_statistics(asker: Ask, run_id: RunId) -> Response:
    """Events, durations, errors, and tokens and cost, counted once, by agent, event type and model."""
    return json_response(await asker.ask(statistics, run_id))


@otlp.get(
    "/{run_id}/otlp",
    response_class=Response,
    responses={200: {"content": {"application/x-protobuf": {}}, "description": "OTLP `TracesData`."}},
    summary="The run as it came, as OTLP",
)
async def get_otlp(request: Request, asker: Ask, run_id: RunId) -> Response:
    """A serialised `opentelemetry.proto.trace.v1.TracesData`, equal to what the SDKs sent."""
    read = request.app.state.run_as_otlp
    traces = await asker.run("run_as_otlp", lambda: read(asker.store, run_id))
    if traces is None:
        raise no_run(run_id)
    return Response(traces, media_type="application/x-protobuf")
