"""Encode runs of cells, each of one worker, as columns of bytes, and decode them; each released format stays decodable.

A run begins with the number of its format. Format 1 is one MessagePack array of columns; format 2 is the same, its
columns transposed and all of it deflated. What follows from other columns is left out: `_Shape` says what of each cell.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from decimal import Decimal
from itertools import repeat
from typing import Annotated, Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from chancy_metrics.events.decoding import HOSTILE, decode_as
from chancy_metrics.events.errors import Damaged
from chancy_metrics.projections.fold.byte_columns import (
    Column,
    Narrow,
    WrongRun,
    pack,
    pack_floats,
    unpack,
    unpack_floats,
)
from chancy_metrics.projections.fold.cell_bounds import (
    FIRST_S,
    LAST_S,
    NO_SKETCH,
    check_cells,
    refuse_rows,
    refuse_runs,
)
from chancy_metrics.projections.fold.cells import Cells, Floats, Ints, Sketches, no_sketches, select, sizes_of
from chancy_metrics.projections.fold.exact_sum import EXACT, LEAST_BIT, canonical
from chancy_metrics.projections.fold.sketch import MAX_CODE, codes, starts_of

PLAIN, DEFLATED = 1, 2
#: Bounds of one run: the memory that damaged bytes can take.
MAX_CELLS = 1 << 20
MAX_CODES = 1 << 22
MAX_BYTES = 64 << 20

_KIND = "run of cells"
_ONE_US = 1_000_000
#: Every whole number of microseconds up to here is a float64.
_MAX_WHOLE = 2.0**53
#: No sum of finite float64s, fewer than 2**53, has more digits before its point, nor more after it.
_MAX_DIGITS, _MAX_DECIMALS = 400, LEAST_BIT + 6
#: Bytes of a numerator: of a fraction of a power of two, and of a power of ten.
_MAX_BINARY, _MAX_TENS = 320, 640

_NO_REST = "the rest of a sum is out of bounds"

_T = TypeVar("_T")
_Bools = NDArray[np.bool_]


class _Shape:
    """Bits that say which columns hold a cell's numbers, and which numbers follow from others."""

    SUM = 7
    #: All observations equal the minimum: the maximum is that, and the sum or the rest is that times their number.
    EQUAL, REST_EQUAL = 0, 1
    #: The sum is whole, in `micro`; or that is the rest, in millionths, and `micro` is 0; or both have numbers.
    MICRO, REST_MICRO, BOTH = 2, 3, 4
    #: Minimum and maximum are no whole millionths.
    FLOATS = 8
    GAUGE = 48
    LAST_WHOLE, LAST_FLOAT, LAST_IS_MAXIMUM = 16, 32, 48
    SKETCH = 192
    #: The sketch is written, or has the one code of the minimum, for all observations.
    CODES, ONE_CODE = 64, 128


class _FloatColumns(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    minimum: bytes
    maximum: bytes  # of those that are not equal


class _Gauges(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    micro: Column
    floats: bytes
    position: Column
    index: Column


class _Rests(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Rests: numerators as signed integers, over 2**scale; over 10**-scale where that is negative."""

    scale: Column
    sizes: Column
    numerators: bytes


class _Codes(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    sizes: Column
    first: Column
    steps: Column  # to each further code
    counts: Column


class _Run(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    cells: Annotated[int, msgspec.Meta(ge=1, le=MAX_CELLS)]
    series: Narrow  # the first one, and steps to each from the one before; never constant, so bytes bound the cells
    first_bucket: Annotated[int, msgspec.Meta(ge=FIRST_S, le=LAST_S)]
    unit: Annotated[int, msgspec.Meta(ge=1, le=LAST_S - FIRST_S)]
    bucket: Column  # in units, after the one before of that series, or after the first bucket
    observations: Column
    last: Column  # last_us after the start of the bucket
    shape: Column
    minimum: Column  # whole millionths
    maximum: Column  # after the minimum, of those that are not equal
    micro: Column
    floats: _FloatColumns | None
    gauges: _Gauges | None
    rests: _Rests | None
    sketches: _Codes | None


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Run)


class _Part(NamedTuple):
    """Rows of all runs, and where those of each run start among them."""

    mask: _Bools
    starts: Ints

    @classmethod
    def of(cls, mask: _Bools, starts: Ints) -> _Part:
        return cls(mask, np.concatenate(([0], np.cumsum(mask)))[starts])

    @property
    def sizes(self) -> Ints:
        return np.diff(self.starts)

    def __bool__(self) -> bool:
        return bool(self.starts[-1])


def encode_runs(cells: Cells, starts: Ints, *, compressed: bool = False) -> list[bytes]:
    """Encode runs of merged cells: run k is rows starts[k] to before starts[k + 1], all of one worker.

    The worker's number is not in the bytes. Equal columns have equal bytes, whatever runs are encoded beside them;
    compressed, those of the same build of zlib. About 3 us a run of 30 cells, which takes 11 bytes a cell; 5 bytes a
    cell in a large compressed run.

    Raises:
        ValueError: `decode_runs` would refuse a run: it is empty, of two workers, too large, out of order, or has
            a number out of bounds.
    """
    starts = np.asarray(starts, np.int64)
    if len(starts) < 2:
        return []
    if starts[0] or starts[-1] != cells.rows:
        rows = np.arange(cells.rows)
        cells, starts = select(cells, (rows >= starts[0]) & (rows < starts[-1])), starts - starts[0]
    sizes = np.diff(starts)
    refuse_runs((sizes < 1) | (sizes > MAX_CELLS), f"it has no cells, or more than {MAX_CELLS:,}")
    heads = starts[:-1]
    refuse_rows(cells.worker != np.repeat(cells.worker[heads], sizes), starts, "its cells are of several workers")
    check_cells(cells, starts)

    def packed(part: _Part, values: Ints, *, transposed: bool = compressed) -> list[int | Narrow]:
        return pack(values, part.starts, transposed=transposed)

    every = _Part(np.ones(cells.rows, bool), starts)
    steps = np.diff(cells.series, prepend=0)
    steps[heads] = 0
    fresh = steps != 0
    fresh[heads] = True
    first_bucket = np.minimum.reduceat(cells.bucket, heads)
    offset = cells.bucket - np.repeat(first_bucket, sizes)
    unit = np.maximum(np.gcd.reduceat(offset, heads), 1)
    jumps = np.where(fresh, offset, np.diff(offset, prepend=0)) // np.repeat(unit, sizes)
    shape, minimum, maximum, micro, scaled_last = _shape(cells)
    numerators = _numerators(cells, starts, shape, micro)
    sum_kind, floats, gauge = shape & _Shape.SUM, (shape & _Shape.FLOATS) != 0, shape & _Shape.GAUGE
    listed = sum_kind >= _Shape.MICRO
    whole, both, summed = (_Part.of(mask, starts) for mask in (~floats, ~floats & listed, listed))
    series = zip(cells.series[heads].tolist(), pack(steps, starts, transposed=compressed, constant=False), strict=True)
    made = map(
        _Run,
        sizes.tolist(),
        [Narrow(first, column.data) for first, column in series if isinstance(column, Narrow)],
        first_bucket.tolist(),
        unit.tolist(),
        packed(every, jumps),
        packed(every, cells.observations),
        # Cells of one job have one time: whole repeated numbers compress better than their bytes apart.
        packed(every, cells.last_us - cells.bucket * _ONE_US, transposed=False),
        packed(every, shape),
        packed(whole, minimum[whole.mask]),
        packed(both, (maximum - minimum)[both.mask]),
        packed(summed, micro[summed.mask]),
        _float_columns(cells, starts, floats, listed, compressed),
        _gauges(cells, starts, gauge, scaled_last, compressed),
        _rests(numerators, _Part.of(sum_kind == _Shape.BOTH, starts)),
        _codes(cells, starts, (shape & _Shape.SKETCH) == _Shape.CODES, compressed),
    )
    runs = [_encoder.encode(run) for run in made]
    if max(map(len, runs)) > MAX_BYTES:
        raise ValueError(f"a run takes {max(map(len, runs)):,} bytes: one has at most {MAX_BYTES:,}")
    if compressed:
        return [bytes((DEFLATED,)) + zlib.compress(run, 1) for run in runs]
    return [bytes((PLAIN,)) + run for run in runs]


def _shape(cells: Cells) -> tuple[Ints, Ints, Ints, Ints, Ints]:
    """Return the shapes of cells, and the numbers that these use, in millionths: minima, maxima, sums, last values."""
    low_whole, low = _millionths(cells.minimum)
    high_whole, high = _millionths(cells.maximum)
    whole = low_whole & high_whole
    equal = cells.minimum == cells.maximum
    rest = np.zeros(cells.rows, bool)
    rest[list(cells.rest)] = True
    follows = whole & equal & ~rest & (low * cells.observations == cells.micro) & _fits(low, cells.observations)
    shape = np.where(follows, _Shape.EQUAL, _Shape.MICRO)
    shape[rest] = _Shape.BOTH
    shape[~whole] |= _Shape.FLOATS
    scaled_last = np.zeros(cells.rows, np.int64)
    gauges = np.flatnonzero(~np.isnan(cells.last))
    if len(gauges):
        last_whole, scaled_last[gauges] = _millionths(cells.last[gauges])
        shape[gauges] |= np.where(
            cells.last[gauges] == cells.maximum[gauges],
            _Shape.LAST_IS_MAXIMUM,
            np.where(last_whole, _Shape.LAST_WHOLE, _Shape.LAST_FLOAT),
        )
    owner, run_codes, counts = cells.sketches
    if len(owner):
        shape[owner] |= _Shape.CODES
        ends = starts_of(owner, cells.rows)
        first = ends[:-1]
        one = np.flatnonzero((np.diff(ends) == 1) & equal)
        follows = run_codes[first[one]] == codes(cells.minimum[one])
        follows &= counts[first[one]] == cells.observations[one]
        shape[one[follows]] ^= _Shape.CODES | _Shape.ONE_CODE
    return shape, low, high, cells.micro.copy() if cells.rest else cells.micro, scaled_last


def _millionths(values: Floats) -> tuple[_Bools, Ints]:
    """Return which values are exactly a whole number of millionths as float64, and that number; 0 of others."""
    with np.errstate(over="ignore"):
        scaled = np.rint(values * _ONE_US)
    whole = np.abs(scaled) <= _MAX_WHOLE
    numbers = np.where(whole, scaled, 0).astype(np.int64)
    whole &= numbers / _ONE_US == values
    return whole, numbers


def _fits(low: Ints, observations: Ints) -> _Bools:
    """Return where low * observations surely fits 64 bits."""
    return np.abs(low.astype(np.float64)) * observations <= 2.0**62


def _numerators(cells: Cells, starts: Ints, shape: Ints, micro: Ints) -> list[tuple[int, int]]:
    """Return numerator and scale of each rest, in order of rows, that *shape* and *micro* can't hold; put in others."""
    if not cells.rest:
        return []
    found = []
    rows = sorted(cells.rest)
    wrong = np.zeros(cells.rows, bool)
    wrong[rows] = [not cells.rest[row].is_finite() or cells.rest[row].adjusted() >= _MAX_DIGITS for row in rows]
    refuse_rows(wrong, starts, _NO_REST)
    columns = (column[rows].tolist() for column in (cells.observations, cells.minimum, cells.maximum, cells.micro))
    for row, observations, low, high, whole in zip(rows, *columns, strict=True):
        value = cells.rest[row]
        if not whole:
            if low == high and value == EXACT.multiply(Decimal(low), Decimal(observations)):
                shape[row] += _Shape.REST_EQUAL - _Shape.BOTH
                continue
            scaled = EXACT.scaleb(value, 6)
            if -(2**63) < scaled < 2**63 and scaled == EXACT.to_integral_value(scaled):
                shape[row] += _Shape.REST_MICRO - _Shape.BOTH
                micro[row] = int(scaled)
                continue
        found.append(_as_fraction(value))
    return found


def _as_fraction(value: Decimal) -> tuple[int, int]:
    numerator, denominator = value.as_integer_ratio()
    if denominator & (denominator - 1) == 0:
        return numerator, denominator.bit_length() - 1
    scale = int(value.as_tuple().exponent)
    return int(EXACT.scaleb(value, -scale)), scale


def _as_decimal(numerator: int, scale: int) -> Decimal:
    if scale < 0:
        return canonical(EXACT.scaleb(Decimal(numerator), scale))
    return canonical(EXACT.scaleb(EXACT.multiply(Decimal(numerator), Decimal(5**scale)), -scale))


def _float_columns(
    cells: Cells, starts: Ints, floats: _Bools, listed: _Bools, transposed: bool
) -> Sequence[_FloatColumns | None] | repeat[None]:
    low, high = _Part.of(floats, starts), _Part.of(floats & listed, starts)
    if not low:
        return repeat(None)
    columns = zip(
        pack_floats(cells.minimum[low.mask], low.starts, transposed=transposed),
        pack_floats(cells.maximum[high.mask], high.starts, transposed=transposed),
        strict=True,
    )
    return [_FloatColumns(*both) if both[0] else None for both in columns]


def _gauges(
    cells: Cells, starts: Ints, gauge: Ints, scaled_last: Ints, transposed: bool
) -> Sequence[_Gauges | None] | repeat[None]:
    part = _Part.of(gauge != 0, starts)
    if not part:
        return repeat(None)
    whole, floats = _Part.of(gauge == _Shape.LAST_WHOLE, starts), _Part.of(gauge == _Shape.LAST_FLOAT, starts)
    columns = zip(
        part.sizes.tolist(),
        pack(scaled_last[whole.mask], whole.starts, transposed=transposed),
        pack_floats(cells.last[floats.mask], floats.starts, transposed=transposed),
        pack(cells.last_position[part.mask], part.starts, transposed=transposed),
        pack(cells.last_index[part.mask], part.starts, transposed=transposed),
        strict=True,
    )
    return [_Gauges(micro, last, position, index) if size else None for size, micro, last, position, index in columns]


def _rests(fractions: list[tuple[int, int]], part: _Part) -> Sequence[_Rests | None] | repeat[None]:
    if not fractions:
        return repeat(None)
    scales = np.array([scale for _, scale in fractions], np.int64)
    numerators = [number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True) for number, _ in fractions]
    sizes = np.array(list(map(len, numerators)), np.int64)
    wrong = _wrong_fractions(scales, sizes)
    refuse_rows(wrong, part.starts, _NO_REST)
    ends = part.starts.tolist()
    return [
        _Rests(scale, size, b"".join(numerators[start:end])) if start < end else None
        for scale, size, start, end in zip(
            pack(scales, part.starts), pack(sizes, part.starts, constant=False), ends, ends[1:], strict=False
        )
    ]


def _codes(cells: Cells, starts: Ints, written: _Bools, transposed: bool) -> Sequence[_Codes | None] | repeat[None]:
    part = _Part.of(written, starts)
    if not part:
        return repeat(None)
    owner, run_codes, counts = cells.sketches
    keep = written[owner]
    owner, wide, counts = owner[keep], run_codes[keep].astype(np.int64), counts[keep]
    first = np.diff(owner, prepend=-1) != 0
    steps = np.diff(wide, prepend=0)
    rows = np.searchsorted(owner, starts)  # where the codes of each run start
    refuse_runs(np.diff(rows) > MAX_CODES, f"its sketches have more than {MAX_CODES:,} codes")
    heads = np.flatnonzero(first)
    columns = zip(
        part.sizes.tolist(),
        pack(np.diff(heads, append=len(owner)), part.starts, transposed=transposed),
        pack(wide[heads], part.starts, transposed=transposed),
        pack(steps[~first], rows - part.starts, transposed=transposed),
        pack(counts, rows, transposed=transposed, constant=False),
        strict=True,
    )
    return [_Codes(*of_run) if size else None for size, *of_run in columns]


def decode_runs(runs: Sequence[bytes], workers: Sequence[int], where: Callable[[int], str] = "run {}".format) -> Cells:
    """Decode runs, one after the other and still unmerged; run k gets worker number workers[k].

    Total: every input gives cells within the bounds of the rollups, or a typed error. Whether buckets are of a certain
    resolution is the caller's to check.

    Args:
        where: Returns where the bytes of the run of a number lie, for the message.

    Raises:
        Damaged: The bytes of a run are something else.
    """
    parsed = [_parse(data, number, where) for number, data in enumerate(runs)]
    if not parsed:
        return _no_cells()
    try:
        return _Reader([run for run, _ in parsed], [turned for _, turned in parsed]).cells(workers)
    except WrongRun as error:
        raise Damaged(f"is no {_KIND}: {error.fault}", where=where(error.run), kind=_KIND) from error


def _parse(data: bytes, number: int, where: Callable[[int], str]) -> tuple[_Run, bool]:
    """Return a run, and whether its columns are transposed."""
    form = data[0] if data else 0
    body: bytes | memoryview = memoryview(data)[1:]
    if form == DEFLATED:
        inflated = zlib.decompressobj()
        try:
            body = inflated.decompress(body, MAX_BYTES)
        except zlib.error as error:
            raise Damaged(f"is no {_KIND}: {error}", where=where(number), kind=_KIND) from error
        if not inflated.eof or inflated.unused_data:
            fault = f"its end is missing, bytes follow it, or it takes more than {MAX_BYTES:,} bytes"
            raise Damaged(f"is no {_KIND}: {fault}", where=where(number), kind=_KIND)
    elif form != PLAIN:
        fault = f"its format is {form}, and this code reads {PLAIN} and {DEFLATED}"
        raise Damaged(f"is no {_KIND}: {fault}", where=where(number), kind=_KIND)
    try:
        return _decoder.decode(body), form == DEFLATED
    except HOSTILE:
        decode_as(_decoder, body, _KIND, where(number))
        raise


def _no_cells() -> Cells:
    ints, floats = np.empty(0, np.int64), np.empty(0, np.float64)
    return Cells(ints, ints, ints, ints, ints, ints, {}, floats, floats, floats, ints, ints, no_sketches())


class _Reader:
    """Runs being decoded, all at once: a column of them all is one array."""

    def __init__(self, runs: Sequence[_Run], transposed: Sequence[bool]) -> None:
        self.runs = runs
        self.transposed = transposed
        self.sizes = np.array([run.cells for run in runs], np.int64)
        self.starts = np.concatenate(([0], np.cumsum(self.sizes)))

    def cells(self, workers: Sequence[int]) -> Cells:
        series, bucket = self._keys()
        every = self._part(np.ones(int(self.starts[-1]), bool))
        observations = self._ints([run.observations for run in self.runs], every)
        last = unpack([run.last for run in self.runs], self.sizes, [False] * len(self.runs))
        shape = self._ints([run.shape for run in self.runs], every)
        sum_kind, floats = shape & _Shape.SUM, (shape & _Shape.FLOATS) != 0
        refuse_rows(
            (shape < 0)
            | (shape > 255)
            | (sum_kind > _Shape.BOTH)
            | (floats & (sum_kind == _Shape.EQUAL))
            | ((shape & _Shape.SKETCH) == _Shape.SKETCH),
            self.starts,
            "the shape of a cell is unknown",
        )
        listed = sum_kind >= _Shape.MICRO
        low, minimum, maximum = self._extremes(floats, listed)
        micro, rest = self._sums(sum_kind, observations, low, minimum)
        cells = Cells(
            worker=np.repeat(np.asarray(workers, np.int64), self.sizes),
            series=series,
            bucket=bucket,
            observations=observations,
            last_us=last + bucket * _ONE_US,
            micro=micro,
            rest=rest,
            minimum=minimum,
            maximum=maximum,
            **self._gauges(shape & _Shape.GAUGE, maximum),
            sketches=self._sketches(shape & _Shape.SKETCH, minimum, observations),
        )
        check_cells(cells, self.starts)
        return cells

    def _part(self, mask: _Bools) -> _Part:
        return _Part.of(mask, self.starts)

    def _ints(self, columns: Sequence[int | Narrow], part: _Part, *, constant: bool = True) -> Ints:
        return unpack(columns, part.sizes, self.transposed, constant=constant)

    def _optional(self, columns: Sequence[_T | None], part: _Part, empty: _T, name: str) -> list[_T] | None:
        """Return the columns that only some cells have, *empty* ones for runs without such; None if there are none."""
        refuse_runs(np.array([column is None for column in columns]) == (part.sizes > 0), f"its {name} do not fit it")
        return [column or empty for column in columns] if part else None

    def _keys(self) -> tuple[Ints, Ints]:
        heads = self.starts[:-1]
        steps = unpack([Narrow(0, run.series.data) for run in self.runs], self.sizes, self.transposed, constant=False)
        fresh = steps != 0
        fresh[heads] = True
        steps[heads] = [run.series.base for run in self.runs]
        series = _add_up(steps, heads)
        units = np.array([run.unit for run in self.runs], np.int64)
        firsts = np.array([run.first_bucket for run in self.runs], np.int64)
        jumps = unpack([run.bucket for run in self.runs], self.sizes, self.transposed) * np.repeat(units, self.sizes)
        return series, _add_up(jumps, np.flatnonzero(fresh)) + np.repeat(firsts, self.sizes)

    def _extremes(self, floats: _Bools, listed: _Bools) -> tuple[Ints, Floats, Floats]:
        """Return the minima in millionths, the minima and the maxima."""
        whole, both = self._part(~floats), self._part(~floats & listed)
        low = np.zeros(len(floats), np.int64)
        low[whole.mask] = self._ints([run.minimum for run in self.runs], whole)
        high = low.copy()
        high[both.mask] += self._ints([run.maximum for run in self.runs], both)
        minimum, maximum = low / _ONE_US, high / _ONE_US
        part, unequal = self._part(floats), self._part(floats & listed)
        columns = self._optional([run.floats for run in self.runs], part, _FloatColumns(b"", b""), "minima")
        if columns is not None:
            minimum[floats] = self._floats([column.minimum for column in columns], part)
            maximum[floats] = minimum[floats]
            maximum[unequal.mask] = self._floats([column.maximum for column in columns], unequal)
        return low, minimum, maximum

    def _floats(self, columns: Sequence[bytes], part: _Part) -> Floats:
        values = unpack_floats(columns, part.sizes, self.transposed)
        refuse_rows(~np.isfinite(values), part.starts, "a number is not finite")
        return values + 0.0

    def _sums(self, sum_kind: Ints, observations: Ints, low: Ints, minimum: Floats) -> tuple[Ints, dict[int, Decimal]]:
        summed, both = self._part(sum_kind >= _Shape.MICRO), self._part(sum_kind == _Shape.BOTH)
        micro = np.zeros(len(low), np.int64)
        micro[summed.mask] = self._ints([run.micro for run in self.runs], summed)
        equal = sum_kind == _Shape.EQUAL
        refuse_rows(equal & ~_fits(low, observations), self.starts, "a sum is out of bounds")
        np.multiply(low, observations, out=micro, where=equal)
        rest = {}
        for row in np.flatnonzero(sum_kind == _Shape.REST_EQUAL).tolist():
            rest[row] = canonical(EXACT.multiply(Decimal(float(minimum[row])), Decimal(int(observations[row]))))
        for row in np.flatnonzero(sum_kind == _Shape.REST_MICRO).tolist():
            rest[row] = canonical(EXACT.scaleb(Decimal(int(micro[row])), -6))
            micro[row] = 0
        rest.update(zip(np.flatnonzero(both.mask).tolist(), self._rests(both), strict=True))
        return micro, rest

    def _rests(self, part: _Part) -> list[Decimal]:
        columns = self._optional([run.rests for run in self.runs], part, _Rests(0, 0, b""), "rests")
        if columns is None:
            return []
        sizes = unpack([column.sizes for column in columns], part.sizes, _plain(columns), constant=False)
        scales = unpack([column.scale for column in columns], part.sizes, _plain(columns))
        refuse_rows(_wrong_fractions(scales, sizes), part.starts, _NO_REST)
        ends = np.concatenate(([0], np.cumsum(sizes)))
        lengths = np.array([len(column.numerators) for column in columns])
        refuse_runs(np.diff(ends[part.starts]) != lengths, "its rests do not have the bytes that they should")
        numerators = b"".join(column.numerators for column in columns)
        values = [
            _as_decimal(int.from_bytes(numerators[start:end], "little", signed=True), scale)
            for start, end, scale in zip(ends.tolist(), ends[1:].tolist(), scales.tolist(), strict=False)
        ]
        refuse_rows(np.array([value.adjusted() >= _MAX_DIGITS for value in values]), part.starts, _NO_REST)
        return values

    def _gauges(self, gauge: Ints, maximum: Floats) -> dict[str, NDArray[Any]]:
        size = len(gauge)
        last, position, index = np.full(size, np.nan), np.zeros(size, np.int64), np.zeros(size, np.int64)
        part = self._part(gauge != 0)
        columns = self._optional([run.gauges for run in self.runs], part, _Gauges(0, b"", 0, 0), "gauges")
        if columns is not None:
            same = gauge == _Shape.LAST_IS_MAXIMUM
            whole, floats = self._part(gauge == _Shape.LAST_WHOLE), self._part(gauge == _Shape.LAST_FLOAT)
            last[same] = maximum[same]
            last[whole.mask] = self._ints([column.micro for column in columns], whole) / _ONE_US
            last[floats.mask] = self._floats([column.floats for column in columns], floats)
            position[part.mask] = self._ints([column.position for column in columns], part)
            index[part.mask] = self._ints([column.index for column in columns], part)
        return {"last": last, "last_position": position, "last_index": index}

    def _sketches(self, sketch: Ints, minimum: Floats, observations: Ints) -> Sketches:
        part, one = self._part(sketch == _Shape.CODES), np.flatnonzero(sketch == _Shape.ONE_CODE)
        made = Sketches(one, codes(minimum[one]), observations[one])
        columns = self._optional([run.sketches for run in self.runs], part, _Codes(0, 0, 0, 0), "sketches")
        if columns is None:
            return made
        sizes = self._ints([column.sizes for column in columns], part)
        refuse_rows((sizes < 1) | (sizes > MAX_CODES), part.starts, NO_SKETCH)
        ends = np.concatenate(([0], np.cumsum(sizes)))
        of_runs = np.diff(ends[part.starts])
        refuse_runs(of_runs > MAX_CODES, f"its sketches have more than {MAX_CODES:,} codes")
        counts = unpack([column.counts for column in columns], of_runs, self.transposed, constant=False)
        steps = np.zeros(len(counts), np.int64)
        first = np.zeros(len(counts), bool)
        first[ends[:-1]] = True
        steps[first] = self._ints([column.first for column in columns], part)
        steps[~first] = unpack([column.steps for column in columns], of_runs - part.sizes, self.transposed)
        del first
        found = _add_up(steps, ends[:-1])
        del steps
        refuse_rows((found > MAX_CODE) | (found < -MAX_CODE), ends[part.starts], NO_SKETCH)
        of_cells = np.zeros(len(sketch), np.int64)
        of_cells[part.mask], of_cells[one] = sizes, 1
        owner = np.repeat(np.arange(len(sketch)), of_cells)
        if not len(one):
            return Sketches(owner, found.astype(np.int32), counts)
        at = (np.cumsum(of_cells) - 1)[one]
        written = np.ones(len(owner), bool)
        written[at] = False
        run_codes, all_counts = np.empty(len(owner), np.int32), np.empty(len(owner), np.int64)
        run_codes[written], run_codes[at] = found, made.codes
        all_counts[written], all_counts[at] = counts, made.counts
        return Sketches(owner, run_codes, all_counts)


def _plain(columns: Sequence[object]) -> list[bool]:
    return [False] * len(columns)


def _add_up(steps: Ints, heads: Ints) -> Ints:
    """Return running totals that begin anew at each of *heads*, the first of which is 0."""
    totals = np.cumsum(steps)
    totals -= np.repeat(totals[heads] - steps[heads], sizes_of(heads, len(steps)))
    return totals


def _wrong_fractions(scales: Ints, sizes: Ints) -> _Bools:
    most = np.where(scales < 0, _MAX_TENS, _MAX_BINARY)
    return (scales > LEAST_BIT) | (scales < -_MAX_DECIMALS) | (sizes < 1) | (sizes > most)
