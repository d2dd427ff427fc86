"""The progress of rebuilds and of walks through the ledger, as it is reported to callers."""

from __future__ import annotations

from typing import Literal

import msgspec


class LedgerProgress(msgspec.Struct, frozen=True):
    """The progress of a walk through the ledger: *events* read since it began, now at *position* of *until*."""

    position: int
    until: int
    events: int
    events_per_s: float


Phase = Literal["waiting", "collecting", "copying", "backfilling", "comparing", "swapping"]


class RebuildProgress(msgspec.Struct, frozen=True):
    """Where a rebuild stands.

    Attributes:
        position: Of the ledger; *target* is where the live version stands.
        events: Folded so far, of *total_events* up to the target.
        waits: Whether it pauses so that the live version is folded first.
        note: Which other run backfills the version, while this one waits for it, or which day is added to a baseline;
            "" otherwise.
    """

    phase: Phase
    version: int
    position: int
    target: int
    events: int
    total_events: int
    events_per_s: float
    remaining_s: float | None
    waits: bool = False
    note: str = ""
