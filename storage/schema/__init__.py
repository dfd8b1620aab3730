"""The relational schema, one definition for every engine.

Names follow OpenTelemetry first and the workflow vocabulary second: a run is a trace, an event is a span. Times are
integer nanoseconds since the epoch. Ids are stored as numbers (`run_id` a UUID, an event's id a signed 64-bit integer)
and are lower-case hex text to Python, see `ids`.

Foreign keys are declared here for readers, the ORM and engines that enforce them; DuckDB does not get them (it has no
CASCADE, and its checks would look up an index for every row), there the writer inserts parents first and `deleting`
follows them.
"""

from .base import Base, Variant
from .compacted import CompactedPortion, TextFilter
from .descriptions import VIEWS, column_sentence, table_sentence
from .exports import ExportCursor
from .history import Histories, HistoryPart, with_histories
from .telemetry import EventLink, EventLog, EventType, ExecutionEvent, Resource, Scope, WorkflowMetric
from .workflow import (
    AgentRun,
    AgentRunStatus,
    ApprovalRequest,
    Branch,
    Checkpoint,
    CostRecord,
    DAGEdge,
    DAGNode,
    File,
    Message,
    Project,
    Session,
    Task,
    TaskStatus,
    WorkflowRun,
    WorkflowStep,
)

__all__ = [
    "VIEWS",
    "AgentRun",
    "AgentRunStatus",
    "ApprovalRequest",
    "Base",
    "Branch",
    "Checkpoint",
    "CompactedPortion",
    "CostRecord",
    "DAGEdge",
    "DAGNode",
    "EventLink",
    "EventLog",
    "EventType",
    "ExecutionEvent",
    "ExportCursor",
    "File",
    "Histories",
    "HistoryPart",
    "Message",
    "Project",
    "Resource",
    "Scope",
    "Session",
    "Task",
    "TaskStatus",
    "TextFilter",
    "Variant",
    "WorkflowMetric",
    "WorkflowRun",
    "WorkflowStep",
    "column_sentence",
    "table_sentence",
    "with_histories",
]
