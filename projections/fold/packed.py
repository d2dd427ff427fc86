"""Pack cells into the narrowest numpy types that hold their numbers, which takes a quarter of the memory."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from chancy_metrics.projections.fold.cells import Cells, Floats, Ints, Sketches

_INTS = ("worker", "series", "bucket", "observations", "micro", "last_position", "last_index")
_US = 1_000_000


class _Narrow(NamedTuple):
    """Integers: what each is more than the least of them."""

    least: int
    more: NDArray[Any]


class PackedCells(NamedTuple):
    """Cells for `unpack`.

    Attributes:
        after: Microseconds from the start of a cell's bucket to its latest event.
        last: None if no cell has a value.
        sizes: Number of codes of each cell's sketch.
    """

    rows: int
    ints: dict[str, _Narrow]
    after: _Narrow
    rest: dict[int, Decimal]
    minimum: Floats
    maximum: Floats
    last: Floats | None
    sizes: _Narrow
    codes: _Narrow
    counts: _Narrow


def pack(cells: Cells) -> PackedCells:
    """Return *cells* packed; no array of theirs is kept alive by that."""
    owner, codes, counts = cells.sketches
    return PackedCells(
        rows=cells.rows,
        ints={name: _narrow(getattr(cells, name)) for name in _INTS},
        after=_narrow(cells.last_us - cells.bucket * _US),
        rest=cells.rest,
        minimum=cells.minimum.copy(),
        maximum=cells.maximum.copy(),
        last=None if np.isnan(cells.last).all() else cells.last.copy(),
        sizes=_narrow(np.bincount(owner, minlength=cells.rows)),
        codes=_narrow(codes.astype(np.int64)),
        counts=_narrow(counts),
    )


def unpack(packed: PackedCells) -> Cells:
    ints = {name: _wide(column) for name, column in packed.ints.items()}
    owner = np.repeat(np.arange(packed.rows), _wide(packed.sizes))
    return Cells(
        **ints,
        last_us=_wide(packed.after) + ints["bucket"] * _US,
        rest=packed.rest,
        minimum=packed.minimum,
        maximum=packed.maximum,
        last=np.full(packed.rows, np.nan) if packed.last is None else packed.last,
        sketches=Sketches(owner, _wide(packed.codes).astype(np.int32), _wide(packed.counts)),
    )


def _narrow(values: Ints) -> _Narrow:
    least = int(values.min(initial=2**63 - 1))
    most = int(values.max(initial=-(2**63)))
    if most - least >= 2**63:
        return _Narrow(0, values.copy())
    more = values - least if len(values) else values
    return _Narrow(least, more.astype(np.min_scalar_type(max(0, most - least))))


def _wide(column: _Narrow) -> Ints:
    values = column.more.astype(np.int64)
    values += column.least
    return values
