"""`clew serve`."""

import inspect
import json
import shutil
import signal
import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from .. import terminal
from ..settings import LOCAL_URL, Settings
from .asking import asking, mistakes_told, say, warn
from .reading import TREE_DEPTH, TREE_LINES

if TYPE_CHECKING:
    from ..server import Addresses

# Usually 0.005: the slowest of 100 reads of a run beside 10,000 spans/s took a sixth longer with it.
SWITCH_S = 0.001


def serve(**options: Any) -> None:
    """Take spans in over OTLP and answer questions about them, until Ctrl-C."""
    settings = Settings(**options)
    stop = Stop()
    if not _is_loopback(settings.host):
        warn(f"{settings.host} is open to other machines, and clew has no authentication yet")

    # Questions need Python's lock often and for moments only, but whoever stores keeps it as long as it may.
    sys.setswitchinterval(SWITCH_S)
    from ..collector.receiver import Receiver
    from ..collector.without_pandas import go_without_pandas

    go_without_pandas()
    receiver = Receiver()  # it starts up while this process loads the rest
    from ..server import CannotServe, serving
    from ..storage import StorageError

    with mistakes_told(CannotServe, StorageError), serving(settings, stop.ask, receiver) as addresses:
        _announce(addresses)
        if settings.demo and not stop.is_asked:
            _show_demo(addresses)
        if sys.stdin.isatty():
            say("press Ctrl-C to stop")
        stop.wait()


# Typer reads a command's options from its signature: the fields of the settings are the options.
vars(serve)["__signature__"] = inspect.signature(Settings)


class Stop:
    """What a server waits for: SIGTERM, Ctrl-C, or that it is told to end. Made and waited for on the main thread.

    A signal's handler interrupts any line, so it must not take a lock that the line may hold, and it would not be run
    before a wait on a lock is over that had just begun: it is a socket that wakes the one who waits.
    """

    def __init__(self) -> None:
        self.is_asked = False
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._on_signal)

    def ask(self) -> None:
        """Ends the wait. Any thread may."""
        self.is_asked = True
        with suppress(BlockingIOError):  # so much to read wakes as well
            self._wakes.send(b"\0")

    def wait(self) -> None:
        """Until asked. A second Ctrl-C ends the process at once: what is committed is safe."""
        while not self.is_asked:
            self._woken.recv(1)

    def _on_signal(self, *_: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        self.is_asked = True


def _announce(addresses: "Addresses") -> None:
    say(f"OTLP/gRPC  {addresses.otlp_grpc}")
    say(f"OTLP/HTTP  {addresses.http}/v1/traces")
    say(f"API        {addresses.http}/api/runs")
    say(f"data       {addresses.data}")
    for name, address in addresses.exports:
        say(f"export     {name} {address}")


def _show_demo(addresses: "Addresses") -> None:
    from ..exporter.demo import NotRecorded, record

    with mistakes_told(NotRecorded), asking(addresses.http) as client:
        run_id = record(addresses.otlp_grpc)
        answer = client.get(f"/api/runs/{run_id}/tree")
    say("")
    terminal.draw_tree(terminal.console(), json.loads(answer), depth_max=TREE_DEPTH, lines_max=TREE_LINES)
    asked = run_id[: terminal.SHORT_ID_DIGITS] + ("" if addresses.http == LOCAL_URL else f" --url {addresses.http}")
    say("\nlook at it from another terminal")
    for command in ("tree", "stats", "files", "messages", "graph"):
        say(f"  {_own_name()} {command} {asked}")
    say(f"  {addresses.http}/api/runs/{run_id}/tree\n")


def _own_name() -> str:
    """What this command is called by in the shell it was started from, which may not have its folder on PATH."""
    if shutil.which("clew"):
        return "clew"
    return "python -m clew" if sys.argv[0].endswith("__main__.py") else sys.argv[0]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
