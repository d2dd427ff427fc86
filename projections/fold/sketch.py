"""The quantile sketch: OpenTelemetry's base-2 exponential histogram at scale 6, as a run of codes and counts.

A bucket's code is its index plus OFFSET, negated for negative values, and 0 for zero: codes sort like values.
A run has its codes in ascending order, each once, and with each how many values it counts, at least 1.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.decoding import HOSTILE, decode_as
from chancy_metrics.events.errors import Damaged

SCALE = 6
STEPS = 1 << SCALE
# The smallest subnormal has index -68,737: with this added every positive value has a positive code.
OFFSET = 100_000

_CODE_BITS = 19
_CODE_ZERO = 1 << (_CODE_BITS - 1)
#: No float64 has a code whose magnitude is above this one.
MAX_CODE = _CODE_ZERO - 1
_MIN_NORMAL = 2.0**-1022
_EXPONENT_BIAS = 1023
# Temporaries of this many values stay in the cache and below the size that malloc gives back to the kernel.
_BLOCK = 8192
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[int])
_KIND = "sketch"
_MAX_COUNT = 2**53
_EMPTY = _encoder.encode([])
_OUT_OF_BOUNDS = f"its codes do not ascend within {MAX_CODE}, or a count is not from 1 to 2**53"


def _power(numerator: int, log_denominator: int, bits: int) -> int:
    """Return floor(2**(numerator / 2**log_denominator) * 2**bits), by square roots of integers.

    Nested floors of roots equal the floor of the nested root.
    """
    root = 1 << (numerator + (bits << log_denominator))
    for _ in range(log_denominator):
        root = math.isqrt(root)
    return root


def _index_terms() -> NDArray[np.uint64]:
    """Return by the top 7 bits of the mantissa what makes (a float's bits + term) >> 46 its code.

    There are 64 times 2**46 floats from one power of two to the next. The narrowest bucket is wider than one
    of the 128 cells, so a cell holds one boundary at most; its term makes the sum reach the next multiple of
    2**46 at the first mantissa past that boundary.
    """
    # No power between 1 and 2 is a float, so past the floor is past the boundary.
    boundaries = [_power(step, SCALE, 52) - (1 << 52) for step in range(STEPS)]
    shift = OFFSET - _EXPONENT_BIAS * STEPS
    terms = []
    for cell in range(0, 1 << 52, 1 << 45):
        below = sum(boundary < cell for boundary in boundaries) - 1
        inside = [boundary for boundary in boundaries if cell <= boundary < cell + (1 << 45)]
        start = ((below + 1) << 46) - inside[0] - 1 if inside else (below << 46) - cell
        terms.append((start + (shift << 46)) % (1 << 64))
    return np.array(terms, dtype=np.uint64)


_TERMS = _index_terms()
_MIDPOINTS = np.array([(_power(2 * step + 1, SCALE + 1, 53) + 1) // 2 * 2.0**-52 for step in range(STEPS)])


def codes(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the code of each value; all must be finite.

    The bucket of index i holds base**i < v <= base**(i + 1) where base = 2**(1/64), exactly: found from the
    float's bits, since log differs between CPUs.
    """
    values = np.ascontiguousarray(values)
    result = np.empty(len(values), dtype=np.int32)
    for start in range(0, len(values), _BLOCK):
        block = values[start : start + _BLOCK]
        fill = _normal_codes if block.min() >= _MIN_NORMAL else _any_codes
        result[start : start + _BLOCK] = fill(block)
    return result


def _any_codes(values: NDArray[np.float64]) -> NDArray[np.int32]:
    magnitudes = np.abs(values)
    result = _normal_codes(magnitudes)
    tiny = np.flatnonzero(magnitudes < _MIN_NORMAL)
    result[tiny] = _normal_codes(magnitudes[tiny] * 2.0**64) - 64 * STEPS
    result[values == 0] = 0
    return np.negative(result, out=result, where=values < 0)


def _normal_codes(values: NDArray[np.float64]) -> NDArray[np.int32]:
    """Return the codes of positive values, none of them subnormal."""
    cells = values.view(np.int64) >> 45
    cells &= 127
    terms = _TERMS.take(cells, mode="clip")
    terms += values.view(np.uint64)
    terms >>= np.uint64(46)
    return terms.astype(np.int32)


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


def quantile_many(
    starts: NDArray[np.int64],
    codes: NDArray[np.int32] | NDArray[np.int64],
    counts: NDArray[np.int64],
    q: tuple[int, int],
    minimum: NDArray[np.float64],
    maximum: NDArray[np.float64],
    observations: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return one of `quantiles_many()`."""
    return quantiles_many(starts, codes, counts, [q], minimum, maximum, observations)[0]


def quantiles_many(
    starts: NDArray[np.int64],
    codes: NDArray[np.int32] | NDArray[np.int64],
    counts: NDArray[np.int64],
    quantiles: Iterable[tuple[int, int]],
    minimum: NDArray[np.float64],
    maximum: NDArray[np.float64],
    observations: NDArray[np.int64],
) -> list[NDArray[np.float64]]:
    """Return quantiles of each sketch by nearest rank: of n values in order, the one at ceil(q * n), from 1.

    At most 0.55 % off, except that subnormals may be coarser than that themselves; nan for an empty sketch.

    Args:
        starts: Sketch k is the run from starts[k] to before starts[k + 1].
        codes: The runs' codes.
        counts: The runs' counts.
        quantiles: Each from 0 to 1 as numerator and denominator: (95, 100).
        minimum: The least value of each sketch; no answer is below it.
        maximum: The greatest value of each sketch; no answer is above it.
        observations: Of how many observations each is to be: nan where a sketch lacks some, as imported ones do.
    """
    total = np.concatenate(([0], np.cumsum(counts)))
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    before = total[starts[filled]]
    size = total[starts[filled + 1]] - before
    lacks_some = size != observations[filled]
    minimum, maximum = minimum[filled], maximum[filled]
    found = []
    for numerator, denominator in quantiles:
        # In two parts, so that a count times the numerator can't overflow.
        rank = size // denominator * numerator - (-(size % denominator) * numerator) // denominator
        at = np.searchsorted(total, before + np.maximum(rank, 1)) - 1
        result = np.full(len(starts) - 1, np.nan)
        result[filled] = np.where(lacks_some, np.nan, np.clip(_midpoints(codes[at]), minimum, maximum))
        found.append(result)
    return found


def _midpoints(codes: NDArray[np.int32] | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the value that stands for each code: 2**((2i + 1) / 128), or 0."""
    index = np.abs(codes) - OFFSET
    values = np.ldexp(_MIDPOINTS[index & (STEPS - 1)], index >> SCALE)
    return np.where(codes == 0, 0.0, np.copysign(values, codes))


def merge_runs(
    owner: NDArray[np.int64], codes: NDArray[np.int32] | NDArray[np.int64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return the runs of all owners, by owner and code, with the counts of equal pairs added up.

    Takes the pairs in any order, equal ones any number of times. Associative and commutative.

    Args:
        owner: Whose sketch each count belongs to; 0 to 2**42 - 1.
        codes: The code of each count.
        counts: At least 1 each.
    """
    if not len(owner):
        return owner, codes.astype(np.int32), counts
    keys = owner << _CODE_BITS
    keys += codes
    keys += _CODE_ZERO
    width = int(counts.max()).bit_length()
    if int(keys.max()).bit_length() + width < 64:
        # The count rides in the key's low bits: a plain sort is several times faster than an argsort.
        keys <<= width
        keys |= counts
        keys.sort()
        counts = keys & ((1 << width) - 1)
        keys >>= width
    else:
        order = np.argsort(keys)
        keys, counts = keys[order], counts[order]
    is_last = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=is_last[:-1])
    if not is_last.all():
        keys = keys[is_last]
        counts = np.diff(np.cumsum(counts)[is_last], prepend=0)
    merged_codes = keys & ((1 << _CODE_BITS) - 1)
    merged_codes -= _CODE_ZERO
    keys >>= _CODE_BITS
    return keys, merged_codes.astype(np.int32), counts


def starts_of(owner: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """Return where the run of each owner 0 to size - 1 starts in sorted owners, and where the last ends."""
    return np.searchsorted(owner, np.arange(size + 1))
