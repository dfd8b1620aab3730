"""`clew migrate`: the revision of a database's schema, from the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clew.storage import Store, migrate

Clew = Callable[..., subprocess.CompletedProcess[str]]
NEWEST = migrate.history()[-1][0]


@pytest.fixture
def db(tmp_path: Path) -> str:
    """A database of the newest revision, closed."""
    path = str(tmp_path / "clew.duckdb")
    Store.open(path).close()
    return path


def test_current_prints_the_revision(db: str, clew: Clew) -> None:
    """One word, for people and scripts; the database comes from CLEW_DB too."""
    assert clew("migrate", "current", "--db", db).stdout == f"{NEWEST}\n"
    assert clew("migrate", "current", variables={"CLEW_DB": f"duckdb:///{db}"}).stdout == f"{NEWEST}\n"


def test_a_database_goes_down_and_up(db: str, clew: Clew) -> None:
    """Down to nothing and up to the newest; each says where it arrived."""
    assert clew("migrate", "downgrade", "base", "--db", db).stdout == "base\n"
    assert clew("migrate", "current", "--db", db).stdout == "base\n"
    assert clew("migrate", "upgrade", "--db", db).stdout == f"{NEWEST}\n"
    Store.open(db).close()


def test_history_lists_every_revision(clew: Clew) -> None:
    """Oldest first, each with what it does."""
    listed = clew("migrate", "history").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [revision for revision, _, _ in migrate.history()]
    assert all(len(line.split()) > 1 for line in listed)


def test_an_unknown_revision_is_told(db: str, clew: Clew) -> None:
    """The revision is named, the database stays as it is."""
    refused = clew("migrate", "upgrade", "nowhere", "--db", db)
    assert refused.returncode == 1
    [line] = refused.stderr.splitlines()
    assert "nowhere" in line
    assert clew("migrate", "current", "--db", db).stdout == f"{NEWEST}\n"


def test_a_database_in_use_is_left_alone(server: Any, clew: Clew) -> None:
    """A server's file is not migrated under it."""
    refused = clew("migrate", "downgrade", "base", "--db", str(server.db))
    assert refused.returncode == 1
    assert str(server.process.pid) in refused.stderr


@pytest.mark.parametrize("arguments", [("current",), ("downgrade", "base")])
def test_asking_makes_no_database(arguments: tuple[str, ...], clew: Clew, tmp_path: Path) -> None:
    """A file that is not there is told, not made."""
    refused = clew("migrate", *arguments, "--db", str(tmp_path / "typo.duckdb"))
    assert refused.returncode == 1
    assert "typo.duckdb" in refused.stderr
    assert not (tmp_path / "typo.duckdb").exists()
