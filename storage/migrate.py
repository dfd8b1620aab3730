"""Bringing a database to a revision of the schema, by Alembic.

The versions live in `clew.migrations`. A server works on the newest only: it migrates an empty database itself and
refuses any other revision with a word on what to run, since a change of a database that holds data is its owner's.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from .errors import SchemaUnknown, StorageError

# Alembic's own; it stays when a database is brought down to nothing.
_REVISION_TABLE = "alembic_version"
_MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Runs the versions from the database's revision up to `revision`, in one transaction. Raises StorageError."""
    _run(engine, command.upgrade, revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Runs the versions down to `revision` (`base`: an empty database), in one transaction. Raises StorageError."""
    _run(engine, command.downgrade, revision)


def current(engine: Engine) -> str | None:
    """The database's revision, None where it holds no clew schema."""
    with engine.connect() as connection:
        return _revision(connection)


def history() -> list[tuple[str, str | None, str]]:
    """Every revision, oldest first, as (revision, the one before, what it does)."""
    revisions = list(ScriptDirectory.from_config(_config()).walk_revisions())
    return [(r.revision, _single(r.down_revision), r.doc) for r in reversed(revisions)]


def prepare(engine: Engine, name: str) -> None:
    """Makes the database fit to serve: migrates an empty one; raises SchemaUnknown for any but the newest revision,
    naming the database as `name`."""
    with engine.connect() as connection:
        found = _revision(connection)
        tables = _tables(connection)
    known = [revision for revision, _, _ in history()]
    if found is None and set(tables) <= {_REVISION_TABLE}:
        upgrade(engine)
    elif found is None:
        raise SchemaUnknown(f"{name} holds tables that are not clew's; choose another file")
    elif found not in known:
        raise SchemaUnknown(f"{name} is at revision {found}, which this clew does not know; install a newer clew")
    elif found != known[-1]:
        raise SchemaUnknown(f"{name} is at revision {found}, not {known[-1]}; run: clew migrate upgrade --db {name}")


def _run(engine: Engine, run: object, revision: str) -> None:
    config = _config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        try:
            run(config, revision)  # type: ignore[operator]
        except CommandError as error:
            raise StorageError(f"cannot migrate to {revision}: {error}") from error


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


def _tables(connection: Connection) -> list[str]:
    rows = connection.execute(text("SELECT table_name FROM information_schema.tables WHERE table_schema = 'main'"))
    return [str(row[0]) for row in rows]


def _revision(connection: Connection) -> str | None:
    if _REVISION_TABLE not in _tables(connection):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _single(revision: str | list[str] | tuple[str, ...] | None) -> str | None:
    return revision if revision is None or isinstance(revision, str) else revision[0]
