"""The session itself, and its projects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from ..errors import AlreadyStored
from ..schema import Project, Session
from .isolation import Repository, is_run_id


class SessionRepository(Repository):
    """The session that the repository is made for, and its projects."""

    def create_session(self, **values: Any) -> Session:
        """The repository's session, with the columns of `Session`. Raises AlreadyStored when it is there."""
        if self.get_session() is not None:
            raise AlreadyStored(f"session {self.session_id!r} is there already; change it with update_session")
        return self._create(Session(id=self.session_id, **values))

    def get_session(self, session_id: str | None = None) -> Session | None:
        """The repository's session; None when it is not there, and for any other."""
        return self.db.get(Session, self.session_id) if session_id in {None, self.session_id} else None

    def list_sessions(self, status: str | None = None) -> list[Session]:
        """The repository's session, where it is there and in this status: others are not seen."""
        session = self.get_session()
        return [session] if session is not None and status in {None, session.status} else []

    def update_session(self, **values: Any) -> Session | None:
        """Sets columns of the session; None when it is not there."""
        return self._update(self.get_session(), values)

    def delete_session(self) -> bool:
        """Deletes the session with everything of it; whether it was there."""
        return self._delete(self.get_session())

    def ensure_session(self) -> Session:
        """The repository's session, created when missing."""
        return self.get_session() or self.create_session()

    def create_project(self, name: str, **values: Any) -> Project:
        """A project of the session, which is created when missing."""
        self.ensure_session()
        return self._create(Project(session_id=self.session_id, name=name, **values))

    def get_project(self, project_id: str) -> Project | None:
        """The session's project with this id."""
        mine = select(Project).where(Project.id == project_id, Project.session_id == self.session_id)
        return self.db.scalars(mine).first() if is_run_id(project_id) else None

    def list_projects(self) -> Sequence[Project]:
        """The session's projects, oldest first."""
        mine = select(Project).where(Project.session_id == self.session_id)
        return self.db.scalars(mine.order_by(Project.created_at_unix_nano, Project.id)).all()

    def update_project(self, project_id: str, **values: Any) -> Project | None:
        """Sets columns of the project; None when the session has none with this id."""
        return self._update(self.get_project(project_id), values)
