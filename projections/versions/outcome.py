"""The result of one step of a version: events folded, nothing left to fold, or the reason why it did nothing."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from chancy_metrics.projections.versions.left_out import LeftOut


class Outcome(Enum):
    """How a step ended."""

    FOLDED = "folded"
    #: The ledger had nothing past the version's position.
    CAUGHT_UP = "caught up"
    #: Another process took the same step at the same time: try again soon.
    BUSY = "busy"
    #: This code may not fold the version, or not the next batch: trying again does not help.
    REFUSED = "refused"


class Advanced(NamedTuple):
    """What one step did.

    Attributes:
        events: How many it folded.
        position: Position of the version after the step.
        reason: Why it did nothing, where the outcome is BUSY or REFUSED; else None.
        left_out: What the version leaves out of these events; None if nothing.
    """

    events: int
    position: int
    outcome: Outcome = Outcome.FOLDED
    reason: str | None = None
    left_out: LeftOut | None = None

    @property
    def caught_up(self) -> bool:
        return self.outcome is Outcome.CAUGHT_UP

    @classmethod
    def nothing_left(cls, position: int) -> Advanced:
        return cls(0, position, Outcome.CAUGHT_UP)

    @classmethod
    def busy(cls, position: int) -> Advanced:
        return cls(0, position, Outcome.BUSY, "another process folds")

    @classmethod
    def refused(cls, position: int, reason: str) -> Advanced:
        return cls(0, position, Outcome.REFUSED, reason)
