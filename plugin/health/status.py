"""The record of the pipeline's state that `status` shows."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from chancy_metrics.plugin.health.completeness import Completeness
from chancy_metrics.plugin.rebuilds.listing import Unfinished
from chancy_metrics.plugin.worker.retention import DueDay
from chancy_metrics.projections.verify.outcomes import LastVerified
from chancy_metrics.projections.verify.records import LastChecked


class Status(msgspec.Struct, frozen=True):
    """The state of the pipeline; times are UTC, sizes bytes, durations seconds.

    Attributes:
        pending_batches: Without a position yet; *spilled_batches* of them are in the spill table, not in the log.
        set_aside: Entries that waited for a position, or are in the spill table, and are no batch.
        oldest_waiting_s: Since the oldest event was appended that the live version lacks; *silent_s* since its last
            step.
        fold_errors: Why sessions that live failed to fold when they last tried, each with its worker.
        waited_for: Which batch of an unknown codec the fold stands before, and until when, in words; "" for none.
        rules: Of the live version; *app_rules* are this app's, and *rules_note* says what comes of the difference.
        unfinished: Versions on their way to become the live one.
        withheld: Which of them do not take over by themselves since they leave out more than the live one, a sentence
            each.
        due_day: The oldest day that is to leave the log, and what keeps it.
        verified: What runs of `verify` have compared and what of their findings is open; None where none ran.
        checked: What the last `audit check` looked at and found; None where none ran.
        not_looked_at: What nobody has looked at, so that nothing in here speaks of it, a sentence each.
        replayed_at: On a hot standby, the last commit it knows of, which the rest is as of; None elsewhere.
        unhealthy: What is wrong and what to do, a sentence each.
    """

    at: datetime
    replayed_at: datetime | None
    log_bytes: int
    rollup_bytes: int
    events_per_s: float
    pending_batches: int
    spilled_batches: int
    set_aside: int
    oldest_waiting_s: float
    silent_s: float
    version: int
    rules: str
    app_rules: str
    rules_note: str
    unfinished: list[Unfinished]
    withheld: list[str]
    position: int
    ordered_position: int
    folded_by: str | None
    folding_since: datetime | None
    folded_at: datetime | None
    last_fold_events: int | None
    last_fold_s: float | None
    fold_errors: list[str]
    waited_for: str
    sync_interval_s: float
    series: int
    ambiguous_keys: list[str]
    completeness: Completeness
    verified: LastVerified | None
    checked: LastChecked | None
    first_day: date | None
    last_day: date | None
    days_ahead: int
    log_retention_days: float
    due_day: DueDay | None
    not_looked_at: list[str]
    unhealthy: list[str]
