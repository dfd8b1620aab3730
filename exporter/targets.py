"""Where clew sends on to: targets as they are configured, one URL each.

    otlp-grpc://jaeger:4317?name=jaeger
    otlp-https://otlp.example.com/api?header=authorization:Bearer%20TOKEN&signals=traces,logs
    otlp-grpcs://collector?ca=/etc/ca.pem&filter=status%20=%20failed

docs/export.md is the manual of these URLs.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, urlsplit

from .outgoing import Signal

TARGETS_MAX = 16
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_TIMEOUT_S = 30.0
# Whether it is gRPC, whether it is TLS, the port where none is said.
_SCHEMES = {
    "otlp-grpc": (True, False, 4317),
    "otlp-grpcs": (True, True, 4317),
    "otlp-http": (False, False, 4318),
    "otlp-https": (False, True, 4318),
}
PARAMETERS = ("name", "header", "signals", "filter", "ca", "cert", "key", "compression", "timeout")
_TLS_FILES = ("ca", "cert", "key")
_NAME = re.compile(r"[\w.:@-]{1,64}", re.ASCII)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+", re.ASCII)
_OWN_HEADERS = frozenset({"connection", "content-encoding", "content-length", "content-type", "host", "te"})
_BETWEEN = re.compile(r"[\s,]+(?=otlp-)")


class BadTarget(ValueError):
    """Text that names no target; the message says what to write instead, and tells nothing of headers' values."""


@dataclass(frozen=True)
class Target:
    """One backend. `filter` is text of the search language, "" for everything; `signals` are those to send there.
    `headers` may hold secrets and are in no `repr`; `address` is what may be shown."""

    name: str
    is_grpc: bool
    is_tls: bool
    host: str
    port: int
    path: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    signals: tuple[Signal, ...] = tuple(Signal)
    filter: str = ""
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    compression: str = "gzip"
    timeout_s: float = _TIMEOUT_S

    @property
    def authority(self) -> str:
        """host:port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """The URL without what may be secret."""
        [scheme] = (scheme for scheme, said in _SCHEMES.items() if said[:2] == (self.is_grpc, self.is_tls))
        return f"{scheme}://{self.authority}{self.path}"

    @classmethod
    def parse(cls, text: str) -> Target:
        """The target that a URL names. Raises BadTarget."""
        url, port = _url_of(text)
        is_grpc, is_tls, usual_port = _SCHEMES[url.scheme]
        said = _parameters(url.query)
        path = url.path.rstrip("/")
        if path and is_grpc:
            raise BadTarget(f"gRPC has no paths: write {url.scheme}://HOST:PORT without {url.path!r}")
        return cls(
            name=_name(said.get("name", [url.hostname])[0] or ""),
            is_grpc=is_grpc,
            is_tls=is_tls,
            host=url.hostname or "",
            port=usual_port if port is None else port,
            path=path,
            headers=_headers(said.get("header", ())),
            signals=_signals(said),
            filter=said.get("filter", [""])[0],
            **_tls_files(said, is_tls),
            compression=_compression(said.get("compression", ["none" if url.hostname in LOOPBACK else "gzip"])[0]),
            timeout_s=_timeout(said.get("timeout", [f"{_TIMEOUT_S}"])[0]),
        )


def targets_of(texts: Sequence[str]) -> list[Target]:
    """The targets that the URLs name; one text may hold several, with blanks or commas between. Raises BadTarget, also
    where two have one name."""
    urls = [url for text in texts for url in _BETWEEN.split(text.strip(" \t\n,")) if url]
    if len(urls) > TARGETS_MAX:
        raise BadTarget(f"{len(urls)} targets are more than {TARGETS_MAX}; let one of them send on to the others")
    targets = [Target.parse(url) for url in urls]
    [(name, times)] = Counter(target.name for target in targets).most_common(1) or [("", 0)]
    if times > 1:
        raise BadTarget(f"{times} targets are called {name!r}; give each a name of its own: ?name=…")
    return targets


def _url_of(text: str) -> tuple[SplitResult, int | None]:
    """The URL and its port. What is said wrongly is not quoted beyond the scheme: it may be a secret."""
    scheme = text.partition("://")[0]
    if scheme not in _SCHEMES:
        raise BadTarget(
            f"{scheme[:20]!r} is no scheme of a target; write otlp-grpc://HOST:4317 or otlp-http://HOST:4318"
        )
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise BadTarget(f"not a URL: {error}") from error
    if not url.hostname:
        raise BadTarget(f"{scheme}:// names no host; write {scheme}://HOST:PORT")
    if url.username is not None:
        raise BadTarget("no user and password before the host; write ?header=authorization:Basic%20…")
    if url.fragment:
        raise BadTarget("write # as %23 in a target's URL")
    return url, port


def _parameters(query: str) -> dict[str, list[str]]:
    """A plus is a plus here: tokens have some."""
    said: dict[str, list[str]] = {}
    for name, value in parse_qsl(query.replace("+", "%2B"), keep_blank_values=True):
        if name not in PARAMETERS:
            raise BadTarget(f"targets know no parameter {name[:40]!r}; there are {', '.join(PARAMETERS)}")
        said.setdefault(name, []).append(value)
    repeated = [name for name, values in said.items() if len(values) > 1 and name != "header"]
    if repeated:
        raise BadTarget(f"say {repeated[0]} once")
    return said


def _name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadTarget(f"{name[:80]!r} is no name; letters, digits, . _ : @ and - make one, 64 at most")
    return name


def _headers(said: Collection[str]) -> dict[str, str]:
    headers = {}
    for header in said:
        name, colon, value = header.partition(":")
        name, value = name.strip().lower(), value.strip()
        if not colon or not _HEADER.fullmatch(name):
            raise BadTarget("write a header as ?header=NAME:VALUE")
        if name in _OWN_HEADERS or name.startswith("grpc-") or name.endswith("-bin"):
            raise BadTarget(f"the header {name} is not for targets to set")
        if not value.isascii() or not value.isprintable():
            raise BadTarget(f"the value of the header {name} has characters that headers cannot have")
        headers[name] = value
    return headers


def _signals(said: Mapping[str, list[str]]) -> tuple[Signal, ...]:
    """All; with a filter spans alone, since it says nothing of the others."""
    if "signals" not in said:
        return (Signal.TRACES,) if "filter" in said else tuple(Signal)
    try:
        return tuple(dict.fromkeys(Signal(word.strip()) for word in said["signals"][0].split(",")))
    except ValueError as error:
        raise BadTarget(f"{error}: the signals are {', '.join(Signal)}") from error


def _tls_files(said: Mapping[str, list[str]], is_tls: bool) -> dict[str, Path | None]:
    files = {name: Path(said[name][0]).expanduser() if name in said else None for name in _TLS_FILES}
    given = {name: path for name, path in files.items() if path is not None}
    if given and not is_tls:
        raise BadTarget(f"{next(iter(given))} is for TLS: write otlp-grpcs:// or otlp-https://")
    if (files["cert"] is None) != (files["key"] is None):
        raise BadTarget("a client's certificate takes both: cert=FILE and key=FILE")
    for name, path in given.items():
        if not path.is_file():
            raise BadTarget(f"there is no file {path}, named as {name}")
    return files


def _compression(word: str) -> str:
    if word not in ("gzip", "none"):
        raise BadTarget(f"{word[:20]!r} is no compression; write gzip or none")
    return word


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 600:
        raise BadTarget(f"{text[:20]!r} is no timeout; write seconds, from 0.1 to 600")
    return seconds
