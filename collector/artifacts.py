"""Files, messages, checkpoints and approvals: what span events, log records and a few attributes say about them.

Names: `clew.file`, `clew.message`, `clew.checkpoint`, `clew.approval`, OTel's `file.*` registry and its GenAI events.
What is told wrongly is kept as the log that it came as, and makes no row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ..storage.batch import SAID_AGAIN, AttributeColumns, EventParts
from ..storage.conversation import (
    CONVERSATION_CONTEXT_KEYS,
    CONVERSATION_KEYS,
    CONVERSATION_PREFIXES,
    MESSAGE_EVENTS,
    SaidMessage,
    messages_of,
    messages_of_event,
)
from .classification import Lookup

Row = dict[str, Any]
Columns = dict[str, pa.Array]

FILE_TYPES = ("code", "data", "plot", "log", "plan", "report", "chat", "context", "other")
_FILE_TYPE_OF_EXTENSION = {
    **dict.fromkeys(("py", "js", "ts", "sh", "ipynb", "c", "cpp", "rs", "go", "java", "sql"), "code"),
    **dict.fromkeys(("csv", "json", "jsonl", "parquet", "tsv", "xml", "yaml", "yml", "npy", "h5", "fits"), "data"),
    **dict.fromkeys(("png", "jpg", "jpeg", "svg", "gif", "pdf"), "plot"),
    **dict.fromkeys(("log", "out", "err"), "log"),
}


class Said(NamedTuple):
    """One span event or log record, or a span's own attributes: where it belongs, when, and what it says. A log record
    has a body, and its `place` is its `log_index`."""

    event_row: int
    place: int
    time_unix_nano: int
    attributes: Mapping[str, Any]
    body: str | None = None
    log_index: int | None = None


def artifacts_of(
    columns: Columns, attributes: AttributeColumns, lookup: Lookup, logs: EventParts | None
) -> dict[str, pa.Table | None]:
    """Rows of files, messages, checkpoints and approval_requests, with `event_row`; messages with `said_again` (see
    `SpanBatch`)."""
    rows = _told(_span_events(logs), columns)
    told = {(row["event_row"], row["file_path"]) for row in rows["files"]}
    written = _written_files(columns, attributes, lookup)
    rows["files"] += [row for row in written if (row["event_row"], row["file_path"]) not in told]
    rows["messages"] = _each_once(rows["messages"] + _conversations(columns, attributes))
    schemas = _SCHEMAS | {"messages": _SCHEMAS["messages"].append(SAID_AGAIN)}
    return {table: _table(found, schemas[table]) for table, found in rows.items()}


def artifacts_of_records(columns: Columns, attributes: AttributeColumns, names: pa.Array) -> dict[str, pa.Table]:
    """As `artifacts_of`, for log records of these names, `event_row` being the record's; without tables that get none.
    Records of no run bring nothing along."""
    rows = _told(_log_records(columns, attributes, names), columns)
    rows["messages"] = _each_once(rows["messages"])
    tables = {table: _table(found, _SCHEMAS[table]) for table, found in rows.items()}
    return {table: rows for table, rows in tables.items() if rows is not None}


def _told(moments: Iterable[tuple[str, Said]], columns: Columns) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = {table: [] for table in _SCHEMAS}
    for name, said in moments:
        table, read = _READERS[name]
        rows[table] += [_common(said, columns) | row for row in read(name, said, columns)]
    return rows


def _span_events(logs: EventParts | None) -> Iterator[tuple[str, Said]]:
    if logs is None:
        return
    names = logs.table["name"]
    found = np.flatnonzero(pc.is_in(names, pa.array(list(_READERS))).to_numpy())
    for row in found.tolist():
        at = {name: logs.table[name][row].as_py() for name in ("name", "event_row", "log_index", "time_unix_nano")}
        yield at["name"], Said(at["event_row"], at["log_index"], at["time_unix_nano"], logs.attributes.of(row))


def _log_records(columns: Columns, attributes: AttributeColumns, names: pa.Array) -> Iterator[tuple[str, Said]]:
    found = pc.and_(pc.is_in(names, pa.array(list(_READERS))), columns["run_id"].is_valid())
    for row in np.flatnonzero(found.to_numpy(zero_copy_only=False)).tolist():
        at, log_index = (columns[name][row].as_py() for name in ("event_started_at_unix_nano", "log_index"))
        yield names[row].as_py(), Said(row, log_index, at, attributes.of(row), _of(columns, "content", row), log_index)


def _common(said: Said, columns: Columns) -> Row:
    step_id = _of(columns, "step_id", said.event_row)
    return {"event_row": said.event_row, "log_index": said.log_index, "step_id": step_id}


def _file(name: str, said: Said, columns: Columns) -> list[Row]:
    path = said.attributes.get("file.path")
    return [_file_row(path, name, said, columns)] if isinstance(path, str) and path else []


def _file_row(path: str, name: str, said: Said, columns: Columns) -> Row:
    used = name == "file.used" or said.attributes.get("clew.file.role") == "input"
    return {
        "id": _row_id(columns, said, "file"),
        "node_id": _of(columns, "node_id", said.event_row),
        "file_path": path,
        "file_type": _file_type(said.attributes.get("clew.file.type"), path),
        "role": "input" if used else "output",
        "size_bytes": _number(said.attributes.get("file.size")),
        "content_hash": _text(said.attributes.get("clew.file.sha256")),
        "created_at_unix_nano": said.time_unix_nano,
    }


def _file_type(told: Any, path: str) -> str:
    if told in FILE_TYPES:
        return str(told)
    return _FILE_TYPE_OF_EXTENSION.get(path.rpartition(".")[2].lower(), "other")


def _written_files(columns: Columns, attributes: AttributeColumns, lookup: Lookup) -> list[Row]:
    """Files named by the span that wrote them (`file.path` on a span of type file_gen)."""
    wrote = pc.and_(lookup.texts(("file.path",)).is_valid(), pc.equal(columns["event_type"], "file_gen"))
    rows = []
    for row in np.flatnonzero(wrote.to_numpy(zero_copy_only=False)).tolist():
        ended = columns["completed_at_unix_nano"][row].as_py() or columns["started_at_unix_nano"][row].as_py()
        said = Said(row, -1, ended, attributes.of(row))
        rows += [_common(said, columns) | file for file in _file("clew.file", said, columns)]
    return rows


def _message(_name: str, said: Said, columns: Columns) -> list[Row]:
    content = said.attributes.get("clew.message.content", said.body)
    if not isinstance(content, str) or not content:
        return []
    sender = _text(said.attributes.get("clew.message.sender")) or _of(columns, "agent_name", said.event_row)
    row = _message_row(
        columns,
        said,
        sender=sender,
        recipient=_text(said.attributes.get("clew.message.recipient")),
        role=_text(said.attributes.get("clew.message.role")),
        content=content,
        tokens=_number(said.attributes.get("clew.message.tokens")),
    )
    return [row]


def _event_messages(name: str, said: Said, columns: Columns) -> list[Row]:
    told = messages_of_event(name, said.body, said.attributes)
    return [_spoken_row(columns, said, message) for message in told]


def _spoken_row(columns: Columns, said: Said, message: SaidMessage) -> Row:
    return _message_row(
        columns,
        said,
        sender=message.sender or message.role,
        recipient=message.recipient,
        role=message.role,
        content=message.content,
        tokens=message.tokens,
    )


def _conversations(columns: Columns, attributes: AttributeColumns) -> list[Row]:
    """Every message of the calls to models, history included."""
    told = attributes.codes(lambda key: key in CONVERSATION_KEYS or key.startswith(CONVERSATION_PREFIXES))
    looked_at = told | attributes.codes(lambda key: key in CONVERSATION_CONTEXT_KEYS)
    rows = []
    for event_row in attributes.owners_of(told).tolist():
        started, ended = (
            columns[name][event_row].as_py() for name in ("started_at_unix_nano", "completed_at_unix_nano")
        )
        for index, message in enumerate(messages_of(attributes.of(event_row, among=looked_at))):
            said = Said(event_row, index, (ended or started) if message.is_output else started, {})
            rows.append(_common(said, columns) | _spoken_row(columns, said, message))
    return rows


def _message_row(
    columns: Columns, said: Said, *, sender: str | None, role: str | None, content: str, **more: Any
) -> Row:
    session = _of(columns, "session_id", said.event_row) or columns["run_id"][said.event_row].as_py().hex()
    identity = "\0".join((session, sender or "", role or "", content))
    return {
        "node_id": _of(columns, "node_id", said.event_row),
        "sender": sender,
        "role": role,
        "content": content,
        "content_hash": blake2b(identity.encode(), digest_size=16).digest(),
        "time_unix_nano": said.time_unix_nano,
        **more,
    }


def _each_once(messages: list[Row]) -> list[Row]:
    """The first of those that say the same in the same session, with those by whom it is `said_again`, in order."""
    first: dict[bytes, Row] = {}
    for message in sorted(messages, key=lambda message: message["time_unix_nano"]):
        found = first.setdefault(message["content_hash"], message | {"said_again": []})
        if found["event_row"] != message["event_row"]:
            found["said_again"].append(message)
    return list(first.values())


def _checkpoint(_name: str, said: Said, columns: Columns) -> list[Row]:
    row = {
        "id": _row_id(columns, said, "checkpoint"),
        "checkpoint_type": _text(said.attributes.get("clew.checkpoint.type")) or "manual",
        "created_at_unix_nano": said.time_unix_nano,
        "context_snapshot": _json(said.attributes.get("clew.checkpoint.snapshot")),
        "pickle_file_path": _text(said.attributes.get("clew.checkpoint.path")),
    }
    return [row]


def _approval(_name: str, said: Said, columns: Columns) -> list[Row]:
    status = _text(said.attributes.get("clew.approval.status")) or "pending"
    given = _text(said.attributes.get("clew.approval.id"))
    of_event = columns["id"][said.event_row].as_py() or said.place
    row = {
        "id": given or f"{of_event % (1 << 64):016x}",
        "status": status,
        "requested_at_unix_nano": said.time_unix_nano,
        "resolved_at_unix_nano": None if status == "pending" else said.time_unix_nano,
        "user_feedback": _text(said.attributes.get("clew.approval.feedback")),
        "resolution": _text(said.attributes.get("clew.approval.resolution"))
        or (None if status == "pending" else status),
    }
    return [row]


def _row_id(columns: Columns, said: Said, kind: str) -> bytes:
    """The same id whenever the same span says it again, see `storage.identity`."""
    run_id, event_id = columns["run_id"][said.event_row].as_py(), columns["id"][said.event_row].as_py()
    span = b"%d %d" % tuple(_of(columns, name, said.event_row) or 0 for name in ("kind", "started_at_unix_nano"))
    content = b"%s %s %d %s %d" % (kind.encode(), run_id, event_id or 0, span, said.place)
    return blake2b(content, digest_size=16).digest()


def _of(columns: Columns, name: str, row: int) -> Any:
    return columns[name][row].as_py() if name in columns else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _json(value: Any) -> str | None:
    """JSON text of the value, as it is where it is JSON text already."""
    if value is None:
        return None
    try:
        return orjson.dumps(orjson.loads(value)).decode()
    except (orjson.JSONDecodeError, TypeError):
        return orjson.dumps(value, default=repr).decode()


def _table(rows: list[Row], schema: pa.Schema) -> pa.Table | None:
    return pa.Table.from_pylist(rows, schema) if rows else None


_EVENT_ROW, _LOG_INDEX = ("event_row", pa.int32()), ("log_index", pa.int64())
_BINARY_ID = ("id", pa.binary(16))
_SCHEMAS = {
    "files": pa.schema(
        [_EVENT_ROW, _LOG_INDEX, _BINARY_ID]
        + [(name, pa.string()) for name in ("step_id", "node_id", "file_path", "file_type", "role", "content_hash")]
        + [("size_bytes", pa.int64()), ("created_at_unix_nano", pa.int64())]
    ),
    "messages": pa.schema(
        [_EVENT_ROW, _LOG_INDEX, ("content_hash", pa.binary(16))]
        + [(name, pa.string()) for name in ("step_id", "node_id", "sender", "recipient", "role", "content")]
        + [("tokens", pa.int64()), ("time_unix_nano", pa.int64())]
    ),
    "checkpoints": pa.schema(
        [_EVENT_ROW, _LOG_INDEX, _BINARY_ID]
        + [(name, pa.string()) for name in ("step_id", "checkpoint_type", "context_snapshot", "pickle_file_path")]
        + [("created_at_unix_nano", pa.int64())]
    ),
    "approval_requests": pa.schema(
        [_EVENT_ROW]
        + [(name, pa.string()) for name in ("id", "step_id", "status", "user_feedback", "resolution")]
        + [("requested_at_unix_nano", pa.int64()), ("resolved_at_unix_nano", pa.int64())]
    ),
}

_READERS: dict[str, tuple[str, Callable[[str, Said, Columns], list[Row]]]] = {
    **dict.fromkeys(MESSAGE_EVENTS, ("messages", _event_messages)),
    "clew.file": ("files", _file),
    "file.generated": ("files", _file),
    "file.used": ("files", _file),
    "clew.message": ("messages", _message),
    "clew.checkpoint": ("checkpoints", _checkpoint),
    "clew.approval": ("approval_requests", _approval),
}
