"""What a question can be answered with other than its answer, and how that is said over HTTP.

ApiError
 ├─ InvalidParameter   400, a parameter that does not say what it should
 ├─ NotFound           404, nothing there under that address
 ├─ AnswerTooLarge     422, the answer would be larger than it may be
 └─ Busy               503, more questions are waiting than may

Every error, whoever raised it, leaves as `{"error": {"code", "message", "parameter"}}`; `parameter` is null when none
is to blame. With `position` where a character of it is to blame, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from ..storage import QueryTimeout, QueryTooLarge, StorageError


class ApiError(Exception):
    """An error with its place in HTTP: `status`, a `code` for programs, a message that says what to do."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR
    code = "internal"

    def __init__(self, message: str, *, parameter: str | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter


class InvalidParameter(ApiError):
    """A parameter that does not say what it should."""

    status = HTTPStatus.BAD_REQUEST
    code = "invalid_parameter"


def unknown_parameter(name: str) -> InvalidParameter:
    """What to raise for a parameter that an address does not take."""
    return InvalidParameter(f"there is no parameter {name!r} here; see /docs", parameter=name)


class NotFound(ApiError):
    """Nothing there under that address."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class AnswerTooLarge(ApiError):
    """The answer would be larger than it may be."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY
    code = "answer_too_large"


class Busy(ApiError):
    """More questions are waiting than may."""

    status = HTTPStatus.SERVICE_UNAVAILABLE
    code = "busy"


def answer_errors(app: FastAPI) -> None:
    """Makes every error of `app` leave in the one shape."""
    app.add_exception_handler(ApiError, _own)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _of_the_framework)
    app.add_exception_handler(QueryTimeout, _timeout)
    app.add_exception_handler(QueryTooLarge, _too_large)
    app.add_exception_handler(StorageError, _storage)
    app.add_exception_handler(Exception, _unforeseen)


def _shape(  # noqa: PLR0913 what may be said of an error
    status: int,
    code: str,
    message: str,
    parameter: str | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    position: int | None = None,
) -> Response:
    at = {} if position is None else {"position": position}
    body = orjson.dumps({"error": {"code": code, "message": message, "parameter": parameter, **at}})
    return Response(body, status, headers, media_type="application/json")


def _own(_: Request, error: Any) -> Response:
    headers = {"Retry-After": "1"} if isinstance(error, Busy) else None
    return _shape(error.status, error.code, str(error), error.parameter, headers)


def _invalid_parameter(request: Request, error: Any) -> Response:
    first = error.errors()[0]
    parameter = _parameter_of(first["loc"])
    if first["type"] == "extra_forbidden":
        return _own(request, unknown_parameter(parameter))
    cause = first.get("ctx", {}).get("error")
    position = getattr(cause, "position", None)
    return _shape(400, "invalid_parameter", f"{parameter}: {cause or first['msg']}", parameter, position=position)


def _parameter_of(location: Sequence[Any]) -> str:
    return str(location[1] if len(location) > 1 else location[0])


def _of_the_framework(request: Request, error: Any) -> Response:
    if error.status_code == HTTPStatus.NOT_FOUND:
        message = f"there is nothing at {request.url.path}; GET / lists the addresses"
        return _shape(404, "not_found", message)
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = (error.headers or {}).get("Allow", "another method")
        message = f"{request.url.path} does not take {request.method}; use {allowed}"
        return _shape(405, "method_not_allowed", message, headers=error.headers)
    code = HTTPStatus(error.status_code).name.lower()
    return _shape(error.status_code, code, str(error.detail), headers=error.headers)


def _timeout(_: Request, error: Any) -> Response:
    return _shape(504, "timeout", str(error))


def _too_large(_: Request, error: Any) -> Response:
    return _shape(AnswerTooLarge.status, AnswerTooLarge.code, str(error))


def _storage(_: Request, error: Any) -> Response:
    return _shape(503, "storage_unavailable", str(error))


def _unforeseen(_: Request, error: Any) -> Response:
    message = f"a fault in clew ({type(error).__name__}); the server's log has the details"
    # The framework closes the connection then: whoever reuses it is told.
    return _shape(500, "internal", message, headers={"Connection": "close"})
