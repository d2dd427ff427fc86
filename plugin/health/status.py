"""The record of the pipeline's state that `status` shows."""

from __future__ import annotations

from datetime import date, datetime

import msgspec

from chancy_metrics.plugin.health.completeness import Completeness
from chancy_metrics.plugin.rebuilds.listing import Collecting, Unfinished
from chancy_metrics.plugin.worker.retention import DueDay
from chancy_metrics.projections.totals.read import TotalsState
from chancy_metrics.projections.verify.outcomes import LastVerified
from chancy_metrics.projections.verify.records import LastChecked


class Status(msgspec.Struct, frozen=True):
    """The state of the pipeline; times in UTC, sizes in bytes, durations in seconds.

    Attributes:
        rollup_bytes: Size of all tables of the plugin but the log.
        pending_batches: Batches without a position yet; *spilled_batches* of them are in the spill table.
        set_aside: Entries of the pending and spill tables that are no batch.
        oldest_waiting_s: Age of the oldest appended event that the live version lacks.
        silent_s: Time since the live version's last step.
        fold_errors: The last fold error of each live session, with its worker.
        waited_for: The batch of an unknown codec that the fold waits at, and until when, in words; "" for none.
        rules: Rules of the live version; *app_rules* are this app's, and *rules_note* says what follows from a
            difference.
        unfinished: Versions that are being backfilled or are ready to be promoted.
        collecting: Baselines that a rebuild is making from archives.
        withheld: Those of *unfinished* that are not promoted automatically, because they leave out more than the live
            version; a sentence each.
        due_day: The oldest day that is due to leave the log, and what keeps it.
        verified: What runs of `verify` compared, and their open findings; None where none ran.
        checked: What the last `audit check` covered and found; None where none ran.
        not_looked_at: What was never checked, so that this status can't say whether it is right; a sentence each.
        totals: The totals for exporters: the generation that is served first, then one that is being built.
        replayed_at: On a hot standby, the time of the last replayed commit, to which all times refer; else None.
        unhealthy: What is wrong and what to do, a sentence each; [] if healthy.
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
    collecting: list[Collecting]
    withheld: list[str]
    position: int
    ordered_position: int
    folded_by: str | None
    folding_since: datetime | None
    folded_at: datetime | None
    last_fold_events: int | None
    last_fold_s: float | None
    totals: list[TotalsState]
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
