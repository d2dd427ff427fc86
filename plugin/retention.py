"""Log days past their time: into the opening and out of the log, oldest first, or the reason why not yet."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import msgspec
from chancy import Chancy
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.partitions import LogDay, close_day, days_before, remove_day
from chancy_metrics.events.schema import Tables, tables
from chancy_metrics.projections.opening import refusal, take_in
from chancy_metrics.projections.rules import RuleSet

from .connection import database_now_us, own_connection
from .options import Options


class PrunedDay(msgspec.Struct, frozen=True):
    """What became of a log day that is past its time.

    Attributes:
        state: Where it is now: "attached" to the log, "closed" to new batches, in the "opening", or "gone".
        size_bytes: What its partition took, or takes until it is gone.
        blocker: Why it did not go, or would not, in a sentence; "" if it went, or would.
    """

    day: date
    state: str
    size_bytes: int
    blocker: str


async def prune(
    connection: AsyncConnection[TupleRow],
    names: Tables,
    rules: RuleSet,
    *,
    now_us: int,
    log_retention_s: float,
    dry_run: bool = False,
    most: int = 1,
) -> list[PrunedDay]:
    """Let up to *most* log days go that ended longer than *log_retention_s* ago, oldest first.

    Each goes in steps that are transactions of their own, so whatever ends one, the next call goes on there. A
    day that can't go keeps the later ones, since the opening has no holes in it.

    Args:
        connection: An autocommit one outside a transaction.
        dry_run: Change nothing; say of every such day what would become of it.
    """
    async with short_transaction(connection) as cursor:
        due = await days_before(cursor, names, first_kept_day(now_us, log_retention_s))
        if dry_run:
            return [
                PrunedDay(*day, "" if day.state == "opening" else await refusal(cursor, names, rules, day.day))
                for day in due
            ]
    pruned = []
    for day in due[:most]:
        pruned.append(await _retire(connection, names, rules, day))
        if pruned[-1].blocker:
            break
    return pruned


async def prune_all(chancy: Chancy, options: Options, *, dry_run: bool = False) -> list[PrunedDay]:
    """Let every log day go that is past its time; the last one returned may have a blocker, and keeps the rest."""
    pruned: list[PrunedDay] = []
    async with own_connection(chancy) as connection:
        now = await database_now_us(connection.cursor())
        while True:
            some = await prune(
                connection,
                tables(chancy.prefix),
                options.rules,
                now_us=now,
                log_retention_s=options.log_retention,
                dry_run=dry_run,
            )
            pruned += some
            if dry_run or not some or some[-1].blocker:
                return pruned


def first_kept_day(now_us: int, kept_s: float) -> date:
    """The oldest day of which less than *kept_s* seconds have passed since its end."""
    return (datetime.fromtimestamp(now_us / 1_000_000, UTC) - timedelta(seconds=kept_s)).date()


async def _retire(connection: AsyncConnection[TupleRow], names: Tables, rules: RuleSet, due: LogDay) -> PrunedDay:
    day, state, size_bytes = due
    if state == "attached":
        if reason := await close_day(connection, names, day):
            return PrunedDay(day, state, size_bytes, reason)
        state = "closed"
    if state == "closed":
        if reason := await take_in(connection, names, rules, day):
            return PrunedDay(day, state, size_bytes, reason)
        state = "opening"
    if reason := await remove_day(connection, names, day):
        return PrunedDay(day, state, size_bytes, reason)
    return PrunedDay(day, "gone", size_bytes, "")
