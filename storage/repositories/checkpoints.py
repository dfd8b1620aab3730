"""A run's context at moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..schema import Checkpoint
from .isolation import Repository, is_run_id


class CheckpointRepository(Repository):
    """Checkpoints of the session's runs."""

    def create_checkpoint(self, run_id: str, **values: Any) -> Checkpoint:
        """A checkpoint with the columns of `Checkpoint`. Raises UnknownReference for a run not of the session or a
        step not of the run."""
        return self._create(Checkpoint(run_id=self._needed_run(run_id).id, **values))

    def get_checkpoint(self, checkpoint_id: str) -> Checkpoint | None:
        """The session's checkpoint with this id."""
        if not is_run_id(checkpoint_id):
            return None
        return self.db.scalars(self._of_session(Checkpoint).where(Checkpoint.id == checkpoint_id)).first()

    def list_checkpoints(self, run_id: str, checkpoint_type: str | None = None) -> Sequence[Checkpoint]:
        """The checkpoints of the session's run, oldest first."""
        if self._run(run_id) is None:
            return []
        checkpoints = self._of_session(Checkpoint).where(Checkpoint.run_id == run_id)
        if checkpoint_type is not None:
            checkpoints = checkpoints.where(Checkpoint.checkpoint_type == checkpoint_type)
        return self.db.scalars(checkpoints.order_by(Checkpoint.created_at_unix_nano, Checkpoint.id)).all()

    def update_checkpoint(self, checkpoint_id: str, **values: Any) -> Checkpoint | None:
        """Sets columns of the checkpoint; None when the session has none with this id."""
        return self._update(self.get_checkpoint(checkpoint_id), values)
