"""Three servers in a chain under load, the middle one killed again and again: what the last one has in the end.

    python tests/chain.py --rounds 20

Each round sends spans to the first server from several threads, kills the middle one with SIGKILL somewhere between,
and starts it again on its file and ports. In the end everything that the first server has acknowledged must be in the
last one, once. Exits 1 where it is not.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from crash import SPANS_PER_REQUEST, Memory, Server, load, look

LOAD_S = (0.2, 1.0)
SETTLE_S = 300.0


@dataclass
class Link:
    """A server of the chain, always on the same file and ports; `to` is the next one's target, where there is one."""

    db: Path
    to: str | None = None
    ports: tuple[int, int] = field(init=False)
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.ports = (_free_port(), _free_port())
        self.start()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.ports[0]}"

    def start(self) -> None:
        """Starts the process and returns when it is ready."""
        ports = ["--grpc-port", str(self.ports[0]), "--http-port", str(self.ports[1])]
        export = ["--export", f"otlp-grpc://{self.to}?name=next"] if self.to else []
        command = [sys.executable, "-m", "clew", "serve", "--db", str(self.db), *ports, *export]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=self.db.parent
        )
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("data"):
                return
        raise RuntimeError(f"the server ended with code {self.process.wait()} before it was ready")

    def restart(self) -> None:
        """SIGKILL, as a power cut would, and up again."""
        self.process.kill()
        self.process.wait()
        self.start()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()

    def waiting(self) -> int:
        """How many spans wait to be sent on."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/api/exports", timeout=60) as answer:
            return sum(export["lag_records"] for export in json.load(answer)["exports"])


@contextmanager
def chain(folder: Path) -> Iterator[tuple[Link, Link, Link]]:
    with ExitStack() as stack:
        last = Link(folder / "last.duckdb")
        stack.callback(last.stop)
        middle = Link(folder / "middle.duckdb", last.target)
        stack.callback(middle.stop)
        first = Link(folder / "first.duckdb", middle.target)
        stack.callback(first.stop)
        yield first, middle, last


def round_of(first: Link, middle: Link, memory: Memory, numbers: Sequence[range], load_s: tuple[float, float]) -> None:
    """Load, a sender for each range of request numbers, with the middle server killed and started again within it."""
    stop = threading.Event()
    server = Server(first.process, first.target)
    senders = [threading.Thread(target=load, args=(server, memory, own, stop)) for own in numbers]
    for sender in senders:
        sender.start()
    time.sleep(load_s[0])
    middle.restart()
    time.sleep(load_s[1])
    stop.set()
    for sender in senders:
        sender.join()


def settled(*links: Link) -> bool:
    """Waits until nothing waits any more, from the first server on."""
    deadline = time.monotonic() + SETTLE_S
    for link in links:
        while link.waiting():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)
    return True


def faults(db: Path, memory: Memory) -> list[str]:
    """What is wrong with the last server's file, in words."""
    stored = look(db).spans
    lost = list(memory.acknowledged_spans() - stored)
    repeated = [key for key, times in stored.items() if times > 1]
    said = {"acknowledged spans are lost": lost, "spans are stored more than once": repeated}
    return [f"{len(those)} {what}, such as {those[0]}" for what, those in said.items() if those]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1, help="of the times at which the server is killed")
    parser.add_argument("--senders", type=int, default=8)
    options = parser.parse_args(arguments)
    moments, memory = random.Random(options.seed), Memory()
    with tempfile.TemporaryDirectory(prefix="clew-chain-") as folder:
        with chain(Path(folder)) as (first, middle, last):
            for number in range(options.rounds):
                load_s = moments.uniform(*LOAD_S), moments.uniform(*LOAD_S)
                begin, end = number * 10**6, (number + 1) * 10**6
                numbers = [range(begin + place, end, options.senders) for place in range(options.senders)]
                round_of(first, middle, memory, numbers, load_s)
                spans = len(memory.acknowledged) * SPANS_PER_REQUEST
                print(
                    f"round {number + 1}: killed after {load_s[0]:.2f} s, {spans} spans acknowledged so far", flush=True
                )
            said = [] if settled(first, middle) else ["not all is sent on"]
        said += faults(last.db, memory)
    print("; ".join(said) or "all there, once")
    return 1 if said else 0


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
