"""Write points of the past into a real log, minute by minute."""

from __future__ import annotations

from collections.abc import Iterable

from chancy_metrics.events.database import Connection
from chancy_metrics.events.facts import JobRow, Series
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.host.options import DAY_S, DEFAULT_POINTS
from chancy_metrics.projections.buckets import horizons
from chancy_metrics.projections.versions.expiry import expire
from tests.factories import LogWriter, a_row, a_run, now_us, sequence_and_fold

MINUTE_US = 60_000_000


class Feeder:
    """Writes points of the past into the log."""

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self._minute_us = now_us() // MINUTE_US * MINUTE_US
        self._connection, self._tables = connection, tables
        self._log = LogWriter(connection, tables)

    def minute(self, ago: int) -> int:
        """The start of a minute of the past, microseconds since 1970; that of 0 began just before the test."""
        return self._minute_us - ago * MINUTE_US

    async def alive(self, *ago: int) -> None:
        """Let the log hold something of these minutes."""
        await self._log.append(runs=[a_run("app:other", at_us=self.minute(one)) for one in ago])

    async def gauge(self, key: str, values: dict[int, float], unit: str = "seconds") -> None:
        """Sample a gauge: minutes ago -> its value then."""
        await self._log.append(
            runs=[a_run(key, [value], kind="gauge", unit=unit, at_us=self.minute(ago)) for ago, value in values.items()]
        )

    async def measure(self, ago: int, measured: Iterable[tuple[Series, float]]) -> None:
        """Record what was measured then."""
        at_us = self.minute(ago)
        await self._log.append(
            runs=[a_run(one.key, [value], kind=one.kind, unit=one.unit, at_us=at_us) for one, value in measured]
        )

    async def jobs(self, ago: int, number: int, *, run_s: float = 0.5, **names: str) -> list[JobRow]:
        """Let so many jobs end; *names* are the func, queue, state and error of all of them."""
        at_us = self.minute(ago)
        rows = [a_row(at_us, started_us=at_us - int(run_s * 1e6)) for _ in range(number)]
        rows = [
            row._replace(
                combo=row.combo._replace(**names),
                created_us=row.started_us - 1_000_000,
                scheduled_us=row.started_us - 1_000_000,
            )
            for row in rows
        ]
        await self._log.append(jobs=rows)
        return rows

    async def histogram(self, key: str, values: dict[int, list[float]]) -> None:
        """Observe: minutes ago -> the values then."""
        await self._log.append(
            runs=[a_run(key, some, kind="histogram", unit="s", at_us=self.minute(ago)) for ago, some in values.items()]
        )

    async def fold(self) -> None:
        await sequence_and_fold(self._connection, self._tables)

    async def expire(self) -> None:
        """Delete points that are older than the defaults keep."""
        await expire(self._connection, self._tables, horizons(now_us(), DEFAULT_POINTS, 90 * DAY_S))
