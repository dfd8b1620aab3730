"""Bloom filters: a few bits for each text of many, by which most other texts are known not to be among them.

A filter knows every text that it was made of again, and takes one in a hundred of all others for one of them. Filters
are stored: how a text becomes bits never changes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

# What is longer is in no filter.
TEXT_BYTES_MAX = 256

_BITS_A_TEXT = 10
_PROBES = 7
# Some forty bytes of memory are used for each byte of these.
_TEXTS_AT_ONCE = 4096

_Numbers = npt.NDArray[np.uint64]


def bloom_filter(texts: pa.Array) -> bytes:
    """The filter of these texts, each of TEXT_BYTES_MAX bytes at most."""
    octets = max(1, -(-len(texts) * _BITS_A_TEXT // 8))
    bits = np.zeros(octets * 8, np.bool_)
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        hashes = _hashes(texts.slice(first, _TEXTS_AT_ONCE))
        for number in range(_PROBES):
            bits[_probed(hashes, number, np.uint64(len(bits)))] = True
    return np.packbits(bits, bitorder="little").tobytes()


def may_hold(filters: pa.Array, text: str) -> npt.NDArray[np.bool_]:
    """For each of the filters (binary): may the text, of TEXT_BYTES_MAX bytes at most, be one of those it was made
    of?"""
    starts, octets = _octets(filters)
    lengths = np.diff(starts).astype(np.uint64) * np.uint64(8)
    [hashed] = _hashes(pa.array([text]))
    holds = np.ones(len(filters), np.bool_)
    for number in range(_PROBES):
        probed = _probed(hashed, number, lengths)
        holds &= octets[starts[:-1] + (probed >> 3)] >> (probed & 7).astype(np.uint8) & 1 == 1
    return holds


def _probed(hashes: _Numbers, number: int, bits: _Numbers | np.uint64) -> npt.NDArray[np.int64]:
    """The place of a text's bit of that number, among so many. Kirsch and Mitzenmacher: two hashes do for all."""
    step = hashes >> np.uint64(32) | np.uint64(1)
    places: npt.NDArray[np.int64] = (((hashes & _LOW) + np.uint64(number) * step) % bits).astype(np.int64)
    return places


def _hashes(texts: pa.Array) -> _Numbers:
    """A number for each text: the sum of one for each of its bytes by its place, mixed."""
    starts, octets = _octets(texts)
    lengths = np.diff(starts)
    places = np.arange(len(octets)) - np.repeat(starts[:-1], lengths)
    sums = np.concatenate((np.zeros(1, np.uint64), np.cumsum(_OF_BYTE[octets] * _OF_PLACE[places])))
    return _mixed(sums[starts[1:]] - sums[starts[:-1]] + lengths.astype(np.uint64))


def _octets(values: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """Where each value begins, and the last one ends, and the bytes of all."""
    values = values.cast(pa.large_binary())
    _, offsets, data = values.buffers()
    starts = np.frombuffer(offsets, np.int64, count=len(values) + 1, offset=values.offset * 8)
    octets = np.frombuffer(data or b"", np.uint8)
    return starts - starts[0], octets[starts[0] : starts[-1]]


def _mixed(numbers: _Numbers) -> _Numbers:
    """As splitmix64 ends."""
    numbers = (numbers ^ numbers >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ numbers >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return numbers ^ numbers >> np.uint64(31)


_LOW = np.uint64((1 << 32) - 1)
_RANDOM = _mixed(np.arange(1, 1 + 256 + TEXT_BYTES_MAX, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
_OF_BYTE, _OF_PLACE = _RANDOM[:256], _RANDOM[256:] | np.uint64(1)
