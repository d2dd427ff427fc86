"""Rules of a user, for tests."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from chancy_metrics.plugin import Derived, JobColumns

#: Where a process of a pool says that it has died.
DIED = "CHANCY_METRICS_TEST_DIED"


def cost_per_customer(jobs: JobColumns) -> Iterator[Derived]:
    """The README's example."""
    for row, meta in jobs.kept_meta():
        if "customer" in meta and "cost" in meta:
            yield Derived.counter(f"customer:{meta['customer']}:cost", row, meta["cost"], unit="EUR")


def first(jobs: JobColumns) -> Iterator[Derived]:
    """Count every update under a key of this rule's own."""
    yield Derived.counter("made:by:first", np.arange(len(jobs.at_us)))


def second(jobs: JobColumns) -> Iterator[Derived]:
    yield Derived.counter("made:by:second", np.arange(len(jobs.at_us)))


def latest(jobs: JobColumns) -> Iterator[Derived]:
    """A gauge that a later rule sets again, at the same times."""
    yield Derived.gauge("made:by:last", np.arange(len(jobs.at_us)), 1)


def later(jobs: JobColumns) -> Iterator[Derived]:
    yield Derived.gauge("made:by:last", np.arange(len(jobs.at_us)), 2)


def picky(jobs: JobColumns) -> Iterator[Derived]:
    """Raise on batches that hold a failed job."""
    if any(combo.state == "failed" for combo in jobs.combos):
        raise LookupError("no failed jobs, please")
    yield Derived.counter("made:by:picky", np.arange(len(jobs.at_us)))


def deadly(jobs: JobColumns) -> Iterator[Derived]:
    """Kill the first process of a pool or cluster that calls it, and count updates in every other one."""
    if multiprocessing.parent_process() is not None:
        try:
            Path(os.environ[DIED]).touch(exist_ok=False)
        except FileExistsError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
    yield Derived.counter("made:by:deadly", np.arange(len(jobs.at_us)))
