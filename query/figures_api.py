"""The addresses of figures: of any events, of two runs beside one another, of what took a run its time, and of who
calls whom."""

from __future__ import annotations

from fastapi import APIRouter, Response

from . import figures_answers as told
from .api import ERRORS, Ask, json_response
from .comparison import comparison
from .critical_path_answer import critical_path_answer
from .dependencies import dependencies
from .figures import figures as figures_of
from .figures_parameters import ComparisonQuery, CriticalPathQuery, DependenciesQuery, FiguresQuery
from .parameters import RunId

figures = APIRouter(prefix="/api", responses=ERRORS)


@figures.get("/statistics", response_model=told.Figures, tags=["figures"], summary="The figures of any events")
async def get_figures(asker: Ask, wanted: FiguresQuery) -> Response:
    """How many events, how many failed, how long they took, what they used: of those that a filter means, by any
    fields, and by time."""
    return json_response(await asker.ask(figures_of, wanted))


@figures.get("/calls", response_model=told.Dependencies, tags=["figures"], summary="Who calls whom")
async def get_dependencies(asker: Ask, wanted: DependenciesQuery) -> Response:
    """The graph of agents, or of services, over any window: how often each called another, with what success."""
    return json_response(await asker.ask(dependencies, wanted))


@figures.get("/runs/compare", response_model=told.Comparison, tags=["runs"], summary="Two runs beside one another")
async def get_comparison(asker: Ask, wanted: ComparisonQuery) -> Response:
    """Which events only one of them has, which are slower or faster, which changed status or attributes.

    An event's partner has the same name, agent and type, is the same one among its siblings of that kind, and so on all
    the way up."""
    return json_response(await asker.ask(comparison, wanted))


@figures.get(
    "/runs/{run_id}/critical-path",
    response_model=told.CriticalPathAnswer,
    tags=["runs"],
    summary="What took a run its time",
)
async def get_critical_path(asker: Ask, run_id: RunId, wanted: CriticalPathQuery) -> Response:
    """The events that determined the run's duration, and how much of it was each one's own work. Contributions, and the
    time in which nobody on the path was at work, add up to the duration."""
    return json_response(await asker.ask(critical_path_answer, run_id, wanted))
