"""clew: an OpenTelemetry-compatible tracing backend for workflows of agents.

A run is a trace, an execution event is a span. `collector` takes spans in over OTLP, `storage` keeps them in a
relational schema, `query` answers questions about them over HTTP, `exporter` sends them on. `cli` is where the parts
meet. Imports point one way: cli → collector, query, exporter → storage.

An application records its runs with `clew.run`; `clew.record` is everything that goes with it.
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .exporter import recorder as record
    from .exporter.recorder import run

try:
    __version__ = version("clew")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0.0.0"

__all__ = ["__version__", "record", "run"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """`record` and `run` on first use: whoever wants the version or the command line need not wait for an SDK."""
        if name not in {"record", "run"}:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .exporter import recorder  # noqa: PLC0415

        return recorder if name == "record" else recorder.run
