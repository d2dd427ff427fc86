"""Prune the log: absorb days past their retention into the baseline and remove them, oldest first."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import anyio
import msgspec
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, database_now_us, short_transaction
from chancy_metrics.events.errors import StuckAt
from chancy_metrics.events.partitions import LogDay, close_day, days_before, remove_day
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.guard import is_importing
from chancy_metrics.plugin.folding.totals import advance_for
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.transfer.archive import archive_day
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.baseline import absorb_day, refusal
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.totals_behind import TotalsBehind, totals_behind

_IMPORTING = "an import has not ended: let it come to its end, or run `chancy-metrics audit import` again"

#: How late a day may be pruned, and the longest pause between two days of a backlog, before it is overdue.
LATE = timedelta(days=1)
BETWEEN_DAYS = timedelta(hours=1)
#: Seconds that one call advances the totals at most before a day leaves the log, and between two tries of that.
TOTALS_WITHIN_S, _BUSY_S = 60, 0.05


class PrunedDay(msgspec.Struct, frozen=True):
    """What pruning has done, or would do, with a day of the log.

    Attributes:
        state: "attached" to the log, "closed" to new batches, "absorbed" by the baseline, or "gone".
        size_bytes: Size of its partition before it was dropped.
        blocker: A sentence that says why it can't be removed; None if it can.
    """

    day: date
    state: str
    size_bytes: int
    blocker: str | None


class DueDay(msgspec.Struct, frozen=True):
    """The oldest log day past its retention; times are UTC.

    Attributes:
        state: "attached" to the log, "closed" to new batches, or "absorbed" by the baseline; *since* when.
        due_at: When its retention ended.
        days: Number of days past their retention, with this one.
        last_gone_at: When an earlier day was absorbed or removed; None if none has been.
        blocker: A sentence that says why it can't be removed; None if nothing is known to prevent it.
    """

    day: date
    state: str
    since: datetime
    due_at: datetime
    days: int
    last_gone_at: datetime | None
    blocker: str | None

    def is_overdue(self, now: datetime) -> bool:
        """Whether its removal is late; not while a backlog without a blocker is pruned day by day."""
        if now - self.due_at <= LATE:
            return False
        return bool(self.blocker) or self.last_gone_at is None or now - self.last_gone_at > BETWEEN_DAYS

    @property
    def reason(self) -> str:
        """Why it is not removed, as far as that is known."""
        return self.blocker or "no worker cleans up, or an open transaction holds it: `chancy-metrics prune` says which"

    def __str__(self) -> str:
        which = f"{self.day} is" if self.days == 1 else f"{self.days} days, the oldest {self.day}, are"
        return f"{which} due to leave the log since {self.due_at:%Y-%m-%d %H:%M %Z}, and {self._state_since}"

    @property
    def _state_since(self) -> str:
        since = "" if self.state == "attached" else f" since {self.since:%Y-%m-%d %H:%M %Z}"
        return {"absorbed": "in the baseline", "attached": "still attached"}.get(self.state, self.state) + since


async def prune_days(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    *,
    now_us: int,
    log_retention_s: float,
    dry_run: bool = False,
    limit: int = 1,
    archive: Path | None = None,
) -> list[PrunedDay]:
    """Remove up to *limit* log days that ended longer than *log_retention_s* ago, oldest first.

    Each is removed in steps, a transaction each, so that the next call resumes an interrupted one. A day that can't be
    removed keeps the later ones, since the baseline has no gaps.

    Args:
        connection: An autocommit one outside a transaction.
        dry_run: Change nothing; return every such day with what would be done.
        archive: A folder in which each day is exported before it is removed; a day that can't be exported stays.
    """
    async with short_transaction(connection) as cursor:
        due = await days_before(cursor, tables, first_kept_day(now_us, log_retention_s))
        if due and await is_importing(cursor, tables):
            return [PrunedDay(*due[0], _IMPORTING)]
        if dry_run:
            return [PrunedDay(*day, await _blocker(cursor, tables, rules, day.day, day.state)) for day in due]
    pruned = []
    for day in due[:limit]:
        pruned.append(await _prune_day(connection, tables, rules, day, archive))
        if pruned[-1].blocker:
            break
    return pruned


async def prune(
    chancy: Chancy,
    *,
    dry_run: bool = False,
    archive: Path | None = None,
    keep_s: float | None = None,
) -> list[PrunedDay]:
    """Remove every day from the log that is older than *keep_s*; return those days, oldest first, [] for none.

    What a day added stays in the numbers. The first day that can't go, whose `blocker` says why, keeps the later ones.
    Stopped at any moment, the next call goes on.

    Args:
        dry_run: Change nothing; return what would happen to each such day.
        archive: An existing directory. Each day is exported to it before it goes; one that can't be exported stays.
        keep_s: Seconds the log is kept after a day's end; `log_retention` by default.

    Raises:
        MetricsLogError: There is no metrics log.
        psycopg.Error: The database can't be reached, or refuses.
    """
    options = options_of(chancy)
    pruned: list[PrunedDay] = []
    async with bounded_connection(chancy) if dry_run else own_connection(chancy) as connection:
        now = await database_now_us(connection.cursor())
        while True:
            some = await prune_days(
                connection,
                tables_for(chancy.prefix),
                options.rules,
                now_us=now,
                log_retention_s=options.log_retention if keep_s is None else keep_s,
                dry_run=dry_run,
                archive=archive,
            )
            pruned += some
            if dry_run or not some or some[-1].blocker:
                return pruned


async def oldest_due(
    cursor: Cursor, tables: Tables, rules: RuleSet, *, now_us: int, log_retention_s: float
) -> DueDay | None:
    """Return the day that `prune_days` would remove first, and what keeps it; None if none is past its retention."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT day, state, changed_at, count(*) OVER (), (
                SELECT max(changed_at) FROM {days} WHERE state IN ('absorbed', 'gone')
            )
            FROM {days}
            WHERE day < %(end)s
                AND state <> 'gone'
            ORDER BY day
            LIMIT 1
            """
        ).format(days=tables.days),
        {"end": first_kept_day(now_us, log_retention_s)},
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    day, state, since, days, last_gone_at = row
    return DueDay(
        day=day,
        state=state,
        since=since.astimezone(UTC),
        due_at=datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1, seconds=log_retention_s),
        days=days,
        last_gone_at=last_gone_at and last_gone_at.astimezone(UTC),
        blocker=await _blocker(cursor, tables, rules, day, state),
    )


def first_kept_day(now_us: int, kept_s: float) -> date:
    """Return the oldest day that ended less than *kept_s* seconds ago."""
    return (datetime.fromtimestamp(now_us / 1_000_000, UTC) - timedelta(seconds=kept_s)).date()


async def _blocker(cursor: Cursor, tables: Tables, rules: RuleSet, day: date, state: str) -> str | None:
    """Return what `_prune_day` would be kept from; not totals that lag, since it advances them itself."""
    if state == "absorbed":
        return None
    if reason := await refusal(cursor, tables, rules, day):
        return reason
    behind = await totals_behind(cursor, tables, day)
    return behind.sentence if behind is not None and not behind.is_advanced else None


async def _prune_day(
    connection: Connection, tables: Tables, rules: RuleSet, due: LogDay, archive: Path | None
) -> PrunedDay:
    day, state, size_bytes = due
    if state == "attached":
        if blocker := await close_day(connection, tables, day):
            return PrunedDay(day, state, size_bytes, blocker)
        state = "closed"
    if state == "closed" and (blocker := await _advance_totals(connection, tables, rules, day)):
        return PrunedDay(day, state, size_bytes, blocker)
    if archive is not None and size_bytes and (blocker := await _archive(connection, tables, rules, due, archive)):
        return PrunedDay(day, state, size_bytes, blocker)
    if state == "closed":
        if blocker := await absorb_day(connection, tables, rules, day):
            return PrunedDay(day, state, size_bytes, blocker)
        state = "absorbed"
    if blocker := await remove_day(connection, tables, day):
        return PrunedDay(day, state, size_bytes, blocker)
    return PrunedDay(day, "gone", size_bytes, None)


async def _advance_totals(connection: Connection, tables: Tables, rules: RuleSet, day: date) -> str | None:
    """Let the totals, if there are any, add what they lack of *day*; return why they still lack it, as a sentence.

    Nobody else might: exporters come and go.
    """
    until = time.monotonic() + TOTALS_WITHIN_S
    while behind := await _totals_behind(connection, tables, day):
        left_s = until - time.monotonic()
        if not behind.is_advanced:
            return behind.sentence
        if left_s <= 0:
            return f"{behind.sentence}; the next call goes on with it"
        try:
            done = await advance_for(connection, tables, rules, folded_by="prune", within_s=left_s)
        except StuckAt as error:
            return f"{behind.sentence}: {error}"
        if done.outcome is Outcome.REFUSED:
            return f"{behind.sentence}: {done.reason}"
        if not done.caught_up:
            await anyio.sleep(_BUSY_S)
    return None


async def _totals_behind(connection: Connection, tables: Tables, day: date) -> TotalsBehind | None:
    async with short_transaction(connection) as cursor:
        return await totals_behind(cursor, tables, day)


async def _archive(connection: Connection, tables: Tables, rules: RuleSet, due: LogDay, folder: Path) -> str | None:
    """Archive the day unless it is blocked: batches of it may still be pending."""
    if due.state != "absorbed":
        async with short_transaction(connection) as cursor:
            if blocker := await refusal(cursor, tables, rules, due.day):
                return blocker
    return await archive_day(connection, tables, due.day, folder)
