"""Jaeger's query APIs over the same store, so that what is made for Jaeger can ask clew.

A run is a trace, an event is a span. `search` finds traces, by `tags` and by `services`; `trace_json` writes them as
version 1 of the API shows them; `otlp_traces` reads them as OTLP, which gRPC sends and `otlp_json` writes for version
3; `summaries`, `dependencies` and `span_metrics` reckon.
`parameters` reads what was asked, `http_v1` and `http_v3` give the questions their addresses, `errors` says what went
wrong as each version does. `messages` declares the gRPC messages, `grpc_services` answers `jaeger.api_v3.QueryService`
and the services that let a Jaeger use clew as its storage.
"""

from .grpc_services import jaeger_services
from .http_v1 import v1 as jaeger_v1
from .http_v3 import v3 as jaeger_v3

__all__ = ["jaeger_services", "jaeger_v1", "jaeger_v3"]
