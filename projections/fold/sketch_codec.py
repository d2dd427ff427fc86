"""Encode sketches as they are stored, and decode them with every bound checked: MessagePack of steps and counts."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from itertools import accumulate, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.decoding import HOSTILE, decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.projections.fold.sketch import MAX_CODE

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[int])
_KIND = "sketch"
_MAX_COUNT = 2**53
_EMPTY = _encoder.encode([])
_OUT_OF_BOUNDS = f"its codes do not ascend within {MAX_CODE}, or a count is not from 1 to 2**53"


def encode(codes: Sequence[int] | NDArray[np.int32], counts: Sequence[int] | NDArray[np.int64]) -> bytes:
    """Return a sketch's one encoding: MessagePack of [code, count, step to the next code, its count, ...]."""
    run = np.asarray(codes, dtype=np.int64)
    return encode_many(np.array([0, len(run)]), run, np.asarray(counts, dtype=np.int64))[0]


def decode(data: bytes) -> tuple[list[int], list[int]]:
    """Return a sketch's codes and counts.

    Raises:
        Damaged: The bytes are no sketch.
    """
    flat = decode_as(_decoder, data, _KIND)
    codes, counts = list(accumulate(flat[::2])), flat[1::2]
    if len(codes) != len(counts):
        raise Damaged(f"is no {_KIND}: a code has no count", kind=_KIND)
    if codes and not (
        min(flat[2::2], default=1) > 0
        and -MAX_CODE <= codes[0] <= codes[-1] <= MAX_CODE
        and 1 <= min(counts) <= max(counts) < _MAX_COUNT
    ):
        raise Damaged(f"is no {_KIND}: {_OUT_OF_BOUNDS}", kind=_KIND)
    return codes, counts


def decode_many(sketches: Sequence[bytes]) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return decode() of several, one run after the other, and whose each code is: the number of its sketch.

    Raises:
        Damaged: The bytes of one are no sketch.
    """
    try:
        runs = [_decoder.decode(data) for data in sketches]
    except HOSTILE:
        for number, data in enumerate(sketches):
            decode_as(_decoder, data, _KIND, f"number {number}")
        raise
    lengths = np.array([len(run) for run in runs], np.int64)
    joined = array("q")
    try:
        for run in runs:
            joined.fromlist(run)
    except OverflowError:
        raise _damaged(_first_too_large(runs), _OUT_OF_BOUNDS) from None
    flat = np.frombuffer(joined, np.int64)
    _check_runs(flat, lengths)
    lengths //= 2
    owner = np.repeat(np.arange(len(runs)), lengths)
    steps = np.cumsum(flat[::2])
    before = np.concatenate(([0], steps))[np.cumsum(lengths) - lengths]
    codes = steps - before[owner]
    if wrong := set(owner[np.abs(codes) > MAX_CODE].tolist()):
        raise _damaged(min(wrong), _OUT_OF_BOUNDS)
    return owner, codes.astype(np.int32), flat[1::2]


def decode_sound_sketches(
    sketches: Sequence[bytes],
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return decode_many() of stored sketches; a damaged one is empty, so that it differs from every sound one."""
    try:
        return decode_many(sketches)
    except Damaged:
        return decode_many([data if _is_sound(data) else _EMPTY for data in sketches])


def _is_sound(sketch: bytes) -> bool:
    try:
        decode_many([sketch])
    except Damaged:
        return False
    return True


def _first_too_large(runs: Sequence[list[int]]) -> int:
    """Return the number of the first run with an integer that 64 bits do not hold."""
    return next(number for number, run in enumerate(runs) if any(one.bit_length() > 63 for one in run))


def _check_runs(flat: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """Raise `Damaged` if a run has a code without a count, codes that do not ascend, or counts that count nothing."""
    if (lengths % 2).any():
        raise _damaged(int(np.argmax(lengths % 2)), "a code has no count")
    starts = np.cumsum(lengths) - lengths
    steps, counts = flat[::2].copy(), flat[1::2]
    wrong = (steps > 2 * MAX_CODE) | (steps < -2 * MAX_CODE) | (counts < 1) | (counts >= _MAX_COUNT)
    steps[starts[lengths > 0] // 2] = 1  # the first code may be any
    wrong |= steps < 1
    if wrong.any():
        number = int(np.searchsorted(starts // 2, np.argmax(wrong), side="right")) - 1
        raise _damaged(number, _OUT_OF_BOUNDS)


def _damaged(number: int, fault: str) -> Damaged:
    return Damaged(f"is no {_KIND}: {fault}", where=f"number {number}", kind=_KIND)


def encode_many(
    starts: NDArray[np.int64], codes: NDArray[np.int32] | NDArray[np.int64], counts: NDArray[np.int64]
) -> list[bytes]:
    """Return encode() of each sketch; sketch k is the run from starts[k] to before starts[k + 1]."""
    flat = np.empty(2 * len(codes), dtype=np.int64)
    steps, numbers = flat[::2], flat[1::2]
    np.subtract(codes[1:], codes[:-1], out=steps[1:])
    heads = starts[:-1][starts[:-1] < starts[1:]]
    steps[heads] = codes[heads]
    numbers[:] = counts
    items = flat.tolist()
    ends = (2 * starts).tolist()
    pack = _encoder.encode
    return [pack(items[start:end]) for start, end in pairwise(ends)]
