"""Files of spans: what `clew export` writes and `clew import` reads.

A format is a module: `otlp_json`, `otlp_proto`, `parquet`, `jaeger_json`; `formats` is the table of them. Reading gives
frames (a line, a message, rows, a trace) in the order of the file, each with its place in it, decoded apart from
cutting, so that frames that were imported before are skipped without a look. Writing makes bytes of one page of spans
after the other.

`export` takes the pages of a server or of a store into an `output`, `imports` frames from an `input` into a server or a
store. Both hold no more than a few frames or pages at a time, remember how far they have come, and go on from there.
"""

from __future__ import annotations

from .errors import TransferError

__all__ = ["TransferError"]
