"""The addresses of SQL, and where it is answered: apart from other questions, so that it cannot hold them up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Annotated, NamedTuple

import anyio
from anyio import CapacityLimiter, from_thread, to_thread
from fastapi import APIRouter, Depends, Header, Request, Response
from pydantic import ValidationError

from ..storage import QueryFailed, QueryRefused, QueryTimeout, QueryTooLarge, Selecting, SqlAnswer, SqlLimits, Store
from .api import ERRORS, JSON, Ask, json_response
from .errors import AnswerTooLarge, Busy, InvalidParameter
from .sql import (
    ARROW,
    CSV,
    answer_arrow,
    answer_csv,
    answer_json,
    schema_answer,
    written_as_text,
    written_for_arrow,
)
from .sql_answers import SqlQuestion, SqlRows, SqlSchema

ANSWERED_AT_ONCE_MAX = 2
WAITING_MAX = 16
GRACE_S = 5.0
LOOKED_EVERY_S = 0.25
QUESTION_BYTES_MAX = 1024 * 1024
TRUNCATED_HEADER = "Clew-Truncated"

sql = APIRouter(prefix="/api/sql", tags=["sql"], responses=ERRORS)


class SqlRefused(InvalidParameter):
    """SQL that says what it may not, or that the engine does not understand."""

    code = "sql_refused"


class _Form(NamedTuple):
    """How an answer is written: the SQL for its values, and what makes bytes of it."""

    written: Callable[[object], str]
    encode: Callable[[SqlAnswer], bytes]


_FORMS = {ARROW: _Form(written_for_arrow, answer_arrow), CSV: _Form(written_as_text, answer_csv)}
_JSON_FORM = _Form(written_as_text, answer_json)


class SqlDesk:
    """Answers SQL on a few threads of its own. An answer that does not come is not waited for; its thread counts as
    taken until the engine lets go."""

    def __init__(self, store: Store, limits: SqlLimits) -> None:
        self._selecting = Selecting(store.engine, store.damage)
        self._audience = store.audience
        self._limits = limits
        self._turns = CapacityLimiter(ANSWERED_AT_ONCE_MAX)
        self._threads = CapacityLimiter(2 * ANSWERED_AT_ONCE_MAX)

    async def answer(self, question: SqlQuestion, form: _Form, abandoned: threading.Event) -> tuple[bytes, bool]:
        """The bytes of the answer, and whether it is truncated; none is worked out where it is `abandoned`. Raises
        SqlRefused, AnswerTooLarge, QueryTimeout and Busy."""
        turn, claim = object(), threading.Lock()
        await self._take(turn)

        def work() -> tuple[bytes, bool]:
            if not claim.acquire(blocking=False):
                return b"", False  # whoever asked was gone before, and gave the turn back
            try:
                return self._answered(question, form, abandoned)
            finally:
                from_thread.run_sync(self._turns.release_on_behalf_of, turn)

        waited_s_max = self._limits.seconds_max + GRACE_S
        try:
            with anyio.move_on_after(waited_s_max):
                return await to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._threads)
        finally:
            if claim.acquire(blocking=False):  # no thread has come to it
                self._turns.release_on_behalf_of(turn)
        raise QueryTimeout(f"stopped waiting after {waited_s_max:g} s: the engine does not stop; narrow the query")

    @property
    def is_answering(self) -> bool:
        """Whether the engine is at a query; after `end`, at one that it cannot be stopped at."""
        return self._selecting.is_answering

    def end(self) -> None:
        """Stops the queries under way and those to come. Any thread may."""
        self._selecting.end(GRACE_S)

    async def _take(self, turn: object) -> None:
        if self._turns.statistics().tasks_waiting >= WAITING_MAX:
            raise Busy(f"{WAITING_MAX} queries are waiting already; ask again in a second")
        with anyio.move_on_after(self._limits.seconds_max + GRACE_S):
            await self._turns.acquire_on_behalf_of(turn)
            return
        raise Busy("other queries take all the time there is; ask again later")

    def _answered(self, question: SqlQuestion, form: _Form, abandoned: threading.Event) -> tuple[bytes, bool]:
        rows_max = min(question.limit or self._limits.rows_max, self._limits.rows_max)
        limits = replace(self._limits, rows_max=rows_max)
        try:
            with self._audience.waits():
                asked = (question.query, question.parameters, limits, form.written)
                answer = self._selecting.select(*asked, abandoned)
        except (QueryRefused, QueryFailed) as error:
            raise SqlRefused(str(error), parameter="query") from error
        except QueryTooLarge as error:
            raise AnswerTooLarge(str(error), parameter="query") from error
        return form.encode(answer), answer.truncated


async def desk_of(request: Request) -> SqlDesk:
    """The application's own."""
    desk: SqlDesk = request.app.state.sql_desk
    return desk


async def question_of(request: Request) -> SqlQuestion:
    """The question in the body. Raises InvalidParameter."""
    # A page of another origin cannot send this type without being asked.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise InvalidParameter(f"send the question as {JSON}", parameter="body")
    body = b""
    async for portion in request.stream():
        body += portion
        if len(body) > QUESTION_BYTES_MAX:
            raise InvalidParameter(f"the question is larger than {QUESTION_BYTES_MAX // 1024} KiB", parameter="body")
    try:
        return SqlQuestion.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = str(first["loc"][0]) if first["loc"] else "body"
        reason = first.get("ctx", {}).get("error", first["msg"])
        raise InvalidParameter(f"{where}: {reason}", parameter=where) from error


async def abandonment_of(
    request: Request,
    _question: Annotated[SqlQuestion, Depends(question_of)],  # who looks before the body is read would take it
) -> AsyncIterator[threading.Event]:
    """Is set as soon as whoever asked is gone, and has the answer worked out for nobody."""
    abandoned = threading.Event()

    async def look() -> None:
        while not await request.is_disconnected():
            await anyio.sleep(LOOKED_EVERY_S)
        abandoned.set()

    looking = asyncio.create_task(look())  # no task group, which would put what the address raises into a group
    try:
        yield abandoned
    finally:
        looking.cancel()


@sql.post(
    "",
    response_model=SqlRows,
    responses={200: {"content": {CSV: {}, ARROW: {}}, "description": "Rows, in the form that is accepted."}},
    openapi_extra={"requestBody": {"content": {JSON: {"schema": SqlQuestion.model_json_schema()}}, "required": True}},
    summary="Ask by SQL",
)
async def ask_sql(
    desk: Annotated[SqlDesk, Depends(desk_of)],
    question: Annotated[SqlQuestion, Depends(question_of)],
    abandoned: Annotated[threading.Event, Depends(abandonment_of, scope="function")],
    accept: Annotated[str, Header(include_in_schema=False)] = "",
) -> Response:
    """One SELECT, read-only, within the server's limits of time and rows. JSON; CSV or an Arrow stream where that is
    accepted. The header `Clew-Truncated` says `true` where there were more rows."""
    media_type = next((known for known in _FORMS if known in accept), JSON)
    body, truncated = await desk.answer(question, _FORMS.get(media_type, _JSON_FORM), abandoned)
    return Response(body, media_type=media_type, headers={TRUNCATED_HEADER: str(truncated).lower()})


@sql.get("/schema", response_model=SqlSchema, summary="What SQL can be asked of")
async def get_schema(asker: Ask) -> Response:
    """Tables and views, and their columns, with a sentence each."""
    return json_response(await asker.ask(schema_answer))
