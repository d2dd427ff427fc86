"""Pack integer and float columns of many runs as bytes, each as narrow as its values in that run, and unpack them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_TYPES = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}
#: Width by how many limits a span has passed.
_WIDTHS = np.array([0, 1, 2, 4, 8])
_IS_WIDTH = np.isin(np.arange(10), _WIDTHS)
_LIMITS = np.array([1, 2**8, 2**16, 2**32], np.uint64)


class Narrow(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Integers: value = base + unsigned, little-endian."""

    base: _Int64
    data: bytes


#: A column of one run: one integer where all its values are that, or the run has none.
Column = _Int64 | Narrow


class WrongRun(ValueError):
    """Something is wrong with one of several runs.

    Attributes:
        run: Its number, from 0.
        fault: What is wrong, as a sentence.
    """

    def __init__(self, run: int, fault: str) -> None:
        super().__init__(f"run {run}: {fault}")
        self.run = run
        self.fault = fault


def pack(values: Ints, starts: Ints, *, transposed: bool = False, constant: bool = True) -> list[int | Narrow]:
    """Return the column of each run; run k is starts[k] to before starts[k + 1], and may be empty.

    Args:
        transposed: Put the lowest bytes of all values first, then the next higher ones: they compress better.
        constant: Write equal values as one integer; else each takes a byte at least.
    """
    columns: list[int | Narrow] = [0] * (len(starts) - 1)
    filled = np.flatnonzero(starts[1:] > starts[:-1])
    if not len(filled):
        return columns
    heads, ends = starts[filled], starts[filled + 1]
    low = np.minimum.reduceat(values, heads)
    # As unsigned numbers, so that no difference overflows.
    span = (np.maximum.reduceat(values, heads) - low).view(np.uint64)
    widths = _WIDTHS[np.searchsorted(_LIMITS, span, side="right")]
    if not constant:
        widths = np.maximum(widths, 1)
    used = np.flatnonzero(np.bincount(widths)).tolist()
    blobs = {0: b""}
    if used != [0]:
        offsets = (values - np.repeat(low, ends - heads)).view(np.uint64)
        blobs |= {width: offsets.astype(_TYPES[width]).tobytes() for width in used if width}
    for run, width, base, start, end in zip(
        filled.tolist(), widths.tolist(), low.tolist(), heads.tolist(), ends.tolist(), strict=True
    ):
        if width:
            data = blobs[width][width * start : width * end]
            columns[run] = Narrow(base, _transpose(data, width) if transposed and width > 1 else data)
        else:
            columns[run] = base
    return columns


def pack_floats(values: Floats, starts: Ints, *, transposed: bool = False) -> list[bytes]:
    """Return the float64 of each run, little-endian; runs and *transposed* are as in `pack`."""
    blob, ends = values.astype("<f8").tobytes(), (8 * starts).tolist()
    columns = [blob[start:end] for start, end in pairwise(ends)]
    return [_transpose(column, 8) for column in columns] if transposed else columns


def unpack(columns: Sequence[int | Narrow], sizes: Ints, transposed: Sequence[bool], *, constant: bool = True) -> Ints:
    """Return the columns that `pack` made, one after the other; values past 64 bits wrap around.

    Args:
        sizes: How many values each run has.
        transposed: Whether each run's bytes are.
        constant: As it was in `pack`.

    Raises:
        WrongRun: The bytes do not make that many values.
    """
    bases = np.array([column if isinstance(column, int) else column.base for column in columns], np.int64)
    datas = [b"" if isinstance(column, int) else column.data for column in columns]
    lengths = np.array(list(map(len, datas)), np.int64)
    widths = lengths // np.maximum(sizes, 1)
    wrong = (widths * sizes != lengths) | ~_IS_WIDTH[np.minimum(widths, 9)]
    if not constant:
        wrong |= (widths == 0) & (sizes > 0)
    if wrong.any():
        run = int(np.argmax(wrong))
        raise WrongRun(run, f"{lengths[run]} bytes do not make a column of {sizes[run]}")
    values = np.repeat(bases, sizes)
    kinds = widths.tolist()
    datas = [
        _transpose_back(data, width) if turned and width > 1 else data
        for data, width, turned in zip(datas, kinds, transposed, strict=True)
    ]
    used = set(widths[sizes > 0].tolist())
    for width in used - {0}:
        offsets = np.frombuffer(b"".join(d for d, w in zip(datas, kinds, strict=True) if w == width), _TYPES[width])
        if len(used) == 1:
            values += offsets.view(np.int64) if width == 8 else offsets
        else:
            values[np.repeat(widths == width, sizes)] += offsets.astype(np.int64)
    return values


def unpack_floats(columns: Sequence[bytes], sizes: Ints, transposed: Sequence[bool]) -> Floats:
    """Return the columns that `pack_floats` made; arguments and errors are as in `unpack`."""
    lengths = np.array(list(map(len, columns)), np.int64)
    wrong = lengths != 8 * sizes
    if wrong.any():
        run = int(np.argmax(wrong))
        raise WrongRun(run, f"{lengths[run]} bytes do not make {sizes[run]} floats")
    turned = zip(columns, transposed, strict=True)
    joined = b"".join(_transpose_back(column, 8) if back else column for column, back in turned)
    return np.frombuffer(joined, "<f8").astype(np.float64)


def _transpose(data: bytes, width: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(-1, width).T.tobytes()


def _transpose_back(data: bytes, width: int) -> bytes:
    return np.frombuffer(data, np.uint8).reshape(width, -1).T.tobytes()
