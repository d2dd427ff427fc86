"""Find horizons that a clock ahead of time raised too far, fold again the points they hide, and lower them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

from anyio import to_thread
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.ledger import LedgerRow, chunks, find_batches, read_ledger
from chancy_metrics.events.partitions import days_in_log, gone_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.levels import derive_points, merge_workers
from chancy_metrics.projections.rollups.delta_ring import write_ring
from chancy_metrics.projections.rollups.ids import number, still_numbered
from chancy_metrics.projections.rollups.read import read_worker_cells
from chancy_metrics.projections.rollups.segments import write_segments
from chancy_metrics.projections.rollups.write import store
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.span import Span
from chancy_metrics.projections.versions.replay import PAGE, read_alive
from chancy_metrics.projections.versions.version import Version, lock_version, read_version, read_versions

_US = 1_000_000
#: Attempts, since folds go on meanwhile.
_TRIES = 20


def ahead_of(horizons: Mapping[str, int], kept: Mapping[str, int], now_s: int) -> dict[str, int]:
    """Return resolution -> the horizon by the settings, for horizons that hide points which are to be kept.

    No right clock sets a horizon past the present. If all horizons are past those of the settings, a clock ahead raised
    all of them. A single one may date from another setting, whose points are gone, and is left.

    Args:
        kept: The horizons by the settings: resolution -> start of the oldest bucket, seconds.
    """
    past = {name: kept[name] for name, width in RESOLUTIONS.items() if horizons[name] > kept[name] + width}
    if len(past) < len(RESOLUTIONS) and not any(horizons[name] > now_s + width for name, width in RESOLUTIONS.items()):
        return {}
    return past


def sentence(version: int, horizons: Mapping[str, int], ahead: Mapping[str, int]) -> str:
    """Return a sentence that says what the horizons *ahead* of a version hide."""
    parts = [f"{name} before {_at(horizons[name])}, though it is kept from {_at(ahead[name])} on" for name in ahead]
    return (
        f"version {version} hides {', '.join(parts)}: a clock was ahead, the settings "
        "keep more than before, or somebody changed its row; the next clean-up of a worker folds that again from the "
        "log, or `chancy-metrics fold`"
    )


def _at(at_s: int) -> str:
    try:
        return f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%d %H:%M UTC}"
    except (ValueError, OverflowError, OSError):
        return f"second {at_s}"


async def mend(
    connection: Connection,
    tables: Tables,
    rules: RuleSet,
    kept: Mapping[str, int],
    *,
    now_s: int,
) -> list[str]:
    """Repair horizons that are ahead: fold the points they hide again, and lower them; return a sentence per version.

    Points of pruned days come from the baseline, as far as it is complete. Memory grows with the workers' points, all
    of which are folded again: under other horizons their cells are at other resolutions.

    Args:
        connection: An autocommit connection outside a transaction.

    Raises:
        MetricsLogError: Folds or pruned days interfered in each attempt; nothing was changed.
    """
    async with short_transaction(connection) as cursor:
        versions = [
            version
            for version in await read_versions(cursor, tables)
            if version.status in ("live", "backfilling", "ready", "standby") and not version.refuses(rules)
        ]
    repaired = []
    for version in versions:
        ahead = ahead_of(version.horizons, kept, now_s)
        if ahead:
            points = await _mend(connection, tables, rules, version.version, ahead)
            repaired.append(f"{points:,} points of version {version.version} that a horizon ahead hid are folded again")
    return repaired


class _Base(NamedTuple):
    version: Version
    gone: set[date]
    first: dict[str, int]


async def _mend(connection: Connection, tables: Tables, rules: RuleSet, version: int, ahead: Mapping[str, int]) -> int:
    for _ in range(_TRIES):
        async with short_transaction(connection) as cursor:
            base = await _read_base(cursor, tables, version, ahead)
            days = await days_in_log(cursor, tables)
        total = Accumulator(base.first)
        span = Span(min(base.first.values()) * _US, None)
        for day in days:
            async with short_transaction(connection) as cursor:
                found = await find_batches(
                    cursor, tables, day, since_us=span.since_us, until_us=span.until_us, until=base.version.position
                )
            for rows in chunks(found):
                async with short_transaction(connection) as cursor:
                    await _add(cursor, tables, total, base, rules, rows)
        async with short_transaction(connection) as cursor:
            await to_thread.run_sync(
                total.add, await read_worker_cells(cursor, tables, base.version.baseline, base.first)
            )
        after = base.version.position
        for _ in range(_TRIES):
            numbered = await number(connection, tables, await to_thread.run_sync(total.fold))
            async with short_transaction(connection, index_only=True) as cursor:
                locked = await lock_version(cursor, tables, version, wait=True)
                now = await _read_base(cursor, tables, version, ahead)
                if locked is None or (now.gone, now.version.horizons, now.first) != (
                    base.gone,
                    base.version.horizons,
                    base.first,
                ):
                    break
                rows = await read_ledger(cursor, tables, after=after, limit=PAGE, until=locked.position)
                if not rows and await still_numbered(cursor, tables, numbered.series, numbered.workers):
                    await _delete(cursor, tables, version, base)
                    hidden = derive_points(merge_workers(numbered.cells), base.first, base.version.horizons)
                    changed = await store(cursor, tables, version, hidden)
                    await write_segments(cursor, tables, version, locked.folds + 1, numbered.cells)
                    if locked.status == "live":
                        await write_ring(
                            cursor,
                            tables,
                            version=version,
                            fold=locked.folds + 1,
                            position=locked.position,
                            points=changed,
                        )
                    await _lower(cursor, tables, version, base.first)
                    return sum(cells.rows for cells in hidden.values())
                for chunk in chunks(rows):
                    await _add(cursor, tables, total, base, rules, chunk)
                after = rows[-1].position if rows else after
    raise MetricsLogError(
        f"what the horizons of version {version} hide could not be folded again: in each attempt another fold, or "
        "a day that was pruned, interfered; try again"
    )


async def _read_base(cursor: Cursor, tables: Tables, version: int, ahead: Mapping[str, int]) -> _Base:
    mine = await read_version(cursor, tables, version)
    if mine is None:
        raise MetricsLogError(f"version {version} is not there any more")
    baseline = await read_version(cursor, tables, mine.baseline)
    gone = await gone_days(cursor, tables)
    # Below its horizon the baseline is incomplete, and its days are no longer in the log.
    whole = baseline.horizons if baseline is not None and gone else dict.fromkeys(RESOLUTIONS, 0)
    first = {
        name: max(ahead[name], min(whole[name], horizon)) if name in ahead else horizon
        for name, horizon in mine.horizons.items()
    }
    return _Base(mine, gone, first)


async def _add(
    cursor: Cursor,
    tables: Tables,
    total: Accumulator,
    base: _Base,
    rules: RuleSet,
    rows: list[LedgerRow],
) -> None:
    kept = [row for row in rows if row.batch_id.day not in base.gone]
    if kept:
        batches = await read_alive(cursor, tables, base.version, kept)
        await to_thread.run_sync(total.add_batches, batches, rules)


async def _delete(cursor: Cursor, tables: Tables, version: int, base: _Base) -> None:
    """Delete the hidden merged points, and all segments: a worker's cells lie elsewhere under other horizons."""
    await cursor.execute(
        sql.SQL("DELETE FROM {segments} WHERE version = %(version)s").format(segments=tables.worker_segments),
        {"version": version},
    )
    for name in RESOLUTIONS:
        await cursor.execute(
            sql.SQL(
                "DELETE FROM {rollup} WHERE version = %(version)s AND bucket >= %(first)s AND bucket < %(end)s"
            ).format(rollup=tables.rollup(name)),
            {"version": version, "first": base.first[name], "end": base.version.horizons[name]},
        )


async def _lower(cursor: Cursor, tables: Tables, version: int, first: Mapping[str, int]) -> None:
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET folds = folds + 1,
                horizon_1min = %(1min)s,
                horizon_5min = %(5min)s,
                horizon_1hour = %(1hour)s,
                horizon_1day = %(1day)s
            WHERE version = %(version)s
            """
        ).format(versions=tables.versions),
        {"version": version, **first},
    )
