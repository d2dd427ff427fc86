"""Read the totals for an exporter, and advance them before, as far as the time allows."""

from __future__ import annotations

from chancy import Chancy

from chancy_metrics.events.errors import TotalsNotReady
from chancy_metrics.projections.totals.read import Totals


async def read_totals(chancy: Chancy, *, within_s: float = 2.0) -> Totals:
    """Return the totals, after advancing them for up to *within_s* seconds.

    Raises:
        TotalsNotReady: They are being built; the message says how far that is.
    """
    raise TotalsNotReady("the totals have not been built yet")
