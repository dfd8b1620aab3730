"""`clew migrate`: the revision of a database's schema."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from ..settings import Settings
from .asking import mistakes_told, say

Database = Annotated[str | None, typer.Option(envvar="CLEW_DB", metavar="PATH", help="The database; as for `serve`.")]
Revision = Annotated[str, typer.Argument(help="A revision, as `clew migrate history` lists them.")]

migrate = typer.Typer(help="The revision of a database's schema.", no_args_is_help=True)


@migrate.command()
def upgrade(revision: Revision = "head", db: Database = None) -> None:
    """Bring a database up to a revision; the newest unless told."""
    with _database(db) as (schema, engine):
        schema.upgrade(engine, revision)
        say(schema.current(engine) or "base")


@migrate.command()
def downgrade(revision: Revision, db: Database = None) -> None:
    """Take a database down to a revision; `base` empties it."""
    with _database(db, must_exist=True) as (schema, engine):
        schema.downgrade(engine, revision)
        say(schema.current(engine) or "base")


@migrate.command()
def current(db: Database = None) -> None:
    """Print a database's revision."""
    with _database(db, must_exist=True) as (schema, engine):
        say(schema.current(engine) or "base")


@migrate.command()
def history() -> None:
    """List every revision, oldest first."""
    from ..storage import migrate as schema

    for revision, _, message in schema.history():
        say(f"{revision}  {message}")


@contextmanager
def _database(db: str | None, *, must_exist: bool = False) -> Iterator[tuple[Any, Any]]:
    """The migrations and an engine on the database they work on."""
    from ..storage import StorageError
    from ..storage import migrate as schema
    from ..storage.engine import database_path, open_engine

    with mistakes_told(StorageError):
        path = database_path(Settings(db=db).database)
        if must_exist and not path.exists():
            raise StorageError(f"there is no {path}; name a database with --db")
        engine = open_engine(path)
        try:
            yield schema, engine
        finally:
            engine.dispose()
