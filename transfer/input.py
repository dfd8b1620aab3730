"""Opening what is imported: a file or standard input, compressed or not."""

from __future__ import annotations

import io
import os
import stat
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from .errors import BadInput

STDIN = "-"
GZIP_MAGIC, ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_BUFFER_BYTES = 1 << 20
_ZSTD_WINDOW_BYTES_MAX = 64 << 20


@dataclass
class Input:
    """An open file. `stream` gives what is in it, decompressed; `position` says how many of its `size` bytes on disk
    are read (size 0: not known). Only what is a file on a disk has a `path`: the rest can be read once."""

    name: str
    path: Path | None
    size: int
    stream: io.BufferedReader
    _raw: BinaryIO

    @property
    def position(self) -> int:
        return self._raw.tell() if self.path else 0


@contextmanager
def opened(name: str) -> Iterator[Input]:
    """The file of this name, standard input for `-`. Gzip and zstd are known by how they begin. Raises BadInput, also
    while it is read."""
    try:
        raw = sys.stdin.buffer if name == STDIN else Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise BadInput(f"{name} cannot be opened: {error.strerror}") from error
    with raw:
        status = os.fstat(raw.fileno())
        path = Path(name) if name != STDIN and stat.S_ISREG(status.st_mode) else None
        buffered = cast(io.BufferedReader, raw)
        head = buffered.peek(4)[:4]
        stream = buffered
        for magic, coding in _CODINGS.items():
            if head.startswith(magic):
                stream = io.BufferedReader(_Expanded(buffered, coding), _BUFFER_BYTES)
        yield Input(_shown(name), path, status.st_size if path else 0, stream, buffered)


def _shown(name: str) -> str:
    return "standard input" if name == STDIN else name


@dataclass(frozen=True)
class _Coding:
    """A decoder, and how many bytes it is given at a time: a step expands to some 33 MiB at most."""

    name: str
    decoder: Callable[[], Any]
    step_bytes: int


_CODINGS = {
    GZIP_MAGIC: _Coding("gzip", lambda: zlib.decompressobj(wbits=31), 32 << 10),
    ZSTD_MAGIC: _Coding(
        "zstd", lambda: zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW_BYTES_MAX).decompressobj(), 1 << 10
    ),
}


class _Expanded(io.RawIOBase):
    """What one or several compressed streams in a row hold."""

    def __init__(self, raw: io.BufferedReader, coding: _Coding) -> None:
        self._raw, self._coding = raw, coding
        self._decoder = coding.decoder()
        self._compressed, self._plain = b"", memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        while not self._plain:
            self._compressed = self._compressed or self._raw.read(self._coding.step_bytes)
            if not self._compressed:
                self._check_end()
                return 0
            self._plain = memoryview(self._expand())
        count = min(len(buffer), len(self._plain))
        buffer[:count] = self._plain[:count]
        self._plain = self._plain[count:]
        return count

    def _expand(self) -> bytes:
        if self._decoder.eof:
            self._decoder = self._coding.decoder()
        try:
            plain = self._decoder.decompress(self._compressed)
        except (zlib.error, zstandard.ZstdError) as error:
            place = self._raw.tell() if self._raw.seekable() else 0
            raise BadInput(f"not valid {self._coding.name} before byte {place:,}: {error}") from error
        self._compressed = self._decoder.unused_data
        return bytes(plain)

    def _check_end(self) -> None:
        if not self._decoder.eof:
            raise BadInput(f"cut short: it ends within its {self._coding.name} data")
