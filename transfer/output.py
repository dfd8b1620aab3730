"""Where an export goes: to standard output, or into a file that is whole once it has its name.

A file is written as FILE.part. FILE.resume says how far it has come: it is replaced as a whole, after all that it
speaks of is on disk, so that a process that is killed leaves a state to go on from. What lies behind that is cut off.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import zstandard

from .errors import TransferError

State = Mapping[str, Any]


class Output(Protocol):
    """`resumed` is the state of the checkpoint from which it goes on, None for a new one."""

    @property
    def resumed(self) -> State | None: ...

    def write(self, data: bytes) -> None: ...

    def checkpoint(self, state: State) -> None: ...

    def finish(self) -> None: ...


class StreamOutput:
    """Writes to an open stream, such as standard output. Raises TransferError."""

    resumed: State | None = None

    def __init__(self, stream: BinaryIO, name: str = "standard output") -> None:
        self._stream, self._name = stream, name

    def write(self, data: bytes) -> None:
        with _written(self._name):
            self._stream.write(data)

    def checkpoint(self, state: State) -> None:
        """There is none: what is written is gone."""

    def finish(self) -> None:
        with _written(self._name):
            self._stream.flush()


class FileOutput:
    """Writes the file `path`, compressed if its name ends so. `choice` is what is exported and how: the part that an
    earlier export of another choice left is not touched. Raises TransferError."""

    def __init__(self, path: Path, choice: State) -> None:
        if path.is_dir():
            raise TransferError(f"{path} is a folder; name a file in it")
        path = path.resolve() if path.is_symlink() else path
        self._path, self._choice = path, choice
        self._part, self._state_path = (path.with_name(path.name + suffix) for suffix in (".part", ".resume"))
        self.resumed = self._found()
        self._coder = _CODERS.get(path.suffix, _Plain)()
        with _written(self._part):
            self._file = self._part.open("r+b" if self.resumed else "wb")
            self._file.truncate(self.resumed["bytes"] if self.resumed else 0)
            self._file.seek(0, os.SEEK_END)

    def write(self, data: bytes) -> None:
        with _written(self._part):
            self._file.write(self._coder.compress(data))

    def checkpoint(self, state: State) -> None:
        """Makes what is written durable; an export of the same choice goes on from here with `state`."""
        with _written(self._part):
            self._sync()
            said = {**state, "choice": self._choice, "bytes": self._file.tell()}
            replace_durably(self._state_path, json.dumps(said).encode())

    def finish(self) -> None:
        """Gives the file its name."""
        with _written(self._part):
            self._sync()
            self._file.close()
            self._part.replace(self._path)
            self._state_path.unlink(missing_ok=True)

    def _sync(self) -> None:
        self._file.write(self._coder.flush())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _found(self) -> State | None:
        """The state that an earlier export left, where the part it speaks of is there too."""
        try:
            state = dict(json.loads(self._state_path.read_bytes()))
            is_whole = self._part.stat().st_size >= state["bytes"]
        except (OSError, ValueError, KeyError):
            return None
        if state["choice"] != self._choice:
            raise TransferError(f"{self._part} is left from another export; remove it, or choose another --output")
        return state if is_whole else None


def output_to(path: Path, choice: State) -> Output:
    """A device or a pipe is written to as it comes; anything else becomes a file. Raises TransferError."""
    if path.exists() and not path.is_dir() and (not path.is_file() or path.is_relative_to("/dev")):
        with _written(path):
            return StreamOutput(path.open("wb"), str(path))
    return FileOutput(path, choice)


@contextmanager
def _written(to: object) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # nobody reads on, which is not a fault
        raise
    except OSError as error:
        raise TransferError(f"{to} cannot be written: {error.strerror}") from error


def replace_durably(path: Path, content: bytes) -> None:
    """Gives the file this content: whoever reads it finds the old one or the new one, whole."""
    written = path.with_name(path.name + ".new")
    with written.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    written.replace(path)


class _Plain:
    def compress(self, data: bytes) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


class _Frames:
    """Streams in a row, each ended by `flush`: a file may be cut between them."""

    def __init__(self, coder: Callable[[], Any]) -> None:
        self._new, self._coder = coder, None

    _coder: Any

    def compress(self, data: bytes) -> bytes:
        self._coder = self._coder or self._new()
        return bytes(self._coder.compress(data))

    def flush(self) -> bytes:
        coder, self._coder = self._coder, None
        return bytes(coder.flush()) if coder else b""


_CODERS: dict[str, Callable[[], Any]] = {
    ".gz": lambda: _Frames(lambda: zlib.compressobj(wbits=31)),
    ".zst": lambda: _Frames(lambda: zstandard.ZstdCompressor(write_checksum=True).compressobj()),
}
CODING_SUFFIXES = tuple(_CODERS)
