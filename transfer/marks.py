"""How far the import of a file has come, remembered between two runs of the command.

What was imported is not stored again however often it is sent, so a mark only saves time. It must never skip what is
not stored: it counts for the same file (name, size, time of change) and the same place to import to, and only while
that place still holds the last span before the mark.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from platformdirs import user_state_path

from .ends import Sink
from .input import Input
from .output import replace_durably

WRITTEN_EVERY_S = 1.0


@dataclass
class Mark:
    """The mark of a file whose import goes to `sink`."""

    path: Path
    said: dict[str, Any]
    written_s: float = 0.0

    @classmethod
    def of(cls, file: Input, sink: Sink) -> Mark | None:
        """None for what is read once, such as standard input."""
        if file.path is None:
            return None
        name = str(file.path.resolve())
        status = file.path.stat()
        key = blake2b(f"{name}\0{sink.name}".encode(), digest_size=16).hexdigest()
        path = user_state_path("clew", appauthor=False) / "imports" / f"{key}.json"
        return cls(path, {"file": name, "size": status.st_size, "changed": status.st_mtime_ns, "to": sink.name})

    def frames(self, sink: Sink) -> int:
        """How many frames need not be sent again."""
        try:
            found = json.loads(self.path.read_bytes())
            if all(found[name] == value for name, value in self.said.items()) and sink.holds(*found["last"]):
                return int(found["frames"])
        except (OSError, ValueError, KeyError, TypeError):
            pass  # no mark, or none that was written whole: all is sent
        return 0

    def set(self, frames: int, run_id: str, span_id: str) -> None:
        """Says that everything up to this frame is stored, this span last. Written once a second."""
        if time.monotonic() - self.written_s >= WRITTEN_EVERY_S:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_durably(self.path, json.dumps({**self.said, "frames": frames, "last": [run_id, span_id]}).encode())
            self.written_s = time.monotonic()

    def remove(self) -> None:
        """The file is imported as a whole."""
        self.path.unlink(missing_ok=True)
