"""The addresses from which spans are taken in bulk, as OTLP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Protocol
from uuid import UUID

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, BeforeValidator, Field

from ..storage import Store, parse_run_id
from .api import ERRORS, Ask, json_response
from .asking import Asker
from .errors import InvalidParameter
from .parameters import StartedBetween
from .runs import no_run

RUNS_NAMED_MAX = 1_000
_LAST = (1 << 63) - 1
NEXT_CURSOR = "Clew-Next-Cursor"
SPANS = "Clew-Spans"

export = APIRouter(prefix="/api/export", tags=["export"], responses=ERRORS)


class Spans(Protocol):
    """Spans that were chosen; `exporter.pages.ChosenSpans` says what its methods give."""

    def extent(self) -> Any: ...

    def page(self, cursor: str | None) -> Any: ...


# The spans of the runs named, or of all, that started in a time: since, until (nanoseconds since 1970).
SpansInBulk = Callable[[Store, Sequence[UUID], int, int], Spans]


class ChosenRuns(StartedBetween):
    """Which runs."""

    run: list[Annotated[UUID, BeforeValidator(parse_run_id)]] = Field(
        [], max_length=RUNS_NAMED_MAX, description="Only this run: 32 hex digits; several may be given."
    )


class PageOfSpans(ChosenRuns):
    """Which page of their spans."""

    cursor: str | None = Field(None, max_length=200, description=f"`{NEXT_CURSOR}` of the page before.")


class Extent(BaseModel):
    """How much is chosen. `until_unix_nano` is just after the start of the latest run: with it as `until`, runs that
    come later are left out."""

    runs: int
    spans: int
    until_unix_nano: int


@export.get("/extent", response_model=Extent, summary="How much an export would give")
async def get_extent(request: Request, asker: Ask, wanted: Annotated[ChosenRuns, Query()]) -> Response:
    """Runs and spans. A run that is named and is not there is an error."""
    extent = await asker.run("export_extent", _spans(request, asker, wanted).extent)
    if extent.missing:
        raise no_run(extent.missing[0])
    return json_response({"runs": extent.runs, "spans": extent.spans, "until_unix_nano": extent.until})


@export.get(
    "",
    response_class=Response,
    responses={200: {"content": {"application/x-protobuf": {}}, "description": "OTLP `TracesData`."}},
    summary="Spans in bulk, as OTLP, by pages",
)
async def get_page(request: Request, asker: Ask, wanted: Annotated[PageOfSpans, Query()]) -> Response:
    """Runs by start, the spans of a run together and by start. Follow the header `Clew-Next-Cursor` with the same
    choice; the last page has none. `Clew-Spans` says how many spans the page has, which may be none."""
    spans = _spans(request, asker, wanted)
    try:
        page = await asker.run("export_page", lambda: spans.page(wanted.cursor))
    except ValueError as error:
        raise InvalidParameter(str(error), parameter="cursor") from error
    headers = {SPANS: str(page.spans)} | ({NEXT_CURSOR: page.next_cursor} if page.next_cursor else {})
    return Response(page.traces, headers=headers, media_type="application/x-protobuf")


def _spans(request: Request, asker: Asker, wanted: ChosenRuns) -> Spans:
    choose: SpansInBulk = request.app.state.spans_in_bulk
    until = _LAST if wanted.until is None else wanted.until
    return choose(asker.store, wanted.run, wanted.since or 0, until)
