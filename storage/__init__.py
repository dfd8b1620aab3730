"""Spans at rest: knows SQL, knows no wire format.

`schema` is the one definition of the tables; `migrate` brings a database to it; `engine` opens a database and holds
what differs between engines. Writes come as `batch.SpanBatch`; `preparing` does what needs no database
(`runs`, `histories`, and `variant` for attributes), `writing` the rest in one transaction: parents first, duplicates
settled by `identity`. Reads go through `reading`, read-only by the engine and bounded in time;
SQL from outside through `selecting`, judged by `sandbox` before and bounded in memory too.

Applications that open the file themselves use `database` (sessions that check `references`, follow `deleting` and keep
runs true by `recounting`), the `repositories` and `persistence`.

Between writes `upkeep` makes questions quicker: by `counting` whose usage counts (the rule is in `usage`), and by
`compacting` what has arrived; `attribute_keys` tells where that found which.

What holds: an acknowledged batch is durable and whole; a span is stored once, however often it is sent; whatever OTLP
can say is in the columns or in `otlp_residue`; every event's run exists, and the run's time bounds cover its events.
"""

from .attribute_keys import may_have_attribute
from .batch import AttributeColumns, EventParts, Origins, SpanBatch, ValueType, WriteOutcome
from .counting import USAGE_IS_CURRENT
from .database import DatabaseSession, close_database, get_db_session, init_database
from .errors import (
    AlreadyStored,
    DatabaseLocked,
    QueryFailed,
    QueryRefused,
    QueryTimeout,
    QueryTooLarge,
    SchemaUnknown,
    SelfDependency,
    StorageError,
    UnknownReference,
    UnknownWord,
    WriteFailed,
)
from .export_cursors import ExportCursors
from .histories import histories_that_say, may_be_history
from .ids import InvalidId, event_id_text, parse_event_id, parse_run_id, run_id_text
from .persistence import CheckpointWarning, DualPersistenceManager
from .preparing import PreparedBatch, prepare
from .reading import Reader
from .repositories import (
    CheckpointRepository,
    CostRepository,
    DAGRepository,
    EventRepository,
    SessionRepository,
    WorkflowRepository,
)
from .schema import (
    AgentRun,
    AgentRunStatus,
    ApprovalRequest,
    Base,
    Branch,
    Checkpoint,
    CostRecord,
    DAGEdge,
    DAGNode,
    EventLink,
    EventLog,
    EventType,
    ExecutionEvent,
    ExportCursor,
    File,
    Histories,
    HistoryPart,
    Message,
    Project,
    Resource,
    Scope,
    Session,
    Task,
    TaskStatus,
    Variant,
    WorkflowMetric,
    WorkflowRun,
    WorkflowStep,
    column_sentence,
    table_sentence,
    with_histories,
)
from .selecting import Selecting, SqlAnswer, SqlColumn, SqlLimits
from .store import Store
from .upkeep import Upkeep
from .usage import RUN_COLUMNS, USAGE, usage_of, whole_runs

__all__ = [
    "RUN_COLUMNS",
    "USAGE",
    "USAGE_IS_CURRENT",
    "AgentRun",
    "AgentRunStatus",
    "AlreadyStored",
    "ApprovalRequest",
    "AttributeColumns",
    "Base",
    "Branch",
    "Checkpoint",
    "CheckpointRepository",
    "CheckpointWarning",
    "CostRecord",
    "CostRepository",
    "DAGEdge",
    "DAGNode",
    "DAGRepository",
    "DatabaseLocked",
    "DatabaseSession",
    "DualPersistenceManager",
    "EventLink",
    "EventLog",
    "EventParts",
    "EventRepository",
    "EventType",
    "ExecutionEvent",
    "ExportCursor",
    "ExportCursors",
    "File",
    "Histories",
    "HistoryPart",
    "InvalidId",
    "Message",
    "Origins",
    "PreparedBatch",
    "Project",
    "QueryFailed",
    "QueryRefused",
    "QueryTimeout",
    "QueryTooLarge",
    "Reader",
    "Resource",
    "SchemaUnknown",
    "Scope",
    "Selecting",
    "SelfDependency",
    "Session",
    "SessionRepository",
    "SpanBatch",
    "SqlAnswer",
    "SqlColumn",
    "SqlLimits",
    "StorageError",
    "Store",
    "Task",
    "TaskStatus",
    "UnknownReference",
    "UnknownWord",
    "Upkeep",
    "ValueType",
    "Variant",
    "WorkflowMetric",
    "WorkflowRepository",
    "WorkflowRun",
    "WorkflowStep",
    "WriteFailed",
    "WriteOutcome",
    "close_database",
    "column_sentence",
    "event_id_text",
    "get_db_session",
    "histories_that_say",
    "init_database",
    "may_be_history",
    "may_have_attribute",
    "parse_event_id",
    "parse_run_id",
    "prepare",
    "run_id_text",
    "table_sentence",
    "usage_of",
    "whole_runs",
    "with_histories",
]
