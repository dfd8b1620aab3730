"""Bounded decompression: what expands beyond the limit is given up early, never held whole."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import zstandard

from .answers import TooLarge
from .outcomes import Malformed

MIB = 1 << 20


class _Decoder(Protocol):
    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /) -> bytes: ...


@dataclass(frozen=True)
class _Codec:
    decoder: Callable[[], _Decoder]
    step_bytes: int


def _zstd_decoder() -> _Decoder:
    return zstandard.ZstdDecompressor(max_window_size=64 * MIB).decompressobj()


# A step expands to 33 MiB at most: deflate makes up to 1,032 bytes of one, zstd up to 32,768 (a block of 128 KiB in 4).
_GZIP = _Codec(lambda: zlib.decompressobj(wbits=31), step_bytes=32 << 10)
_CODECS = {
    "gzip": _GZIP,
    "x-gzip": _GZIP,
    "deflate": _Codec(lambda: zlib.decompressobj(wbits=15), step_bytes=32 << 10),
    "zstd": _Codec(_zstd_decoder, step_bytes=1 << 10),
}


def decompressed(body: bytes, encoding: str, *, bytes_max: int) -> bytes:
    """The body without its HTTP content coding (RFC 9110 section 8.4.1; zstd: RFC 8878); "" and `identity` are none.

    Raises TooLarge once more than `bytes_max` bytes have come out, Malformed for a coding not known here and for a body
    that is not of the coding or ends early.
    """
    if encoding in ("", "identity"):
        return body
    codec = _CODECS.get(encoding)
    if codec is None:
        raise Malformed(f"content-encoding {encoding[:80]!r} is not supported: send gzip, zstd, deflate or none")
    pieces, size = [], 0
    try:
        for piece in _expanded(body, codec):
            size += len(piece)
            if size > bytes_max:
                raise TooLarge(f"the body expands to more than {bytes_max} bytes: send fewer spans in a request")
            pieces.append(piece)
    except (zlib.error, zstandard.ZstdError, EOFError) as error:
        raise Malformed(f"the body is not valid {encoding}: {error}") from error
    return b"".join(pieces)


def _expanded(body: bytes, codec: _Codec) -> Iterator[bytes]:
    decoder = codec.decoder()
    for offset in range(0, len(body), codec.step_bytes):
        compressed = body[offset : offset + codec.step_bytes]
        while compressed:
            if decoder.eof:  # both formats may be several streams in a row
                decoder = codec.decoder()
            yield decoder.decompress(compressed)
            compressed = decoder.unused_data
    if not decoder.eof:
        raise EOFError("it ends early")
