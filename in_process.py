"""The HTTP application over a file, within the process: the same answers without a server."""

from __future__ import annotations

from pathlib import Path

import httpx
from anyio.from_thread import start_blocking_portal
from prometheus_client import CollectorRegistry

from .client import ClientError
from .query.app import build_app
from .storage import StorageError, Store


class InProcess(httpx.BaseTransport):
    """Answers requests by the application over the file at `path`, which is open until `close`. Raises ClientError
    where there is none, or it cannot be opened."""

    def __init__(self, path: str | Path) -> None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise ClientError(f"there is no file {file}")
        try:
            self._store = Store.open(str(file))
        except StorageError as error:
            raise ClientError(str(error)) from error
        self._application = httpx.ASGITransport(build_app(self._store, registry=CollectorRegistry()))
        self._starting = start_blocking_portal()
        self._portal = self._starting.__enter__()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._portal.call(self._answer, request)

    def close(self) -> None:
        self._starting.__exit__(None, None, None)
        self._store.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._application.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())
