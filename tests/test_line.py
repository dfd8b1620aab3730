"""The line between two processes: here both ends are in one."""

from __future__ import annotations

import pickle
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clew.collector import line
from clew.collector.line import Line, LineBroken

TIMEOUT_S = 30


class Ends(NamedTuple):
    here: Line
    there: Line
    later: Future[Any]


def _fail(text: str) -> None:
    raise ValueError(text)


@pytest.fixture
def ends() -> Iterator[Ends]:
    """A line served at both ends."""
    ours, theirs = socket.socketpair()
    later: Future[Any] = Future()
    answers = {"double": lambda number: number * 2, "later": lambda: later, "fail": _fail, "lock": threading.Lock}
    both = Ends(Line(ours, {"double": lambda number: number * -2}), Line(theirs, answers), later)
    threads = [threading.Thread(target=end.serve) for end in (both.here, both.there)]
    for thread in threads:
        thread.start()
    yield both
    both.here.close()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_both_ends_call(ends: Ends) -> None:
    """Each has answers of its own."""
    assert ends.here.call("double", 4).result(TIMEOUT_S) == 8
    assert ends.there.call("double", 4).result(TIMEOUT_S) == -8


def test_a_call_that_takes_long_keeps_no_other(ends: Ends) -> None:
    """What is called last may be answered first."""
    slow = ends.here.call("later")
    assert ends.here.call("double", 1).result(TIMEOUT_S) == 2
    assert not slow.done()
    ends.later.set_result("now")
    assert slow.result(TIMEOUT_S) == "now"


def test_much_goes_both_ways_at_once(ends: Ends) -> None:
    """Neither end waits to be read from without reading itself."""
    much = b"x" * (1 << 20)
    calls = [end.call("double", much) for _ in range(20) for end in (ends.here, ends.there)]
    assert {len(call.result(TIMEOUT_S)) for call in calls} == {0, 2 * len(much)}


def test_what_is_raised_there_is_raised_here(ends: Ends) -> None:
    """At once or later."""
    with pytest.raises(ValueError, match="no such thing"):
        ends.here.call("fail", "no such thing").result(TIMEOUT_S)
    slow = ends.here.call("later")
    ends.later.set_exception(KeyError("later"))
    with pytest.raises(KeyError):
        slow.result(TIMEOUT_S)


def test_what_cannot_be_sent_is_told(ends: Ends) -> None:
    """An answer that does not go over the line fails the call, not the line."""
    with pytest.raises(RuntimeError, match="lock"):
        ends.here.call("lock").result(TIMEOUT_S)
    assert ends.here.call("double", 1).result(TIMEOUT_S) == 2


def test_a_caller_that_gives_up_harms_nobody(ends: Ends) -> None:
    """Its answer is dropped when it comes."""
    slow = ends.here.call("later")
    assert slow.cancel()
    ends.later.set_result("too late")
    assert ends.here.call("double", 1).result(TIMEOUT_S) == 2


def test_a_broken_line_fails_what_waits_and_what_comes(ends: Ends) -> None:
    """Nobody waits for an answer that cannot come."""
    slow = ends.here.call("later")
    ends.there.close()
    with pytest.raises(LineBroken):
        slow.result(TIMEOUT_S)
    with pytest.raises(LineBroken):
        ends.here.call("double", 1).result(TIMEOUT_S)


def test_an_end_that_does_not_read_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends is told, and is not kept."""
    monkeypatch.setattr(line, "SEND_S_MAX", 1)
    ours, theirs = socket.socketpair()
    end = Line(ours, {})
    with pytest.raises(LineBroken):
        end.call("double", bytes(16 << 20)).result(TIMEOUT_S)
    end.close()
    end.serve()
    theirs.close()


@given(buffers=st.lists(st.integers(0, 200_000), max_size=6), text=st.text(max_size=100))
def test_buffers_come_as_they_were_sent(buffers: list[int], text: str) -> None:
    """Large and small ones and none, beside what is pickled."""
    ours, theirs = socket.socketpair()
    sent = [pickle.PickleBuffer(bytes([number % 251]) * size) for number, size in enumerate(buffers)]
    with ThreadPoolExecutor(1) as pool, closing(theirs):
        came: Future[list[memoryview]] = Future()
        end = Line(theirs, {"take": lambda said, taken: came.set_result([said, *taken])})
        serving = pool.submit(end.serve)
        Line(ours, {}).call("take", text, sent)
        said, *taken = came.result(TIMEOUT_S)
        ours.close()
        serving.result(TIMEOUT_S)
    assert said == text
    assert [bytes(part) for part in taken] == [bytes(part.raw()) for part in sent]
