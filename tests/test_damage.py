"""An engine that cannot go on: it is noticed, nothing is stored after it, and what was acknowledged before is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from sqlalchemy import text

from clew.server import EXIT_DAMAGED
from clew.storage import Store, WriteFailed
from clew.storage.damage import Damage

from . import log_requests

# Ends like a server at the first sign; what the engine is asked for makes it fail for good.
DAMAGED = """
import resource, sys
from clew.collector.projection import read_requests
from clew.server import end_at_once
from clew.storage import Store
_, path, request, next_step = sys.argv
batch = read_requests([open(request, "rb").read()]).batch
store = Store.open(path)
store.damage.on_notice = end_at_once
store.write(batch)
resource.setrlimit(resource.RLIMIT_DATA, (1_500_000_000, resource.RLIM_INFINITY))
try:
    with store.engine.connect() as connection:
        connection.exec_driver_sql(
            "SELECT list_aggregate(l, 'reservoir_quantile', 0.5, 40000000) FROM (SELECT [range] l FROM range(100))"
        )
except Exception as error:
    print(error)
if next_step == "reads":
    store.uncompacted()
store.write(batch)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited by Linux's means")
@pytest.mark.parametrize("next_step", ["reads", "writes"])
def test_a_server_whose_engine_failed_ends(tmp_path: Path, next_step: str) -> None:
    """Whatever meets it first, it says so, and a new start finds what was stored."""
    path, request = tmp_path / "clew.duckdb", tmp_path / "request"
    request.write_bytes(log_requests.spans())
    command = [sys.executable, "-c", DAMAGED, str(path), str(request), next_step]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == EXIT_DAMAGED, ended.stderr
    assert "the engine failed" in ended.stderr
    assert "Start clew again" in ended.stderr
    store = Store.open(str(path))
    with store.read() as reader:
        assert [dict(row) for row in reader.rows(text("SELECT count(*) AS n FROM execution_events"))] == [{"n": 1}]
    store.close()


# From now on no file grows, as where a disk is full.
FULL = """
import os, resource, signal, sys
from clew.collector.projection import read_requests
from clew.storage import Store, WriteFailed
_, path, request = sys.argv
store = Store.open(path)
store.write(read_requests([open(request, "rb").read()]).batch)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.stat(path).st_size, resource.RLIM_INFINITY))
try:
    store.close()
except WriteFailed as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files are limited by Unix's means")
def test_a_file_is_closed_though_its_disk_is_full(tmp_path: Path) -> None:
    """The log stays and is read when the file is opened again; whoever closed it is told so in a sentence."""
    path, request = tmp_path / "clew.duckdb", tmp_path / "request"
    request.write_bytes(log_requests.spans())
    command = [sys.executable, "-c", FULL, str(path), str(request)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("the file could not be put in order; what was stored is in its log")
    store = Store.open(str(path))
    with store.read() as reader:
        assert [dict(row) for row in reader.rows(text("SELECT count(*) AS n FROM execution_events"))] == [{"n": 1}]
    store.close()


def test_writes_go_on_after_one_that_was_not_taken_back(store: Store) -> None:
    """As where memory was too short even for that: the next is refused, those after it are stored."""
    connection = store._writer._connection
    connection.begin()
    with pytest.raises(duckdb.Error):
        connection.execute("SELECT error('as if memory had ended')")
    with pytest.raises(WriteFailed):
        log_requests.send_spans(store, log_requests.spans())
    assert log_requests.send_spans(store, log_requests.spans()).stored == 1


@pytest.mark.parametrize(
    ("said", "is_damage"),
    [
        ("Failed to commit: Failed to allocate block of 262144 bytes", True),
        ("Failed to commit: failed to allocate data of size 512 bytes (1.0 GiB/953.6 MiB used)", False),
        ('Failed to commit: Could not write file "x.wal": No space left on device', False),
    ],
)
def test_a_commit_that_fails_is_damage_unless_it_is_taken_back(said: str, *, is_damage: bool) -> None:
    """As for want of room on the disk, or within the engine's own limit of memory."""
    damage, told = Damage(), []
    damage.on_notice = told.append
    damage.look_at(duckdb.TransactionException(said), at_commit=True)
    damage.look_at(duckdb.ConstraintException("a key is there already"))
    assert told == ([said] if is_damage else [])
