"""A metric of your own, made of job updates: also of those that are in the log already."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from chancy import Chancy

from chancy_metrics.plugin import Derived, JobColumns, Metrics

SLOW_US = 30_000_000


def slow_jobs(jobs: JobColumns) -> Iterator[Derived]:
    """Count the jobs of each queue that ran for more than half a minute."""
    timed = jobs.has_started & jobs.has_completed
    slow = timed & (jobs.completed_us - jobs.started_us > SLOW_US)
    for row in np.flatnonzero(slow).tolist():
        yield Derived.counter(f"slow:{jobs.combos[jobs.combo[row]].queue}", row, 1)


metrics = Metrics(rules=[slow_jobs], rules_version=1)
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics])
