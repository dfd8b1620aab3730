"""Alembic's entry: on the connection it is handed by `storage.migrate`, or on the database that CLEW_DB names."""

import os
from typing import Any

from alembic import context
from alembic.ddl.impl import DefaultImpl
from sqlalchemy import Connection

from clew.storage.engine import database_path, open_engine
from clew.storage.schema import Base


class DuckDBImpl(DefaultImpl):
    """Alembic knows DuckDB by its plain DDL, which is transactional."""

    __dialect__ = "duckdb"
    transactional_ddl = True


def _run_on(connection: Connection, **options: Any) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, **options)
    with context.begin_transaction():
        context.run_migrations()


handed_over: Connection | None = context.config.attributes.get("connection")
if handed_over is not None:
    _run_on(handed_over)
else:
    engine = open_engine(database_path(os.environ["CLEW_DB"]))
    with engine.connect() as connection:
        _run_on(connection)
    engine.dispose()
