"""pyarrow imports pandas, where that is installed, as soon as it converts anything. A server makes nothing of it, and
pays half a second, in which its first export waits, and 50 MB for each of its processes."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType


def go_without_pandas() -> None:
    """From now on pandas is as good as not installed in this process, unless it is loaded already."""
    sys.meta_path.insert(0, _WithoutPandas())


class _WithoutPandas(MetaPathFinder):
    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        if fullname == "pandas":
            raise ModuleNotFoundError("a clew server goes without pandas", name=fullname)
        return None
