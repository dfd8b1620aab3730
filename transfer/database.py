"""A file that no server holds as the other end of a transfer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import select

from ..collector.outcomes import Outcome as Taken
from ..collector.outcomes import Refused
from ..collector.receiver import Receiver
from ..collector.signals import SIGNALS
from ..exporter.pages import ChosenSpans, Page
from ..query.parameters import RunIdRange
from ..storage import ExecutionEvent, Reader, Store, WorkflowRun, run_id_text
from ..storage.engine import database_path
from .ends import Outcome, Total
from .errors import TransferError


@contextmanager
def opened_store(url: str, *, must_exist: bool = False) -> Iterator[Store]:
    """The store at `url`, as for `clew serve --db`. Raises StorageError, TransferError where it is not there."""
    path = database_path(url)
    if must_exist and not path.exists():
        raise TransferError(f"there is no {path}; name a database with --db")
    with closing(Store.open(url)) as store:
        yield store


def run_ids(store: Store, prefixes: Sequence[str]) -> list[str]:
    """The ids of the runs whose ids start so. Raises TransferError where none or several do."""
    with store.read() as reader:
        return [_run_id(reader, prefix) for prefix in prefixes]


def _run_id(reader: Reader, prefix: str) -> str:
    try:
        ids = RunIdRange.parse(prefix)
    except ValueError as error:
        raise TransferError(str(error)) from error
    found = reader.rows(select(WorkflowRun.id).where(WorkflowRun.id.between(ids.first, ids.last)).limit(2))
    if len(found) != 1:
        raise TransferError(f"{'several' if found else 'no'} runs' ids start with {prefix}")
    return str(found[0]["id"])


@dataclass(frozen=True)
class StoredSpans:
    """Spans of a store. Its methods raise StorageError."""

    chosen: ChosenSpans

    @classmethod
    def of(cls, store: Store, run_ids: Sequence[str], since: int, until: int) -> StoredSpans:
        """Those of the runs named, of all where none is, that started in `since` to before `until`."""
        return cls(ChosenSpans(store, [UUID(run_id) for run_id in run_ids], since, until))

    def total(self) -> Total:
        """How much was chosen. Raises TransferError where a run that was named is not there."""
        extent = self.chosen.extent()
        if extent.missing:
            raise TransferError(f"there is no run {run_id_text(extent.missing[0])} in {self.chosen.store.path}")
        return Total(extent.spans, self.chosen.since, extent.until)

    def within(self, since: int, until: int) -> StoredSpans:
        return StoredSpans(replace(self.chosen, since=since, until=until))

    def page(self, cursor: str | None) -> Page:
        return self.chosen.page(cursor)


class StoreSink:
    """Takes requests into a store, the way that a server's go."""

    def __init__(self, store: Store) -> None:
        self.name = str(store.path)
        self._store, self._receiver = store, Receiver()
        self._receiver.store_in(store)

    def accept(self, signal: str, payload: bytes) -> Future[Outcome]:
        answer: Future[Outcome] = Future()
        self._receiver.accept(payload, SIGNALS[signal]).add_done_callback(lambda taken: _pass_on(taken, answer))
        return answer

    def holds(self, run_id: str, span_id: str) -> bool:
        found = select(ExecutionEvent.id).where(ExecutionEvent.run_id == run_id, ExecutionEvent.id == span_id)
        with self._store.read() as reader:
            return bool(reader.rows(found))

    def close(self) -> None:
        self._receiver.close()


def _pass_on(taken: Future[Taken], answer: Future[Outcome]) -> None:
    error = taken.exception()
    if error is None:
        answer.set_result(Outcome(taken.result().rejected_spans, taken.result().error_message))
    else:
        answer.set_exception(TransferError(str(error)) if isinstance(error, Refused) else error)
