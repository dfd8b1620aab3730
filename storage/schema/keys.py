"""How rows hang together: the foreign keys of what belongs to a run, and the relationships over them.

Whatever belongs to a run is keyed by (run_id, its own id). A relationship on such a key moves the own id only; `run_id`
is set by the row itself or by `run`. A soft key names what may come later or never: it is followed when rows are
deleted, and not asked for when they are stored. On a composite key SET NULL means its last column: the run stays.
Rows that are deleted take others along through `storage.deleting`, not through the ORM (`passive_deletes`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, ForeignKeyConstraint, Sequence
from sqlalchemy.orm import Mapped, mapped_column, relationship

from .base import HexUuid

SOFT = {"soft": True}


def counted(table: str) -> Mapped[int]:
    """A key that the database counts up."""
    return mapped_column(Sequence(f"{table}_id"), primary_key=True)


def run_key(*, primary_key: bool = False) -> Mapped[Any]:
    """The column `run_id`: the row goes with its run."""
    return mapped_column(HexUuid, ForeignKey("workflow_runs.id", ondelete="CASCADE"), primary_key=primary_key)


def event_key(*, column: str = "event_id", ondelete: str = "SET NULL", soft: bool = False) -> ForeignKeyConstraint:
    return _key_in_run(column, "execution_events", ondelete, soft=soft)


def step_key(*, soft: bool = False) -> ForeignKeyConstraint:
    return _key_in_run("step_id", "workflow_steps", "SET NULL", soft=soft)


def node_key(*, column: str = "node_id") -> ForeignKeyConstraint:
    return _key_in_run(column, "dag_nodes", "CASCADE", soft=False)


def _key_in_run(column: str, table: str, ondelete: str, *, soft: bool) -> ForeignKeyConstraint:
    info = SOFT if soft else None
    return ForeignKeyConstraint(["run_id", column], [f"{table}.run_id", f"{table}.id"], ondelete=ondelete, info=info)


def one(own: str, column: str, target: str, *, back: str) -> Any:
    """The `target` of the same run whose id is in `column` of `own`; `back` is its attribute for the way back."""
    return relationship(target, primaryjoin=_within_run(own, column, target), back_populates=back)


def many(target: str, column: str, own: str, *, back: str) -> Any:
    """The `target`s of the same run that hold this row's id in `column`: the other side of `one`."""
    join = _within_run(target, column, own)
    return relationship(target, primaryjoin=join, back_populates=back, passive_deletes="all")


def owned(target: str, *, back: str) -> Any:
    """All `target`s whose only foreign key to this table names this row."""
    return relationship(target, back_populates=back, passive_deletes="all")


def _within_run(child: str, column: str, parent: str) -> str:
    return f"and_(foreign({child}.{column}) == {parent}.id, {child}.run_id == {parent}.run_id)"
