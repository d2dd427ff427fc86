"""Whether the log, its order, the rollups and the cache agree: looked at in full or in samples, and remembered."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from random import Random

import msgspec
import psycopg
from chancy import Chancy
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.log import short_transaction
from chancy_metrics.events.schema import Tables, tables
from chancy_metrics.projections.findings import Finding, Findings
from chancy_metrics.projections.replay import Difference
from chancy_metrics.projections.reserved import DRIFT
from chancy_metrics.projections.span import Span, draw, first_day
from chancy_metrics.projections.verify import check_order, check_span
from chancy_metrics.projections.versions import live_version

from . import in_transaction
from .completeness import completeness
from .connection import own_connection
from .metrics import metrics_of
from .moments import utc

#: Differences, and findings, that are spelled out; past these they are only counted.
SHOWN = 100
#: Milliseconds to wait for the fold that has the version's row.
_KEEP_LOCK_MS = 10_000


class Verified(msgspec.Struct, frozen=True):
    """What was compared, and what did not agree.

    Attributes:
        at: When it began, UTC.
        spans: How many stretches of time were replayed: 1, or with a budget as many as there was time for.
        version: The live one, which was at *position* of the ledger.
        events: How many were folded again.
        points: How many places were compared.
        different: How many of them differ; `differences` spells out the first ones, stored (old) against replayed.
        found: What else is wrong; `findings` spells out the first ones.
        ended_uncleanly: Workers that went silent without an end; no finding, but what was in their buffer is lost.
    """

    at: datetime
    took_s: float
    since: datetime | None
    until: datetime | None
    spans: int
    version: int
    position: int
    events: int
    points: int
    different: int
    differences: list[Difference]
    found: int
    findings: list[Finding]
    ended_uncleanly: int

    @property
    def drift(self) -> int:
        """Differences and findings together; 0 when everything agrees."""
        return self.different + self.found


class LastVerified(msgspec.Struct, frozen=True):
    """What is kept of the last run on a version: `Verified` without its lists, and the first sentences of both."""

    at: datetime
    since: datetime | None
    until: datetime | None
    spans: int
    position: int
    points: int
    different: int
    found: int
    sentences: list[str]


async def verify(
    chancy: Chancy,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    budget_s: float | None = None,
    chance: Random | None = None,
) -> Verified:
    """Replay the log and compare it with all that is made of it, exactly; keep what was found for `status`.

    Nobody waits for it: the log is read in short transactions, what is stored in one snapshot for each stretch of
    time. Without any argument the whole log is replayed, and its whole order looked at; with *since* or *until*
    the buckets that lie whole between them, and the batches that have events there. The shared cache, the end of
    the order and the producers are looked at each time.

    Args:
        since: Inclusive, aware.
        until: Exclusive, aware.
        budget_s: Seconds after which no other day, or hour, is drawn at random; at least one is looked at.
        chance: What draws them.

    Raises:
        VersionRefused: The live version has other rules than this code.
        WrongMoment: A moment is not aware, or not from 1970 to 2199.
        MetricsLogError: It changed all the time, or there is no metrics log.
    """
    since, until = utc(since), utc(until)
    metrics = metrics_of(chancy)
    names, started = tables(chancy.prefix), time.monotonic()
    asked = Span(*(None if moment is None else microseconds(moment) for moment in (since, until)))
    async with own_connection(chancy) as connection:
        at = await _now(connection)
        spans: Iterable[Span] = [asked]
        if budget_s is not None:
            spans = await _draw(connection, names, asked, at, chance or Random())
        found = Findings(SHOWN)
        checked = []
        differences: list[Difference] = []
        for span in spans:
            one = await check_span(connection, names, metrics.options.rules, span, most=SHOWN)
            checked.append(one)
            differences += one.contrast.differences[: SHOWN - len(differences)]
            found.add_all(one.findings)
            if budget_s is not None and time.monotonic() - started >= budget_s:
                break
        found.add_all(await check_order(connection, names, most=SHOWN))
        verified = Verified(
            at=at,
            took_s=round(time.monotonic() - started, 3),
            since=since,
            until=until,
            spans=len(checked),
            version=checked[-1].version,
            position=checked[-1].position,
            events=sum(one.events for one in checked),
            points=sum(one.contrast.points for one in checked),
            different=sum(one.contrast.different for one in checked),
            differences=differences,
            found=found.count,
            findings=found.kept,
            ended_uncleanly=(await completeness(chancy, since, until)).ended_uncleanly,
        )
        await _remember(chancy, connection, names, verified)
    return verified


async def _now(connection: AsyncConnection[TupleRow]) -> datetime:
    cursor = await connection.execute("SELECT clock_timestamp()", binary=True)
    row = await cursor.fetchone()
    assert row is not None
    return row[0].astimezone(UTC)  # type: ignore[no-any-return] # psycopg's rows have no types


async def _draw(
    connection: AsyncConnection[TupleRow], names: Tables, asked: Span, at: datetime, chance: Random
) -> Iterable[Span]:
    async with short_transaction(connection) as cursor:
        version = await live_version(cursor, names)
        first_s = await first_day(cursor, names, version.version)
    if first_s is None:
        return [asked]
    since_us = first_s * 1_000_000
    asked = asked._replace(since_us=since_us if asked.since_us is None else max(asked.since_us, since_us))
    return list(draw(asked, version.horizons, microseconds(at), chance)) or [asked]


async def _remember(chancy: Chancy, connection: AsyncConnection[TupleRow], names: Tables, verified: Verified) -> None:
    """Keep what was found in the version's row, for `status`, and as the gauge `DRIFT`."""
    told = [str(one) for one in (*verified.findings, *verified.differences)]
    last = LastVerified(
        at=verified.at,
        since=verified.since,
        until=verified.until,
        spans=verified.spans,
        position=verified.position,
        points=verified.points,
        different=verified.different,
        found=verified.found,
        sentences=[sentence[:300] for sentence in told[:5]],
    )
    try:
        async with short_transaction(connection, lock_timeout_ms=_KEEP_LOCK_MS) as cursor:
            worker = metrics_of(chancy).worker_id or socket.gethostname()
            await in_transaction.measure(cursor, names, DRIFT, verified.drift, worker=worker)
        async with short_transaction(connection, lock_timeout_ms=_KEEP_LOCK_MS) as cursor:
            await cursor.execute(
                sql.SQL("UPDATE {versions} SET verified = %(verified)s WHERE version = %(version)s").format(
                    versions=names.versions
                ),
                {"verified": Jsonb(msgspec.to_builtins(last)), "version": verified.version},
            )
    except psycopg.Error as error:  # what was found is worth more than that it is remembered
        chancy.log.warning(f"what verify found could not be kept: {type(error).__name__}: {error}")
