"""`clew compact`."""

import contextlib
from typing import Annotated

import typer

from ..settings import Settings
from .asking import mistakes_told, say

Database = Annotated[str | None, typer.Option(envvar="CLEW_DB", metavar="PATH", help="The database; as for `serve`.")]


def compact(db: Database = None) -> None:
    """Make a file that no server holds quick to ask; a server does it by itself when it is idle."""
    from rich.console import Console
    from rich.progress import Progress

    from ..storage import StorageError, Store
    from ..storage.engine import database_path

    with mistakes_told(StorageError):
        path = database_path(Settings(db=db).database)
        if not path.exists():
            raise StorageError(f"there is no {path}; name a database with --db")
        with contextlib.closing(Store(path)) as store, Progress(console=Console(stderr=True), transient=True) as shown:
            counting = shown.add_task("counting usage", total=None)
            while runs := store.count_usage():
                shown.advance(counting, runs)
            shown.remove_task(counting)
            bar = shown.add_task("compacting", total=store.uncompacted())
            compacted = 0
            while rows := store.compact():
                compacted += rows
                shown.advance(bar, rows)
            bar = shown.add_task("noting texts", total=store.unnoted())
            while portions := store.note_texts():
                shown.advance(bar, portions)
    say(f"{compacted} events compacted")
