"""Calls between two processes: either end calls the other, any number at a time, over one connection."""

from __future__ import annotations

import copyreg
import io
import pickle
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from typing import Any

SEND_S_MAX = 20


class LineBroken(Exception):
    """The process at the other end is gone, or does not read; whether it did what it was called for is not known."""


class Line:
    """One end of the line. `answers` are what the other end may call, by name: what they return is what it gets, once
    it is there if that is a future; what they raise is raised there. They are called on the thread that is in `serve`,
    and must not keep it."""

    def __init__(
        self,
        connection: socket.socket,
        answers: Mapping[str, Callable[..., Any]],
        reductions: Mapping[type, Callable[[Any], Any]] | None = None,
    ) -> None:
        """`connection`: an end of a socket pair, which is the line's from now on. `reductions`: how pickle says objects
        of these types, as in its `dispatch_table`."""
        self._connection = connection
        _bound_sending(connection)
        self._answers = answers
        self._reductions = {**copyreg.dispatch_table, **(reductions or {})}
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = count()
        self._sending = threading.Lock()
        self._serving: int | None = None
        self._answering = ThreadPoolExecutor(1, thread_name_prefix="clew-line")

    def call(self, name: str, *arguments: Any) -> Future[Any]:
        """Calls the other end. The future carries LineBroken where that goes before it has answered."""
        answer: Future[Any] = Future()
        number = next(self._numbers)
        self._waiting[number] = answer
        try:
            self._send(number, name, arguments)
        except OSError:
            self._break_off(number)
        return answer

    def serve(self) -> None:
        """Takes calls and answers, until either end hangs up or is gone."""
        self._serving = threading.get_ident()
        try:
            with suppress(EOFError, OSError):
                while True:
                    self._take(*_received(self._connection))
        finally:
            self._answering.shutdown(wait=False)
            with self._sending:
                self._connection.close()
            for number in list(self._waiting):
                self._break_off(number)

    def close(self) -> None:
        """Hangs up, which `serve` notices at both ends."""
        with self._sending:
            self._hang_up()

    def _hang_up(self) -> None:
        with suppress(OSError):  # it may be closed already
            self._connection.shutdown(socket.SHUT_RDWR)

    def _take(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        if name == _ANSWER:
            self._resolve(number, *arguments)
            return
        try:
            result = self._answers[name](*arguments)
        except Exception as error:  # noqa: BLE001 it is raised where the call came from
            self._answer(number, None, error)
            return
        if isinstance(result, Future):
            result.add_done_callback(lambda done: self._answer(number, *_told(done)))
        else:
            self._answer(number, result, None)

    def _resolve(self, number: int, result: Any, error: BaseException | None) -> None:
        answer = self._waiting.pop(number, None)
        if answer is None or not answer.set_running_or_notify_cancel():
            return  # it was broken off, or whoever called does not want to know any more
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def _break_off(self, number: int) -> None:
        self._resolve(number, None, LineBroken("the process at the other end is gone"))

    def _answer(self, number: int, result: Any, error: BaseException | None) -> None:
        """Not on the thread that serves: where both ends waited to be read from, neither would read."""
        if threading.get_ident() == self._serving:
            self._answering.submit(self._send_answer, number, result, error)
        else:
            self._send_answer(number, result, error)

    def _send_answer(self, number: int, result: Any, error: BaseException | None) -> None:
        with suppress(OSError):  # nobody is left to be answered
            try:
                self._send(number, _ANSWER, (result, error))
            except (pickle.PicklingError, TypeError, AttributeError) as unsayable:
                reason = RuntimeError(f"{type(error or result).__name__}: {error or unsayable}")
                self._send(number, _ANSWER, (None, reason))

    def _send(self, number: int, name: str, arguments: tuple[Any, ...]) -> None:
        parts = _pickled((number, name, arguments), self._reductions)
        with self._sending:
            try:
                _send_parts(self._connection, parts)
            except OSError:
                self._hang_up()  # half a message may be out
                raise


_ANSWER = "answer"


# A message: how many parts it has and how many bytes follow; then the sizes of the parts and the parts themselves, each
# at a multiple of _ALIGNMENT of what follows.
_HEAD = struct.Struct("=QQ")
_SIZE = struct.Struct("=Q")
_ALIGNMENT = 64
# Smaller parts are sent together.
_LARGE_BYTES = 64 << 10


def _pickled(message: object, reductions: Mapping[type, Callable[[Any], Any]]) -> list[memoryview]:
    """The message, and after it the buffers that are its own parts, so that nobody copies them: tables, say."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = io.BytesIO()
    pickler = pickle.Pickler(pickled, protocol=5, buffer_callback=buffers.append)
    pickler.dispatch_table = reductions
    pickler.dump(message)
    return [pickled.getbuffer(), *(buffer.raw() for buffer in buffers)]


def _send_parts(connection: socket.socket, parts: list[memoryview]) -> None:
    sizes = b"".join(_SIZE.pack(part.nbytes) for part in parts)
    body_bytes = sum(_aligned(size) for size in (len(sizes), *(part.nbytes for part in parts)))
    together = bytearray(_HEAD.pack(len(parts), body_bytes))
    for part in (memoryview(sizes), *parts):
        if part.nbytes < _LARGE_BYTES:
            together += part
        else:
            connection.sendall(together)
            connection.sendall(part)
            together = bytearray()
        together += bytes(_aligned(part.nbytes) - part.nbytes)
    connection.sendall(together)


def _received(connection: socket.socket) -> Any:
    """The next message, its buffers where they were received. Raises EOFError once the other end has hung up."""
    count, body_bytes = _HEAD.unpack(_received_bytes(connection, _HEAD.size))
    body = memoryview(_received_bytes(connection, body_bytes))
    at = _aligned(count * _SIZE.size)
    parts = []
    for [size] in _SIZE.iter_unpack(body[: count * _SIZE.size]):
        parts.append(body[at : at + size])
        at += _aligned(size)
    return pickle.loads(parts[0], buffers=parts[1:])  # noqa: S301 from our own child or parent


def _received_bytes(connection: socket.socket, size: int) -> bytearray:
    received = bytearray(size)
    rest = memoryview(received)
    while rest:
        taken = connection.recv_into(rest)
        if not taken:
            raise EOFError
        rest = rest[taken:]
    return received


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _bound_sending(connection: socket.socket) -> None:
    """Whoever sends does not wait for ever for an end that does not read, a process that was stopped say."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_S_MAX, 0))


def _told(done: Future[Any]) -> tuple[Any, BaseException | None]:
    """What came of it, and what went wrong."""
    error = done.exception()
    return (None, error) if error else (done.result(), None)
