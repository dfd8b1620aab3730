"""What all repositories share: whose rows they are, and how one is stored and changed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sqlalchemy import Select, select
from sqlalchemy.orm import Session as OrmSession

from ..errors import UnknownReference, UnknownWord
from ..ids import InvalidId, parse_event_id, parse_run_id
from ..schema import Base, WorkflowRun

Row = TypeVar("Row", bound=Base)

_turn = threading.Lock()

# What says which row it is and whose; to be of another run or session a row is made anew.
_FIXED = ("id", "run_id", "session_id")


class Repository:
    """Rows of one session, through a database session that `get_db_session` made."""

    def __init__(self, db_session: OrmSession, session_id: str) -> None:
        self.db = db_session
        self.session_id = session_id

    def _of_session(self, model: type[Row]) -> Select[tuple[Row]]:
        """The session's rows of a table whose rows belong to runs."""
        of_run = model.run_id == WorkflowRun.id  # type: ignore[attr-defined]
        return select(model).join(WorkflowRun, of_run).where(WorkflowRun.session_id == self.session_id)

    def _row_of_run(self, model: type[Row], run_id: str, row_id: str) -> Row | None:
        """The row with this id in a run of the session."""
        run = self._run(run_id)
        return None if run is None else self.db.get(model, (run.id, row_id))

    def _run(self, run_id: str) -> WorkflowRun | None:
        if not is_run_id(run_id):
            return None
        mine = select(WorkflowRun).where(WorkflowRun.id == run_id, WorkflowRun.session_id == self.session_id)
        return self.db.scalars(mine).first()

    def _needed_run(self, run_id: str) -> WorkflowRun:
        run = self._run(run_id)
        if run is None:
            message = f"session {self.session_id!r} has no run {run_id!r}"
            raise UnknownReference(f"{message}; create it first with WorkflowRepository.create_run")
        return run

    def _create(self, row: Row, *besides: Base) -> Row:
        """Stores the row, and what comes with it, and commits."""
        _check_words(type(row), row.__dict__)
        with self._writing():
            self.db.add_all([row, *besides])
        return row

    def _update(
        self, row: Row | None, values: dict[str, Any], settle: Callable[[Row, Iterable[str]], None] | None = None
    ) -> Row | None:
        """Sets the attributes, then what follows from them, and commits; None stays None."""
        if row is None:
            return None
        for name in values:
            if name in _FIXED or not hasattr(type(row), name):
                raise TypeError(f"{name!r} of {type(row).__name__} cannot be changed")
        _check_words(type(row), values)
        with self._writing():
            for name, value in values.items():
                setattr(row, name, value)
            if settle:
                settle(row, values)
        return row

    def _delete(self, row: Base | None) -> bool:
        """Deletes the row and what goes with it, and commits; whether there was one."""
        if row is None:
            return False
        with self._writing():
            self.db.delete(row)
        return True

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction of its own, one at a time: it sees what the one before has committed. DuckDB refuses to change
        a row that was changed since the transaction began, and every event changes its run's row."""
        with _turn:
            try:
                self.db.commit()
                yield
                self.db.commit()
            except BaseException:
                self.db.rollback()
                raise


def is_run_id(text: str) -> bool:
    """What is no id at all is nobody's."""
    return _reads(parse_run_id, text)


def is_event_id(text: str) -> bool:
    return _reads(parse_event_id, text)


def _reads(parse: Any, text: str) -> bool:
    try:
        parse(text)
    except InvalidId:
        return False
    return True


def _check_words(model: type[Base], values: dict[str, Any]) -> None:
    for column in model.__table__.columns:
        words, said = column.info.get("words"), values.get(column.key)
        if words and said is not None and said not in words:
            raise UnknownWord(f"{said!r} is no {column.key} of {model.__tablename__}; known: {', '.join(words)}")
