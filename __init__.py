"""clew: an OpenTelemetry-compatible tracing backend for workflows of agents.

A run is a trace, an execution event is a span. `collector` takes spans in over OTLP, `storage` keeps them in a
relational schema, `query` answers questions about them over HTTP, `exporter` sends them on. `cli` is where the parts
meet. Imports point one way: cli → collector, query, exporter → storage.

An application records its runs with `clew.run`; `clew.record` is everything that goes with it. `clew.connect` asks a
server and `clew.open` a file; `clew.ClientError` is what they raise.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .client import ClientError
    from .connection import connect
    from .connection import open_file as open  # noqa: A004
    from .exporter import recorder as record
    from .exporter.recorder import run

try:
    __version__ = version("clew")
except PackageNotFoundError:  # a checkout that nobody installed
    __version__ = "0.0.0"

__all__ = ["ClientError", "__version__", "connect", "open", "record", "run"]

if not TYPE_CHECKING:
    _PLACES = {
        "ClientError": (".client", "ClientError"),
        "connect": (".connection", "connect"),
        "open": (".connection", "open_file"),
        "record": (".exporter.recorder", None),
        "run": (".exporter.recorder", "run"),
    }

    def __getattr__(name: str) -> object:
        """Each on first use: whoever wants the version or the command line need not wait for an SDK."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, attribute = _PLACES[name]
        found = import_module(module, __name__)
        return found if attribute is None else getattr(found, attribute)

    def __dir__() -> list[str]:
        """With what is not loaded yet, for whoever completes names."""
        return sorted({*globals(), *__all__})
