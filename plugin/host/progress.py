"""How far a long piece of work is, as its callers are told."""

from __future__ import annotations

from typing import Literal

import msgspec


class LedgerProgress(msgspec.Struct, frozen=True):
    """How far a walk through the order is: at *position* of *until*, past so many events since it began."""

    position: int
    until: int
    events: int
    events_per_s: float


Phase = Literal["waiting", "copying", "backfilling", "comparing", "swapping"]


class RebuildProgress(msgspec.Struct, frozen=True):
    """Where a rebuild stands.

    Attributes:
        position: Of the ledger; *target* is where the live version stands.
        events: Folded so far, of *total_events* up to the target.
        waits: Whether it has given way to the live version.
        note: Who fills the version, while this run waits for that one to end; "" otherwise.
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
