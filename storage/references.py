"""What rows refer to has to be there: checked before they are stored, on every engine, from the schema's foreign keys.

Soft keys (`schema.keys`) name what may come later, and are not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from sqlalchemy import Connection, ForeignKeyConstraint, Table, inspect, literal, select

from .errors import UnknownReference
from .schema import Base, WorkflowRun
from .schema.base import HexInt64, HexUuid, OfRun, new_id

_Key = tuple[str, tuple[Any, ...]]


def settle_ids(rows: Iterable[Base]) -> None:
    """Writes the ids of `rows` in the one way they are read, and gives a row that hangs on another one of its run, and
    names no run, that run. Raises InvalidId."""
    for row in rows:
        _run_id(row)
        for column in table_of(row).columns:
            said = row.__dict__.get(column.key)
            if said is not None and isinstance(column.type, HexUuid | HexInt64):
                _set_changed(row, column.key, column.type.settled(said))


def _run_id(row: Any) -> str | None:
    """The run that the row is, or is of: as it says itself, or what it hangs on does."""
    if isinstance(row, WorkflowRun):
        row.id = row.id or new_id(32)()
        return row.id
    if not hasattr(row, "run_id"):
        return None
    if row.run_id is None:
        related = (row.__dict__.get(other.key) for other in inspect(type(row)).relationships)
        row.run_id = next(filter(None, map(_run_id, related)), None)
    return cast("str | None", row.run_id)


def _set_changed(row: Base, name: str, value: str) -> None:
    if row.__dict__[name] != value:
        setattr(row, name, value)


def check_references(connection: Connection, rows: Iterable[Base]) -> None:
    """Raises UnknownReference when one of `rows`, about to be stored together, names something that is neither in the
    store nor among them; also when it claims to be of another session than its run."""
    rows = list(rows)
    together = {_key_of(row) for row in rows}
    wanted = {key: (constraint, row) for row in rows for constraint, key in _references(row)}
    for key, (constraint, row) in wanted.items():
        if key not in together and not _is_there(connection, constraint, key[1]):
            raise UnknownReference(_missing(row, constraint, key[1]))
    for row in rows:
        _check_session(connection, row)


def _references(row: Base) -> Iterator[tuple[ForeignKeyConstraint, _Key]]:
    for constraint in table_of(row).foreign_key_constraints:
        values = tuple(getattr(row, column.key) for column in constraint.columns)
        if not constraint.info.get("soft") and None not in values:
            yield constraint, (constraint.referred_table.name, values)


def _key_of(row: Base) -> _Key:
    table = table_of(row)
    return table.name, tuple(getattr(row, column.key) for column in table.primary_key)


def _is_there(connection: Connection, constraint: ForeignKeyConstraint, values: tuple[Any, ...]) -> bool:
    columns = [element.column for element in constraint.elements]
    matches = [column == value for column, value in zip(columns, values, strict=True)]
    return (
        connection.execute(select(literal(1)).select_from(constraint.referred_table).where(*matches).limit(1)).first()
        is not None
    )


def _check_session(connection: Connection, row: Base) -> None:
    said = row.session_id_said if isinstance(row, OfRun) else None
    if said is None:
        return
    run_id = row.run_id  # type: ignore[attr-defined]
    found = connection.execute(select(WorkflowRun.session_id).where(WorkflowRun.id == run_id)).scalar()
    if found not in {None, said}:
        raise UnknownReference(f"run {run_id} is of session {found!r}, not {said!r}; leave session_id to the run")


def _missing(row: Base, constraint: ForeignKeyConstraint, values: tuple[Any, ...]) -> str:
    of_run = f" in run {values[0]}" if len(values) > 1 else ""
    what = _WORDS.get(constraint.referred_table.name, constraint.referred_table.name)
    return f"{table_of(row).name} cannot be stored: there is no {what} {values[-1]!r}{of_run}; create it first"


def table_of(row: Base) -> Table:
    """Where the row is kept."""
    table = type(row).__table__
    assert isinstance(table, Table)  # noqa: S101 no class of the schema is mapped to anything else
    return table


_WORDS = {
    "sessions": "session",
    "projects": "project",
    "tasks": "task",
    "workflow_runs": "run",
    "workflow_steps": "step",
    "dag_nodes": "node",
    "execution_events": "event",
}
