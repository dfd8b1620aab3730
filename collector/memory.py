"""Keeping freed memory for the next group.

Under load every group takes some ten megabytes in large blocks and frees them. glibc gives such blocks back to the
kernel at once and has them back page by page; keeping them makes ingest some 7 % faster, for a few megabytes more in
use. Elsewhere than on glibc nothing happens.
"""

from __future__ import annotations

import ctypes

# From malloc.h.
_M_TRIM_THRESHOLD = -1
_M_TOP_PAD = -2
_M_MMAP_THRESHOLD = -3

_SETTINGS = {_M_TRIM_THRESHOLD: 256 << 20, _M_TOP_PAD: 16 << 20, _M_MMAP_THRESHOLD: 32 << 20}


def keep_freed_memory() -> None:
    """Tells this process's allocator to keep what is freed, up to 256 MiB."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    for setting, value in _SETTINGS.items():
        mallopt(setting, value)
