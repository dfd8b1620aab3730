"""What model calls cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select

from ..schema import CostRecord
from .isolation import Repository


class CostRepository(Repository):
    """Cost records of the session's runs."""

    def create_cost_record(self, run_id: str, **values: Any) -> CostRecord:
        """A record with the columns of `CostRecord`; `total_tokens` is the sum of the others unless told. Raises
        UnknownReference for a run not of the session."""
        return self._create(CostRecord(run_id=self._needed_run(run_id).id, **values))

    def get_cost_record(self, record_id: int) -> CostRecord | None:
        """The session's record with this id."""
        return self.db.scalars(self._of_session(CostRecord).where(CostRecord.id == record_id)).first()

    def list_cost_records(
        self, run_id: str | None = None, *, step_id: str | None = None, model: str | None = None
    ) -> Sequence[CostRecord]:
        """The session's records, of this run, step and model where told, by time."""
        if run_id is not None and self._run(run_id) is None:
            return []
        wanted = ((CostRecord.run_id, run_id), (CostRecord.step_id, step_id), (CostRecord.model, model))
        records = self._of_session(CostRecord).where(*(column == said for column, said in wanted if said is not None))
        return self.db.scalars(records.order_by(CostRecord.time_unix_nano, CostRecord.id)).all()

    def update_cost_record(self, record_id: int, **values: Any) -> CostRecord | None:
        """Sets columns of the record; None when the session has none with this id."""
        return self._update(self.get_cost_record(record_id), values)

    def get_run_cost(self, run_id: str) -> dict[str, Any]:
        """`prompt_tokens`, `completion_tokens`, `total_tokens` (int) and `cost_usd` (Decimal) of the session's run,
        summed up by the database; zeros where nothing is recorded."""
        names = ("prompt_tokens", "completion_tokens", "total_tokens", "cost_usd")
        sums = [func.coalesce(func.sum(getattr(CostRecord, name)), 0).label(name) for name in names]
        run = self._run(run_id)
        statement = select(*sums).where(CostRecord.run_id == (run.id if run else None))
        return dict(self.db.execute(statement).mappings().one())
