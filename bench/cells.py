"""Measure the cell codec in memory, CPU time: runs of cells to bytes and back, and how many bytes.

Against pickling the same columns, with zlib at the same level where ours are compressed.
"""

from __future__ import annotations

import pickle
import time
import zlib
from collections.abc import Callable

import numpy as np

from chancy_metrics.projections.fold.cell_codec import decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, no_sketches, select, starts_of_runs
from chancy_metrics.projections.fold.fold import fold

from .database import Databases
from .facts import batches_of, job_rows, log_batches
from .harness import Row, Size, Target, Turn, best, by_turns, check

_UNTIL_US = 1_773_144_000_000_000
#: Runs of a replica's fold that one reader decodes at once.
_FEW = 60


async def run(pool: Databases, size: Size) -> list[Row]:
    large = _worker_cells(size.of(200_000, 2_000), per_batch=1_000, workers=1, per_second=2)
    large = select(large, np.arange(large.rows) < size.of(100_000, 1_000))
    small = _worker_cells(size.of(5_000, 200), per_batch=5, workers=size.of(1_000, 40), per_second=500)
    starts = np.append(starts_of_runs(small.worker), small.rows)
    workers = small.worker[starts[:-1]].tolist()
    one, ends = large.worker[:1].tolist(), np.array([0, large.rows])

    deflated, plain = encode_runs(large, ends, compressed=True), encode_runs(small, starts)
    pickled = zlib.compress(pickle.dumps(large), 1)
    parts = [select(small, small.worker == worker) for worker in workers]
    pickles = [pickle.dumps(part) for part in parts]
    check("decoded sums", int(decode_runs(deflated, one).micro.sum()), int(large.micro.sum()))
    check("decoded runs", decode_runs(plain, workers).last_us.tolist(), small.last_us.tolist())

    contenders = {
        "encode large": _timed(lambda: encode_runs(large, ends, compressed=True)),
        "encode large floor": _timed(lambda: zlib.compress(pickle.dumps(large), 1)),
        "decode large": _timed(lambda: decode_runs(deflated, one)),
        "decode large floor": _timed(lambda: pickle.loads(zlib.decompress(pickled))),
        "encode small": _timed(lambda: encode_runs(small, starts)),
        "encode small floor": _timed(lambda: [pickle.dumps(part) for part in parts]),
        "decode small": _timed(lambda: decode_runs(plain[:_FEW], workers[:_FEW])),
        "decode small floor": _timed(lambda: [pickle.loads(data) for data in pickles[:_FEW]]),
    }
    figures = best(await by_turns(size.of(30, 2), contenders))
    rows = []
    for name, work, cells, target in (
        ("encode large", "encode and compress one run of {} cells", large.rows, None),
        ("decode large", "decode one compressed run of {} cells", large.rows, Target("ours", ">=", 5e6, ">= 5 M/s")),
        ("encode small", f"encode {len(workers):,} runs of {{}} cells in all", small.rows, None),
        ("decode small", f"decode {_FEW} runs of {{}} cells in all", int(starts[min(_FEW, len(workers))]), None),
    ):
        rate, floor = cells / figures[name], cells / figures[f"{name} floor"]
        rows.append(Row("cells", work.format(f"{cells:,}"), rate, "cells/s", "min", floor, "pickle", target))
    each_us = figures["encode small"] / len(workers) * 1e6
    rows.append(
        Row("cells", "encode one of many runs", each_us, "us", "min", target=Target("ours", "<=", 25, "<= 25 us"))
    )
    for work, ours, floor, target in (
        (
            "a cell of a large compressed run",
            len(deflated[0]) / large.rows,
            len(pickled) / large.rows,
            Target("ours", "<=", 30, "<= 30 B"),
        ),
        ("a cell of small runs", sum(map(len, plain)) / small.rows, sum(map(len, pickles)) / small.rows, None),
    ):
        rows.append(Row("cells", work, ours, "bytes", "min", floor, "pickle", target))
    return rows


def _worker_cells(events: int, *, per_batch: int, workers: int, per_second: int) -> Cells:
    """The minutes of each worker of a fold of job updates."""
    batches = batches_of(job_rows(events, until_us=_UNTIL_US, per_second=per_second), per_batch)
    return fold(log_batches(batches, workers=workers)).cells["1min"]._replace(sketches=no_sketches())


def _timed(work: Callable[[], object]) -> Turn:
    async def turn() -> float:
        started = time.thread_time()
        work()
        return time.thread_time() - started

    return turn
