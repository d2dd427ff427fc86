"""What the terminal shows while the demo runs, read the way any program would: with `get_metrics()`."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables

from .app import metrics
from .jobs import KINDS, Kind
from .proof import STATES

_WINDOW_S = 5.0


class Line(NamedTuple):
    """One kind of job: its updates so far by state, p95 of the current minute in seconds (None: nothing ended), and how
    many of its queue were due at the last sample, and the oldest of them for how long (None: no sample yet)."""

    kind: Kind
    updates: dict[str, int]
    run_p95_s: float | None
    wait_p95_s: float | None
    due: int | None
    oldest_s: float | None


class Pulse(NamedTuple):
    """The demo at one moment.

    Attributes:
        per_s: Job updates a second, over the last five seconds.
        lag_s: Age of the oldest batch in the log that no reader sees yet; 0 if there is none.
    """

    elapsed_s: float
    lines: list[Line]
    per_s: float
    lag_s: float

    def total(self, state: str) -> int:
        return sum(line.updates[state] for line in self.lines)

    @property
    def updates(self) -> int:
        return sum(map(self.total, STATES))


class Monitor:
    """Takes the pulse; remembers enough to tell a rate."""

    def __init__(self, chancy: Chancy, connection: Connection, tables: Tables) -> None:
        self._chancy = chancy
        self._connection = connection
        self._tables = tables
        self._seen: deque[tuple[float, int]] = deque()

    async def take(self, elapsed_s: float) -> Pulse:
        """Read the shared cache and the lag."""
        lines = [await self._line(kind) for kind in KINDS]
        pulse = Pulse(elapsed_s, lines, 0.0, await _lag_s(self._connection, self._tables))
        self._seen.append((elapsed_s, pulse.updates))
        while elapsed_s - self._seen[0][0] > _WINDOW_S:
            self._seen.popleft()
        then_s, updates = self._seen[0]
        return pulse._replace(per_s=(pulse.updates - updates) / max(elapsed_s - then_s, 1.0))

    async def _line(self, kind: Kind) -> Line:
        prefix = f"job:{kind.job.func}"
        found = await metrics.get_metrics(self._chancy, prefix)

        def total(state: str) -> int:
            metric = found.get(f"{prefix}:{state}")
            values = metric.values_1min if metric else []
            return int(sum(value for _, value in values if not isinstance(value, dict)))

        def p95_s(name: str) -> float | None:
            metric = found.get(f"{prefix}:{name}")
            newest = metric.values_1min[0][1] if metric and metric.values_1min else None
            return newest["p95"] if isinstance(newest, dict) else None

        updates = {state: total(state) for state in STATES}
        return Line(kind, updates, p95_s("execution_time"), p95_s("wait_time"), *await self._waiting(kind.queue.name))

    async def _waiting(self, queue: str) -> tuple[int | None, float | None]:
        found = await metrics.get_metrics(self._chancy, f"queue:{queue}")

        def sampled(name: str) -> float | None:
            metric = found.get(f"queue:{queue}:{name}")
            newest = metric.values_1min[0][1] if metric and metric.values_1min else None
            return newest if isinstance(newest, float) else None

        pending, retrying = sampled("depth:pending"), sampled("depth:retrying")
        due = None if pending is None or retrying is None else int(pending + retrying)
        return due, sampled("oldest_wait_seconds")


async def _lag_s(connection: Connection, tables: Tables) -> float:
    """Age of the oldest batch that is pending, or past the live version's position."""
    cursor = await connection.execute(
        sql.SQL(
            """
            SELECT coalesce(extract(epoch FROM clock_timestamp() - min(l.appended_at)), 0)::float8
            FROM {log} l
            LEFT JOIN {ledger} o
                ON o.producer = l.producer AND o.sequence = l.sequence
            WHERE o.position IS NULL
                OR o.position > (SELECT v.position FROM {head} h JOIN {versions} v ON v.version = h.live)
            """
        ).format(log=tables.log, ledger=tables.ledger, head=tables.head, versions=tables.versions)
    )
    row = await cursor.fetchone()
    return row[0] if row else 0.0
