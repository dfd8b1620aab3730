"""The files of a run: who wrote them, who read them. `provenance` looks from the file's side."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from sqlalchemy import select

from ..storage import File, Reader, Row
from .event_brief import event_briefs
from .paging import Order
from .parameters import FilesWanted
from .runs import find_run

FILES: Any = File.__table__


def file_page(reader: Reader, run_id: UUID, wanted: FilesWanted) -> dict[str, Any]:
    """`{"files": [...], "next_cursor": ...}`, in order of time. Raises NotFound."""
    run = find_run(reader, run_id)
    filters = [FILES.c[name] == value for name in ("role", "file_type") if (value := getattr(wanted, name)) is not None]
    statement = select(FILES).where(FILES.c.run_id == run_id, *filters)
    rows, next_cursor = Order(FILES.c.created_at_unix_nano, FILES.c.id).page(reader, statement, wanted)
    events = event_briefs(reader, run, (row["event_id"] for row in rows))
    files = [file_json(row) | {"event": events[row["event_id"]]} for row in rows]
    return {"files": files, "next_cursor": next_cursor}


def file_json(row: Row) -> dict[str, Any]:
    """What the row of a file says of the file itself."""
    names = ("id", "file_path", "file_type", "role", "size_bytes", "content_hash", "node_id", "step_id")
    return {name: row[name] for name in names} | {"created_at_unix_nano": str(row["created_at_unix_nano"])}
