"""Jaeger's gRPC messages and services, as descriptors: the same on the wire as Jaeger's own, from the numbers of their
fields. They are in protobuf's default pool, where the server's reflection finds them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from opentelemetry.proto.trace.v1 import trace_pb2

# By name of the message, its fields; a field is written as protobuf's language has it. `oneof` marks those of which a
# message has one, `map` is a map of texts.
_Messages = Mapping[str, Sequence[str]]
# By name of the service its methods: request, response.
_Services = Mapping[str, Mapping[str, tuple[str, str]]]

_SCALARS = {
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "fixed64": FieldDescriptorProto.TYPE_FIXED64,
}
_TIMESTAMP, _DURATION = "google.protobuf.Timestamp", "google.protobuf.Duration"
_TRACES = "opentelemetry.proto.trace.v1.TracesData"
_CALL = "jaeger.expression.v1.Call"

_EXPRESSION: _Messages = {
    "Expression": (
        *("oneof AttributeReference attr = 1", "oneof FieldReference field = 2", "oneof NestedReference nested = 3"),
        *("oneof Scalar scalar = 4", "oneof List list = 5", "oneof Call call = 6"),
    ),
    "AttributeReference": ("string key = 1", "string level = 2"),
    "FieldReference": ("string name = 1", "string level = 2"),
    "NestedReference": ("string level = 1",),
    "Scalar": ("string value = 1", "string type = 2"),
    "List": ("repeated string values = 1", "string type = 2"),
    "Call": ("string op = 1", "repeated Expression args = 2"),
}
_QUERY = (
    *("string service_name = 1", "string operation_name = 2"),
    *(f"{_TIMESTAMP} start_time_min = 4", f"{_TIMESTAMP} start_time_max = 5"),
    *(f"{_DURATION} duration_min = 6", f"{_DURATION} duration_max = 7", "int32 search_depth = 8"),
)
# What both packages declare alike.
_SHARED: _Messages = {
    "FindTracesRequest": ("TraceQueryParameters query = 1",),
    "FindTraceSummariesRequest": ("TraceQueryParameters query = 1",),
    "GetServicesRequest": (),
    "GetServicesResponse": ("repeated string services = 1",),
    "GetOperationsRequest": ("string service = 1", "string span_kind = 2"),
    "GetOperationsResponse": ("repeated Operation operations = 1",),
    "Operation": ("string name = 1", "string span_kind = 2"),
    "GetDependenciesRequest": (f"{_TIMESTAMP} start_time = 1", f"{_TIMESTAMP} end_time = 2"),
    "ServiceSummary": ("string name = 1", "int32 span_count = 2", "int32 error_span_count = 3"),
}
_SUMMARY = (
    *("string root_service_name = 2", "string root_operation_name = 3"),
    *("fixed64 min_start_time_unix_nano = 4", "fixed64 max_end_time_unix_nano = 5"),
    *("int32 span_count = 6", "int32 error_span_count = 7", "int32 orphan_span_count = 8"),
    "repeated ServiceSummary services = 9",
)
_API_V3: _Messages = {
    **_SHARED,
    "GetTraceRequest": (
        *("string trace_id = 1", f"{_TIMESTAMP} start_time = 2", f"{_TIMESTAMP} end_time = 3", "bool raw_traces = 4"),
    ),
    "TraceQueryParameters": (*_QUERY, "map string attributes = 3", "bool raw_traces = 9", f"{_CALL} filter = 10"),
    "DependenciesResponse": ("repeated Dependency dependencies = 1",),
    "Dependency": ("string parent = 1", "string child = 2", "uint64 call_count = 3"),
    "TraceSummary": ("string trace_id = 1", *_SUMMARY),
    "FindTraceSummariesResponse": ("repeated TraceSummary summaries = 1",),
}
_STORAGE: _Messages = {
    **_SHARED,
    "GetTraceParams": ("bytes trace_id = 1", f"{_TIMESTAMP} start_time = 2", f"{_TIMESTAMP} end_time = 3"),
    "GetTracesRequest": ("repeated GetTraceParams query = 1",),
    "KeyValue": ("string key = 1", "AnyValue value = 2"),
    "AnyValue": (
        *("oneof string string_value = 1", "oneof bool bool_value = 2", "oneof int64 int_value = 3"),
        *("oneof double double_value = 4", "oneof ArrayValue array_value = 5", "oneof KeyValueList kvlist_value = 6"),
        "oneof bytes bytes_value = 7",
    ),
    "KeyValueList": ("repeated KeyValue values = 1",),
    "ArrayValue": ("repeated AnyValue values = 1",),
    "TraceQueryParameters": (
        *_QUERY,
        "repeated KeyValue attributes = 3",
        f"{_CALL} filter = 9",
        "Pagination pagination = 10",
    ),
    "Pagination": ("uint32 page_size = 1", "string page_token = 2"),
    "FindTraceIDsRequest": ("TraceQueryParameters query = 1",),
    "FoundTraceID": ("bytes trace_id = 1", f"{_TIMESTAMP} start = 2", f"{_TIMESTAMP} end = 3"),
    "FindTraceIDsResponse": ("repeated FoundTraceID trace_ids = 1", "string next_page_token = 2"),
    "TraceSummary": ("bytes trace_id = 1", *_SUMMARY),
    "FindTraceSummariesResponse": ("repeated TraceSummary summaries = 1", "string next_page_token = 2"),
    "Dependency": ("string parent = 1", "string child = 2", "uint64 call_count = 3", "string source = 4"),
    "GetDependenciesResponse": ("repeated Dependency dependencies = 1",),
    "GetCapabilitiesRequest": (),
    "GetCapabilitiesResponse": ("SearchCapabilities search = 1",),
    "SearchCapabilities": (
        *("bool without_service_name = 1", "bool same_span_conjunction = 2", "FilterCapabilities filter = 3"),
    ),
    "FilterCapabilities": ("repeated string levels = 1", "repeated string operators = 2"),
}
_NAMES = {
    "GetServices": ("GetServicesRequest", "GetServicesResponse"),
    "GetOperations": ("GetOperationsRequest", "GetOperationsResponse"),
}
_FOUND = {
    "FindTraces": ("FindTracesRequest", f"stream {_TRACES}"),
    "FindTraceSummaries": ("FindTraceSummariesRequest", "stream FindTraceSummariesResponse"),
}


def _file(
    package: str, messages: _Messages, services: _Services, imports: Sequence[FileDescriptor] = ()
) -> FileDescriptor:
    file = FileDescriptorProto(name=f"clew/{package.replace('.', '/')}.proto", package=package, syntax="proto3")
    file.dependency.extend(imported.name for imported in imports)
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for line in fields:
            _add_field(message, package, line)
    for name, methods in services.items():
        service = file.service.add(name=name)
        for method, (request, response) in methods.items():
            *streams, output = response.split()
            service.method.add(
                name=method,
                input_type=_type_name(package, request),
                output_type=_type_name(package, output),
                server_streaming=bool(streams),
            )
    Default().AddSerializedFile(file.SerializeToString())
    return Default().FindFileByName(file.name)


def _add_field(message: DescriptorProto, package: str, line: str) -> None:
    *labels, type_name, name, _, number = line.split()
    is_repeated = "repeated" in labels or "map" in labels
    label = FieldDescriptorProto.LABEL_REPEATED if is_repeated else FieldDescriptorProto.LABEL_OPTIONAL
    field = message.field.add(name=name, number=int(number), label=label)
    if "oneof" in labels:
        field.oneof_index = 0
        if not message.oneof_decl:
            message.oneof_decl.add(name="value")
    if "map" in labels:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, _add_map(message, package, name)
    elif type_name in _SCALARS:
        field.type = _SCALARS[type_name]
    else:
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, _type_name(package, type_name)


def _add_map(message: DescriptorProto, package: str, name: str) -> str:
    """The entry that a map of texts is on the wire; gives its full name."""
    entry = message.nested_type.add(name=f"{name.title()}Entry")
    entry.options.map_entry = True
    for line in ("string key = 1", "string value = 2"):
        _add_field(entry, package, line)
    return f".{package}.{message.name}.{entry.name}"


def _type_name(package: str, name: str) -> str:
    return f".{name}" if "." in name else f".{package}.{name}"


_OTHERS = (
    _file("jaeger.expression.v1", _EXPRESSION, {}),
    *(module.DESCRIPTOR for module in (duration_pb2, timestamp_pb2, trace_pb2)),
)
API_V3 = _file(
    "jaeger.api_v3",
    _API_V3,
    {
        "QueryService": {
            "GetTrace": ("GetTraceRequest", f"stream {_TRACES}"),
            **_FOUND,
            **_NAMES,
            "GetDependencies": ("GetDependenciesRequest", "DependenciesResponse"),
        }
    },
    _OTHERS,
)
STORAGE = _file(
    "jaeger.storage.v2",
    _STORAGE,
    {
        "TraceReader": {
            "GetTraces": ("GetTracesRequest", f"stream {_TRACES}"),
            **_NAMES,
            **_FOUND,
            "FindTraceIDs": ("FindTraceIDsRequest", "FindTraceIDsResponse"),
        },
        "DependencyReader": {"GetDependencies": ("GetDependenciesRequest", "GetDependenciesResponse")},
        "Capabilities": {"GetCapabilities": ("GetCapabilitiesRequest", "GetCapabilitiesResponse")},
    },
    _OTHERS,
)


def message_class(file: FileDescriptor, name: str) -> type[Message] | Any:
    """The class of the message of this name in API_V3 or STORAGE."""
    return GetMessageClass(file.message_types_by_name[name])
