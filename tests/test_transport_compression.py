"""Bounded decompression."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
import zstandard

from clew.collector.answers import TooLarge
from clew.collector.compression import decompressed
from clew.collector.outcomes import Malformed

MIB = 1 << 20
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.compress,
}
TEXT = random.Random(7).randbytes(100_000) + b"clew" * 100_000
coded = pytest.mark.parametrize("coding", CODINGS)


@coded
@pytest.mark.parametrize("plain", [b"", b"\n\0", TEXT])
def test_the_body_comes_out_as_it_was(coding: str, plain: bytes) -> None:
    """Every coding is undone, up to the limit exactly."""
    assert decompressed(CODINGS[coding](plain), coding, bytes_max=len(plain)) == plain


@pytest.mark.parametrize("coding", ["", "identity"])
def test_no_coding_leaves_the_body_as_it_is(coding: str) -> None:
    """Without a coding nothing happens to the body."""
    assert decompressed(TEXT, coding, bytes_max=0) is TEXT


def test_zstd_without_its_size_in_front() -> None:
    """A zstd stream that does not announce its size is undone as well."""
    compressor = zstandard.ZstdCompressor().compressobj()
    body = compressor.compress(TEXT) + compressor.flush()
    assert zstandard.get_frame_parameters(body).content_size == zstandard.CONTENTSIZE_UNKNOWN
    assert decompressed(body, "zstd", bytes_max=len(TEXT)) == TEXT


@coded
def test_streams_in_a_row_are_one_body(coding: str) -> None:
    """Compressed streams may follow one another."""
    body = CODINGS[coding](b"one ") + CODINGS[coding](b"two")
    assert decompressed(body, coding, bytes_max=7) == b"one two"


@coded
def test_one_byte_over_the_limit_is_too_large(coding: str) -> None:
    """The limit counts bytes that come out."""
    with pytest.raises(TooLarge, match="expands to more than 499999 bytes"):
        decompressed(CODINGS[coding](TEXT), coding, bytes_max=len(TEXT) - 1)


@coded
def test_a_bomb_is_not_inflated(coding: str) -> None:
    """A small body that expands to 200 MiB is given up after the limit and one step of at most 33 MiB."""
    bomb = CODINGS[coding](bytes(200 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decompressed(bomb, coding, bytes_max=8 * MIB)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 2 * (8 + 33) * MIB


@coded
@pytest.mark.parametrize("lost", [1, 5, 50_000])
def test_a_truncated_body_is_refused(coding: str, lost: int) -> None:
    """A compressed body that ends early is no valid body, even where all of its content came out."""
    with pytest.raises(Malformed, match=f"not valid {coding}: it ends early"):
        decompressed(CODINGS[coding](TEXT)[:-lost], coding, bytes_max=MIB)


@coded
def test_a_body_of_another_coding_is_refused(coding: str) -> None:
    """Bytes that are not of the coding are refused."""
    with pytest.raises(Malformed, match=f"not valid {coding}"):
        decompressed(b"not compressed at all", coding, bytes_max=MIB)


def test_an_unknown_coding_is_refused_by_name() -> None:
    """A refusal of a coding names those that are there."""
    with pytest.raises(Malformed, match="'br' is not supported: send gzip, zstd, deflate or none"):
        decompressed(b"", "br", bytes_max=MIB)
