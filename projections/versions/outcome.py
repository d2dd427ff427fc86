"""What one step of a version came to: batches folded, nothing left, or why it did nothing."""

from __future__ import annotations

from typing import NamedTuple

from chancy_metrics.projections.versions.left_out import LeftOut

#: Why a step did nothing that another process took at the same time: trying again soon is right.
BUSY = "somebody else folds"


class Advanced(NamedTuple):
    """What one step did.

    Attributes:
        events: How many it folded.
        position: Where the version stands now.
        caught_up: Nothing was left in the ledger when it looked.
        reason: Why it did nothing, in words; "" if it did, or if nothing was there.
        left_out: What of these events is not in the version; None where all of it is.
    """

    events: int
    position: int
    caught_up: bool
    reason: str = ""
    left_out: LeftOut | None = None
