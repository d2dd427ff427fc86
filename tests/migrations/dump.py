"""Dump a database of today's schema, as `python -m tests.migrations.dump NAME`; `released/README.md` says when.

The dump is made by PostgreSQL 15, the oldest that CI has, so that newer ones can restore it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psycopg
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import mark, rebuild, seal
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.telemetry.totals import read_totals
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from examples.embedded import DEBIAN, Server
from tests.factories import DAY_US, LogWriter, a_row, a_run, an_app, connections, now_us, sequence_and_fold

RELEASED = Path(__file__).parent / "released"
#: The schema before the first release: it may change, and is then dumped anew.
CURRENT = "0.x"


async def counts_of(chancy: Chancy) -> dict[str, list[str]]:
    """Every series' count, sum and last value, as all of the log adds up to them, but for those of table sizes."""
    totals = await read_totals(chancy)
    return {
        one.series.key: [str(one.count), repr(one.sum), repr(one.last)]
        for one in totals.series
        if not one.series.key.startswith("table:")
    }


async def make(server: Server, name: str) -> tuple[str, dict[str, Any]]:
    """Return a dump in SQL, and what is true of it: its seal, and what it adds up to when all is folded.

    It has two workers, a day that left the log, a replaced and a live version, totals, a mark, a batch without a
    position, and a spilled one.
    """
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    tables = tables_for("chancy_")
    async with AsyncExitStack() as stack:
        chancy, _ = await stack.enter_async_context(an_app(server.dsn(name)))
        with patch("chancy_metrics.plugin.worker.migrate.DAYS_AHEAD", 0):
            await chancy.migrate()
        (connection,) = await stack.enter_async_context(connections(server.dsn(name), 1))
        await _fill(connection, tables)
        await mark(chancy, "deploy 1")
        await fold_all(chancy)
        await rebuild(chancy)
        await counts_of(chancy)
        sealed = await seal(chancy)
        writer = LogWriter(connection, tables, "worker-late")
        await writer.append(jobs=[a_row(now_us())], runs=[a_run("app:n", [0.25], at_us=now_us())])
        await writer.spill(runs=[a_run("app:n", [0.5], at_us=now_us())])
        dumped = _dump(server, name)
        await fold_all(chancy)
        return dumped, {"seal": str(sealed), "counts": await counts_of(chancy)}


async def _fill(connection: Connection, tables: Tables) -> None:
    """Facts of every kind by two workers, of today and of a day that then leaves the log."""
    now = now_us()
    gone = datetime.fromtimestamp(now / 1e6, UTC).date() - timedelta(days=3)
    await make_days(connection, tables, today=gone, ahead=0)
    for worker in ("worker-a", "worker-b"):
        writer = LogWriter(connection, tables, worker)
        for day, at_us in ((gone, now - 3 * DAY_US), (None, now)):
            times = [at_us - minutes * 60_000_000 for minutes in (1, 2, 20, 90)]
            await writer.append(
                jobs=[a_row(times[n], state=("succeeded", "failed")[n % 2]) for n in range(len(times))],
                runs=[
                    *(a_run("app:n", [0.1, 7], at_us=one) for one in times),
                    *(a_run("app:level", [one % 1_000], kind="gauge", at_us=one) for one in times),
                    *(a_run("app:size", [1e-9, 30], kind="histogram", unit="B", at_us=one) for one in times),
                ],
                day=day,
            )
    await sequence_and_fold(connection, tables)
    [pruned] = await prune_days(connection, tables, BUILT_IN, now_us=now, log_retention_s=86_400)
    assert pruned.state == "gone", pruned.blocker


def _dump(server: Server, name: str) -> str:
    words = ["--no-owner", "--no-privileges", "--dbname", server.dsn(name)]
    done = subprocess.run([server.binaries / "pg_dump", *words], capture_output=True, text=True, check=True)
    # Not what only the newest psql understands.
    lines = [line for line in done.stdout.splitlines() if not line.startswith(("\\restrict", "\\unrestrict"))]
    return "\n".join(lines) + "\n"


def main(release: str = CURRENT) -> None:
    with Server(DEBIAN) as server:
        dumped, facts = asyncio.run(make(server, "released"))
    (RELEASED / f"{release}.sql").write_text(dumped)
    (RELEASED / f"{release}.json").write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
    print(f"{RELEASED}/{release}.sql has {len(dumped):,} bytes; {len(facts['counts'])} series")


if __name__ == "__main__":
    main(*sys.argv[1:])
