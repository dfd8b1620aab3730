"""Checkpoints in two places: a JSON snapshot in the database, the whole context in a file.

The file is a pickle, and reading a pickle can run code. So only a file is read that can be proved to be written here:
its keyed digest (HMAC-SHA256 of the checkpoint's id and the bytes) stands in the database, and the key in a file that
only its user may read. Any other file is refused, and the snapshot taken.
"""

from __future__ import annotations

import hmac
import math
import os
import pickle
import secrets
import tempfile
import warnings
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session as OrmSession

from .database import data_folder
from .errors import UnknownReference
from .repositories import CheckpointRepository
from .schema import Checkpoint

# Under this key the snapshot has the `repr` of what JSON cannot say.
NOT_JSON = "__repr__"
SNAPSHOT_DEPTH_MAX = 50
REPR_CHARACTERS_MAX = 10_000
_KEY_BYTES = 32


class CheckpointWarning(UserWarning):
    """A checkpoint is there in its JSON snapshot only; the message says why."""


class DualPersistenceManager:
    """Saves and loads checkpoints of the session's runs; files go to `work_dir`/context.

    `key_file` holds the key that proves whose files they are; it is made when missing.
    """

    def __init__(
        self, db_session: OrmSession, session_id: str, work_dir: str | Path, *, key_file: Path | None = None
    ) -> None:
        self.checkpoints = CheckpointRepository(db_session, session_id)
        self.work_dir = Path(work_dir)
        self._key_file = key_file or data_folder() / "checkpoint.key"

    def save_checkpoint(
        self, run_id: str, step_id: str | None, context: Any, checkpoint_type: str = "step_complete"
    ) -> Checkpoint:
        """Stores `context` in both places. What cannot be pickled is in the snapshot only, and a CheckpointWarning says
        so. Raises UnknownReference for a run not of the session or a step not of the run."""
        checkpoint_id = secrets.token_hex(16)
        path, digest = self._write_file(checkpoint_id, context)
        try:
            return self.checkpoints.create_checkpoint(
                run_id,
                id=checkpoint_id,
                step_id=step_id,
                checkpoint_type=checkpoint_type,
                context_snapshot=json_snapshot(context),
                pickle_file_path=path and str(path),
                pickle_digest=digest,
            )
        except BaseException:
            if path:
                path.unlink(missing_ok=True)
            raise

    def load_checkpoint(self, checkpoint_id: str) -> Any:
        """The context as it was saved; its JSON snapshot, and a CheckpointWarning, where the file is missing or cannot
        be proved to be the one that was written. Raises UnknownReference for a checkpoint not of the session."""
        checkpoint = self.checkpoints.get_checkpoint(checkpoint_id)
        if checkpoint is None:
            session_id = self.checkpoints.session_id
            raise UnknownReference(f"session {session_id!r} has no checkpoint {checkpoint_id!r}")
        if checkpoint.pickle_file_path is None:
            return checkpoint.context_snapshot
        content = self._proved_content(checkpoint)
        return checkpoint.context_snapshot if content is None else pickle.loads(content)  # noqa: S301 proved to be ours

    def _write_file(self, checkpoint_id: str, context: Any) -> tuple[Path, str] | tuple[None, None]:
        try:
            content = pickle.dumps(context)
        except (pickle.PicklingError, TypeError, AttributeError, RecursionError) as error:
            _warn(f"checkpoint {checkpoint_id} has no file, its context cannot be pickled: {error}")
            return None, None
        path = (self.work_dir / "context" / f"context_{checkpoint_id}.pkl").absolute()
        _write_whole(path, content)
        return path, self._digest(checkpoint_id, content)

    def _proved_content(self, checkpoint: Checkpoint) -> bytes | None:
        try:
            content = Path(checkpoint.pickle_file_path or "").read_bytes()
        except OSError as error:
            _warn(f"the file of checkpoint {checkpoint.id} cannot be read, its snapshot is used: {error}")
            return None
        if hmac.compare_digest(self._digest(checkpoint.id, content), checkpoint.pickle_digest or ""):
            return content
        _warn(f"{checkpoint.pickle_file_path} is not the file that was written here, the snapshot is used")
        return None

    def _digest(self, checkpoint_id: str, content: bytes) -> str:
        return hmac.digest(self._key(), checkpoint_id.encode() + content, "sha256").hex()

    def _key(self) -> bytes:
        if not self._key_file.exists():
            _write_whole(self._key_file, secrets.token_bytes(_KEY_BYTES), replace=False)
        return self._key_file.read_bytes()


def json_snapshot(value: Any, depth: int = 0) -> Any:
    """`value` as JSON can say it: tuples become lists, and what has no JSON becomes `{NOT_JSON: its repr}`."""
    if value is None or isinstance(value, bool) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, int | str) and _is_plain(value):
        return value
    if depth < SNAPSHOT_DEPTH_MAX:
        if isinstance(value, list | tuple):
            return [json_snapshot(item, depth + 1) for item in value]
        if isinstance(value, dict) and all(isinstance(key, str) and _is_plain(key) for key in value):
            return {key: json_snapshot(item, depth + 1) for key, item in value.items()}
    return {NOT_JSON: ascii(value)[:REPR_CHARACTERS_MAX]}


def _is_plain(value: int | str) -> bool:
    """Databases hold neither half surrogates nor NUL in text."""
    return isinstance(value, int) or ("\0" not in value and value.encode(errors="replace").decode() == value)


def _write_whole(path: Path, content: bytes, *, replace: bool = True) -> None:
    """The file is there whole or not at all, for its user only; one that is there stays unless `replace`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        _place(Path(temporary), path, replace=replace)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _place(temporary: Path, path: Path, *, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)
    except FileExistsError:
        return  # another process made it first


def _warn(message: str) -> None:
    warnings.warn(message, CheckpointWarning, stacklevel=4)
