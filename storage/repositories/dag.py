"""The graph of a run: what waits for what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import select

from ..errors import SelfDependency, UnknownReference
from ..schema import DAGEdge, DAGNode, WorkflowRun
from .isolation import Repository


class DAGRepository(Repository):
    """Nodes and edges of the session's runs."""

    def create_node(self, run_id: str, node_id: str, *, depends_on: Iterable[str] = (), **values: Any) -> DAGNode:
        """A node with the columns of `DAGNode` that waits for the nodes `depends_on`, which are there already; all or
        nothing is stored. Raises UnknownReference for a run or node that is not there, SelfDependency."""
        run = self._needed_run(run_id)
        before = list(dict.fromkeys(depends_on))
        for other in before:
            self._check_dependency(run, other, node_id)
        edges = [DAGEdge(run_id=run.id, from_node_id=other, to_node_id=node_id) for other in before]
        return self._create(DAGNode(run_id=run.id, id=node_id, **values), *edges)

    def get_node(self, run_id: str, node_id: str) -> DAGNode | None:
        """The node of the session's run."""
        return self._row_of_run(DAGNode, run_id, node_id)

    def list_nodes(self, run_id: str, status: str | None = None) -> Sequence[DAGNode]:
        """The nodes of the session's run, by order."""
        run = self._run(run_id)
        if run is None:
            return []
        nodes = select(DAGNode).where(DAGNode.run_id == run.id)
        if status is not None:
            nodes = nodes.where(DAGNode.status == status)
        return self.db.scalars(nodes.order_by(DAGNode.order_index.nulls_last(), DAGNode.id)).all()

    def update_node(self, run_id: str, node_id: str, **values: Any) -> DAGNode | None:
        """Sets columns of the node; None when the session has no such node."""
        return self._update(self.get_node(run_id, node_id), values)

    def delete_node(self, run_id: str, node_id: str) -> bool:
        """Deletes the node with its edges, events, files and messages; whether there was one."""
        return self._delete(self.get_node(run_id, node_id))

    def create_edge(self, run_id: str, from_node_id: str, to_node_id: str, **values: Any) -> DAGEdge:
        """`to_node_id` waits for `from_node_id`; with the columns of `DAGEdge`. Raises UnknownReference for a run or
        node that is not there, SelfDependency."""
        run = self._needed_run(run_id)
        self._check_dependency(run, from_node_id, to_node_id)
        return self._create(DAGEdge(run_id=run.id, from_node_id=from_node_id, to_node_id=to_node_id, **values))

    def list_edges(self, run_id: str) -> Sequence[DAGEdge]:
        """The edges of the session's run, in the order they were made."""
        run = self._run(run_id)
        if run is None:
            return []
        return self.db.scalars(select(DAGEdge).where(DAGEdge.run_id == run.id).order_by(DAGEdge.id)).all()

    def _check_dependency(self, run: WorkflowRun, from_node_id: str, to_node_id: str) -> None:
        if from_node_id == to_node_id:
            raise SelfDependency(f"node {to_node_id!r} of run {run.id} cannot wait for itself")
        if self.db.get(DAGNode, (run.id, from_node_id)) is None:
            raise UnknownReference(f"run {run.id} has no node {from_node_id!r} to wait for; create it first")
