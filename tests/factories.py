"""Things tests need, with defaults, so that a test states only what it is about."""

from __future__ import annotations

import math
import time
import uuid
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import anyio
import numpy as np
import psycopg
from chancy import Chancy, QueuedJob, Worker
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_metrics.events.batch import BatchId, EncodedBatch, ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.facts import DEFAULT_UNITS, Combo, JobRow, Kind, Series
from chancy_metrics.events.log import append
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.plugin import Metrics
from chancy_metrics.projections.fold.cell_codec import decode_runs, encode_runs
from chancy_metrics.projections.fold.cells import Cells, concatenate, merge, select
from chancy_metrics.projections.fold.sketch import codes
from chancy_metrics.projections.rollups.segments import read_segments
from chancy_metrics.projections.rules.rule_set import BUILT_IN, RuleSet
from chancy_metrics.projections.totals.read import Sketch, Total, Totals
from chancy_metrics.projections.versions.advance import advance
from chancy_metrics.projections.versions.outcome import Outcome
from chancy_metrics.projections.versions.version import read_version
from examples.embedded import Server

NOON_US = 1_773_144_000_000_000  # 2026-03-10 12:00:00 UTC
DAY_US = 86_400_000_000


def now_us() -> int:
    return time.time_ns() // 1000


def today() -> date:
    """The day of the log that takes batches now. Not for a module's constant: a run may go past midnight."""
    return datetime.now(UTC).date()


def a_job(**changes: Any) -> QueuedJob:
    """A job that succeeded at its first attempt, a second after it was due, in half a second."""
    created = datetime.now(UTC) - timedelta(seconds=2)
    fields: dict[str, Any] = {
        "id": uuid.uuid4(),
        "claim_id": uuid.uuid4(),
        "func": "app.work",
        "kwargs": {},
        "queue": "default",
        "created_at": created,
        "scheduled_at": created,
        "started_at": created + timedelta(seconds=1),
        "completed_at": created + timedelta(seconds=1.5),
        "attempts": 1,
        "state": QueuedJob.State.SUCCEEDED,
    }
    return QueuedJob(**(fields | changes))


def a_row(at_us: int = NOON_US, *, state: str = "succeeded", func: str = "app.work", **changes: Any) -> JobRow:
    """The facts of a job update: due a second and a half, started half a second before it ended."""
    row = JobRow(
        job_id=uuid.uuid4().bytes,
        combo=Combo(func, "default", state, 1, ""),
        at_us=at_us,
        created_us=at_us - 1_500_000,
        scheduled_us=at_us - 1_500_000,
        started_us=at_us - 500_000,
        completed_us=at_us,
        meta=b"",
    )
    return row._replace(**changes)


def a_total(
    series: Series | str,
    value: float = 1.0,
    *,
    kind: Kind = "counter",
    unit: str = "",
    values: Sequence[float] = (),
    minimum: float = 1.0,
    last_us: int = NOON_US,
) -> Total:
    """The total of a series: of a histogram with *values*, by default *value* once."""
    if isinstance(series, str):
        series = Series(series, kind, unit or DEFAULT_UNITS[kind])
    if series.kind != "histogram":
        last = value if series.kind == "gauge" else None
        return Total(series, 1, value, minimum, value, last, last_us, None, NOON_US - DAY_US)
    held = np.array(values or [value])
    found, counts = np.unique(codes(held), return_counts=True)
    sketch = Sketch(found.tolist(), counts.tolist())
    low, high = float(held.min()), float(held.max())
    return Total(series, len(held), math.fsum(held), low, high, None, last_us, sketch, NOON_US - DAY_US)


def some_totals(*series: Total) -> Totals:
    """Totals that were advanced at noon, and count since the day before."""
    return Totals(1, 1, NOON_US, NOON_US - DAY_US, list(series))


def a_run(
    key: str = "app:n",
    values: Sequence[float] = (1.0,),
    *,
    kind: Kind = "counter",
    unit: str = "count",
    at_us: int = NOON_US,
) -> ObservationRun:
    """Observations of one series, all at one time."""
    return ObservationRun(Series(key, kind, unit), [at_us] * len(values), array("d", values))


class LogWriter:
    """A producer for tests: appends batches in transactions of its own."""

    def __init__(self, connection: Connection, tables: Tables, worker: str = "worker") -> None:
        self.connection = connection
        self.tables = tables
        self.worker = worker
        self.producer = uuid.uuid4()
        self.sequence = 0

    def next_id(self, day: date | None = None) -> BatchId:
        self.sequence += 1
        return BatchId(day or datetime.now(UTC).date(), self.producer, self.sequence)

    async def append(
        self,
        *,
        jobs: Sequence[JobRow] = (),
        runs: Sequence[ObservationRun] = (),
        batch: EncodedBatch | None = None,
        day: date | None = None,
        lock_wait_ms: int = 0,
    ) -> BatchId:
        """Append to the log; what it does not take is raised, and not spilled."""
        batch_id, batch = self.next_id(day), batch or encode(jobs, runs)
        async with short_transaction(self.connection) as cursor:
            appended = await append(cursor, self.tables, batch_id, batch, worker=self.worker, lock_wait_ms=lock_wait_ms)
            if appended.error is not None:
                raise appended.error
        return batch_id

    async def spill(self, *, runs: Sequence[ObservationRun] = (), day: date | None = None) -> BatchId:
        """Append into the spill table, as where the log is locked."""
        batch_id = self.next_id(day)
        async with await AsyncConnection.connect(self.connection.info.dsn) as locking:
            await fetch(locking, "LOCK TABLE {log} IN ACCESS EXCLUSIVE MODE", self.tables)
            async with short_transaction(self.connection) as cursor:
                appended = await append(
                    cursor, self.tables, batch_id, encode((), runs), worker=self.worker, lock_wait_ms=1
                )
        assert appended.state == "spilled"
        return batch_id


@asynccontextmanager
async def connections(dsn: str, how_many: int) -> AsyncIterator[list[Connection]]:
    """So many connections to one database, autocommit."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(await AsyncConnection.connect(dsn, autocommit=True))
            for _ in range(how_many)
        ]


@asynccontextmanager
async def a_database(server: Server, template: str) -> AsyncIterator[Connection]:
    """A connection to a copy of *template*, for each example of a property test; both are gone at the end."""
    name = f"example_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        copy = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        admin.execute(copy.format(*map(sql.Identifier, (name, template))))
        try:
            async with connections(server.dsn(name), 1) as (connection,):
                yield connection
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def fetch(connection: Connection, query: str, tables: Tables, **values: Any) -> list[TupleRow]:
    """Run *query*, whose {names} are those of our tables; return its rows, [] where it has none."""
    named = {name: value for name, value in tables._asdict().items() if isinstance(value, sql.Identifier)}
    named |= {f"r{resolution}": tables.rollup(resolution) for resolution in RESOLUTIONS}
    cursor = await connection.execute(sql.SQL(query).format(**named), values or None)
    return await cursor.fetchall() if cursor.description else []


async def change_cells(
    connection: Connection,
    tables: Tables,
    change: Callable[[Cells], Cells],
    *,
    version: int = 1,
    worker: str | None = None,
    key: str | None = None,
) -> int:
    """Rewrite the segments of a version, of one worker if it is named, as no fold does; return how many there are.

    Args:
        change: Gets the cells of a segment, those of *key* alone if that is given, and returns others for them.
    """
    rows = await fetch(
        connection,
        "SELECT g.ctid::text, g.data, (SELECT array_agg(s.id) FROM {series} s WHERE s.key = %(key)s) FROM"
        " {worker_segments} g JOIN {workers} w ON w.id = g.worker"
        " WHERE g.version = %(version)s AND (%(worker)s::text IS NULL OR w.name = %(worker)s)",
        tables,
        version=version,
        worker=worker,
        key=key,
    )
    for ctid, data, series in rows:
        cells = decode_runs([data], [1])
        mine = np.isin(cells.series, series) if key else np.ones(cells.rows, bool)
        changed = merge(concatenate([select(cells, ~mine), change(select(cells, mine))])) if mine.any() else cells
        if not changed.rows:
            await fetch(connection, "DELETE FROM {worker_segments} WHERE ctid = %(ctid)s::tid", tables, ctid=ctid)
            continue
        (run,) = encode_runs(changed, np.array([0, changed.rows]))
        query = "UPDATE {worker_segments} SET data = %(data)s, cells = %(cells)s WHERE ctid = %(ctid)s::tid"
        await fetch(connection, query, tables, data=run, cells=changed.rows, ctid=ctid)
    return len(rows)


async def cells_of(connection: Connection, tables: Tables, version: int) -> int:
    """How many cells the workers' segments of a version hold."""
    async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
        found = await read_version(cursor, tables, version)
        assert found is not None
        return sum(one.rows for one in (await read_segments(cursor, tables, version, found.horizons)).values())


async def append_as(
    cursor: Cursor, tables: Tables, *runs: ObservationRun, worker: str = "worker", **options: Any
) -> BatchId:
    """Append the single batch of a new producer in the cursor's transaction."""
    batch_id = BatchId(datetime.now(UTC).date(), uuid.uuid4(), 1)
    await append(cursor, tables, batch_id, encode((), runs), worker=worker, closes=True, **options)
    return batch_id


async def sequence_all(connection: Connection, tables: Tables) -> None:
    """Give each committed batch its position."""
    while (done := await sequence(connection, tables)).batches or done.set_aside:
        pass


async def sequence_and_fold(connection: Connection, tables: Tables, rules: RuleSet = BUILT_IN) -> None:
    """Give each committed batch its position, and fold it."""
    await sequence_all(connection, tables)
    while not (done := await advance(connection, tables, folded_by="test", rules=rules)).caught_up:
        assert done.outcome is not Outcome.REFUSED, done.reason


async def total(connection: Connection, tables: Tables, key: str) -> list[int]:
    """What each rollup says of a counter, finest first."""
    return [
        int(sums[0] or 0)
        for resolution in RESOLUTIONS
        for sums in await fetch(
            connection,
            f"SELECT sum(sum) FROM {{r{resolution}}} r JOIN {{series}} s ON s.id = r.series WHERE key = %(key)s",
            tables,
            key=key,
        )
    ]


async def damage(connection: Connection, tables: Tables, change: str, **values: Any) -> None:
    """Change the log by force."""
    await connection.execute("SET session_replication_role = replica")
    await fetch(connection, change, tables, **values)
    await connection.execute("SET session_replication_role = origin")


async def eventually(condition: Callable[[], Awaitable[object]], *, within_s: float = 20) -> None:
    """Ask until *condition* holds; `TimeoutError` if it does not in so many seconds."""
    with anyio.fail_after(within_s):
        while not await condition():  # noqa: ASYNC110 # another process can't set an event here
            await anyio.sleep(0.01)


@asynccontextmanager
async def an_app(dsn: str, metrics: Metrics | None = None, **options: Any) -> AsyncIterator[tuple[Chancy, Metrics]]:
    """A Chancy app with our plugin, open."""
    metrics = metrics or Metrics(sync_interval=1)
    async with Chancy(dsn, plugins=[metrics, *options.pop("plugins", [])], **options) as chancy:
        yield chancy, metrics


@asynccontextmanager
async def a_host(dsn: str, metrics: Metrics | None = None, **options: Any) -> AsyncIterator[tuple[Worker, Metrics]]:
    """A worker whose hooks can be called, but that runs nothing by itself."""
    async with an_app(dsn, metrics, **options) as (chancy, plugin):
        worker = Worker(chancy, register_signal_handlers=False)
        await plugin.on_worker_started(worker=worker)
        try:
            yield worker, plugin
        finally:
            await plugin.on_worker_stopped(worker=worker)


async def claimed(connection: Connection, *jobs: QueuedJob) -> tuple[QueuedJob, ...]:
    """Let the database hold *jobs* as running, so that a worker's update of them is accepted; return them."""
    async with connection.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO chancy_jobs (id, claim_id, func, queue, state, created_at, scheduled_at, started_at)"
            " VALUES (%s, %s, %s, %s, 'running', %s, %s, %s)",
            [
                (job.id, job.claim_id, job.func, job.queue, job.created_at, job.scheduled_at, job.started_at)
                for job in jobs
            ],
        )
    return jobs
