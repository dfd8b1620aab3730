"""Spans at rest: knows SQL, knows no wire format.

`schema` is the one definition of the tables; `migrate` brings a database to it; `engine` opens a database and holds
what differs between engines. Writes come as `batch.SpanBatch`; `preparing` does what needs no database
(`runs`, and `variant` for attributes), `writing` the rest in one transaction: parents first, duplicates settled by
`identity`. Reads go through
`reading`, read-only by the engine and bounded in time.

What holds: an acknowledged batch is durable and whole; a span is stored once, however often it is sent; whatever OTLP
can say is in the columns or in `otlp_residue`; every event's run exists, and the run's time bounds cover its events.
"""

from .batch import AttributeColumns, EventParts, Origins, SpanBatch, ValueType, WriteOutcome
from .errors import DatabaseLocked, QueryTimeout, SchemaUnknown, StorageError, WriteFailed
from .ids import InvalidId, event_id_text, parse_event_id, parse_run_id, run_id_text
from .preparing import PreparedBatch, prepare
from .reading import Reader
from .schema import (
    AgentRun,
    ApprovalRequest,
    Base,
    Branch,
    Checkpoint,
    CostRecord,
    DAGEdge,
    DAGNode,
    EventLink,
    EventLog,
    ExecutionEvent,
    File,
    Message,
    Project,
    Resource,
    Scope,
    Session,
    Task,
    WorkflowMetric,
    WorkflowRun,
    WorkflowStep,
)
from .store import Store

__all__ = [
    "AgentRun",
    "ApprovalRequest",
    "AttributeColumns",
    "Base",
    "Branch",
    "Checkpoint",
    "CostRecord",
    "DAGEdge",
    "DAGNode",
    "DatabaseLocked",
    "EventLink",
    "EventLog",
    "EventParts",
    "ExecutionEvent",
    "File",
    "InvalidId",
    "Message",
    "Origins",
    "PreparedBatch",
    "Project",
    "QueryTimeout",
    "Reader",
    "Resource",
    "SchemaUnknown",
    "Scope",
    "Session",
    "SpanBatch",
    "StorageError",
    "Store",
    "Task",
    "ValueType",
    "WorkflowMetric",
    "WorkflowRun",
    "WorkflowStep",
    "WriteFailed",
    "WriteOutcome",
    "event_id_text",
    "parse_event_id",
    "parse_run_id",
    "prepare",
    "run_id_text",
]
