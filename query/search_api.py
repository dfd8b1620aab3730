"""The address of the search."""

from __future__ import annotations

from fastapi import APIRouter, Response

from .api import ERRORS, Ask, json_response
from .search import search_events, search_runs
from .search_answers import FoundEvents, FoundRuns
from .search_parameters import SearchedFor, SearchQuery

search = APIRouter(prefix="/api", tags=["search"], responses=ERRORS)


@search.get("/search", response_model=FoundEvents | FoundRuns, summary="Events and runs that a filter means")
async def get_search(asker: Ask, wanted: SearchQuery) -> Response:
    """Newest first, across all runs; with `for=runs` the runs that have such an event. A page may hold fewer than
    `limit`, even none, where a search takes long: go on with `next_cursor` until it is null."""
    question = search_runs if wanted.searched_for is SearchedFor.RUNS else search_events
    return json_response(await asker.ask(question, wanted))
