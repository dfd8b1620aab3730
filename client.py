"""A running server's HTTP API, from outside: what the commands ask."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

import httpx

RUN_ID_DIGITS = 32
_ANSWER_S = 60
_CANDIDATES_MAX = 10
_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class ClientError(Exception):
    """A question that got no answer. `parameter`: which of the question's is to blame, where one is; `position`: which
    character of it."""

    def __init__(self, message: str, parameter: str | None = None, position: int | None = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.position = position


class Interrupted(ClientError):
    """An answer that did not begin, or stopped before its end: it can be asked for again."""


class Client:
    """Asks the server at `url`, or whatever `transport` leads to. Every method raises ClientError, whose message tells
    what to do."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")
        # A proxy for the outer world has no business between a terminal and its own machine.
        direct = {f"all://{host}": None for host in _LOOPBACK if transport is None}
        try:
            self._http = httpx.Client(base_url=self.url, timeout=_ANSWER_S, mounts=direct, transport=transport)
        except (httpx.InvalidURL, ValueError) as error:
            raise ClientError(f"{url!r} is not a URL: {error}") from error

    def get(self, path: str, **parameters: str | int | None) -> str:
        """The JSON text that `GET path` answers; a parameter that is None is left out."""
        answer = self.fetch(path, {name: value for name, value in parameters.items() if value is not None})
        if not answer.is_success:
            self._refused(answer)
        self._told_in_json(answer)
        return answer.text

    def fetch(self, path: str, parameters: Mapping[str, str | int | list[str]]) -> httpx.Response:
        """What `GET path` answers, of whatever status."""
        return self._asked("GET", path, params=dict(parameters))

    def lines(self, path: str, headers: Mapping[str, str], parameters: Mapping[str, str]) -> Iterator[str]:
        """The lines of what `GET path` answers, as they come. Raises Interrupted where they stop before their end."""
        try:
            with self._open_http.stream("GET", path, params=parameters, headers=headers) as answer:
                if not answer.is_success:
                    answer.read()
                    self._refused(answer)
                yield from _lines(answer.iter_text())
        except httpx.HTTPError as error:
            raise Interrupted(self._unanswered(error)) from error

    def send(self, path: str, message: bytes) -> httpx.Response:
        """What a POST of a serialised protobuf message is answered, of whatever status."""
        return self._asked("POST", path, content=message, headers={"Content-Type": "application/x-protobuf"})

    def sql(
        self,
        query: str,
        form: str,
        limit: int | None = None,
        parameters: Sequence[object] | Mapping[str, object] = (),
    ) -> tuple[bytes, bool]:
        """What `query` answers in the form of that media type, and whether it is truncated."""
        asked = {"query": query, "limit": limit, "parameters": parameters}
        try:
            answer = self._asked("POST", "/api/sql", json=asked, headers={"Accept": form})
        except (TypeError, ValueError) as error:
            advice = "give what JSON has no form for as text, and cast it: ?::TIMESTAMP"
            raise ClientError(f"a parameter cannot be sent: {error}; {advice}") from error
        if not answer.is_success:
            self._refused(answer)
        return answer.content, answer.headers.get("clew-truncated") == "true"

    def _refused(self, answer: httpx.Response) -> NoReturn:
        self._told_in_json(answer)
        error = answer.json()["error"]
        raise ClientError(error["message"], error.get("parameter"), error.get("position"))

    def _told_in_json(self, answer: httpx.Response) -> None:
        if not answer.headers.get("content-type", "").startswith("application/json"):
            raise ClientError(f"{self.url} does not answer as clew does; is that its HTTP port?")

    def close(self) -> None:
        """Ends the connections; nothing can be asked any more."""
        self._http.close()

    @property
    def _open_http(self) -> httpx.Client:
        if self._http.is_closed:
            raise ClientError(f"the connection to {self.url} is closed; make another")
        return self._http

    def _asked(self, method: str, path: str, **request: Any) -> httpx.Response:
        try:
            return self._open_http.request(method, path, **request)
        except httpx.HTTPError as error:
            raise ClientError(self._unanswered(error)) from error

    def run_id(self, prefix: str | None) -> str:
        """The id of the one run whose id starts with `prefix`; of the latest run where it is None."""
        if prefix is None:
            return self._latest()
        if not isinstance(prefix, str):
            raise ClientError(f"a run is named by text, its id or the start of it, not by {prefix!r}")
        digits = prefix.replace("-", "").lower()
        if not digits or len(digits) > RUN_ID_DIGITS or digits.strip("0123456789abcdef"):
            raise ClientError(f"{prefix!r} is not a run id or the start of one: hex digits, at most {RUN_ID_DIGITS}")
        if len(digits) == RUN_ID_DIGITS:
            return digits
        return self._only(digits)

    def _latest(self) -> str:
        runs = self._runs(limit=1)
        if not runs:
            raise ClientError(f"{self.url} has no runs yet; point an OpenTelemetry SDK at it")
        return str(runs[0]["id"])

    def _only(self, digits: str) -> str:
        runs = self._runs(id_prefix=digits, limit=_CANDIDATES_MAX)
        if not runs:
            raise ClientError(f"no run's id starts with {digits}; `clew runs` lists them")
        if len(runs) > 1:
            listed = "\n".join(f"  {run['id']}  {run['name'] or ''}".rstrip() for run in runs)
            raise ClientError(f"several runs' ids start with {digits}, give more digits:\n{listed}")
        return str(runs[0]["id"])

    def _runs(self, **parameters: str | int) -> list[dict[str, Any]]:
        return list(json.loads(self.get("/api/runs", **parameters))["runs"])

    def _unanswered(self, error: httpx.HTTPError) -> str:
        if isinstance(error, httpx.ConnectError):
            return f"nothing answers at {self.url}; start a server with `clew serve`, or name another (--url, CLEW_URL)"
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url} did not answer within {_ANSWER_S} s"
        return f"{self.url} does not answer as clew does ({error}); is that its HTTP port?"


def _lines(pieces: Iterator[str]) -> Iterator[str]:
    """Whole lines. Only newlines end them: texts within may hold what Unicode takes for an end of a line too."""
    begun: list[str] = []
    for piece in pieces:
        first, *others = piece.split("\n")
        begun.append(first)
        for other in others:
            yield "".join(begun)
            begun = [other]
