"""Runs and their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from ..errors import UnknownReference
from ..schema import Task, WorkflowRun, WorkflowStep
from .isolation import Repository
from .sessions import SessionRepository


class WorkflowRepository(Repository):
    """The session's runs and their steps."""

    def create_run(self, **values: Any) -> WorkflowRun:
        """A run with the columns of `WorkflowRun`, `draft` and started now unless told otherwise. The session is
        created when missing. Raises UnknownReference for a project or a task of another session."""
        self._check_owners(values)
        SessionRepository(self.db, self.session_id).ensure_session()
        return self._create(WorkflowRun(session_id=self.session_id, **values))

    def get_run(self, run_id: str) -> WorkflowRun | None:
        """The session's run with this id."""
        return self._run(run_id)

    def list_runs(
        self, status: str | None = None, *, project_id: str | None = None, limit: int | None = None
    ) -> Sequence[WorkflowRun]:
        """The session's runs, the latest first."""
        runs = select(WorkflowRun).where(WorkflowRun.session_id == self.session_id)
        if status is not None:
            runs = runs.where(WorkflowRun.status == status)
        if project_id is not None:
            runs = runs.where(WorkflowRun.project_id == project_id)
        latest_first = (WorkflowRun.started_at_unix_nano.desc(), WorkflowRun.id)
        return self.db.scalars(runs.order_by(*latest_first).limit(limit)).all()

    def update_run(self, run_id: str, **values: Any) -> WorkflowRun | None:
        """Sets columns of the run; None when the session has none with this id. Raises as `create_run`."""
        self._check_owners(values)
        return self._update(self._run(run_id), values)

    def delete_run(self, run_id: str) -> bool:
        """Deletes the run with everything that belongs to it, in one transaction; whether there was one."""
        return self._delete(self._run(run_id))

    def create_step(self, run_id: str, **values: Any) -> WorkflowStep:
        """A step of the run with the columns of `WorkflowStep`. Raises UnknownReference for a run of others."""
        return self._create(WorkflowStep(run_id=self._needed_run(run_id).id, **values))

    def get_step(self, run_id: str, step_id: str) -> WorkflowStep | None:
        """The step of the session's run."""
        return self._row_of_run(WorkflowStep, run_id, step_id)

    def list_steps(self, run_id: str, status: str | None = None) -> Sequence[WorkflowStep]:
        """The steps of the session's run, by number."""
        run = self._run(run_id)
        if run is None:
            return []
        steps = select(WorkflowStep).where(WorkflowStep.run_id == run.id)
        if status is not None:
            steps = steps.where(WorkflowStep.status == status)
        return self.db.scalars(steps.order_by(WorkflowStep.step_number.nulls_last(), WorkflowStep.id)).all()

    def update_step(self, run_id: str, step_id: str, **values: Any) -> WorkflowStep | None:
        """Sets columns of the step; None when the session has no such step."""
        return self._update(self.get_step(run_id, step_id), values)

    def _check_owners(self, values: dict[str, Any]) -> None:
        """A project or task of another session is as good as none; a task may be nobody's."""
        project_id, task_id = values.get("project_id"), values.get("task_id")
        if project_id is not None and SessionRepository(self.db, self.session_id).get_project(project_id) is None:
            raise UnknownReference(f"session {self.session_id!r} has no project {project_id!r}; create it first")
        task = None if task_id is None else self.db.get(Task, task_id)
        if task is not None and task.session_id not in {None, self.session_id}:
            raise UnknownReference(f"session {self.session_id!r} has no task {task_id!r}; create it first")
