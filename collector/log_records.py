"""OTLP log records into rows of `event_logs`.

A record belongs to the run that its trace id names, and to the event that its span id names, whichever of them comes
first. One without a trace id stands by itself. It is known by a hash of what was sent, a negative `log_index`, and of
which of its equals in its request it is: a clock of milliseconds makes equal ones that are two.
"""

from __future__ import annotations

import time
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from ..storage.batch import AttributeColumns
from ..storage.conventions import AGENT_ROLES, TEXTS
from ..storage.hashed import HashedBatch, PreparedHashed, prepare_hashed
from .artifacts import artifacts_of_records
from .attributes import as_text, flatten
from .classification import Lookup
from .columns import Bools, Ints, beyond, event_ids, is_zero, numbered, residues, times, where, wrong_ids
from .origins import resources_of, scopes_of
from .otlp import LOG_RECORDS, LOG_REQUESTS
from .reading import Form, Reading, Tree, attribute_values

_ERROR = 17  # SEVERITY_NUMBER_ERROR, the lowest severity of an error
_TYPE_OF_NAME = {
    "clew.message": "MESSAGE",
    "gen_ai.system.message": "MESSAGE",
    "gen_ai.user.message": "MESSAGE",
    "gen_ai.assistant.message": "MESSAGE",
    "gen_ai.tool.message": "MESSAGE",
    "gen_ai.choice": "MESSAGE",
    "gen_ai.content.prompt": "MESSAGE",
    "gen_ai.content.completion": "MESSAGE",
    "gen_ai.client.inference.operation.details": "MESSAGE",
    "gen_ai.evaluation.result": "RESULT",
    "clew.result": "RESULT",
    "clew.agent.start": "AGENT_START",
    "clew.agent.complete": "AGENT_COMPLETE",
}
_SPREAD = 0x1E3779B97F4A7C15  # odd, so that a resource and a scope of the same id do not cancel out
_NEGATIVE = np.iinfo(np.int64).min
_INEXACT_FIELDS = ("trace_id", "span_id", "time_unix_nano", "observed_time_unix_nano", "body", "attributes")


def read_log_requests(requests: list[bytes]) -> Reading:
    """Serialised ExportLogsServiceRequests into one batch, see `Form.read`."""
    return _LOG_RECORDS.read(requests)


def _refusals(records: pa.StructArray) -> dict[int, str]:
    """Why a record cannot be stored, by row. An id that is absent, or all zero, says that there is none."""
    reasons: dict[int, str] = {}
    for name, width in (("trace_id", 16), ("span_id", 8)):
        for row, said in wrong_ids(records.field(name), width, may_be_absent=True).items():
            reasons.setdefault(row, f"log record {_title(records, row)!r}: {name} is {said}")
    return reasons


def _title(records: pa.StructArray, row: int) -> str:
    """What a sender knows the record by."""
    record = records[row].as_py()
    return str(record["event_name"] or (record["body"] or {}).get("string_value") or record["severity_text"])[:80]


def _values(records: pa.StructArray) -> list[pa.StructArray]:
    return [attribute_values(records), records.field("body")]


def _prepared(tree: Tree) -> PreparedHashed:
    return prepare_hashed(_batch(tree))


def _batch(tree: Tree) -> HashedBatch:
    records, resource_at, scope_at = tree.records, pa.array(tree.resource_of_record), pa.array(tree.scope_of_record)
    resources, scopes = resources_of(tree.resource_blocks), scopes_of(tree.scope_blocks)
    attributes = flatten(records.field("attributes"))
    lookup = Lookup(attributes.columns)
    names = _names(records, lookup)
    content, inexact_body = as_text(records.field("body"))
    columns = _owner_columns(records) | _said_columns(records, attributes.columns, lookup, names)
    columns |= _time_columns(records, columns["run_id"].is_valid().to_numpy(zero_copy_only=False))
    columns["resource_id"], columns["scope_id"] = (
        resources.of_block("id").take(resource_at),
        scopes.of_block("id").take(scope_at),
    )
    columns["service_name"] = resources.of_block("service_name").take(resource_at)
    columns["session_id"] = pc.coalesce(columns["session_id"], resources.of_block("session_id").take(resource_at))
    hashes = _hashes(records, columns["resource_id"], columns["scope_id"])
    columns["log_index"] = pa.array(_told_apart(hashes, tree.request_of_record))
    columns["content"] = content
    inexact = attributes.inexact | inexact_body | _inexact_ids(records) | _inexact_times(records)
    columns["otlp_residue"] = residues(records, LOG_RECORDS, _INEXACT_FIELDS, inexact)
    return HashedBatch(
        "event_logs",
        pa.table(columns),
        attributes.columns,
        resources.stored(),
        scopes.stored(),
        artifacts_of_records(columns | _place(columns, lookup), attributes.columns, names),
    )


def _names(records: pa.StructArray, lookup: Lookup) -> pa.Array:
    """Older instrumentations say the name as an attribute."""
    names = records.field("event_name")
    return pc.coalesce(where(pc.not_equal(names, ""), names), lookup.texts(("event.name",)))


def _place(columns: dict[str, pa.Array], lookup: Lookup) -> dict[str, pa.Array]:
    """What artifacts ask of a span, as the record says it."""
    return {
        "id": columns["event_id"],
        "agent_name": lookup.texts(TEXTS["agent_name"]),
        "step_id": lookup.texts(("clew.step.id",)),
        "node_id": lookup.texts(("clew.node.id",)),
    }


def _owner_columns(records: pa.StructArray) -> dict[str, pa.Array]:
    """Which run and event the record belongs to. A span id says nothing without a trace id."""
    trace_ids = records.field("trace_id")
    has_run = pa.array((pc.binary_length(trace_ids).to_numpy() == 16) & ~is_zero(trace_ids, 16))
    return {
        "run_id": where(has_run, trace_ids).cast(pa.binary(16)),
        "event_id": where(has_run, event_ids(records.field("span_id"))),
    }


def _said_columns(
    records: pa.StructArray, attributes: AttributeColumns, lookup: Lookup, names: pa.Array
) -> dict[str, pa.Array]:
    """What the record says of itself."""
    roles = lookup.texts(("clew.agent.role",))
    return {
        "name": records.field("event_name"),
        "event_type": _event_types(records, attributes, names),
        "agent_role": where(pc.is_in(roles, pa.array(AGENT_ROLES)), roles),
        "session_id": lookup.texts(TEXTS["session_id"]),
        "severity_number": records.field("severity_number"),
        "severity_text": where(pc.not_equal(records.field("severity_text"), ""), records.field("severity_text")),
        "flags": records.field("flags"),
        "dropped_attributes_count": records.field("dropped_attributes_count"),
    }


def _event_types(records: pa.StructArray, attributes: AttributeColumns, names: pa.Array) -> pa.Array:
    """An error is one whatever its name."""
    encoded = names.dictionary_encode()
    by_name = pa.array([_TYPE_OF_NAME.get(name) for name in encoded.dictionary.to_pylist()], pa.string())
    of_no_run = pc.not_equal(pc.binary_length(records.field("trace_id")), 16)
    otherwise = pc.if_else(of_no_run, "SYSTEM", "LOG")
    is_error = pc.greater_equal(records.field("severity_number"), _ERROR)
    is_error = pc.or_(is_error, pa.array(_tells_of_exception(attributes)))
    return pc.if_else(is_error, "ERROR", pc.coalesce(by_name.take(encoded.indices), otherwise))


def _tells_of_exception(attributes: AttributeColumns) -> Bools:
    """Which owners have an attribute `exception.…`."""
    tells = pc.starts_with(attributes.keys.dictionary, "exception.").to_numpy(zero_copy_only=False)
    total = np.concatenate(([0], np.cumsum(tells[attributes.keys.indices.to_numpy(zero_copy_only=False)])))
    found: Bools = total[attributes.offsets[1:]] > total[attributes.offsets[:-1]]
    return found


def _time_columns(records: pa.StructArray, has_run: Bools) -> dict[str, pa.Array]:
    """A record's place in time is its own time, else when it was observed, else, in a run, when it came here."""
    said, observed = times(records.field("time_unix_nano")), times(records.field("observed_time_unix_nano"))
    placed = np.where(said != 0, said, observed)
    by_arrival = (placed == 0) & has_run
    placed = np.where(by_arrival, time.time_ns(), placed)
    return {
        "event_started_at_unix_nano": pa.array(placed),
        "met_at_unix_nano": pa.array(placed),
        "is_placed_by_arrival": pa.array(by_arrival),
        "time_unix_nano": pa.array(said),
        "observed_time_unix_nano": pa.array(observed, mask=observed == 0),
    }


def _hashes(records: pa.StructArray, resource_ids: pa.Array, scope_ids: pa.Array) -> Ints:
    """Negative numbers that stand for the records, each with where it comes from."""
    # Whole digests: asked for fewer bytes, or for a salt, blake2b takes twice as long to begin.
    digests = b"".join([blake2b(record).digest() for record in LOG_RECORDS.encode(records)])
    of_records = np.frombuffer(digests, dtype="<i8")[:: blake2b.MAX_DIGEST_SIZE // 8]
    of_origins = resource_ids.to_numpy() * _SPREAD - scope_ids.to_numpy()
    hashes: Ints = (of_records + of_origins) | _NEGATIVE
    return hashes


def _told_apart(hashes: Ints, request_of_record: Ints) -> Ints:
    """The hashes, changed for what has equals before it in its request. A request that comes again says the same."""
    order = np.lexsort((hashes, request_of_record))
    is_another = (np.diff(hashes[order], prepend=0) != 0) | (np.diff(request_of_record[order], prepend=-1) != 0)
    told_apart = np.empty_like(hashes)
    told_apart[order] = (hashes[order] + numbered(np.cumsum(is_another)) * _SPREAD) | _NEGATIVE
    return told_apart


def _inexact_ids(records: pa.StructArray) -> Bools:
    """Ids that are not in the columns: all zero, or a span's without a trace's."""
    trace_ids, span_ids = records.field("trace_id"), records.field("span_id")
    without_run = pc.not_equal(pc.binary_length(trace_ids), 16).to_numpy(zero_copy_only=False)
    zero = is_zero(trace_ids, 16) | is_zero(span_ids, 8)
    inexact: Bools = zero | (without_run & (pc.binary_length(span_ids).to_numpy() != 0))
    return inexact


def _inexact_times(records: pa.StructArray) -> Bools:
    return beyond(records.field("time_unix_nano")) | beyond(records.field("observed_time_unix_nano"))


_LOG_RECORDS = Form(
    request=ExportLogsServiceRequest,
    columns=LOG_REQUESTS,
    scope_blocks="scope_logs",
    records="log_records",
    refusals=_refusals,
    values=_values,
    prepared=_prepared,
)
