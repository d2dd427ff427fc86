"""Measure the fold in memory on one core: decode, derive, four resolutions, sketches, exact sums.

Against decoding the same batches and sorting one column.
"""

from __future__ import annotations

import random
import time
from array import array
from collections.abc import Sequence

import numpy as np

from chancy_metrics.events.batch import LogBatch, ObservationRun
from chancy_metrics.events.codec import decode, encode
from chancy_metrics.events.facts import Series
from chancy_metrics.projections.fold.fold import fold

from .database import Databases
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Target, Turn, at_least, best, by_turns, check

_UNTIL_US = 1_773_144_000_000_000
#: Job updates a second of the whole cluster: what a minute's bucket holds depends on it.
_PER_SECOND = 1_000


async def run(pool: Databases, size: Size) -> list[Row]:
    rounds = size.of(60, 2)
    jobs = _job_batches(size.of(10_000, 2_000), 1_000)
    observations = _observation_batches(len(jobs))
    steps_of_batches = {
        "ten": [jobs],
        "one": [[batch] for batch in jobs],
        "small": [_job_batches(size.of(10_000, 2_000), 20)],
        "observations": [observations],
    }
    contenders: dict[str, Turn] = {}
    for name, batches in steps_of_batches.items():
        contenders[name] = _folded(batches)
        contenders[f"{name} floor"] = _sorted(batches)
    figures = best(await by_turns(rounds, contenders))
    names = {
        "ten": "fold job updates, ten batches of 1,000 at a time",
        "one": "fold job updates, one batch of 1,000 at a time",
        "small": "fold job updates, 500 batches of 20 at a time",
        "observations": "fold observations, ten batches of 1,000 at a time",
    }
    rows = []
    for name, work in names.items():
        events = sum(batch.events for batches in steps_of_batches[name] for batch in batches)
        target = at_least(1 / 7, ">= 1/7") if name == "ten" else None
        against = "decode + one sort"
        rate, floor = events / figures[name], events / figures[f"{name} floor"]
        rows.append(Row("fold", work, rate, "events/s", "min", floor, against, target))
        if name in ("ten", "one"):
            millions = 5 if name == "ten" else 2
            absolute = Target("ours", ">=", millions * 1e6, f">= {millions} M/s")
            rows.append(Row("fold", work, rate, "events/s", "min", target=absolute))
    return rows


def _folded(steps_of_batches: Sequence[Sequence[LogBatch]]) -> Turn:
    events = sum(batch.events for batches in steps_of_batches for batch in batches)

    async def turn() -> float:
        started = time.perf_counter()
        folds = [fold(batches) for batches in steps_of_batches]
        took = time.perf_counter() - started
        check("events folded", sum(one.events for one in folds), events)
        counted = 0
        for one in folds:
            # Each job update and each observation is in one of these series, once.
            once = np.array([s.key.startswith(("global:status:", "bench:")) for s in one.series])
            counted += sum(int(cells.observations[once[cells.series]].sum()) for cells in one.cells.values())
        check("events in cells", counted, events)
        return took

    return turn


def _sorted(steps_of_batches: Sequence[Sequence[LogBatch]]) -> Turn:
    async def turn() -> float:
        started = time.perf_counter()
        for batches in steps_of_batches:
            decoded = [decode(batch.codec, batch.payload, batch.sha256, batch.events) for batch in batches]
            columns = [
                batch.jobs.started_us if batch.jobs else batch.observations.values  # type: ignore[union-attr]
                for batch in decoded
            ]
            np.sort(np.concatenate(columns))
        return time.perf_counter() - started

    return turn


def _job_batches(events: int, size: int) -> list[LogBatch]:
    return log_batches(batches_of(job_rows(events, until_us=_UNTIL_US, per_second=_PER_SECOND), size))


def _observation_batches(count: int) -> list[LogBatch]:
    """Batches of 1,000 observations of 50 histograms."""
    chance = random.Random(1)
    batches = []
    for number in range(count):
        runs = [
            ObservationRun(
                Series(f"bench:{index}", "histogram", "seconds"),
                [_UNTIL_US - (count - number) * 1_000_000 + turn * 50_000 for turn in range(20)],
                array("d", [chance.lognormvariate(0, 1) for _ in range(20)]),
            )
            for index in range(50)
        ]
        batches.append(encode((), runs))
    return log_batches(batches)
