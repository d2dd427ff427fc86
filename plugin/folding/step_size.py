"""How much of the log one step of a fold or a rebuild takes, and when a batch that is a step by itself is too much."""

from __future__ import annotations

import asyncio

from chancy_metrics.events.error_kinds import is_out_of_memory, is_too_much

#: After steps that were too large the next ones grow by this part of the usual size.
_GROWTH = 100
#: Memory that is too little for a step will not do for half of it: so much smaller steps are tried.
_LESS_MEMORY = 16
#: How often a batch is tried by itself for which there is not enough memory, and seconds between the tries.
TRIES = 3
_PAUSE_S = 0.5


class StepSize:
    """Halved where a step was too much for some limit.

    Attributes:
        events: How many the next step folds at the most; 1 stands for one batch.
        is_tried_alone: Whether a batch was too much for the memory there is, and is tried once more.
    """

    def __init__(self, usual: int) -> None:
        self.events = usual
        self._usual = usual
        self._tries = 0

    @property
    def is_tried_alone(self) -> bool:
        return self._tries > 0

    def shrink(self, error: Exception) -> bool:
        """Whether the next step is smaller than the one that raised *error*."""
        if not is_too_much(error) or self.events == 1:
            return False
        self.events = max(1, self.events // (_LESS_MEMORY if is_out_of_memory(error) else 2))
        return True

    async def try_again(self, error: Exception) -> bool:
        """Whether to try a batch once more for which there was not enough memory, after a pause: others may free some.

        Raises *error* where it is not for memory, or not the batch's: that passes, or somebody has to look.
        """
        if not is_out_of_memory(error) or self.events > 1:
            raise error
        self._tries += 1
        if self._tries == TRIES:
            return False
        await asyncio.sleep(_PAUSE_S)
        return True

    def went_well(self, *, grows: bool) -> None:
        self._tries = 0
        if grows:
            self.events = min(self._usual, self.events + self._usual // _GROWTH)
