"""A batch of job updates whose COMMIT is not confirmed yet, and jobs compared by identity."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from chancy import QueuedJob

from chancy_metrics.events.batch import BatchId, EncodedBatch


class JobBag:
    """Jobs by identity, each as often as it was added; fastest if they are taken in the order they were added."""

    def __init__(self, jobs: Iterable[QueuedJob] = ()) -> None:
        self._jobs = deque(jobs)

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __len__(self) -> int:
        return len(self._jobs)

    def __contains__(self, job: QueuedJob) -> bool:
        return any(job is other for other in self._jobs)

    def add(self, job: QueuedJob) -> None:
        self._jobs.append(job)

    def take(self, job: QueuedJob) -> bool:
        """Take *job* out once; False if it is not in here."""
        if self._jobs and self._jobs[0] is job:
            self._jobs.popleft()
            return True
        for number, other in enumerate(self._jobs):
            if job is other:
                del self._jobs[number]
                return True
        return False

    def jobs(self) -> list[QueuedJob]:
        return list(self._jobs)


class UnconfirmedBatch(NamedTuple):
    """A batch that was written in a transaction whose outcome is not known yet.

    Attributes:
        jobs: Its jobs, less those that the host has saved since.
        saved: Those: they are in the log only if the batch is.
    """

    batch_id: BatchId
    batch: EncodedBatch
    jobs: JobBag
    saved: JobBag


def without(jobs: list[QueuedJob], gone: JobBag) -> list[QueuedJob]:
    """Return *jobs* less *gone*; a job that is there twice has to be gone twice."""
    if not gone:
        return jobs
    left = JobBag(gone.jobs())
    return [job for job in jobs if not left.take(job)]
