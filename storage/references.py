"""What rows refer to has to be there: checked before they are stored, on every engine, from the schema's foreign keys.

Soft keys (`schema.keys`) name what may come later, and are not checked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

from sqlalchemy import Column, Connection, Table, inspect, select, tuple_

from .errors import UnknownReference
from .schema import Base, WorkflowRun
from .schema.base import HexInt64, HexUuid, OfRun, new_id

KEYS_AT_ONCE = 500

_Key = tuple[str, tuple[Any, ...]]
_Target = tuple[Column[Any], ...]


class _Reference(NamedTuple):
    """That `row` names the row whose columns `target` have these values."""

    row: Base
    target: _Target
    values: tuple[Any, ...]


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
    by_target: dict[_Target, list[_Reference]] = {}
    for reference in (reference for row in rows for reference in _references(row)):
        if (reference.target[0].table.name, reference.values) not in together:
            by_target.setdefault(reference.target, []).append(reference)
    for target, references in by_target.items():
        found = _found(connection, target, list({reference.values for reference in references}))
        for reference in references:
            if reference.values not in found:
                raise UnknownReference(_missing(reference))
    for row in rows:
        _check_session(connection, row)


def _references(row: Base) -> Iterator[_Reference]:
    """The run first: what is said to be missing is the first of what is."""
    for constraint in sorted(table_of(row).foreign_key_constraints, key=lambda key: len(key.columns)):
        values = tuple(getattr(row, column.key) for column in constraint.columns)
        if not constraint.info.get("soft") and None not in values:
            yield _Reference(row, tuple(element.column for element in constraint.elements), values)


def _key_of(row: Base) -> _Key:
    table = table_of(row)
    return table.name, tuple(getattr(row, column.key) for column in table.primary_key)


def _found(connection: Connection, target: _Target, keys: list[tuple[Any, ...]]) -> set[tuple[Any, ...]]:
    """Those of the keys that are stored."""
    found: set[tuple[Any, ...]] = set()
    for start in range(0, len(keys), KEYS_AT_ONCE):
        some = tuple_(*target).in_(keys[start : start + KEYS_AT_ONCE])
        found |= {tuple(row) for row in connection.execute(select(*target).where(some))}
    return found


def _check_session(connection: Connection, row: Base) -> None:
    said = row.session_id_said if isinstance(row, OfRun) else None
    if said is None:
        return
    run_id = row.run_id  # type: ignore[attr-defined]
    found = connection.execute(select(WorkflowRun.session_id).where(WorkflowRun.id == run_id)).scalar()
    if found not in {None, said}:
        raise UnknownReference(f"run {run_id} is of session {found!r}, not {said!r}; leave session_id to the run")


def _missing(reference: _Reference) -> str:
    of_run = f" in run {reference.values[0]}" if len(reference.values) > 1 else ""
    table = reference.target[0].table.name
    what = f"{_WORDS.get(table, table)} {reference.values[-1]!r}{of_run}"
    return f"{table_of(reference.row).name} cannot be stored: there is no {what}; create it first"


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
