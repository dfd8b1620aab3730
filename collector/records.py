"""What spans say beyond themselves: the rows of other tables that they bring along.

Every table here has `event_row`, the row of the event in the batch; the store adds the event's run and id, drops the
rows of an event that it has already, and takes those of a replaced event out. What most spans say (agents at work,
costs) is worked out by columns; what few say (files, messages, the graph) row by row, for just those spans.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..storage.batch import AttributeColumns, EventParts
from .artifacts import artifacts_of
from .classification import Lookup
from .costs import estimated_costs
from .graph import graph_of

Bools = npt.NDArray[np.bool_]
Columns = dict[str, pa.Array]

# What a model does, not an agent.
_MODEL_OPERATIONS = ("chat", "text_completion", "generate_content", "embeddings", "retrieval", "conversation")
_OPERATION_KEYS = ("gen_ai.operation.name", "openinference.span.kind")
_MODEL_KINDS = (*_MODEL_OPERATIONS, "LLM", "EMBEDDING", "RETRIEVER", "RERANKER")

_CACHED_KEYS = (
    *("gen_ai.usage.cache_read.input_tokens", "gen_ai.usage.cache_read_input_tokens"),
    *("llm.token_count.prompt_details.cache_read", "gen_ai.usage.details.cache_read_tokens"),
)
_REASONING_KEYS = (
    *("gen_ai.usage.reasoning.output_tokens", "gen_ai.usage.reasoning_tokens"),
    *("llm.token_count.completion_details.reasoning", "gen_ai.usage.details.reasoning_tokens"),
)

_AGENT_RUN_STATUS = {"running": "RUNNING", "completed": "COMPLETED", "failed": "FAILED"}


def own_columns(lookup: Lookup) -> Columns:
    """The event's place in the workflow, as it says itself; without those that no event of the batch has."""
    said = {
        "node_id": lookup.texts(("clew.node.id", "graph.node.id", "langgraph_node")),
        "step_id": lookup.texts(("clew.step.id",)),
        "execution_order": lookup.numbers(("clew.event.order",), pa.int64()),
    }
    return {name: column for name, column in said.items() if column.null_count < len(column)}


def with_costs(columns: Columns, lookup: Lookup) -> tuple[Columns, pa.Table | None]:
    """The columns with estimated costs where none is reported, and the batch's cost_records."""
    uses = [columns[name].is_valid() for name in ("input_tokens", "output_tokens", "cost_usd")]
    rows = np.flatnonzero(_any(uses))
    if not len(rows):
        return columns, None
    reported = columns["cost_usd"].is_valid()
    cached = lookup.numbers(_CACHED_KEYS, pa.int64())
    estimated = estimated_costs(columns["model"], columns["input_tokens"], columns["output_tokens"], cached)
    columns = columns | {"cost_usd": pc.coalesce(columns["cost_usd"], estimated)}
    record = {
        "agent_name": columns["agent_name"],
        "model": columns["model"],
        "step_id": columns.get("step_id", pa.nulls(len(reported), pa.string())),
        "prompt_tokens": columns["input_tokens"],
        "completion_tokens": columns["output_tokens"],
        "total_tokens": _sum(columns["input_tokens"], columns["output_tokens"]),
        "cached_tokens": cached,
        "reasoning_tokens": lookup.numbers(_REASONING_KEYS, pa.int64()),
        "cost_usd": columns["cost_usd"],
        "source": pc.if_else(reported, "reported", "estimated"),
        "time_unix_nano": columns["started_at_unix_nano"],
    }
    return columns, _taken(record, rows)


def records_of(
    columns: Columns, attributes: AttributeColumns, lookup: Lookup, logs: EventParts | None, links: EventParts | None
) -> dict[str, pa.Table]:
    """The rows by table, without tables that get none."""
    records = {"agent_runs": _agent_runs(columns, lookup)}
    records |= artifacts_of(columns, attributes, lookup, logs)
    records |= graph_of(columns, attributes, links)
    return {table: rows for table, rows in records.items() if rows is not None and rows.num_rows}


def _agent_runs(columns: Columns, lookup: Lookup) -> pa.Table | None:
    """Invocations of agents that have a name."""
    is_call = pc.equal(columns["event_type"], "agent_call")
    is_model = pc.is_in(lookup.texts(_OPERATION_KEYS), pa.array(_MODEL_KINDS))
    rows = np.flatnonzero(_all([is_call, columns["agent_name"].is_valid(), pc.invert(is_model)]))
    if not len(rows):
        return None
    status = pc.index_in(columns["status"], pa.array(list(_AGENT_RUN_STATUS)))
    finished = columns["completed_at_unix_nano"]
    record = {
        "task_id": lookup.texts(("clew.task.id",)),
        "agent_name": columns["agent_name"],
        "status": pa.array(list(_AGENT_RUN_STATUS.values())).take(status),
        "started_at_unix_nano": columns["started_at_unix_nano"],
        "finished_at_unix_nano": pc.if_else(pc.equal(finished, 0), pa.scalar(None, pa.int64()), finished),
        "output_summary": lookup.texts(("clew.outputs",)),
    }
    return _taken(record, rows)


def _taken(record: Columns, rows: npt.NDArray[np.int64]) -> pa.Table:
    at = pa.array(rows)
    return pa.table({"event_row": pa.array(rows, pa.int32())} | {name: c.take(at) for name, c in record.items()})


def _sum(*counts: pa.Array) -> pa.Array:
    """The sum of those that are given; null where none is."""
    total = pc.add(pc.fill_null(counts[0], 0), pc.fill_null(counts[1], 0))
    return pc.if_else(pc.or_(counts[0].is_valid(), counts[1].is_valid()), total, pa.scalar(None, pa.int64()))


def _any(flags: list[pa.Array]) -> Bools:
    return np.any([flag.to_numpy(zero_copy_only=False) for flag in flags], axis=0)


def _all(flags: list[pa.Array]) -> Bools:
    return np.all([flag.to_numpy(zero_copy_only=False) for flag in flags], axis=0)
