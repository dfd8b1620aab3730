"""What can go wrong at rest. Each message tells its reader what to do.

StorageError
 ├─ DatabaseLocked   another process holds the file
 ├─ SchemaUnknown    the database is not at the revision this clew works with
 ├─ QueryTimeout     a read took longer than it may
 ├─ QueryRefused     SQL from outside says what it may not
 ├─ QueryFailed      the engine cannot answer SQL from outside
 ├─ QueryTooLarge    a read, or SQL from outside, needs more memory than there is for it
 ├─ WriteFailed      the engine refused a transaction; nothing of it was stored
 ├─ UnknownReference a row names a run, session, node … that is not there
 ├─ UnknownWord      a value is not of its column's vocabulary (a ValueError too)
 ├─ AlreadyStored    a row with this key is there already
 └─ SelfDependency   a node of a graph would wait for itself
"""


class StorageError(Exception):
    """Anything the store could not do."""


class DatabaseLocked(StorageError):
    """Another process holds the file."""


class SchemaUnknown(StorageError):
    """The database is not at the revision this clew works with."""


class QueryTimeout(StorageError):
    """A read took longer than its limit and was stopped."""


class QueryRefused(StorageError):
    """SQL from outside says what it may not; the message tells what."""


class QueryFailed(StorageError):
    """The engine cannot answer SQL from outside; the message is its own."""


class QueryTooLarge(StorageError):
    """A read, or SQL from outside, needs more memory than there is for it and was stopped."""


class WriteFailed(StorageError):
    """The engine refused a transaction; nothing of it was stored."""


class UnknownReference(StorageError):
    """A row names a run, session, node or the like that is not there; nothing was stored."""


class UnknownWord(StorageError, ValueError):
    """A value is not of its column's vocabulary; the message lists the known ones."""


class AlreadyStored(StorageError):
    """A row with this key is there already; it was left as it is."""


class SelfDependency(StorageError):
    """A node of a run's graph would wait for itself."""


CLOSING = "stopped: the store is about to be closed; ask again later"
