"""The record that `report` returns: what happened in some time, what is wrong, and whether to trust the numbers."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from chancy_metrics.plugin.audit.marks import Mark
from chancy_metrics.plugin.summary.usual import Usual


class Problem(msgspec.Struct, frozen=True):
    """Something that is wrong.

    Attributes:
        kind: "pipeline" (the numbers may be late or wrong, as `status` says), "silent" (nothing is recorded),
            "no_worker" (jobs are due, and no worker is active), "standstill" (jobs of a queue are due, and none ends),
            "waiting" (a job waits far longer than is usual), "failures" (more jobs fail than is usual), "no_flow" (no
            job is done).
        sentence: What, which, and what to do.
        name: The queue or function; "" for what is of none.
    """

    kind: Literal["pipeline", "silent", "no_worker", "standstill", "waiting", "failures", "no_flow"]
    sentence: str
    name: str = ""


class Flow(msgspec.Struct, frozen=True):
    """Job updates in the time; a job is done when it has succeeded, or failed for the last time.

    Attributes:
        retried: Attempts that failed and are tried again.
        per_min: Jobs done a minute of the time in which anything was recorded.
        usual: Jobs done in as long a time at the same hours of the days before; None without any to compare with.
    """

    done: int
    succeeded: int
    failed: int
    retried: int
    per_min: float
    usual: Usual | None


class QueueState(msgspec.Struct, frozen=True):
    """A queue as it was last sampled, in the last minutes.

    Attributes:
        pending: Jobs that are due and were never tried; None where it was not sampled, as the other numbers.
        retrying: Jobs that are due once more.
        scheduled: Jobs that are due later.
        oldest_wait_s: How long the first of the due jobs has waited; *worst_wait_s* is the most in the time.
        usual_worst_s: The most at the same hours of the days before.
        ended_at: When a job of it last ended an attempt in the time, UTC; None if none did.
    """

    queue: str
    pending: int | None
    running: int | None
    retrying: int | None
    scheduled: int | None
    oldest_wait_s: float | None
    worst_wait_s: float | None
    usual_worst_s: Usual | None
    ended_at: datetime | None

    @property
    def due(self) -> int:
        """Jobs that are due; at least so many where that is `MOST_JOBS` or more."""
        return (self.pending or 0) + (self.retrying or 0)


class Waiting(msgspec.Struct, frozen=True):
    """What waits.

    Attributes:
        sampled: Whether queues are sampled at all; if not, nothing is known of them.
        queues: The one whose job has waited longest first.
        workers: Active workers; None where they are not sampled.
        sampled_at: When queues or workers were last sampled in the time, UTC; None if they were not.
    """

    sampled: bool
    queues: list[QueueState]
    workers: int | None
    sampled_at: datetime | None


class FunctionFailures(msgspec.Struct, frozen=True):
    """The failures of a function: *share* of its jobs that are done, 0 to 1."""

    func: str
    failed: int
    done: int
    share: float
    usual: Usual | None


class NewestError(msgspec.Struct, frozen=True):
    """The newest failed attempt of the time; *at* in UTC, *state* "failed" or "retrying"."""

    at: datetime
    job_id: UUID
    func: str
    queue: str
    state: str
    error: str


class Failures(msgspec.Struct, frozen=True):
    """Jobs that failed for the last time.

    Attributes:
        share: Of the jobs that are done, 0 to 1; None if none is.
        usual: Their share at the same hours of the days before.
        functions: The one with the most failures first; those without any are left out.
        newest: The newest failed attempt; None if there is none, or if its day has left the log.
    """

    failed: int
    share: float | None
    usual: Usual | None
    functions: list[FunctionFailures]
    newest: NewestError | None


class SlowFunction(msgspec.Struct, frozen=True):
    """How long a function runs, in seconds: *run_time_s* is the sum over its runs."""

    func: str
    p95_s: float
    usual: Usual | None
    runs: int
    run_time_s: float


class Change(msgspec.Struct, frozen=True):
    """Something that is far from what is usual at these hours; docs/alerts.md says how far.

    Attributes:
        what: "jobs" (done), "failure_share", "run_time_p95" or "wait_time_p95", in seconds.
        subject: "job" for a function, "queue" for a queue, with its *name*.
    """

    what: Literal["jobs", "failure_share", "run_time_p95", "wait_time_p95"]
    subject: Literal["job", "queue"]
    name: str
    now: float
    usual: Usual


class Numbers(msgspec.Struct, frozen=True):
    """Whether the numbers can be trusted; times in UTC.

    Attributes:
        missing: What is missing from them in the time or late, kind -> count; {} if nothing is known to be.
        lag_s: Age of the oldest event that is not in them yet.
        verified_at: When `verify` last compared them with the log; None for never.
        verified_share: Part of the buckets kept that were compared, 0 to 1.
        open_faults: What `verify` and the last `audit check` found that is still open.
        not_looked_at: What was never checked, a sentence each.
    """

    missing: dict[str, int]
    lag_s: float
    folded_at: datetime | None
    verified_at: datetime | None
    verified_share: float
    open_faults: int
    not_looked_at: list[str]


class Report(msgspec.Struct, frozen=True):
    """What happened in some time, against the same hours of the days before; times in UTC.

    Attributes:
        problems: What is wrong; [] if nothing is.
        since: Start of the first bucket; earlier than was asked for where no finer ones are kept.
        replayed_at: On a hot standby, the time of the last replayed commit, to which all times refer.
        unknown_s: Seconds of the time in which nothing at all was recorded.
        began_at: When anything was first recorded in the time, to the bucket; None for nothing.
        recorded_at: When anything was last recorded in it, to the bucket.
        days: How many days are compared with.
        marks: The last marks in the time, such as deploys.
        first_numbers_s: While there are no numbers yet, in how many seconds of the first event they come; else None.
        slowest: The slowest functions by p95; *busiest* those with the largest sum of run time.
        changes: The largest first.
    """

    problems: list[Problem]
    since: datetime
    until: datetime
    replayed_at: datetime | None
    unknown_s: float
    began_at: datetime | None
    recorded_at: datetime | None
    days: int
    first_numbers_s: float | None
    marks: list[Mark]
    flow: Flow
    waiting: Waiting
    failures: Failures
    slowest: list[SlowFunction]
    busiest: list[SlowFunction]
    changes: list[Change]
    numbers: Numbers
