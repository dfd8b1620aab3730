"""What ends a transfer. Each message is for the user and tells what to do."""

from __future__ import annotations


class TransferError(Exception):
    """Anything that kept spans from being exported or imported."""


class BadInput(TransferError):
    """A file, or a place in one, that cannot be read."""
