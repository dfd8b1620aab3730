"""The store: spans go in by batches, answers come out through read transactions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import ClauseElement

from . import migrate
from .batch import WriteOutcome
from .commits import Commits
from .compacting import UNCOMPACTED
from .counting import count_portion
from .damage import Damage
from .engine import database_path, open_engines
from .errors import CLOSING
from .hashed import Prepared
from .reading import Audience, Reader, Reads
from .text_filters import UNNOTED, filters_of_portion
from .writing import Writer

# A statement looks for being ended many times a second.
READS_END_S_MAX = 5.0


class Store:
    """One open database. Safe to use from several threads; writes take turns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"duckdb:///{path}"
        self.engine, reading = open_engines(path)
        try:
            migrate.prepare(self.engine, str(path))
            self.damage = Damage()
            self._writer = Writer(self.engine, self.damage)
            self._reads = Reads(reading, self.damage)
            self.audience = Audience()
        except BaseException:
            self.engine.dispose()
            raise

    @classmethod
    def open(cls, url: str) -> Store:
        """Opens the database at `url` (a path or `duckdb:///path`), creating and migrating an empty one.

        Raises DatabaseLocked when another process holds it, SchemaUnknown when it is not at this clew's revision,
        StorageError when it cannot be opened.
        """
        return cls(database_path(url))

    def write(self, batch: Prepared) -> WriteOutcome:
        """Stores spans, or log records or metric points, in one transaction: on return they are durable and the next
        read sees them.

        A span that is there already (same run, span id, kind and start) is not stored again; one that ends what was
        pending replaces it. Nor is a record or a point that is there already. Raises WriteFailed, and then nothing of
        the batch is stored.
        """
        return self._writer.write(batch)

    def compact(self) -> int:
        """Makes the attributes of the oldest events that lie as they arrived quick to search, in one transaction that
        writes wait for; returns how many events, 0 where too few are left to be worth it, see `compacting`. Raises
        WriteFailed, and then nothing is changed."""
        return self._writer.compact()

    def count_usage(self, *, quiet_s: float = 0.0) -> int:
        """Works out whose usage counts for some of the runs that have changed, oldest first, see `counting`; returns
        how many, 0 where all are current. Runs whose last event started in the last `quiet_s` seconds, if any, are left
        for later. Raises QueryTimeout and WriteFailed, and then nothing is changed."""
        with self.read(awaited=False) as reader:
            portion = count_portion(reader, before=time.time_ns() - int(quiet_s * 1e9) if quiet_s else None)
        if portion.runs.num_rows:
            self._writer.write_usage(portion)
        return portion.runs.num_rows

    def note_texts(self) -> int:
        """Notes which texts the attributes of a portion of compacted events are, the newest that is not noted yet, see
        `text_filters`; returns how many portions, 0 where none is left. Raises QueryTimeout and WriteFailed, and then
        nothing is changed."""
        with self.read(awaited=False) as reader:
            filters = filters_of_portion(reader)
        if filters is None:
            return 0
        self._writer.write_text_filters(filters)
        return 1

    def give_memory_back(self) -> None:
        """If much was stored or compacted since the last time: lets go of what memory holds of the file, down to what
        was used last. It is full of what nobody has asked for then, beside which questions find no room. Writes wait
        meanwhile. Raises WriteFailed, and then nothing is changed."""
        self._writer.give_memory_back()

    def uncompacted(self) -> int:
        """How many events lie as they arrived."""
        return self._count(UNCOMPACTED)

    def unnoted(self) -> int:
        """Of how many portions of compacted events the texts can still be noted."""
        return self._count(UNNOTED)

    def _count(self, statement: ClauseElement) -> int:
        with self.read() as reader:
            [[rows]] = reader.arrow(statement).to_pydict().values()
            return int(rows)

    @property
    def idle_s(self) -> float:
        """The seconds since something was last written."""
        return self._writer.idle_s

    @property
    def busy_s(self) -> float:
        """The seconds that writes have taken since the store was opened."""
        return self._writer.busy_s

    @property
    def compacts_arrivals(self) -> bool:
        """Whether many events that are written at once are compacted as they are. It takes a third more of a write."""
        return self._writer.compacts_arrivals

    @compacts_arrivals.setter
    def compacts_arrivals(self, wanted: bool) -> None:
        self._writer.compacts_arrivals = wanted

    @property
    def commits(self) -> Commits:
        """The order of commits, and the last one's stamp."""
        return self._writer.commits

    @contextmanager
    def read(self, *, seconds_max: float = 30.0, awaited: bool = True) -> Iterator[Reader]:
        """A read-only transaction, ended after `seconds_max` seconds. Raises QueryTimeout and QueryTooLarge. Unless
        nobody waits for what it finds, it tells `audience`, for whom `Upkeep` prepares what is stored."""
        with self.audience.waits() if awaited else nullcontext(), self._reads.transaction(seconds_max) as reader:
            yield reader

    def end_reads(self) -> None:
        """Ends the reads under way, which raise QueryTimeout; returns when they are over, within READS_END_S_MAX."""
        self._reads.end(CLOSING, READS_END_S_MAX)

    def close(self) -> None:
        """Ends the reads under way, folds the write-ahead log into the file and closes it. Raises WriteFailed where the
        log has to stay, and nothing is lost by that."""
        self.end_reads()
        try:
            self._writer.close()
        finally:
            self.engine.dispose()
