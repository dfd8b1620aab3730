"""Reading and writing of one session's rows by hand, for applications that open the file themselves.

Every repository is made of a database session (`get_db_session()`) and a session's id. Rows of another session are
neither seen, changed nor deleted: nothing found, nothing changed. Each method that writes commits,
what the session held before included.
"""

from .checkpoints import CheckpointRepository
from .costs import CostRepository
from .dag import DAGRepository
from .events import EventRepository
from .sessions import SessionRepository
from .workflows import WorkflowRepository

__all__ = [
    "CheckpointRepository",
    "CostRepository",
    "DAGRepository",
    "EventRepository",
    "SessionRepository",
    "WorkflowRepository",
]
