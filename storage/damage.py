"""Notices that the engine cannot go on.

After a fault of its own, for want of memory say, the engine refuses everything until it is opened anew. A commit that
fails in its midst is worse: it may leave in memory something else than in the file, and what is committed after that
could be lost. What was acknowledged until then is in the file or its log. So whoever serves should end at once, without
closing the file, and start again. A full disk is no damage, nor is the end of the memory that the engine allows
itself: it takes such a commit back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import duckdb
from sqlalchemy.exc import DBAPIError

from .errors import WriteFailed

_TAKEN_BACK = re.compile("Could not write file|No space left on device|failed to allocate data of size")


class Damage:
    """Whether the engine still can: `reason` is empty as long as it can. `on_notice` is called with it once, on the
    thread that met it."""

    def __init__(self) -> None:
        self.reason = ""
        self.on_notice: Callable[[str], object] = lambda _reason: None

    def look_at(self, error: BaseException, *, at_commit: bool = False) -> None:
        """Takes note of what was raised, at a commit or elsewhere."""
        cause = error.orig if isinstance(error, DBAPIError) else error
        torn = at_commit and not _TAKEN_BACK.search(str(cause))
        if (torn or isinstance(cause, duckdb.FatalException)) and not self.reason:
            self.reason = str(cause).partition("\n")[0]
            self.on_notice(self.reason)

    @contextmanager
    def transaction(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """One on this connection: committed at the end, taken back where something is raised, if that can be."""
        connection.begin()
        try:
            yield
        except BaseException:
            with suppress(duckdb.Error):  # what it was raised for tells more
                connection.rollback()
            raise
        try:
            connection.commit()
        except duckdb.Error as error:
            self.look_at(error, at_commit=True)
            raise

    def refuse(self) -> None:
        """Raises WriteFailed where the engine cannot go on."""
        if self.reason:
            raise WriteFailed(f"not stored: the engine failed before ({self.reason}); open the database anew")
