"""Merge a run of verify into the kept records, and read what is open for `status`."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import NamedTuple

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.findings import Spot
from chancy_metrics.projections.verify.coverage import (
    OF_THE_LOG,
    Coverage,
    Fault,
    Range,
    Record,
    Share,
    cover,
    settle,
    share,
    still_kept,
)
from chancy_metrics.projections.verify.records import RebuildCompared, Stored, read_records, write_record
from chancy_metrics.projections.versions.version import BASELINE

#: Sentences of open faults that `status` shows.
_SHOWN = 5
#: Spots listed in JSON.
_LISTED = 100


class LastVerified(msgspec.Struct, frozen=True):
    """The last run that compared something (else the last run), and the open faults of all runs.

    Attributes:
        version: The version of the last run: the live one unless that was never compared.
        at: When that run began; *since*, *until*, *spans*, *position* and *points* are of the same run.
        different: Open differences of the live version.
        found: Other open faults, of the live version and of the log.
        open: The first open faults, those with a sentence first.
        sentences: The first of these as text.
        spots: Number of open faults: spots with differences or other findings.
        found_since: When the one that was not found again for longest was last found.
        expired: Findings that ended because their buckets are not kept any more.
        share: How much of the live version was compared.
        log_at: When the whole log and ledger were last checked, up to *log_position*; None for never.
        totals_at: When the totals for exporters were last compared with the log; None for never.
        rebuilt: How the live version's rebuild compared it with the one before; None where none did.
    """

    version: int
    at: datetime
    since: datetime | None
    until: datetime | None
    spans: int
    position: int
    points: int
    different: int
    found: int
    sentences: list[str]
    open: list[Fault]
    spots: int
    found_since: datetime | None
    expired: int
    share: Share
    log_at: datetime | None
    log_position: int
    totals_at: datetime | None
    rebuilt: RebuildCompared | None


class Run(NamedTuple):
    """What a run did, as far as it is kept.

    Attributes:
        last: The last-run fields of a `Record`.
        ranges: Resolution -> what was compared, seconds.
        totals: Whether the totals were compared.
    """

    version: int
    at: datetime
    last: Record
    covered: Coverage
    ranges: dict[str, list[Range]]
    found: Counter[Spot]
    sentences: dict[Spot, str]
    totals: bool = False


class Kept(NamedTuple):
    """What is open after a run, and how many findings ended with their buckets."""

    open: int
    expired: int
    share: Share


async def read_last_verified(cursor: Cursor, tables: Tables, live: int, *, now_s: int) -> LastVerified | None:
    """Return the last run and the open faults of the live version; None if no run was kept."""
    records = await read_records(cursor, tables)
    of_live, of_log = records.get(live, Stored()), records.get(BASELINE, Stored())
    runs = [
        (one.points > 0, version == live, one.at, version) for version, one in records.items() if one.at and version
    ]
    if not runs:
        return None
    *_, at, version = max(runs)
    last = records[version]
    horizons, kept_since_s = await _kept(cursor, tables, live)
    faults = still_kept(of_live.faults, horizons) + of_log.faults
    faults.sort(key=lambda fault: (not fault.sentence, fault.check == "difference"))
    return LastVerified(
        version=version,
        at=at,
        since=last.since,
        until=last.until,
        spans=last.spans,
        position=last.position,
        points=last.points,
        different=sum(fault.count for fault in faults if fault.check == "difference"),
        found=sum(fault.count for fault in faults if fault.check != "difference"),
        sentences=[str(fault) for fault in faults[:_SHOWN]],
        open=faults[:_LISTED],
        spots=len(faults),
        found_since=min((fault.found_at for fault in faults), default=None),
        expired=of_live.open + of_log.open - sum(fault.count for fault in faults),
        share=share(of_live.seen, kept_since_s, now_s),
        log_at=of_log.at,
        log_position=of_log.position,
        totals_at=of_log.totals_at,
        rebuilt=of_live.rebuilt,
    )


async def keep(cursor: Cursor, tables: Tables, run: Run, *, now_s: int) -> Kept:
    """Merge a run into the kept records, in the caller's transaction, under locks on both rows."""
    await cursor.execute(
        sql.SQL("SELECT FROM {versions} WHERE version IN (0, %(version)s) ORDER BY version FOR NO KEY UPDATE").format(
            versions=tables.versions
        ),
        {"version": run.version},
    )
    records = await read_records(cursor, tables)
    horizons, kept_since_s = await _kept(cursor, tables, run.version)
    of_version, of_log = records.get(run.version, Stored()), records.get(BASELINE, Stored())
    faults = still_kept(of_version.faults, horizons)
    expired = of_version.open - sum(fault.count for fault in faults)
    found = {is_log: Counter(dict(_of(run.found, is_log))) for is_log in (False, True)}
    of_version = msgspec.structs.replace(
        of_version, faults=settle(faults, run.covered, found[False], run.sentences, run.at)
    )
    of_log = msgspec.structs.replace(
        of_log, faults=settle(of_log.faults, run.covered, found[True], run.sentences, run.at)
    )
    if run.last.points or not of_version.points:
        last = {name: getattr(run.last, name) for name in ("at", "since", "until", "spans", "position", "points")}
        of_version = msgspec.structs.replace(of_version, **last)
    if run.last.points:
        seen = {
            name: cover(
                of_version.seen.get(name, ()),
                run.ranges.get(name, ()),
                int(run.at.timestamp()) + 1,
                since_s=horizons.get(name, 0),
            )
            for name in RESOLUTIONS
        }
        of_version = msgspec.structs.replace(of_version, seen=seen)
    if run.covered.everywhere and run.last.position:
        of_log = msgspec.structs.replace(of_log, at=run.at, position=run.last.position)
    if run.totals:
        of_log = msgspec.structs.replace(of_log, totals_at=run.at)
    for version, record in ((BASELINE, of_log), (run.version, of_version)):
        await write_record(cursor, tables, version, record)
    return Kept(of_version.open + of_log.open, expired, share(of_version.seen, kept_since_s, now_s))


async def keep_rebuilt(cursor: Cursor, tables: Tables, version: int, rebuilt: RebuildCompared) -> None:
    """Keep how a rebuild compared *version* with the one before."""
    record = (await read_records(cursor, tables)).get(version, Stored())
    await write_record(cursor, tables, version, msgspec.structs.replace(record, rebuilt=rebuilt))


def _of(found: Counter[Spot], is_log: bool) -> list[tuple[Spot, int]]:
    return [(spot, count) for spot, count in found.items() if (spot.check in OF_THE_LOG) is is_log]


async def _kept(cursor: Cursor, tables: Tables, version: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the version's horizons, and the start of the first kept bucket per non-empty resolution; seconds."""
    # By the index on buckets, whatever the number of series; it knows nothing of versions, which begin alike.
    first = sql.SQL(", ").join(
        sql.SQL("(SELECT min(bucket / 60) * 60 FROM {rollup})").format(rollup=tables.rollup(name))
        for name in RESOLUTIONS
    )
    horizons = sql.SQL(", ").join(sql.Identifier(f"horizon_{name}") for name in RESOLUTIONS)
    await cursor.execute(
        sql.SQL("SELECT {horizons}, {first} FROM {versions} WHERE version = %(version)s").format(
            horizons=horizons, first=first, versions=tables.versions
        ),
        {"version": version},
    )
    row = await cursor.fetchone()
    if row is None:
        return {}, {}
    size = len(RESOLUTIONS)
    at = dict(zip(RESOLUTIONS, row[:size], strict=True))
    begins = dict(zip(RESOLUTIONS, row[size:], strict=True))
    return at, {name: max(at[name], first_s) for name, first_s in begins.items() if first_s is not None}
