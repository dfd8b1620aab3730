"""The address that coding agents ask: the Model Context Protocol over streamable HTTP, without sessions.

The package `mcp` is imported with the first request: it takes a third as long to import as all the rest, and few
servers are asked.
"""

from __future__ import annotations

import socket
from functools import cached_property
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

if TYPE_CHECKING:
    from mcp.server.mcpserver import MCPServer

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_NOT_INSTALLED = "this server lacks the package mcp; install clew[mcp] and start it again"


def mcp_route(app: FastAPI) -> Route:
    """/mcp, whose tools ask `app`."""
    return Route("/mcp", _Endpoint(app), methods=["POST"], name="the Model Context Protocol, for coding agents")


class _Endpoint:
    def __init__(self, app: FastAPI) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            server = self._server
        except ImportError:
            error = {"code": "not_installed", "message": _NOT_INSTALLED, "parameter": None}
            await JSONResponse({"error": error}, 501)(scope, receive, send)
            return
        await self._answer(server, scope, receive, send)

    @cached_property
    def _server(self) -> MCPServer[Any]:
        from .mcp_tools import mcp_server  # noqa: PLC0415

        return mcp_server(self._app)

    async def _answer(self, server: MCPServer[Any], scope: Scope, receive: Receive, send: Send) -> None:
        """Each request is answered by itself: nothing is kept between two."""
        from mcp.server.transport_security import TransportSecuritySettings  # noqa: PLC0415

        # A page of another site that made its name point here still says that name: only our own are answered.
        here = (*_LOOPBACK, _own_address(scope), socket.gethostname())
        security = TransportSecuritySettings(
            allowed_hosts=[pattern for name in here for pattern in (name, f"{name}:*")],
            allowed_origins=[f"http://{name}:*" for name in here],
        )
        once = server.streamable_http_app(stateless_http=True, json_response=True, transport_security=security)
        async with once.router.lifespan_context(once):
            await once(scope, receive, send)


def _own_address(scope: Scope) -> str:
    """The address at which the request came in."""
    host = str((scope.get("server") or ("127.0.0.1", 0))[0])
    return f"[{host}]" if ":" in host else host
