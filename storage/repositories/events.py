"""Execution events, written and read one by one."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, false, func, select

from ..errors import AlreadyStored
from ..recounting import of_run
from ..schema import DAGNode, ExecutionEvent, WorkflowRun
from ..schema.event_values import ENDED, STATUS_CODE_ERROR
from .isolation import Repository, is_event_id

# Attributes under which telemetry says what these columns hold: an event that is sent on says it too.
_SAID_AS = {
    "event_type": "clew.event.type",
    "event_subtype": "clew.event.subtype",
    "execution_order": "clew.event.order",
    "agent_role": "clew.agent.role",
    "node_id": "clew.node.id",
    "step_id": "clew.step.id",
}
_IN_ORDER = (
    ExecutionEvent.execution_order.nulls_last(),
    ExecutionEvent.started_at_unix_nano,
    ExecutionEvent.id,
)


class EventRepository(Repository):
    """Events of the session's runs. An event's id is unique within its run: where `run_id` may be left out, the latest
    event with the id is meant."""

    def create_event(  # noqa: PLR0913, PLR0917 the columns that place an event
        self,
        run_id: str,
        event_type: str,
        execution_order: int | None = None,
        node_id: str | None = None,
        step_id: str | None = None,
        parent_event_id: str | None = None,
        **values: Any,
    ) -> ExecutionEvent:
        """An event with the attributes of `ExecutionEvent`, committed: `completed` and now unless told otherwise, one
        deeper than its parent. The run's row follows: bounds, counts, root.

        Raises UnknownReference for a run not of the session, a node or a step not of the run; UnknownWord (a
        ValueError) for an unknown event_type, event_subtype, agent_role or status; AlreadyStored for an id that the
        run has already.
        """
        run = self._needed_run(run_id)
        if "id" in values and self.get_event(values["id"], run.id) is not None:
            raise AlreadyStored(f"run {run.id} has an event {values['id']!r} already; change it with update_event")
        if "started_at" in values:
            values.pop("timestamp", None)
        placed = {"node_id": node_id, "step_id": step_id, "parent_event_id": parent_event_id}
        values = {"depth": self._depth_below(run, parent_event_id), **placed, **values}
        event = ExecutionEvent(run_id=run.id, event_type=event_type, execution_order=execution_order, **values)
        _say_in_attributes(event)
        return self._create(event)

    def get_event(self, event_id: str, run_id: str | None = None) -> ExecutionEvent | None:
        """The session's event with this id."""
        if not is_event_id(event_id):
            return None
        found = self._within(run_id).where(ExecutionEvent.id == event_id)
        return self.db.scalars(found.order_by(ExecutionEvent.started_at_unix_nano.desc()).limit(1)).first()

    def list_events_for_run(
        self, run_id: str, event_type: str | None = None, agent_name: str | None = None, limit: int | None = None
    ) -> Sequence[ExecutionEvent]:
        """The events of the session's run, of this type and agent where told, by order, then start."""
        wanted = {"event_type": event_type, "agent_name": agent_name}
        events = self._within(run_id).filter_by(**{name: word for name, word in wanted.items() if word is not None})
        return self.db.scalars(events.order_by(*_IN_ORDER).limit(limit)).all()

    def list_events_for_node(
        self, node_id: str, event_type: str | None = None, run_id: str | None = None
    ) -> Sequence[ExecutionEvent]:
        """The events of the node, by order. Names of nodes recur: without `run_id` it is the session's latest run that
        has such a node."""
        run_id = run_id or self._latest_run_with(node_id)
        if run_id is None:
            return []
        events = self._within(run_id).where(ExecutionEvent.node_id == node_id)
        if event_type is not None:
            events = events.where(ExecutionEvent.event_type == event_type)
        return self.db.scalars(events.order_by(*_IN_ORDER)).all()

    def get_child_events(self, parent_event_id: str, run_id: str | None = None) -> Sequence[ExecutionEvent]:
        """The events right below this one, by order."""
        parent = self.get_event(parent_event_id, run_id)
        if parent is None:
            return []
        children = self._within(parent.run_id).where(ExecutionEvent.parent_event_id == parent.id)
        return self.db.scalars(children.order_by(*_IN_ORDER)).all()

    def get_event_tree(self, root_event_id: str, run_id: str | None = None) -> Sequence[ExecutionEvent]:
        """The event and all below it, by depth, then order, then start (recorded events may lack the first two, and
        then come last); each once, rings too."""
        root = self.get_event(root_event_id, run_id)
        run = self._run(root.run_id) if root else None
        if root is None or run is None:
            return []
        mine = _of(run)
        tree = select(ExecutionEvent.id).where(mine, ExecutionEvent.id == root.id).cte("tree", recursive=True)
        # UNION keeps each event once: a ring ends where it began.
        below = select(ExecutionEvent.id).join(tree, ExecutionEvent.parent_event_id == tree.c.id).where(mine)
        whole = select(ExecutionEvent).where(mine, ExecutionEvent.id.in_(select(tree.union(below).c.id)))
        return self.db.scalars(whole.order_by(ExecutionEvent.depth.nulls_last(), *_IN_ORDER)).all()

    def update_event(self, event_id: str, run_id: str | None = None, **values: Any) -> ExecutionEvent | None:
        """Sets attributes of the event, and what follows from them (end, duration, OTel status, the run's row); None
        when the session has none with this id. Raises as `create_event`."""
        event = self.get_event(event_id, run_id)
        if event is None:
            return None
        return self._update(event, values, settle=_settle)

    def delete_event(self, event_id: str, run_id: str | None = None) -> bool:
        """Deletes the event with its logs and links; whether there was one. Its children, files and messages stay, and
        are nobody's then."""
        return self._delete(self.get_event(event_id, run_id))

    def get_event_statistics(self, run_id: str) -> dict[str, Any]:
        """`total_events`, `event_types` (events by type), `agents_involved` (names), `agent_call_counts` (events by
        agent), `avg_duration_ms` and `total_duration_ms` (of the events that lasted) of the session's run, reckoned by
        the database."""
        lasted = func.nullif(ExecutionEvent.duration_ns, 0)
        figures = self._figures(run_id, func.count(), func.avg(lasted), func.sum(lasted))
        [events, average, total] = self.db.execute(figures).one()
        agents = self._counts(run_id, ExecutionEvent.agent_name)
        return {
            "total_events": events,
            "event_types": self._counts(run_id, ExecutionEvent.event_type),
            "agents_involved": list(agents),
            "agent_call_counts": agents,
            "avg_duration_ms": float(average or 0) / 1e6,
            "total_duration_ms": float(total or 0) / 1e6,
        }

    def _counts(self, run_id: str, column: Any) -> dict[str, int]:
        """How many events have each value of the column."""
        counts = self._figures(run_id, column, func.count()).where(column.is_not(None)).group_by(column)
        return dict(self.db.execute(counts.order_by(column)).tuples().all())

    def _figures(self, run_id: str, *figures: Any) -> Select[Any]:
        return select(*figures).select_from(ExecutionEvent).where(self._mine(run_id))

    def _within(self, run_id: str | None) -> Select[tuple[ExecutionEvent]]:
        """The session's events, of this run where told."""
        return self._of_session(ExecutionEvent) if run_id is None else select(ExecutionEvent).where(self._mine(run_id))

    def _mine(self, run_id: str) -> ColumnElement[bool]:
        run = self._run(run_id)
        return false() if run is None else _of(run)

    def _depth_below(self, run: WorkflowRun, parent_event_id: str | None) -> int:
        parent = self.get_event(parent_event_id, run.id) if parent_event_id else None
        return 0 if parent is None else (parent.depth or 0) + 1

    def _latest_run_with(self, node_id: str) -> str | None:
        runs = self._of_session(DAGNode).with_only_columns(WorkflowRun.id).where(DAGNode.id == node_id)
        return self.db.scalars(runs.order_by(WorkflowRun.started_at_unix_nano.desc()).limit(1)).first()


def _of(run: WorkflowRun) -> ColumnElement[bool]:
    return of_run(run.id, run.started_at_unix_nano, run.last_started_at_unix_nano)


def _say_in_attributes(event: ExecutionEvent) -> None:
    said = {key: getattr(event, name) for name, key in _SAID_AS.items()}
    event.attributes = (event.attributes or {}) | {key: value for key, value in said.items() if value is not None}


def _settle(event: ExecutionEvent, changed: Iterable[str]) -> None:
    """What follows from the attributes that changed."""
    changed = set(changed)
    if "status" in changed:
        failed = event.status == "failed"
        event.status_code = STATUS_CODE_ERROR if failed else 0
        event.status_message = (event.status_message or "") if failed else event.status_message
    if changed & {"duration_ms", "duration_ns"}:
        event.completed_at_unix_nano = event.started_at_unix_nano + event.duration_ns
    elif event.status in ENDED and not event.completed_at_unix_nano:
        event.completed_at_unix_nano = max(time.time_ns(), event.started_at_unix_nano)
    if event.completed_at_unix_nano:
        event.duration_ns = max(0, event.completed_at_unix_nano - event.started_at_unix_nano)
    _say_in_attributes(event)
