"""The HTTP application over a file, within the process: the same answers without a server."""

from __future__ import annotations

import asyncio
import atexit
from pathlib import Path
from threading import Thread

import httpx
from prometheus_client import CollectorRegistry

from .client import ClientError
from .query.app import build_app
from .storage import DatabaseLocked, StorageError, Store, database_path


class InProcess(httpx.BaseTransport):
    """Answers requests by the application over the file at `path`, or `duckdb:///path`. It is open until `close`, or
    until the process ends. Raises ClientError where there is none, or it cannot be opened."""

    def __init__(self, path: str | Path) -> None:
        try:
            file = database_path(str(path))
            if not file.is_file():
                raise ClientError(f"there is no file {file}")
            self._store = Store.open(str(file))
        except DatabaseLocked as error:
            raise ClientError(f"{error}, or ask the server that has it: clew.connect(url)") from error
        except StorageError as error:
            raise ClientError(str(error)) from error
        self._application = httpx.ASGITransport(build_app(self._store, registry=CollectorRegistry()))
        self._loop = asyncio.new_event_loop()
        # Nobody waits for a daemon when a script ends that has not closed what it opened.
        self._thread = Thread(target=self._loop.run_forever, name="clew-in-process", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(self._answer(request), self._loop).result()

    def close(self) -> None:
        """May be called again."""
        atexit.unregister(self.close)
        if self._thread.is_alive():
            # Whoever asks on another thread gets an answer first.
            asyncio.run_coroutine_threadsafe(_others_end(), self._loop).result()
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._store.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._application.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


async def _others_end() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.gather(*others, return_exceptions=True)
