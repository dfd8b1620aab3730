"""The formats of files, as a table."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, Protocol

from . import jaeger_json, otlp_json, otlp_proto, parquet
from .errors import BadInput, TransferError
from .frames import Frame, Request
from .input import Input
from .output import CODING_SUFFIXES


class Writer(Protocol):
    """Makes a file of pages. `state` is what another writer needs to go on from here, None where none could."""

    @property
    def state(self) -> Mapping[str, Any] | None: ...

    def page(self, traces: bytes) -> bytes: ...

    def end(self) -> bytes: ...


@dataclass(frozen=True)
class Format:
    """A way to keep spans in a file. `begins` knows a file by its first bytes, `frames` cuts it, `requests` reads a
    frame's content; both raise BadInput. `writer` makes one that goes on from a state, None for a new file."""

    suffixes: tuple[str, ...]
    begins: Callable[[bytes], bool]
    frames: Callable[[Input], Iterator[Frame]]
    requests: Callable[[Any], list[Request]]
    writer: Callable[[Mapping[str, Any] | None], Writer]
    is_text: bool = False


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage collection meanwhile. A page or a frame becomes a tree of a million objects on its way, none of them
    garbage: looking for some takes as long as all else."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _stateless(writer: Callable[[], Writer]) -> Callable[[Mapping[str, Any] | None], Writer]:
    return lambda _state: writer()


FORMATS = {
    name: Format(module.SUFFIXES, module.begins, module.frames, module.requests, writer, is_text)
    for name, module, writer, is_text in (
        ("otlp-json", otlp_json, _stateless(otlp_json.Writer), True),
        ("otlp-proto", otlp_proto, _stateless(otlp_proto.Writer), False),
        ("parquet", parquet, _stateless(parquet.Writer), False),
        ("jaeger-json", jaeger_json, jaeger_json.Writer, True),
    )
}
DEFAULT = "otlp-json"


def checked(name: str) -> str:
    """A format's name. Raises TransferError for any other text."""
    if name not in FORMATS:
        raise TransferError(f"there is no format {name!r}; there are {', '.join(FORMATS)}")
    return name


def named(file_name: str) -> str:
    """The format that a file's name speaks of, the default where it speaks of none."""
    path = PurePath(file_name)
    suffix = PurePath(path.stem).suffix if path.suffix in CODING_SUFFIXES else path.suffix
    return next((name for name, each in FORMATS.items() if suffix and suffix in each.suffixes), DEFAULT)


def recognised(file: Input) -> Format:
    """The format that a file is in, by how it begins. Raises BadInput where it is in none."""
    head = file.stream.peek()
    for each in FORMATS.values():
        if each.begins(head):
            return each
    raise BadInput(f"in no format that clew reads: {', '.join(FORMATS)}; name one with --format")
