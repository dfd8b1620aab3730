"""What can go wrong at rest. Each message tells its reader what to do.

StorageError
 ├─ DatabaseLocked   another process holds the file
 ├─ SchemaUnknown    the database is not at the revision this clew works with
 ├─ QueryTimeout     a read took longer than it may
 └─ WriteFailed      the engine refused a transaction; nothing of it was stored
"""


class StorageError(Exception):
    """Anything the store could not do."""


class DatabaseLocked(StorageError):
    """Another process holds the file."""


class SchemaUnknown(StorageError):
    """The database is not at the revision this clew works with."""


class QueryTimeout(StorageError):
    """A read took longer than its limit and was stopped."""


class WriteFailed(StorageError):
    """The engine refused a transaction; nothing of it was stored."""
