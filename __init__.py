"""clew: an OpenTelemetry-compatible tracing backend for workflows of agents.

A run is a trace, an execution event is a span. `collector` takes spans in over OTLP, `storage` keeps them in a
relational schema, `query` answers questions about them over HTTP, `exporter` sends them on. `cli` is where the parts
meet. Imports point one way: cli → collector, query, exporter → storage.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("clew")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0.0.0"

__all__ = ["__version__"]
