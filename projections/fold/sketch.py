"""The quantile sketch: OpenTelemetry's base-2 exponential histogram at scale 6, as a run of codes and counts.

A bucket's code is its index plus OFFSET, negated for negative values, and 0 for zero: codes sort like values.
A run has its codes in ascending order, each once, and with each how many values it counts, at least 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

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
