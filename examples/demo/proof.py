"""The proof: every job update the database saved, counted by a trigger, against everything chancy-metrics says."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

from psycopg import sql
from rich.box import SIMPLE
from rich.table import Table

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.projections.fold.points import Difference, Point, diff
from chancy_metrics.projections.versions.replay import replay, stored

STATES = ("succeeded", "failed", "retrying")

#: Totals of one source by metric key; 0 for a key that is missing.
Totals = Mapping[str, Decimal]


class Saved(NamedTuple):
    """Job updates of one kind, as the database saved them, and the counters that must show the same number."""

    func: str
    queue: str
    state: str
    updates: int
    keys: tuple[str, ...]


class Witness(NamedTuple):
    """A column of the proof: totals that must all agree with what was saved."""

    title: str
    totals: list[Totals]

    def counts(self, saved: Saved) -> set[Decimal]:
        return {totals.get(key, Decimal()) for totals in self.totals for key in saved.keys}


class Live(NamedTuple):
    """The version that readers see, and its position."""

    version: int
    position: int


class Proof(NamedTuple):
    """All of it.

    Attributes:
        points: How many points the replay made, of every kind of metric.
        differences: Where those differ from the stored ones.
    """

    saved: list[Saved]
    witnesses: list[Witness]
    points: int
    differences: list[Difference]

    @property
    def updates(self) -> int:
        return sum(row.updates for row in self.saved if row.func == "all")

    @property
    def counted(self) -> bool:
        """Whether every witness counted what was saved."""
        return all(witness.counts(row) == {row.updates} for row in self.saved for witness in self.witnesses)


async def install_truth(connection: Connection) -> None:
    """Let the database itself write down every job update, in the transaction that saves it."""
    await connection.execute(
        """
        CREATE TABLE demo_truth (func text NOT NULL, queue text NOT NULL, state text NOT NULL);
        CREATE FUNCTION demo_truth() RETURNS trigger LANGUAGE plpgsql AS $fn$
        BEGIN
            INSERT INTO demo_truth VALUES (NEW.func, NEW.queue, NEW.state);
            RETURN NULL;
        END
        $fn$;
        CREATE TRIGGER demo_truth AFTER UPDATE OF state ON chancy_jobs
            FOR EACH ROW WHEN (NEW.state IN ('succeeded', 'failed', 'retrying'))
            EXECUTE FUNCTION demo_truth();
        """
    )


async def read_truth(connection: Connection) -> list[Saved]:
    """Return a row for every function and state, also for what never occurred, and one for each state of all.

    The demo runs each function on a queue of its own, so a function's counters and its queue's must agree.
    """
    cursor = await connection.execute("SELECT func, queue, state, count(*) FROM demo_truth GROUP BY 1, 2, 3")
    updates = Counter({(func, queue, state): number for func, queue, state, number in await cursor.fetchall()})
    queues = sorted({(func, queue) for func, queue, _ in updates})
    return [
        Saved(func, queue, state, updates[func, queue, state], (f"job:{func}:{state}", f"queue:{queue}:{state}"))
        for func, queue in queues
        for state in STATES
    ] + [
        Saved("all", "all", state, sum(updates[*queue, state] for queue in queues), (f"global:status:{state}",))
        for state in STATES
    ]


async def gather(connection: Connection, tables: Tables, cache: str) -> Proof:
    """Ask every witness; *cache* is what `examples.demo.cache` printed in a process of its own."""
    saved = await read_truth(connection)
    rollups = [Witness(name, await _read_rollup(connection, tables, name)) for name in RESOLUTIONS]
    cached = json.loads(cache.splitlines()[-1], parse_int=Decimal, parse_float=Decimal)
    points, position = await _read_standing(connection, tables)
    replayed = await replay(connection, tables, until=position)
    return Proof(
        saved,
        [
            *rollups,
            Witness("workers", _totals_of(points, of_workers=True)),
            Witness("cache", list(cached.values())),
            Witness("replay", _totals_of(replayed)),
        ],
        len(replayed),
        diff(points, replayed),
    )


async def _read_standing(connection: Connection, tables: Tables) -> tuple[list[Point], int]:
    """Return the stored points and their position: the dashboard goes on to measure tables, and to fold that."""
    while True:
        before = await read_live(connection, tables)
        points = await stored(connection, tables)
        if before == await read_live(connection, tables):
            return points, before.position


async def read_live(connection: Connection, tables: Tables) -> Live:
    """Return what readers see now."""
    cursor = await connection.execute(
        sql.SQL(
            """
            SELECT v.version, v.position
            FROM {head} h
            JOIN {versions} v
                ON v.version = h.live
            """
        ).format(head=tables.head, versions=tables.versions)
    )
    row = await cursor.fetchone()
    assert row is not None
    return Live(*row)


async def _read_rollup(connection: Connection, tables: Tables, resolution: str) -> list[Totals]:
    """Return the total of the merged points."""
    cursor = await connection.execute(
        sql.SQL(
            """
            SELECT s.key, sum(r.sum)
            FROM {rollup} r
            JOIN {series} s
                ON s.id = r.series
            WHERE s.kind = 'counter'
                AND r.version = (SELECT live FROM {head})
            GROUP BY s.key
            """
        ).format(rollup=tables.rollup(resolution), series=tables.series, head=tables.head)
    )
    return [dict(await cursor.fetchall())]


def _totals_of(points: Iterable[Point], *, of_workers: bool = False) -> list[Totals]:
    """Return the totals of the merged counters, or of every worker's own added up, for each resolution."""
    totals: dict[str, dict[str, Decimal]] = {resolution: defaultdict(Decimal) for resolution in RESOLUTIONS}
    for point in points:
        if (point.worker is not None) is of_workers and point.series.kind == "counter":
            totals[point.resolution][point.series.key] += point.sum
    return list(totals.values())


def verdict(proof: Proof, minimum: int) -> tuple[bool, str]:
    """Whether all is equal and at least *minimum* updates were compared, and a sentence that says so."""
    if not proof.counted:
        return False, f"DIFFERENT: of {proof.updates:,} saved job updates, not every one is counted once."
    if proof.differences:
        return False, f"DIFFERENT: {len(proof.differences):,} of {proof.points:,} points differ in a replay of the log."
    if proof.updates < minimum:
        return False, f"TOO LITTLE: {proof.updates:,} job updates are equal; the proof asks for {minimum:,}."
    return True, (
        f"EQUAL: {proof.updates:,} saved job updates, each counted once in four rollups, the cache and a replay;\n"
        f"       all {proof.points:,} points of that replay of the log equal the stored ones, at all four resolutions."
    )


def render(proof: Proof) -> Table:
    """Draw a row for each function, queue and state; what differs is red."""
    table = Table(title="Job updates, by who counted them", box=SIMPLE, show_edge=False, padding=0)
    for title in ("function", "queue", "state"):
        table.add_column(title, no_wrap=True)
    for title in ("saved", *(witness.title for witness in proof.witnesses)):
        table.add_column(title, justify="right")
    for number, row in enumerate(proof.saved):
        cells = [_cell(witness.counts(row), row.updates) for witness in proof.witnesses]
        table.add_row(
            *(("", "") if number % len(STATES) else (row.func.rpartition(".")[2], row.queue)),
            row.state,
            f"{row.updates:,}",
            *cells,
        )
    return table


def _cell(counts: set[Decimal], expected: int) -> str:
    text = " / ".join(f"{count.normalize():,f}" for count in sorted(counts))
    return f"[green]{text}[/green]" if counts == {expected} else f"[bold red]{text}[/bold red]"


async def tamper(connection: Connection, tables: Tables) -> None:
    """Remove the fullest row of the log, as only a superuser can: the proof must notice."""
    async with connection.transaction():
        await connection.execute("SET LOCAL session_replication_role = replica")
        await connection.execute(
            sql.SQL(
                """
                DELETE FROM {log}
                WHERE (producer, sequence) = (SELECT producer, sequence FROM {log} ORDER BY events DESC LIMIT 1)
                """
            ).format(log=tables.log)
        )
