"""Folds and swaps announced to every worker's hub, in the transaction that makes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chancy import Chancy
from psycopg import AsyncCursor
from psycopg.rows import TupleRow
from psycopg.types.json import Json

if TYPE_CHECKING:  # numpy comes with this: a process that never folds starts without it
    from chancy_metrics.projections.advance import Announce

#: The event that tells every worker's hub of a fold.
FOLDED = "metrics.folded"


def announce_by(chancy: Chancy, folder: str, projector_id: str = "") -> Announce:
    """Return what announces a fold by *folder*.

    Args:
        projector_id: Tells the projectors apart: two live processes may have one worker id. "" for a promotion, which
            is no fold.
    """

    async def announce(cursor: AsyncCursor[TupleRow]) -> None:
        if chancy.notifications:
            await cursor.execute(
                "SELECT pg_notify(%(channel)s, %(event)s::text)",
                {
                    "channel": f"{chancy.prefix}events",
                    "event": Json({"t": FOLDED, "worker": folder, "projector": projector_id}),
                },
            )

    return announce
