"""Bloom filters over tokens: built here, tested in SQL by `skip_index`. No false negatives, few false positives.

B. H. Bloom, "Space/Time Trade-offs in Hash Coding with Allowable Errors", CACM 13 (1970). The bits of a token are
first + i * step: A. Kirsch and M. Mitzenmacher, "Less Hashing, Same Performance: Building a Better Bloom Filter",
ESA 2006.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

#: Bytes of a token, as many as a UUID has.
TOKEN_BYTES = 16
#: Twelve bits and eight hashes a token give false positives of 0.3 %.
BITS_A_TOKEN = 12
HASHES = 8
#: Bytes of the smallest filter; a shorter one is damaged.
MIN_BYTES = 8

_Hashes = NDArray[np.uint64]
_LOW = np.uint64(0xFFFF_FFFF)


class BitPosition(NamedTuple):
    """One of a token's bits: bit *bit*, from the lowest, of byte *stride* modulo the filter's length."""

    stride: int
    bit: int


def token(field: str, text: str) -> bytes:
    """Return the token of a text in a field: equal texts of two fields have different tokens."""
    return blake2b(text.encode(errors="surrogatepass"), digest_size=TOKEN_BYTES, person=field.encode()).digest()


def make_filter(tokens: Iterable[bytes]) -> bytes:
    """Build a filter of *tokens*, each one token or several joined; its size is proportional to the distinct ones."""
    hashes = np.unique(_hash(b"".join(tokens)))
    filter_bytes = max(MIN_BYTES, -(-len(hashes) * BITS_A_TOKEN // 8))
    bits = np.zeros(filter_bytes * 8, np.bool_)
    first, step = _split(hashes)
    for number in range(HASHES):
        bits[(first + np.uint64(number) * step) % np.uint64(len(bits))] = True
    return np.packbits(bits, bitorder="little").tobytes()


def bit_positions(one: bytes) -> list[BitPosition]:
    """Return the bits of a token, for a filter of any length."""
    first, step = (int(part[0]) for part in _split(_hash(one)))
    return [BitPosition(*divmod(first + number * step, 8)) for number in range(HASHES)]


def _hash(tokens: bytes) -> _Hashes:
    """Mix each token into 64 bits: the first halves of time-ordered ids hardly differ."""
    halves = np.frombuffer(tokens, "<u8").astype(np.uint64).reshape(-1, 2)
    return _mix(halves[:, 0] ^ _mix(halves[:, 1]))


def _split(hashes: _Hashes) -> tuple[_Hashes, _Hashes]:
    """Return first bit and step; the step is odd, so that the bits of a token differ."""
    return hashes >> np.uint64(32), (hashes & _LOW) | np.uint64(1)


def _mix(values: _Hashes) -> _Hashes:
    """The finalizer of SplitMix64: G. L. Steele, D. Lea and C. H. Flood, OOPSLA 2014."""
    values = values + np.uint64(0x9E37_79B9_7F4A_7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return values ^ (values >> np.uint64(31))
