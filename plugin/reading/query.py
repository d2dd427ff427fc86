"""Answer `get_metrics` and `list_metrics`: from the replica, or from the database for one worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from chancy import Chancy

from chancy_metrics.events.database import short_transaction
from chancy_metrics.events.off_loop import in_thread
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.options import Options, Resolution
from chancy_metrics.plugin.reading.history import Metric, history
from chancy_metrics.plugin.reading.load import read_directly
from chancy_metrics.plugin.reading.readers import Readers
from chancy_metrics.plugin.reading.replica import SeriesColumns
from chancy_metrics.plugin.reading.shown_keys import Names
from chancy_metrics.plugin.reading.window import Window, check_window, window
from chancy_metrics.projections.grid import BucketRange


async def read_history(
    options: Options, readers: Readers, chancy: Chancy, prefix: str | None, worker_id: str | None = None
) -> dict[str, Metric]:
    """Return 0.24's answer: all that is kept of every series under *prefix*."""
    series, columns = await _columns(readers, chancy, prefix, worker_id)
    return history(options, series, columns, prefix)


async def read_window(
    options: Options,
    readers: Readers,
    chancy: Chancy,
    prefix: str | None,
    worker_id: str | None,
    *,
    resolution: Resolution | None,
    start: datetime | None,
    end: datetime | None,
    range_seconds: int | None,
    limit: int | None,
) -> Window:
    """Return 0.26's answer: a range of time of every series under *prefix*.

    Raises:
        ValueError: The range breaks a rule, or more than 100 series match.
    """
    name = "5min" if resolution is None else resolution
    since, until = check_window(options, name, start=start, end=end, range_seconds=range_seconds, limit=limit)
    within = BucketRange(name, int(since.timestamp()), int(until.timestamp()))
    series, columns = await _columns(readers, chancy, prefix, worker_id, within)
    # In a thread: it may have 100,000 points.
    return await in_thread(window, options, series, columns, prefix, name, since, until)


async def _columns(
    readers: Readers, chancy: Chancy, prefix: str | None, worker_id: str | None, within: BucketRange | None = None
) -> tuple[Names, Mapping[int, SeriesColumns]]:
    if not worker_id:
        replica = await readers.of(chancy).replica()
        return replica.series, replica.columns
    # Not a connection of the pool's, which jobs need.
    async with (
        bounded_connection(chancy) as connection,
        short_transaction(connection, isolation="REPEATABLE READ") as cursor,
    ):
        return await read_directly(cursor, tables_for(chancy.prefix), worker_id, prefix, within=within)
