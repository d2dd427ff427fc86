"""Totals as exporters read them: of each series what it adds up to over all workers, and since when it counts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

import msgspec
from anyio import to_thread
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.facts import Series
from chancy_metrics.events.hot_standby import NOW
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.fold.sketch import starts_of
from chancy_metrics.projections.fold.sketch_codec import decode_sound_sketches
from chancy_metrics.projections.rollups.soundness import ALL_TIME, sound
from chancy_metrics.projections.rollups.write import FINITE_SUM
from chancy_metrics.projections.rules.rule_set import label
from chancy_metrics.projections.versions.left_out import LeftOut, left_out
from chancy_metrics.projections.versions.version import TOTALS


class Sketch(NamedTuple):
    """The quantile sketch of a histogram: `counts[i]` values are in the bucket `codes[i]`; codes ascend.

    See `projections/fold/sketch.py`: a code is a bucket's index at scale 6 plus `OFFSET`, negated for negative values,
    and 0 for zero.
    """

    codes: list[int]
    counts: list[int]


class Total(msgspec.Struct, frozen=True):
    """What one series adds up to, over all workers.

    Attributes:
        count: Number of observations.
        sum: Their exact sum, rounded once.
        min: The least value, as *max* is the greatest one; of a counter, increment.
        last: Latest value of a gauge, by the time of its observation; else None.
        last_us: Time of the latest observation, microseconds since 1970.
        sketch: Of a histogram; else None. It counts fewer than *count* where summaries without sketches were imported.
        created_us: Since when it counts: at this time it was 0, or not known at all; microseconds since 1970.
    """

    series: Series
    count: int
    sum: float
    min: float
    max: float
    last: float | None
    last_us: int
    sketch: Sketch | None
    created_us: int


class Totals(NamedTuple):
    """The totals of all series as of one position of the ledger.

    Attributes:
        generation: Rises where totals were built anew, so that one may have fallen; never otherwise.
        position: Last position of the ledger that is counted.
        at_us: When they were read, by the database's clock; microseconds since 1970. Where nothing is recorded any
            more, that is long after the last step.
        created_us: When the generation was begun.
        series: By key, kind and unit.
    """

    generation: int
    position: int
    at_us: int
    created_us: int
    series: list[Total]


class TotalsState(msgspec.Struct, frozen=True):
    """Where a generation of the totals is; times UTC.

    Attributes:
        status: "totals" if it is served; "totals_copying" the baseline or "totals_backfilling" from the log if not.
        ordered_position: Last position of the ledger.
        series: Number of series that it has.
        advanced_at: When its last step was taken, by *advanced_by*.
        leaves_out: The batches that it leaves out, and the rules that failed, in words; "" for none.
    """

    generation: int
    status: str
    rules: str
    position: int
    ordered_position: int
    series: int
    created_at: datetime
    advanced_at: datetime
    advanced_by: str
    leaves_out: str

    @property
    def is_served(self) -> bool:
        return self.status == "totals"

    @property
    def behind(self) -> int:
        """Batches of the ledger that it has not added."""
        return max(0, self.ordered_position - self.position)

    @property
    def progress(self) -> str:
        """How far it is built, in words."""
        if self.status == "totals_copying":
            return f"copies the baseline, {self.series:,} series so far"
        return f"at position {self.position:,} of {self.ordered_position:,}"


async def read_states(cursor: Cursor, tables: Tables) -> list[TotalsState]:
    """Return the state of each generation: at most one that is served, and one that is being built after it."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, v.status, v.rules, v.user_rules, v.position, h.position,
                (SELECT count(*) FROM {totals} r WHERE r.version = v.version),
                v.created_at, v.folded_at, v.folded_by
            FROM {versions} v
            CROSS JOIN {head} h
            WHERE v.status = ANY(%(statuses)s)
            ORDER BY v.status <> 'totals', v.version
            """
        ).format(versions=tables.versions, head=tables.head, totals=tables.totals),
        {"statuses": list(TOTALS)},
    )
    rows = await cursor.fetchall()
    return [_state(row, await left_out(cursor, tables, row[0])) for row in rows]


async def begun_before(cursor: Cursor, tables: Tables, generation: int, at_us: int) -> set[Series]:
    """Return the series of *generation* that count since a time before *at_us*."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.key, s.kind, s.unit
            FROM {totals} r
            JOIN {series} s
                ON s.id = r.series
            WHERE r.version = %(generation)s
                AND r.created_us < %(at_us)s
            """
        ).format(totals=tables.totals, series=tables.series),
        {"generation": generation, "at_us": at_us},
    )
    return {Series(*row) for row in await cursor.fetchall()}


def _state(row: TupleRow, found: LeftOut) -> TotalsState:
    generation, status, built_in, user, position, ordered, series, created_at, advanced_at, by = row
    return TotalsState(
        generation=generation,
        status=status,
        rules=label((built_in, user)),
        position=position,
        ordered_position=ordered,
        series=series,
        created_at=created_at.astimezone(UTC),
        advanced_at=advanced_at.astimezone(UTC),
        advanced_by=by,
        leaves_out=found.sentence.removeprefix(f"version {generation} leaves out "),
    )


async def read_served(cursor: Cursor, tables: Tables) -> Totals | None:
    """Return the totals of the generation that is served, in the caller's snapshot; None if none is.

    Rows that no step can have written are left out.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT version, position, (extract(epoch FROM {now}) * 1000000)::bigint,
                (extract(epoch FROM created_at) * 1000000)::bigint
            FROM {versions}
            WHERE status = 'totals'
            """
        ).format(versions=tables.versions, now=NOW)
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    await cursor.execute(
        sql.SQL(
            """
            SELECT s.key, s.kind, s.unit, r.count, {sum}, r.min, r.max, r.last, r.last_us, r.sketch, r.created_us
            FROM {totals} r
            JOIN {series} s
                ON s.id = r.series
            WHERE r.version = %(generation)s
                AND {sound}
            ORDER BY s.key, s.kind, s.unit
            """
        ).format(totals=tables.totals, series=tables.series, sum=FINITE_SUM, sound=sound(tables, ALL_TIME)),
        {"generation": row[0]},
    )
    generation, position, at_us, created_us = row
    series = await to_thread.run_sync(_totals, await cursor.fetchall())
    return Totals(generation, position, at_us, created_us, series)


def _totals(rows: list[TupleRow]) -> list[Total]:
    """Return rows as totals; a damaged sketch is empty."""
    owners = [number for number, row in enumerate(rows) if row[9] is not None]
    owner, codes, counts = decode_sound_sketches([rows[number][9] for number in owners])
    starts = starts_of(owner, len(owners)).tolist()
    of_row = {
        number: Sketch(codes[start:end].tolist(), counts[start:end].tolist())
        for number, start, end in zip(owners, starts, starts[1:], strict=False)
    }
    return [
        Total(Series(key, kind, unit), count, total, low, high, last, last_us, of_row.get(number), created_us)
        for number, (key, kind, unit, count, total, low, high, last, last_us, _, created_us) in enumerate(rows)
    ]
