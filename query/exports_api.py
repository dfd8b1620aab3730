"""The address that tells how what is sent on to other backends gets there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from .api import ERRORS, Ask, json_response

# How far each signal of each target has come: dataclasses with the fields of `Export`, which reads the store.
ExportStates = Callable[[], Sequence[Any]]

exports_router = APIRouter(prefix="/api/exports", tags=["export"], responses=ERRORS)


class Export(BaseModel):
    """How far a signal has come with a target."""

    target: str = Field(description="Its name.")
    address: str | None = Field(description="Where it is, without what may be secret; null for `away`.")
    signal: Literal["traces", "logs", "metrics"]
    state: Literal["sending", "waiting", "not_taken", "away"] = Field(
        description="`waiting` for the target, see `last_error`; `not_taken`: it does not know the signal, and is "
        "asked again now and then; `away`: it is not configured any more, and goes on from here when it is again."
    )
    sent: int = Field(description="Records that it has taken, ever.")
    refused: int = Field(description="Records that it has refused for good, ever; the server's log names them.")
    lag_records: int = Field(description="Records that wait.")
    lag_s: float = Field(description="Seconds since the oldest of them was committed.")
    last_error: str | None = Field(description="Why it gets nothing at the moment, and what to do; null if it does.")
    last_error_at_unix_nano: int | None


class Exports(BaseModel):
    """All of them."""

    exports: list[Export]


@exports_router.get("", response_model=Exports, summary="What is sent on to other backends")
async def get_exports(request: Request, asker: Ask) -> Response:
    """Each signal of each target, those included that were configured once. What is told as sent is answered for."""
    states = await asker.run("exports", request.app.state.export_states)
    return json_response({"exports": [asdict(state) for state in states]})
