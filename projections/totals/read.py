"""Totals as exporters read them: of each series what it adds up to over all workers, and since when it counts."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from chancy_metrics.events.facts import Series


class Sketch(NamedTuple):
    """The quantile sketch of a histogram: `counts[i]` values are in the bucket `codes[i]`; codes ascend.

    See `projections/fold/sketch.py`: a code is a bucket's index at scale 6 plus `OFFSET`, negated for negative values,
    and 0 for zero.
    """

    codes: list[int]
    counts: list[int]


class Total(msgspec.Struct, frozen=True):
    """What one series adds up to, over all workers.

    Attributes:
        count: Number of observations.
        sum: Their exact sum, rounded once.
        min: The least value, as *max* is the greatest one; of a counter, increment.
        last: Latest value of a gauge, by the time of its observation; else None.
        last_us: Time of the latest observation, microseconds since 1970.
        sketch: Of a histogram; else None.
        created_us: Since when it counts: at this time it was 0, or not known at all; microseconds since 1970.
    """

    series: Series
    count: int
    sum: float
    min: float
    max: float
    last: float | None
    last_us: int
    sketch: Sketch | None
    created_us: int


class Totals(NamedTuple):
    """The totals of all series as of one position of the ledger.

    Attributes:
        generation: Rises where totals were built anew, so that one may have fallen; never otherwise.
        position: Last position of the ledger that is counted.
        at_us: When they were advanced to it, by the database's clock; microseconds since 1970.
        created_us: When the generation was begun.
        series: By key, kind and unit.
    """

    generation: int
    position: int
    at_us: int
    created_us: int
    series: list[Total]
