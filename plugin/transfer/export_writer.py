"""Write the log, or one day of it, in the export format: batches byte for byte, positions, chain, baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import date
from typing import BinaryIO

import msgspec
from anyio import to_thread
from psycopg import sql
from psycopg.rows import tuple_row

from chancy_metrics.events.chain import Seal, read_seal
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import microseconds
from chancy_metrics.events.ledger import LedgerEntry, chunks, naming_batches, read_entries
from chancy_metrics.events.log import read_whole_rows
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.transfer.file import Writer
from chancy_metrics.events.transfer.frames import Frame, GoneDay, Header, Producer
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.projections.versions.baseline_io import read_baseline, read_points
from chancy_metrics.projections.versions.segments_io import read_segment_frames
from chancy_metrics.projections.versions.version import live_version

_PRODUCERS = 1_000


class Exported(msgspec.Struct, frozen=True):
    """What an export has written.

    Attributes:
        seal: The last position in the file and its hash.
        positions: Number of positions; *batches* of them have their batch in the file, with this many *events*.
        lost: Number of batches that should be in the log and are missing; the file lacks them, too.
        content: Hexadecimal sha256 of all but the time of the export: equal for equal ranges of a log.
    """

    seal: Seal
    positions: int
    batches: int
    events: int
    lost: int
    size_bytes: int
    took_s: float
    content: str


class PrunedMeanwhile(Exception):
    """Retention removed a day, or the start of the ledger, during the export, which has to begin again."""


class ExportWriter:
    """Writes one export into an open file, which it does not close."""

    def __init__(
        self,
        connection: Connection,
        tables: Tables,
        file: BinaryIO,
        on_progress: Callable[[LedgerProgress], None] | None = None,
    ) -> None:
        self._connection = connection
        self._tables = tables
        self._log = tables.log
        self._writer = Writer(file)
        self._on_progress = on_progress
        self._started = time.monotonic()
        self._lost = 0

    async def write_log(self) -> Exported:
        """Write everything up to the present end of the ledger, in short transactions; the baseline in one snapshot.

        Raises:
            PrunedMeanwhile: Retention removed a part of it.
            MetricsLogError: Head and ledger do not agree.
        """
        async with short_transaction(self._connection, isolation="REPEATABLE READ") as cursor:
            seal = await read_seal(cursor, self._tables)
            await self._put([Header(None, seal.position, seal.chain)])
            gone = await self._put_baseline(cursor)
            await self._put_producers(cursor)
            first = await self._first(cursor)
        await self._put_entries(0, seal.position, gone)
        async with short_transaction(self._connection) as cursor:
            if await self._first(cursor) != first:
                raise PrunedMeanwhile
        return await self._finish(seal)

    async def write_day(self, day: date, *, archives: bool = False) -> Exported:
        """Write the batches of *day* that have a position, and only the hashes of the positions before and between.

        Args:
            archives: The caller is about to remove the day: it may be in the baseline already, and is read from its
                own partition, attached or not.

        Raises:
            PrunedMeanwhile: The day left the log during the export.
            MetricsLogError: It is not in the log.
        """
        async with short_transaction(self._connection, isolation="REPEATABLE READ") as cursor:
            now = await read_seal(cursor, self._tables)
            if not archives:
                await self._check_day(cursor, day)
            first, last, others = await self._range(cursor, day)
            ends = await read_entries(cursor, self._tables, after=last - 1, until=last)
        seal = Seal(last, ends[0].chain if ends else b"", now.at)
        self._log = self._tables.partition(day) if archives else self._tables.log
        await self._put([Header(day, last, seal.chain), *others])
        await self._put_entries(first - 2, last, {one.day for one in others})
        return await self._finish(seal)

    async def _put(self, frames: Sequence[Frame]) -> None:
        def put() -> None:
            for frame in frames:
                self._writer.put(frame)

        await to_thread.run_sync(put)

    async def _put_baseline(self, cursor: Cursor) -> set[date]:
        await cursor.execute(
            sql.SQL(
                "SELECT day, last_position, last_us FROM {days} WHERE state IN ('absorbed', 'gone') ORDER BY day"
            ).format(days=self._tables.days)
        )
        gone = [GoneDay(*row) for row in await cursor.fetchall()]
        if gone:
            number = (await live_version(cursor, self._tables)).baseline
            baseline = await read_baseline(cursor, self._tables, number)
            await self._put([*gone, baseline])
            async for points in read_points(cursor, self._tables, number):
                await self._put([points])
            async for segments in read_segment_frames(cursor, self._tables, number, baseline.horizons):
                await self._put([segments])
        return {one.day for one in gone}

    async def _put_producers(self, cursor: Cursor) -> None:
        async with cursor.connection.cursor("metrics_producers", row_factory=tuple_row) as producers:
            await producers.execute(
                sql.SQL(
                    """
                    SELECT producer, worker, last_sequence, closed, holes,
                        (extract(epoch FROM seen_at) * 1000000)::bigint
                    FROM {producers}
                    ORDER BY producer
                    """
                ).format(producers=self._tables.producers)
            )
            while rows := await producers.fetchmany(_PRODUCERS):
                await self._put([Producer(*row) for row in rows])

    async def _put_entries(self, after: int, until: int, gone: set[date]) -> None:
        """Write the entries past *after*; those of days in *gone* without their batches."""
        while True:
            async with short_transaction(self._connection) as cursor:
                page = await read_entries(cursor, self._tables, after=after, until=until)
            if not page:
                return
            for chunk in chunks(page):
                with naming_batches(chunk):
                    whole = await self._with_rows(chunk, gone)
                    await to_thread.run_sync(self._put_chunk, whole)
                self._lost += sum(entry.row is None and entry.batch_id.day not in gone for entry in whole)
                after = chunk[-1].position
                if self._on_progress is not None:
                    rate = self._writer.events / max(time.monotonic() - self._started, 1e-9)
                    self._on_progress(LedgerProgress(after, until, self._writer.events, rate))

    async def _with_rows(self, entries: Sequence[LedgerEntry], gone: set[date]) -> list[LedgerEntry]:
        wanted = [entry.batch_id for entry in entries if entry.batch_id.day not in gone]
        async with short_transaction(self._connection, index_only=True) as cursor:
            rows = await read_whole_rows(cursor, self._tables._replace(log=self._log), wanted)
            # Read after the rows: a day that is here now was here when its rows were read.
            left = await gone_days(cursor, self._tables) if self._log == self._tables.log else set()
        if any(batch_id.day in left for batch_id in wanted):
            raise PrunedMeanwhile
        return [
            entry._replace(row=found[0], payload=found[1]) if (found := rows.get(entry.batch_id)) else entry
            for entry in entries
        ]

    def _put_chunk(self, entries: Sequence[LedgerEntry]) -> None:
        for entry in entries:
            self._writer.put_entry(entry)

    async def _check_day(self, cursor: Cursor, day: date) -> None:
        await cursor.execute(
            sql.SQL("SELECT state FROM {days} WHERE day = %(day)s").format(days=self._tables.days), {"day": day}
        )
        row = await cursor.fetchone()
        if row is None:
            raise MetricsLogError(f"the log has no day {day}: `chancy-metrics status` shows which it has")
        if row[0] in ("absorbed", "gone"):
            raise MetricsLogError(f"{day} has left the log: what it added is in the baseline, its batches are gone")

    async def _range(self, cursor: Cursor, day: date) -> tuple[int, int, list[GoneDay]]:
        """Return the first and last position of *day*, and the other days from the position before them on."""
        await cursor.execute(
            sql.SQL(
                "SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM {ledger} WHERE day = %(day)s"
            ).format(ledger=self._tables.ledger),
            {"day": day},
        )
        row = await cursor.fetchone()
        first, last = row or (0, 0)
        await cursor.execute(
            sql.SQL(
                """
                SELECT day, max(position), NULL
                FROM {ledger}
                WHERE position BETWEEN %(first)s AND %(last)s
                    AND day <> %(day)s
                GROUP BY day
                ORDER BY day
                """
            ).format(ledger=self._tables.ledger),
            {"first": first - 1, "last": last, "day": day},
        )
        return first, last, [GoneDay(*row) for row in await cursor.fetchall()]

    async def _first(self, cursor: Cursor) -> int:
        await cursor.execute(
            sql.SQL("SELECT coalesce(min(position), 0) FROM {ledger}").format(ledger=self._tables.ledger)
        )
        row = await cursor.fetchone()
        return row[0] if row else 0

    async def _finish(self, seal: Seal) -> Exported:
        content = await to_thread.run_sync(self._writer.finish, microseconds(seal.at))
        writer = self._writer
        return Exported(
            seal=seal,
            positions=writer.positions,
            batches=writer.batches,
            events=writer.events,
            lost=self._lost,
            size_bytes=writer.size_bytes,
            took_s=round(time.monotonic() - self._started, 3),
            content=content.hex(),
        )
