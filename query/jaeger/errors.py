"""What went wrong, as each version of Jaeger's API says it: `errors` with code and message in version 1, the shape of
the gRPC gateway in version 3, a status over gRPC. Messages are clew's own."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

import grpc
import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from ...storage import QueryTimeout, QueryTooLarge, StorageError
from ..errors import ApiError

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/json": {}}, "description": "As Jaeger answers it."},
    "4XX": {"content": {"application/json": {}}, "description": "Jaeger's shape of an error; the message tells why."},
    "5XX": {"content": {"application/json": {}}, "description": "Not now, or a fault of the server."},
}
GRPC_STATUS = {
    HTTPStatus.BAD_REQUEST: grpc.StatusCode.INVALID_ARGUMENT,
    HTTPStatus.NOT_FOUND: grpc.StatusCode.NOT_FOUND,
    HTTPStatus.UNPROCESSABLE_ENTITY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    HTTPStatus.SERVICE_UNAVAILABLE: grpc.StatusCode.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def told(error: Exception) -> tuple[HTTPStatus, str] | None:
    """The status and message of an error that was foreseen, None for any other."""
    match error:
        case ApiError():
            return error.status, str(error)
        case RequestValidationError():
            first = error.errors()[0]
            reason = first.get("ctx", {}).get("error") or first["msg"]
            return HTTPStatus.BAD_REQUEST, f"unable to parse param '{first['loc'][-1]}': {reason}"
        case QueryTimeout():
            return HTTPStatus.GATEWAY_TIMEOUT, str(error)
        case QueryTooLarge():
            return HTTPStatus.UNPROCESSABLE_ENTITY, str(error)
        case StorageError():
            return HTTPStatus.SERVICE_UNAVAILABLE, str(error)
    return None


def _v1_shape(status: HTTPStatus, message: str) -> Any:
    return envelope(None, errors=[{"code": status.value, "msg": message}])


def _v3_shape(status: HTTPStatus, message: str) -> Any:
    grpc_code = GRPC_STATUS.get(status, grpc.StatusCode.UNKNOWN).value[0]
    said = {"grpcCode": grpc_code, "httpCode": status.value, "message": message, "httpStatus": status.phrase}
    return {"error": said}


def envelope(data: Any, *, total: int = 0, errors: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """What every answer of version 1 is wrapped in."""
    return {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}


class _Route(APIRoute):
    """Errors that were foreseen leave in `shape`; the others are the application's."""

    shape: Callable[[HTTPStatus, str], Any]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        shape = type(self).shape

        async def answer(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:
                said = told(error)
                if said is None:
                    raise
                return _refusal(said[0], shape(*said))

        return answer


class V1Route(_Route):
    """A route of version 1."""

    shape = staticmethod(_v1_shape)


class V3Route(_Route):
    """A route of version 3."""

    shape = staticmethod(_v3_shape)


def _refusal(status: HTTPStatus, body: Any) -> Response:
    headers = {"Retry-After": "1"} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(orjson.dumps(body), status, headers, media_type="application/json")
