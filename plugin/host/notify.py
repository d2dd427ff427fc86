"""Announce folds and promotions to every worker's hub by NOTIFY, in the transaction that makes them.

A NOTIFY reaches every session of the database, also those of another schema with tables of the same names: each one
carries the oid of its head table, which no two installations of one database share, copies of each other included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chancy import Chancy
from psycopg.types.json import Json

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.storable_text import storable_worker

if TYPE_CHECKING:  # numpy comes with this: a process that never folds starts without it
    from chancy_metrics.projections.versions.step import Announce

#: The event that announces a fold to every worker's hub.
FOLDED = "metrics.folded"


def announce_by(chancy: Chancy, folded_by: str, projector_id: str = "") -> Announce:
    """Return a function that announces a fold by *folded_by*.

    Args:
        projector_id: Of the projector: two live processes may have one worker id. "" for a promotion, which
            is no fold.
    """

    async def announce(cursor: Cursor) -> None:
        if chancy.notifications:
            # A NOTIFY has room for 8,000 bytes.
            event = {"t": FOLDED, "worker": storable_worker(cursor, folded_by), "projector": projector_id}
            await cursor.execute(
                """
                SELECT pg_notify(
                    %(channel)s,
                    (%(event)s::jsonb || jsonb_build_object('installation', to_regclass(%(head)s)::oid::bigint))::text
                )
                """,
                {
                    "channel": f"{chancy.prefix}events",
                    "event": Json(event),
                    "head": tables_for(chancy.prefix).head.as_string(cursor),
                },
            )

    return announce


async def read_installation(cursor: Cursor, tables: Tables) -> int | None:
    """Return the oid that marks this installation's announcements; None where there are no tables."""
    await cursor.execute("SELECT to_regclass(%(head)s)::oid::bigint", {"head": tables.head.as_string(cursor)})
    row = await cursor.fetchone()
    return row[0] if row else None
