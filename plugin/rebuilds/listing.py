"""List versions for operators: status, position, size, and what each one leaves out."""

from __future__ import annotations

from datetime import datetime
from typing import LiteralString, NamedTuple

import msgspec
from chancy import Chancy
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor, short_transaction
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import in_utc, span_of, utc
from chancy_metrics.projections.rules.rule_set import label
from chancy_metrics.projections.versions.collected import decode_days
from chancy_metrics.projections.versions.create import IS_BACKFILLED
from chancy_metrics.projections.versions.left_out import LeftOut, left_out
from chancy_metrics.projections.versions.version import UNFINISHED, live_version

#: Blocks of a rollup that are counted; the counts of a larger one are extrapolated from them.
_SAMPLED_BLOCKS = 2_000


class VersionInfo(msgspec.Struct, frozen=True):
    """One version; times are UTC.

    Attributes:
        rules: Its two rules versions, built-in and the user's; *rule_names* are the user's rules.
        position: Position of its last fold; *ordered_position* is the end of the ledger.
        rows: Its rows in the rollups, each a point of all workers together, at one of the resolutions.
        cells: What single workers added, as it is stored: each once, at the finest resolution that is kept for its age.
            Like *rows* exact if its tables have at most 16 MB without what is TOASTed, extrapolated if one has more.
        size_bytes: Its share of the rollups, by its share of their rows, and of the segments with those cells, by its
            share of their bytes.
        dead_letters: Number of batches it leaves out; *leaves_out* says which, why, and which rules failed; "" if none.
        moved_by: Name of the process that folded it last, at *moved_at*.
        kept_until: When it may be dropped, if it is ready or on standby.
    """

    version: int
    status: str
    rules: str
    rule_names: list[str]
    position: int
    ordered_position: int
    rows: int
    cells: int
    size_bytes: int
    dead_letters: int
    leaves_out: str
    made_by: str
    made_at: datetime
    moved_by: str | None
    moved_at: datetime | None
    live_since: datetime | None
    kept_until: datetime | None


class Unfinished(msgspec.Struct, frozen=True):
    """A version that is not promoted yet; times are UTC.

    Attributes:
        status: "copying" (the baseline), "backfilling", or "ready" for `chancy-metrics swap`.
        remaining: Number of batches between its position and the live version's.
        filled_by: Name of the process that backfilled it last, at *moved_at*.
        is_filled: Whether that process still backfills it.
        kept_until: When it may be dropped, if it is ready.
    """

    version: int
    status: str
    rules: str
    position: int
    remaining: int
    filled_by: str | None
    is_filled: bool
    moved_at: datetime | None
    kept_until: datetime | None


class Collecting(msgspec.Struct, frozen=True):
    """A baseline that a rebuild makes from archives, before the version itself; times are UTC.

    Attributes:
        baseline: Its number.
        added: Days that are in it, of *days*.
        collected_by: Name of the process that added the last one, at *moved_at*.
        is_collected: Whether that process still does.
    """

    baseline: int
    rules: str
    added: int
    days: int
    collected_by: str | None
    is_collected: bool
    moved_at: datetime | None


async def read_collected(cursor: Cursor, tables: Tables) -> list[Collecting]:
    """Return the baselines that are being made from archives, oldest first."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, ARRAY[v.rules, v.user_rules], v.archives::text, v.folded_by, {is_backfilled}, v.folded_at
            FROM {versions} v
            WHERE v.status = 'collecting'
            ORDER BY v.version
            """
        ).format(versions=tables.versions, is_backfilled=IS_BACKFILLED)
    )
    found = []
    for version, pair, archives, by, is_collected, moved_at in await cursor.fetchall():
        days = decode_days(archives)
        added = len(days.folded) + len(days.kept)
        found.append(
            Collecting(version, label(pair), added, added + len(days.left), by, is_collected, in_utc(moved_at))
        )
    return found


async def read_unfinished(cursor: Cursor, tables: Tables) -> list[Unfinished]:
    """Return the versions that are not promoted yet, oldest first."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT v.version, v.status, ARRAY[v.rules, v.user_rules], v.position,
                greatest(0, live.position - v.position), v.folded_by, {is_backfilled}, v.folded_at, v.kept_until
            FROM {versions} v
            CROSS JOIN {head} h
            JOIN {versions} live
                ON live.version = h.live
            WHERE v.status = ANY(%(unfinished)s)
            ORDER BY v.version
            """
        ).format(versions=tables.versions, head=tables.head, is_backfilled=IS_BACKFILLED),
        {"unfinished": list(UNFINISHED)},
    )
    return [
        Unfinished(
            version, status, label(pair), position, remaining, by, is_filled, in_utc(moved_at), in_utc(kept_until)
        )
        for version, status, pair, position, remaining, by, is_filled, moved_at, kept_until in await cursor.fetchall()
    ]


async def list_versions(chancy: Chancy) -> list[VersionInfo]:
    """Return every version but the baselines, oldest first. Its cost does not grow with the rollups.

    Raises:
        MetricsLogError: There is no metrics log, or a table is locked.
    """
    tables = tables_for(chancy.prefix)
    async with (
        bounded_connection(chancy) as connection,
        short_transaction(connection, isolation="REPEATABLE READ") as cursor,
    ):
        sizes = await _sizes(cursor, tables)
        await cursor.execute(
            sql.SQL(
                """
                SELECT v.version, v.status, v.rules, v.user_rules, v.rule_names, v.position, h.position,
                    v.created_by, v.created_at, v.folded_by, v.folded_at, v.live_since, v.kept_until
                FROM {versions} v
                CROSS JOIN {head} h
                WHERE v.version > 0
                    AND v.status <> 'baseline'
                    AND NOT starts_with(v.status, 'totals')
                ORDER BY v.version
                """
            ).format(versions=tables.versions, head=tables.head)
        )
        found = await cursor.fetchall()
        return [_info(row, sizes.get(row[0], _Size()), await left_out(cursor, tables, row[0])) for row in found]


async def read_left_out(
    chancy: Chancy, version: int | None = None, since: datetime | None = None, until: datetime | None = None
) -> LeftOut:
    """Return what a version, by default the live one, leaves out between *since* and *until*, by default of all time.

    Raises:
        MetricsLogError: A moment is not aware, or there is no metrics log.
    """
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection, short_transaction(connection) as cursor:
        asked = (await live_version(cursor, tables)).version if version is None else version
        return await left_out(cursor, tables, asked, span_of(utc(since), utc(until)))


def _info(row: TupleRow, size: _Size, found: LeftOut) -> VersionInfo:
    version, status, built_in, user, rule_names, position, ordered, made_by, made_at, moved_by, *moments = row
    moved_at, live_since, kept_until = map(in_utc, moments)
    return VersionInfo(
        version=version,
        status=status,
        rules=label((built_in, user)),
        rule_names=rule_names,
        position=position,
        ordered_position=ordered,
        rows=size.rows,
        cells=size.cells,
        size_bytes=size.size_bytes,
        dead_letters=found.batches,
        leaves_out=found.sentence,
        made_by=made_by,
        made_at=in_utc(made_at),
        moved_by=moved_by,
        moved_at=moved_at,
        live_since=live_since,
        kept_until=kept_until,
    )


class _Size(NamedTuple):
    """What a version has in some of the tables."""

    rows: int = 0
    cells: int = 0
    size_bytes: int = 0


class _Measure(NamedTuple):
    """SQL of a `_Size`: what is counted in one block, and the weight by which versions share a table's bytes."""

    rows: LiteralString
    cells: LiteralString
    weight: LiteralString


_OF_ROLLUP = _Measure("count(*)", "0", "count(*)")
_OF_SEGMENTS = _Measure("0", "sum(greatest(cells, 0))", "sum(64 + octet_length(data))")


async def _sizes(cursor: Cursor, tables: Tables) -> dict[int, _Size]:
    """Return what each version has in the rollups and in the segments, extrapolated for large tables."""
    sizes: dict[int, _Size] = {}
    measures = [(tables.rollup(resolution), _OF_ROLLUP) for resolution in RESOLUTIONS]
    for table, measure in [*measures, (tables.worker_segments, _OF_SEGMENTS)]:
        share = min(1.0, _SAMPLED_BLOCKS / max(1, await _blocks(cursor, table)))
        # Whole blocks, and the same ones each time while the table does not change.
        sample = sql.SQL("TABLESAMPLE SYSTEM ({percent}) REPEATABLE (0)").format(percent=sql.Literal(100 * share))
        await cursor.execute(
            sql.SQL(
                """
                SELECT version, {rows}, {cells}, (
                    pg_total_relation_size(%(table)s::regclass) * ({weight} / sum({weight}) OVER ())
                )::bigint
                FROM {table} {sample}
                GROUP BY version
                """
            ).format(
                table=table,
                sample=sample if share < 1 else sql.SQL(""),
                **{name: sql.SQL(text) for name, text in measure._asdict().items()},
            ),
            {"table": table.as_string(cursor)},
        )
        for version, rows, cells, size in await cursor.fetchall():
            one = sizes.get(version, _Size())
            sizes[version] = _Size(
                one.rows + round(rows / share), one.cells + round(cells / share), one.size_bytes + size
            )
    return sizes


async def _blocks(cursor: Cursor, table: sql.Identifier) -> int:
    await cursor.execute(
        "SELECT pg_relation_size(%(table)s::regclass) / current_setting('block_size')::integer",
        {"table": table.as_string(cursor)},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0
