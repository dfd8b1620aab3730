"""The whole HTTP application: the API, the addresses for operators, and the routes it is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi_offline import FastAPIOffline
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from sqlalchemy import literal, select
from starlette.routing import BaseRoute, Route

from .. import __version__
from ..storage import SqlLimits, Store
from . import answers
from .api import ERRORS, Ask, api, json_response, otlp
from .asking import Asker
from .errors import answer_errors
from .export_api import SpansInBulk, export
from .exports_api import ExportStates, exports_router
from .figures_api import figures
from .jaeger import jaeger_v1, jaeger_v3
from .live_api import Streams, live
from .mcp_api import mcp_route
from .parameters import each_once, none_unknown
from .provenance_api import provenance
from .search_api import search
from .sql_api import SqlDesk, sql

RunAsOtlp = Callable[[Store, UUID], bytes | None]

operation = APIRouter(tags=["operation"], responses=ERRORS)


def build_app(  # noqa: PLR0913 the parts that meet here
    store: Store,
    *,
    registry: CollectorRegistry,
    routes: Sequence[BaseRoute] = (),
    cors_origins: Sequence[str] = (),
    run_as_otlp: RunAsOtlp | None = None,
    spans_in_bulk: SpansInBulk | None = None,
    exports: ExportStates | None = None,
    sql_limits: SqlLimits = SqlLimits(),  # noqa: B008 immutable
) -> FastAPI:
    """The application over `store`.

    `registry` is what /metrics shows; the application's own figures are added to it. `routes` are served as they are.
    `cors_origins` are the origins whose pages may call all of it. `run_as_otlp` makes a run's `TracesData`, or None
    where there is no such run; without it there is no /api/runs/{run_id}/otlp. `spans_in_bulk` likewise for
    /api/export and Jaeger's /api/v3, `exports` for /api/exports. `sql_limits` bound what is asked at /api/sql.
    """
    app = FastAPIOffline(
        "/docs",
        None,
        static_url="/docs/static",
        title="clew",
        version=__version__,
        summary="Traces of agents' workflows, asked for.",
    )
    app.state.asker = Asker(store, registry)
    app.state.registry = registry
    app.state.sql_desk = SqlDesk(store, sql_limits)
    app.state.streams = Streams()
    app.state.run_as_otlp = run_as_otlp
    answer_errors(app)
    # Figures before what takes any word for a run's id.
    own, of_jaeger = [figures, api, provenance, search, live, sql], [jaeger_v1]
    if run_as_otlp is not None:
        own.append(otlp)
    if spans_in_bulk is not None:
        app.state.spans_in_bulk = spans_in_bulk
        own.append(export)
        of_jaeger.append(jaeger_v3)
    if exports is not None:
        app.state.export_states = exports
        own.append(exports_router)
    for router in own:
        app.include_router(router, dependencies=[Depends(each_once), Depends(none_unknown)])
    app.include_router(operation, dependencies=[Depends(each_once)])
    for router in of_jaeger:
        app.include_router(router)
    routes = [*routes, mcp_route(app)]
    app.router.routes.extend(routes)
    app.state.given_routes = routes
    if cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(cors_origins), allow_methods=["GET", "POST"], allow_headers=["*"]
        )
    return app


@operation.get("/", response_model=answers.Addresses, summary="What there is")
async def list_addresses(request: Request) -> Response:
    """Every address of this server."""
    documented = request.app.openapi()["paths"]
    addresses = {
        f"{method.upper()} {path}": told["summary"]
        for path, methods in documented.items()
        for method, told in methods.items()
    }
    addresses |= {route.path: route.name for route in request.app.state.given_routes if isinstance(route, Route)}
    return json_response({"name": "clew", "version": __version__, "addresses": addresses})


@operation.get("/healthz", response_model=answers.State, summary="Is the process up?")
async def healthz() -> Response:
    """Answers as long as the process does."""
    return json_response({"status": "ok"})


@operation.get("/readyz", response_model=answers.State, summary="Does the store answer?")
async def readyz(asker: Ask) -> Response:
    """Answers once the store has answered a question."""
    await asker.run(_probe.__name__, partial(_probe, asker.store))
    return json_response({"status": "ok"})


@operation.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}, "description": "Prometheus's text format."}},
    summary="Figures for Prometheus",
)
def metrics(request: Request, accept: Annotated[str, Header(include_in_schema=False)] = "") -> Response:
    """In Prometheus's text format, or OpenMetrics where that is accepted."""
    encode, content_type = choose_encoder(accept)
    return Response(encode(request.app.state.registry), headers={"Content-Type": content_type})


def _probe(store: Store) -> None:
    with store.read(awaited=False) as reader:
        reader.rows(select(literal(1)))
