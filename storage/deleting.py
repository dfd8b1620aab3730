"""Deleting rows, on every engine the same way.

DuckDB has no CASCADE and no SET NULL, so the schema's own foreign keys are followed here: what goes with a row goes
first, links to it are set to NULL, then the row itself goes. Events take along what only they needed of their sessions'
histories. Each step is one statement.
"""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, ForeignKeyConstraint, Table, select, tuple_, update
from sqlalchemy import delete as delete_from

from . import history_parts
from .schema import Base, ExecutionEvent


def delete(connection: Connection, table: Table, condition: ColumnElement[bool]) -> None:
    """Deletes the rows of `table` for which `condition` holds, and what goes with them by foreign keys: CASCADE deletes
    the rows that refer to them, SET NULL clears the reference (its last column: a row stays with its run). Runs in the
    connection's transaction, which the caller commits."""
    for foreign_key in _references_to(table):
        refers = tuple_(*foreign_key.columns).in_(
            select(*(element.column for element in foreign_key.elements)).where(condition)
        )
        if foreign_key.ondelete == "CASCADE":
            delete(connection, foreign_key.table, refers)
        elif foreign_key.ondelete == "SET NULL":
            cleared = list(foreign_key.columns)[-1]
            connection.execute(update(foreign_key.table).where(refers).values({cleared: None}))
    sessions = history_parts.sessions_of(connection, condition) if table is ExecutionEvent.__table__ else []
    connection.execute(delete_from(table).where(condition))
    history_parts.sweep(connection, sessions)


def _references_to(table: Table) -> Iterator[ForeignKeyConstraint]:
    for other in Base.metadata.sorted_tables:
        for foreign_key in other.foreign_key_constraints:
            if foreign_key.referred_table is table:
                yield foreign_key
