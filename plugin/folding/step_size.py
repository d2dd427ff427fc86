"""Choose how many events one step folds: smaller after errors of memory or time, down to a single batch."""

from __future__ import annotations

import asyncio

from chancy_metrics.events.error_kinds import is_out_of_memory, is_too_much

#: Steps that were shrunk grow by the usual size divided by this.
_GROWTH = 100
#: Divisor of the step after out of memory, where half a step would fail again.
_LESS_MEMORY = 16
#: How often a single batch is tried that runs out of memory, and seconds between the tries.
TRIES = 3
_PAUSE_S = 0.5


class StepSize:
    """The size of the next step, halved after a step that exceeded some limit.

    Attributes:
        events: Largest number of events of the next step; 1 stands for one batch.
        is_tried_alone: Whether a single batch ran out of memory and is tried again.
    """

    def __init__(self, usual: int) -> None:
        self.events = usual
        self._usual = usual
        self._tries = 0

    @property
    def is_tried_alone(self) -> bool:
        return self._tries > 0

    def shrink(self, error: Exception) -> bool:
        """Make the next step smaller if *error* says that the last one was too large; return whether it is."""
        if not is_too_much(error) or self.events == 1:
            return False
        self.events = max(1, self.events // (_LESS_MEMORY if is_out_of_memory(error) else 2))
        return True

    async def try_again(self, error: Exception) -> bool:
        """Pause and return True if a batch that ran out of memory is to be tried again; False after `TRIES`.

        Raises *error* if it is not about memory, or the step was larger than one batch.
        """
        if not is_out_of_memory(error) or self.events > 1:
            raise error
        self._tries += 1
        if self._tries == TRIES:
            return False
        await asyncio.sleep(_PAUSE_S)
        return True

    def went_well(self, *, grows: bool) -> None:
        """Note a step that succeeded; let the next one grow if *grows*."""
        self._tries = 0
        if grows:
            self.events = min(self._usual, self.events + self._usual // _GROWTH)
