"""Import the points that Chancy's own metrics plugin stored, once, so that charts show the time before the switch."""

from __future__ import annotations

from datetime import datetime

import msgspec
from chancy import Chancy

from chancy_metrics.events.database import database_now_us, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.humanize import span
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.app import who
from chancy_metrics.plugin.host.bounded_connection import REBUILD_LOCK_LIMIT_MS, bounded_connection
from chancy_metrics.plugin.host.moments import from_s, from_us
from chancy_metrics.plugin.host.notify import announce_by
from chancy_metrics.plugin.transfer.built_in_points import BuiltInPoints, read_built_in
from chancy_metrics.projections.versions.imported import add_imported, read_imported_day

#: Seconds without a new point after which no worker records by Chancy's own plugin any more: it measures tables every
#: 30 s, saves every 60 s, and tries again after 300 s at the most where it could not save.
SILENT_S = 360


class BuiltInImported(msgspec.Struct, frozen=True):
    """What an import of the points of Chancy's own plugin has done.

    Attributes:
        already: They had been imported before, and nothing was changed; then only *until* is known of the rest.
        series: Number of series.
        points: Points that were imported, each of one worker; those of coarser resolutions are made of them.
        observations: Observations in them.
        skipped: Points that were left out, since they have no number or no time, or lie between two buckets.
        since: Start of the first bucket, UTC; None if there was nothing.
        until: Time of the latest observation, UTC; None if there was nothing.
    """

    already: bool = False
    series: int = 0
    points: int = 0
    observations: int = 0
    skipped: int = 0
    since: datetime | None = None
    until: datetime | None = None


async def import_built_in(chancy: Chancy, *, silent_s: float = SILENT_S) -> BuiltInImported:
    """Import the points that Chancy's own metrics plugin has stored, once; its tables stay as they are.

    One transaction adds all of them to the baseline and to every version, so that an import that is killed has changed
    nothing, and a rebuild begins with them. Counters, gauges and the count, sum, minimum and maximum of histograms are
    imported, each at the finest resolution that was kept; quantiles are not known.

    Args:
        silent_s: Refuse unless its newest point is so many seconds old: what it saves later would be missing.

    Raises:
        MetricsLogError: It never ran here, or still records; or a version is being made.
        TableLocked: A table was locked for longer than `REBUILD_LOCK_LIMIT_MS`; nothing was changed.
    """
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy, lock_limit_ms=REBUILD_LOCK_LIMIT_MS) as connection:
        async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
            if (day := await read_imported_day(cursor, tables)) is not None:
                return BuiltInImported(already=True, until=from_us(day.last_us))
            found = await read_built_in(cursor, chancy.prefix)
            now_us = await database_now_us(cursor)
        if found.last_us is None:
            return BuiltInImported(skipped=found.skipped)
        _refuse_while_recording((now_us - found.last_us) / 1_000_000, silent_s)
        announce = announce_by(chancy, who())
        added = await add_imported(connection, tables, found.folded, found.complete, found.last_us, announce=announce)
    return _imported(found) if added else BuiltInImported(already=True, until=from_us(found.last_us))


def _refuse_while_recording(silence_s: float, silent_s: float) -> None:
    if silence_s < silent_s:
        raise MetricsLogError(
            f"Chancy's own metrics plugin may still record: its newest point is {span(max(0.0, silence_s))} old, and "
            "what it saves later would be missing. Restart all workers with this plugin, then run this again in "
            f"{span(silent_s - max(0.0, silence_s))}"
        )


def _imported(found: BuiltInPoints) -> BuiltInImported:
    cells = found.folded.cells.values()
    assert found.last_us is not None  # there are points
    return BuiltInImported(
        series=len(found.folded.series),
        points=sum(one.rows for one in cells),
        observations=sum(int(one.observations.sum()) for one in cells),
        skipped=found.skipped,
        since=from_s(min(int(one.bucket.min()) for one in cells)),
        until=from_us(found.last_us),
    )
