"""Asking from Python: `connect` a running server, `open_file` one that no server holds.

Both ask the same application, one over HTTP, the other within the process, so that they answer alike.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from .client import Client, ClientError

if TYPE_CHECKING:
    import pyarrow as pa

PAGE_ROWS = 500
ARROW = "application/vnd.apache.arrow.stream"

_Record = dict[str, Any]


class Connection:
    """What clew can be asked. Runs and events are dicts, as the HTTP API answers them: times are nanoseconds since 1970
    as text, ids hex digits. A run is named by its id or the start of it; left out, it is the latest.

    Every method raises ClientError, whose message tells what to do. Close it, or use it in a `with`.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    def runs(
        self,
        *,
        session_id: str | None = None,
        status: str | None = None,
        agent: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> Rows:
        """Runs, newest first. Times are RFC 3339, dates, nanoseconds since 1970, or `-1h`."""
        asked = {"session_id": session_id, "status": status, "agent": agent, "since": since, "until": until}
        return Rows(self._client, "/api/runs", "runs", asked)

    def run(self, run_id: str | None = None) -> _Record:
        """One run: when it started and ended, how many events and errors it has."""
        return self._get(f"/api/runs/{self._client.run_id(run_id)}")

    def tree(self, run_id: str | None = None, *, root: str | None = None, limit: int | None = None) -> _Record:
        """The run and its `events`, depth first, each with its `depth`; with `root`, that event and all below it; with
        `limit`, the first of them."""
        return self._get(f"/api/runs/{self._client.run_id(run_id)}/tree", root=root, limit=limit)

    def events(self, run_id: str | None = None) -> Rows:
        """The events of a run by start, one after the other."""
        return Rows(self._client, f"/api/runs/{self._client.run_id(run_id)}/events", "events", {})

    def statistics(self, run_id: str | None = None, **asked: str | int | Sequence[str] | None) -> _Record:
        """The figures of one run; without one, those of any events: `filter`, `since`, `until`, `group_by` (a field or
        several), `every` and so on are the parameters of /api/statistics."""
        if run_id is not None:
            if asked:
                raise ClientError("the figures of one run take nothing else; name it in `filter` instead: run_id = …")
            return self._get(f"/api/runs/{self._client.run_id(run_id)}/statistics")
        told = {name: said if isinstance(said, str | int | None) else ",".join(said) for name, said in asked.items()}
        return self._get("/api/statistics", **told)

    def search(self, filter: str = "", *, since: str | None = None, until: str | None = None) -> Rows:  # noqa: A002
        """The events of all runs that the filter means, newest first, each with its `run`."""
        asked = {"filter": filter, "since": since, "until": until}
        return Rows(self._client, "/api/search", "events", asked)

    def sql(
        self, query: str, parameters: Sequence[object] | Mapping[str, object] = (), *, limit: int | None = None
    ) -> SqlResult:
        """What one SELECT answers: parameters for `?` by a list, for `$name` by a dict. Warns where there are more rows
        than the server gives and no `limit` asked for fewer."""
        content, is_truncated = self._client.sql(query, ARROW, limit, parameters)
        if is_truncated and limit is None:
            warnings.warn("there are more rows than are answered at once; `is_truncated` says so", stacklevel=2)
        return SqlResult(content, is_truncated=is_truncated)

    def close(self) -> None:
        """Ends the connections, and closes the file."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    def _get(self, path: str, **asked: str | int | None) -> _Record:
        answer: _Record = json.loads(self._client.get(path, **asked))
        return answer


class Rows:
    """Rows that are asked for page by page while they are gone through; each time anew."""

    def __init__(self, client: Client, path: str, listed: str, asked: Mapping[str, str | None]) -> None:
        self._client = client
        self._path = path
        self._listed = listed
        self._asked = asked

    def __iter__(self) -> Iterator[_Record]:
        cursor: str | None = None
        while True:
            page = json.loads(self._client.get(self._path, **self._asked, limit=PAGE_ROWS, cursor=cursor))
            yield from page[self._listed]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def df(self) -> Any:
        """All of them as a DataFrame, see `SqlResult.df`; what is an object in JSON stays a dict."""
        return _frame(lambda pandas: pandas.DataFrame(list(self)), lambda polars: polars.DataFrame(list(self)))


class SqlResult:
    """Rows of a SELECT, by columns. Whatever takes Arrow takes this too: `pyarrow.table(result)`."""

    def __init__(self, stream: bytes, *, is_truncated: bool) -> None:
        self._stream = stream
        self.is_truncated = is_truncated

    def arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        import pyarrow as pa  # noqa: PLC0415

        return pa.ipc.open_stream(self._stream).read_all()

    def df(self) -> Any:
        """The rows as a DataFrame: of pandas where it is installed, else of polars. Raises ImportError without both."""
        return _frame(lambda _: self.arrow().to_pandas(), lambda polars: polars.from_arrow(self.arrow()))

    def __iter__(self) -> Iterator[_Record]:
        """The rows as dicts."""
        return iter(self.arrow().to_pylist())

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.arrow().__arrow_c_stream__(requested_schema)


def connect(url: str | None = None) -> Connection:
    """A connection to the server at `url`, else at CLEW_URL, else at LOCAL_URL. Whether it is there shows with the
    first question."""
    return Connection(Client(url or os.environ.get("CLEW_URL") or _local_url()))


def _local_url() -> str:
    from .settings import LOCAL_URL  # noqa: PLC0415 it comes with a server's options

    return LOCAL_URL


def open_file(path: str | Path) -> Connection:
    """A connection to a database file that no server holds: it is this process's until closed. Raises ClientError where
    there is none, or another process holds it."""
    from .in_process import InProcess  # noqa: PLC0415 a server's machinery

    return Connection(Client("http://clew", InProcess(path)))


def _frame(by_pandas: Callable[[Any], Any], by_polars: Callable[[Any], Any]) -> Any:
    for name, make in (("pandas", by_pandas), ("polars", by_polars)):
        if find_spec(name) is not None:
            return make(import_module(name))
    raise ImportError("a DataFrame takes pandas or polars; install one of them, or use .arrow()")
