"""A log taken elsewhere is the same log: its bytes, its order, its chain, and the numbers that are made of it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import psycopg
import pytest
from chancy import Chancy
from psycopg import AsyncConnection, sql

from chancy_metrics.events.chain import Seal
from chancy_metrics.events.codec import encode
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import Damaged, ImportRefused, MetricsLogError, TotalsNotReady
from chancy_metrics.events.ledger import LedgerEntry
from chancy_metrics.events.log import append
from chancy_metrics.events.partitions import make_days
from chancy_metrics.events.schema import RESOLUTIONS, Tables
from chancy_metrics.events.sequencer import sequence
from chancy_metrics.events.transfer.guard import begin_importing, is_importing
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.seal import check, seal
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.dead_letters import discard
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.host.progress import LedgerProgress
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.rebuilds.swap import undo
from chancy_metrics.plugin.telemetry.totals import read_totals
from chancy_metrics.plugin.transfer import export_writer
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.plugin.transfer.export_writer import Exported
from chancy_metrics.plugin.transfer.import_log import Imported, ImportRun, import_log
from chancy_metrics.plugin.worker.maintenance import Maintenance
from chancy_metrics.plugin.worker.retention import prune_days
from chancy_metrics.projections.rules.rule_set import BUILT_IN
from chancy_metrics.projections.versions.compact import compact
from chancy_metrics.projections.versions.replay import stored
from chancy_metrics.projections.versions.version import live_version
from examples.embedded import Server
from tests.commands import run
from tests.conftest import TEMPLATE
from tests.factories import LogWriter, a_run, an_app, damage, fetch, now_us, sequence_all, sequence_and_fold, total
from tests.faults.history import make_history, some_facts
from tests.plugin.audit.test_seal_and_check import pruned_history

DAY_S = 86_400
LOG = "SELECT (l.*)::text FROM {log} l ORDER BY day, producer, sequence"
#: Without the size of payloads, which nobody can tell of a day that has left the log.
ORDER = "SELECT position, day, producer, sequence, events, chain FROM {ledger} o ORDER BY position"
PRODUCERS = "SELECT (p.*)::text FROM {producers} p ORDER BY producer"
HEAD = "SELECT position, chain FROM {head}"


@asynccontextmanager
async def another(server: Server, name: str) -> AsyncIterator[tuple[str, Connection]]:
    """An empty migrated database beside the test's own."""
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        identifiers = [sql.Identifier(one) for one in (name, TEMPLATE)]
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
        try:
            async with await AsyncConnection.connect(server.dsn(name), autocommit=True) as connection:
                yield server.dsn(name), connection
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifiers[0]))


@pytest.fixture
async def target(server: Server, template: str, dsn: str) -> AsyncIterator[tuple[str, Connection]]:
    async with another(server, f"target_{dsn.partition('test_')[2].split()[0].split('?')[0]}") as made:
        yield made


async def some_log(connection: Connection, tables: Tables, *, batches: int = 6, seed: int = 1) -> None:
    """Batches of facts of every kind from three workers, folded; and one of an application's own producer."""
    chance = random.Random(seed)
    writers = [LogWriter(connection, tables, f"w{number}") for number in range(3)]
    for number in range(batches):
        jobs, runs = some_facts(chance, 20)
        await writers[number % 3].append(jobs=jobs, runs=runs)
        await sequence_all(connection, tables)
    async with short_transaction(connection) as cursor:
        batch_id = LogWriter(connection, tables).next_id()
        await append(cursor, tables, batch_id, encode((), [a_run()]), worker="app", closes=True)
    await sequence_and_fold(connection, tables)


async def exported(dsn: str, path: Path, **options: object) -> Exported:
    async with an_app(dsn) as (chancy, _):
        return await export_log(chancy, path, **options)  # type: ignore[arg-type]


async def imported(dsn: str, path: Path, **options: object) -> Imported:
    async with an_app(dsn) as (chancy, _):
        return await import_log(chancy, path, **options)  # type: ignore[arg-type]


async def folded(dsn: str) -> None:
    async with an_app(dsn) as (chancy, _):
        assert not (await fold_all(chancy)).reason


async def numbers(connection: Connection, tables: Tables, since: dict[str, int] | None = None) -> dict[str, list[str]]:
    """Every merged row of the live version as text, which tells 1.0 from 1.00, and every worker's point; by names."""
    found = {
        resolution: [
            row[0]
            for row in await fetch(
                connection,
                "SELECT ROW(s.key, s.kind, s.unit, bucket, count, last_us, sum, min, max, last, last_position,"
                " last_index, p50, p95, p99, sketch)::text"
                f" FROM {{r{resolution}}} r JOIN {{series}} s ON s.id = r.series"
                " WHERE version = (SELECT live FROM {head}) AND bucket >= %(horizon)s"
                " ORDER BY key, kind, unit, bucket",
                tables,
                horizon=(since or {}).get(resolution, 0),
            )
        ]
        for resolution in RESOLUTIONS
    }
    points = [
        one
        for one in await stored(connection, tables)
        if one.worker and one.bucket >= (since or {}).get(one.resolution, 0)
    ]
    return found | {"workers": sorted(map(str, points))}


async def horizons(connection: Connection, tables: Tables) -> dict[str, int]:
    """From where on the live version keeps its points."""
    async with short_transaction(connection) as cursor:
        return (await live_version(cursor, tables)).horizons


async def shown(chancy: Chancy, metrics: Metrics) -> dict[str, object]:
    """What a reader of the shared cache gets."""
    found = await metrics.get_metrics(chancy, "app")
    return {key: (metric.metric_type, metric.values_1day, metric.values_1hour) for key, metric in found.items()}


async def assert_same_log(tables: Tables, source: Connection, target: Connection) -> None:
    for query in (LOG, ORDER, HEAD):
        assert await fetch(source, query, tables) == await fetch(target, query, tables)


async def test_batches_positions_chain_and_producers_are_the_same_and_so_are_the_numbers(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    path = tmp_path / "log.export"

    out = await exported(dsn, path)
    back = await imported(target[0], path)
    await folded(target[0])

    assert (out.positions, out.batches, out.events, out.lost) == (7, 7, back.events, 0)
    assert (back.since, back.position, back.batches) == (0, 7, 7)
    assert out.size_bytes == path.stat().st_size
    await assert_same_log(tables, connection, target[1])
    assert await fetch(connection, PRODUCERS, tables) == await fetch(target[1], PRODUCERS, tables)
    there = await numbers(target[1], tables)
    assert there == await numbers(connection, tables)
    assert all(there.values())
    async with an_app(target[0]) as (chancy, _):
        assert (await check(chancy, seals=[out.seal])).found == 0
        assert str(await seal(chancy)).split()[:4] == str(out.seal).split()[:4]
        assert (await verify(chancy)).drift == 0


async def test_a_log_whose_early_days_left_takes_the_baseline_with_it(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=12)
    path = tmp_path / "log.export"

    out = await exported(dsn, path)
    back = await imported(target[0], path)
    await folded(target[0])

    assert (out.positions, out.batches, back.batches) == (24, 12, 12)
    await assert_same_log(tables, connection, target[1])
    source = await numbers(connection, tables)
    assert await numbers(target[1], tables) == source
    async with an_app(target[0]) as (chancy, _):
        again = await rebuild(chancy)
        assert (again.swapped, again.differences) == (True, [])
        found = await check(chancy, seals=[out.seal])
        assert (found.found, found.carried, found.batches) == (0, 12, 12)
        assert (await verify(chancy)).drift == 0
    kept = await numbers(target[1], tables)
    assert kept == await numbers(connection, tables, await horizons(target[1], tables))
    assert all(kept.values())


async def test_an_import_of_an_import_is_the_same_file(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=4)

    first = await exported(dsn, tmp_path / "first")
    await imported(target[0], tmp_path / "first")
    second = await exported(target[0], tmp_path / "second")

    assert second.content == first.content


async def test_who_reads_the_cache_meanwhile_sees_the_baseline_too(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=4)
    await exported(dsn, tmp_path / "log")

    async with an_app(target[0]) as (chancy, metrics), an_app(dsn) as (other, theirs):
        assert await shown(chancy, metrics) == {}
        await import_log(chancy, tmp_path / "log")
        await fold_all(chancy)
        await metrics.readers.of(chancy).refresh()
        after, source = await shown(chancy, metrics), await shown(other, theirs)

    assert after == source
    assert after.keys() == {"app:n", "app:level", "app:size"}


async def test_one_day_is_a_log_of_its_own(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    today = datetime.now(UTC).date()
    yesterday, before = today - timedelta(days=1), today - timedelta(days=2)
    await make_days(connection, tables, today=before, ahead=1)
    writer = LogWriter(connection, tables)
    for day in (before, before, yesterday, before, yesterday):  # one came late
        await writer.append(runs=[a_run("app:n", [1.5], at_us=now_us())], day=day)
        await sequence_all(connection, tables)
    await writer.append(runs=[a_run("app:n")])
    await sequence_and_fold(connection, tables)

    out = await exported(dsn, tmp_path / "day", day=yesterday)
    await imported(target[0], tmp_path / "day")
    await folded(target[0])

    assert (out.positions, out.batches, out.seal.position) == (4, 2, 5)
    entries = "SELECT position, chain FROM {ledger} WHERE position BETWEEN 2 AND 5 ORDER BY 1"
    assert await fetch(target[1], entries.replace("WHERE position BETWEEN 2 AND 5 ", ""), tables) == await fetch(
        connection, entries, tables
    )
    of_day = LOG.replace("ORDER", f"WHERE day = '{yesterday}' ORDER")
    assert await fetch(target[1], LOG, tables) == await fetch(connection, of_day, tables)
    assert await total(target[1], tables, "app:n") == [3] * 4
    async with an_app(target[0]) as (chancy, _):
        found = await check(chancy)
        assert (found.findings, found.first, found.batches, found.carried) == ([], 2, 2, 2)


async def test_a_day_that_is_not_there_is_refused(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=1)
    gone = datetime.now(UTC).date() - timedelta(days=3)

    with pytest.raises(MetricsLogError, match="the log has no day 2001-01-01"):
        await exported(dsn, tmp_path / "day", day=date(2001, 1, 1))
    with pytest.raises(MetricsLogError, match=f"{gone} has left the log"):
        await exported(dsn, tmp_path / "day", day=gone)
    assert os.listdir(tmp_path) == []


async def test_a_day_that_leaves_meanwhile_makes_the_export_begin_again(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = datetime.now(UTC).date() - timedelta(days=3)
    await make_days(connection, tables, today=old, ahead=0)
    await LogWriter(connection, tables).append(runs=[a_run()], day=old)
    await some_log(connection, tables)
    began = 0
    snapshot = export_writer.ExportWriter.write_log

    async def write_log(export: export_writer.ExportWriter) -> Exported:
        nonlocal began
        began += 1
        return await snapshot(export)

    opened = export_writer.ExportWriter._put_entries

    async def put_entries(export: export_writer.ExportWriter, *arguments: object) -> None:
        if began == 1:
            [gone] = await prune_days(connection, tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)
            assert gone.state == "gone", gone.blocker
        await opened(export, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(export_writer.ExportWriter, "write_log", write_log)
    monkeypatch.setattr(export_writer.ExportWriter, "_put_entries", put_entries)

    out = await exported(dsn, tmp_path / "log")

    assert began == 2
    assert (out.positions, out.batches) == (8, 7)


async def test_an_export_never_writes_over_a_file_and_leaves_none_that_is_not_complete(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await some_log(connection, tables)
    path = tmp_path / "log"
    path.write_text("mine")
    await damage(connection, tables, "UPDATE {head} SET chain = sha256(chain)")

    with pytest.raises(MetricsLogError, match="is there already"):
        await exported(dsn, path)
    with pytest.raises(MetricsLogError, match="audit check"):
        await exported(dsn, tmp_path / "other")

    assert os.listdir(tmp_path) == ["log"]
    assert path.read_text() == "mine"


async def test_a_log_of_its_own_is_never_mixed_with_another(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    await some_log(target[1], tables, batches=1)

    with pytest.raises(ImportRefused, match="has 2 positions of its own"):
        await imported(target[0], tmp_path / "log")

    assert not await importing(target[1], tables)


async def test_an_import_that_is_there_already_is_done_at_once(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    await imported(target[0], tmp_path / "log")

    again = await imported(target[0], tmp_path / "log")

    assert (again.since, again.position, again.batches) == (7, 7, 0)
    await assert_same_log(tables, connection, target[1])


async def test_what_is_appended_meanwhile_waits_and_gets_its_position_behind(
    dsn: str,
    connection: Connection,
    tables: Tables,
    target: tuple[str, Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    writer = LogWriter(target[1], tables)
    refused = 0
    take_chunk = ImportRun._append_chunk

    async def take(run: ImportRun, chunk: Sequence[LedgerEntry]) -> None:
        nonlocal refused
        await writer.append(runs=[a_run("app:own")])
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="an import into the metrics log has not"):
            await sequence(target[1], tables)
        refused += 1
        await take_chunk(run, chunk)

    monkeypatch.setattr(ImportRun, "_append_chunk", take)
    monkeypatch.setattr("chancy_metrics.events.transfer.check.PAGE", 2)

    await imported(target[0], tmp_path / "log")
    await folded(target[0])

    assert refused == 4
    assert await fetch(target[1], "SELECT count(*) FROM {pending}", tables) == [(0,)]
    async with an_app(target[0]) as (chancy, _):
        found = await check(chancy)
    assert (found.found, found.position) == (0, 7 + 4)


async def importing(connection: Connection, tables: Tables) -> bool:
    async with short_transaction(connection) as cursor:
        return await is_importing(cursor, tables)


async def test_a_damaged_log_is_exported_as_it_is_and_says_what_is_lost(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await damage(
        connection,
        tables,
        "DELETE FROM {log} WHERE (producer, sequence) = (SELECT producer, sequence FROM {ledger} WHERE position = 3)",
    )

    out = await exported(dsn, tmp_path / "log")

    assert (out.positions, out.batches, out.lost) == (7, 6, 1)
    with pytest.raises(ImportRefused, match=r"position 3 of .* its batch is missing"):
        await imported(target[0], tmp_path / "log")


async def stopped_after(dsn: str, path: Path, chunks: int) -> None:
    """Import two entries at a time, and stop after so many chunks as if the process had ended."""
    taken = 0
    take_chunk = ImportRun._append_chunk

    async def take(run: ImportRun, chunk: Sequence[LedgerEntry]) -> None:
        nonlocal taken
        if taken == chunks:
            raise Stopped
        taken += 1
        await take_chunk(run, chunk)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(ImportRun, "_append_chunk", take)
        patch.setattr("chancy_metrics.events.transfer.check.PAGE", 2)
        await imported(dsn, path)


class Stopped(Exception):
    """An import ends here."""


async def test_a_stopped_import_goes_on_with_its_own_file_only(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], server: Server, tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    async with another(server, f"other_{target[1].info.dbname}") as (other, theirs):
        await some_log(theirs, tables, seed=2)
        await exported(other, tmp_path / "other")
    await stopped_after(target[0], tmp_path / "log", 2)
    ended = Seal(0, b"", datetime.now(UTC))

    with pytest.raises(ImportRefused, match=r"is not the beginning of .*other: at position 4 they differ"):
        await imported(target[0], tmp_path / "other")
    async with an_app(target[0]) as (chancy, _):
        half = await check(chancy, seals=[ended])
    back = await imported(target[0], tmp_path / "log")

    assert (half.found, half.position) == (0, 4)
    assert half.notes == ["an import is unfinished: only what it has imported so far was checked"]
    assert (back.since, back.position, back.batches) == (4, 7, 3)
    await assert_same_log(tables, connection, target[1])
    assert await fetch(connection, PRODUCERS, tables) == await fetch(target[1], PRODUCERS, tables)


async def test_a_longer_export_of_the_same_log_goes_on_too(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    await stopped_after(target[0], tmp_path / "log", 1)
    await some_log(connection, tables, seed=2)
    await exported(dsn, tmp_path / "longer")

    back = await imported(target[0], tmp_path / "longer")

    assert (back.since, back.position) == (2, 14)
    await assert_same_log(tables, connection, target[1])
    assert await fetch(connection, PRODUCERS, tables) == await fetch(target[1], PRODUCERS, tables)


async def test_no_day_goes_while_an_import_has_not_ended(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    old = datetime.now(UTC).date() - timedelta(days=40)
    await make_days(connection, tables, today=old, ahead=0)
    writer = LogWriter(connection, tables)
    for _ in range(3):
        await writer.append(runs=[a_run()], day=old)
        await sequence_all(connection, tables)
    await sequence_and_fold(connection, tables)
    await exported(dsn, tmp_path / "log")
    await stopped_after(target[0], tmp_path / "log", 1)

    [kept] = await prune_days(target[1], tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)
    await imported(target[0], tmp_path / "log")
    await folded(target[0])
    [gone] = await prune_days(target[1], tables, BUILT_IN, now_us=now_us(), log_retention_s=DAY_S)

    assert (kept.day, kept.state) == (old, "attached")
    assert kept.blocker.startswith("an import has not ended")
    assert (gone.day, gone.state) == (old, "gone")


@pytest.mark.slow
async def test_the_commands_take_a_log_from_one_database_to_another(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    path = tmp_path / "log"

    out = run(dsn, "audit", "export", str(path))
    twice = run(dsn, "audit", "export", str(path))
    back = run(target[0], "audit", "import", str(path), "--json")
    fold = run(target[0], "fold")
    other = run(target[0], "audit", "import", str(path))

    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1].startswith("chancy-metrics-seal 1 position=7 hash=")
    assert (twice.returncode, "is there already" in twice.stderr) == (1, True)
    assert back.returncode == 0, back.stderr
    assert json.loads(back.stdout)["batches"] == 7
    assert fold.stdout.startswith("sequenced 0 batches, folded ")
    assert (other.returncode, "0 batches" in other.stdout) == (0, True), other.stderr


async def test_an_export_to_stdout_is_the_file(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    path = tmp_path / "log"

    command = [
        sys.executable,
        "-m",
        "chancy_metrics.plugin.cli",
        "--app",
        "tests.app.chancy",
        "audit",
        "export",
        "-",
    ]
    with path.open("wb") as file:
        done = subprocess.run(  # noqa: ASYNC221
            command, env=os.environ | {"DSN": dsn}, stdout=file, stderr=subprocess.PIPE
        )

    assert done.returncode == 0, done.stderr
    assert b"chancy-metrics-seal 1 position=7" in done.stderr
    await imported(target[0], path)
    await assert_same_log(tables, connection, target[1])


async def test_an_empty_log_can_be_taken_elsewhere(dsn: str, target: tuple[str, Connection], tmp_path: Path) -> None:
    out = await exported(dsn, tmp_path / "log")
    back = await imported(target[0], tmp_path / "log")

    assert (out.positions, back.position, back.batches) == (0, 0, 0)


async def test_where_the_ledgers_beginning_was_cleaned_up_the_copy_begins_there_too(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await pruned_history(connection, tables)
    async with an_app(dsn) as (chancy, metrics):
        await Maintenance(metrics.options).clean(connection, tables)

    out = await exported(dsn, tmp_path / "log")
    await imported(target[0], tmp_path / "log")
    await folded(target[0])

    assert (out.positions, out.batches) == (5, 4)
    await assert_same_log(tables, connection, target[1])
    async with an_app(target[0]) as (chancy, _):
        found = await check(chancy, seals=[out.seal])
        assert (found.found, found.first, found.seals) == (0, 4, 1)
        assert (await verify(chancy)).drift == 0


async def test_days_of_the_target_that_left_the_log_at_the_source_go_there_too(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=2)
    gone = datetime.now(UTC).date() - timedelta(days=3)
    await exported(dsn, tmp_path / "log")
    await make_days(target[1], tables, today=gone, ahead=0)

    await imported(target[0], tmp_path / "log")

    assert await fetch(target[1], f"SELECT state FROM {{days}} WHERE day = '{gone}'", tables) == [("gone",)]
    assert await fetch(target[1], f"SELECT to_regclass('{tables.partition_name(gone)}')", tables) == [(None,)]


async def test_a_target_with_batches_of_a_day_that_left_the_log_is_refused(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=2)
    gone = datetime.now(UTC).date() - timedelta(days=3)
    await exported(dsn, tmp_path / "log")
    await make_days(target[1], tables, today=gone, ahead=0)
    await LogWriter(target[1], tables).append(runs=[a_run()], day=gone)

    with pytest.raises(ImportRefused, match=f"this database has batches of {gone}"):
        await imported(target[0], tmp_path / "log")
    assert not await importing(target[1], tables)


async def test_every_version_that_is_there_begins_with_the_baseline(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=4)
    await exported(dsn, tmp_path / "log")
    async with an_app(target[0]) as (chancy, _):
        await rebuild(chancy)  # of nothing, so that two versions are there
        await import_log(chancy, tmp_path / "log")
        await fold_all(chancy)
        kept = await horizons(target[1], tables)
        newer = await numbers(target[1], tables, kept)
        await undo(chancy)

    assert await numbers(target[1], tables, kept) == newer
    assert await numbers(connection, tables, kept) == newer
    assert all(newer.values())


async def test_two_imports_at_once_bring_one_log(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    await stopped_after(target[0], tmp_path / "log", 1)

    ended = await asyncio.gather(*[imported(target[0], tmp_path / "log") for _ in range(2)], return_exceptions=True)
    await imported(target[0], tmp_path / "log")

    assert all(isinstance(one, Imported | MetricsLogError) for one in ended), ended
    assert not await importing(target[1], tables)
    await assert_same_log(tables, connection, target[1])


async def test_an_import_that_gets_no_lock_says_so_and_goes_on_later(
    dsn: str,
    connection: Connection,
    tables: Tables,
    target: tuple[str, Connection],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.transfer.import_locks.PATIENCE_S", 0)
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")

    async with target[1].transaction():
        await fetch(target[1], "SELECT count(*) FROM {versions} v WHERE version = 1", tables)
        await target[1].execute(sql.SQL("LOCK TABLE {} IN SHARE MODE").format(tables.ledger))
        with pytest.raises(MetricsLogError, match="a transaction has held a lock that the import needs for 0 s"):
            await imported(target[0], tmp_path / "log")

    assert (await imported(target[0], tmp_path / "log")).position == 7


async def test_a_day_without_batches_is_an_empty_file(dsn: str, tmp_path: Path) -> None:
    out = await exported(dsn, tmp_path / "day", day=datetime.now(UTC).date())

    assert (out.positions, out.seal.position) == (0, 0)


async def test_what_nobody_can_read_travels_and_is_a_dead_letter_there_too(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    good = encode((), [a_run("app:n", at_us=now_us())])
    for batch in (good, good._replace(payload=b"garbage", sha256=sha256(b"garbage").digest()), good):
        await LogWriter(connection, tables).append(batch=batch)
    await sequence_and_fold(connection, tables)
    async with an_app(dsn) as (chancy, _):
        await discard(chancy, 2, why="garbage", by="me")

    await exported(dsn, tmp_path / "log")
    await imported(target[0], tmp_path / "log")
    await folded(target[0])

    letters = "SELECT position, discarded_at IS NULL FROM {dead_letters}"
    assert await fetch(connection, letters, tables) == [(2, False)]
    assert await fetch(target[1], letters, tables) == [(2, True)]
    assert await total(target[1], tables, "app:n") == [2] * 4
    await assert_same_log(tables, connection, target[1])


async def test_progress_is_told_up_to_the_end(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    out: list[LedgerProgress] = []
    back: list[LedgerProgress] = []

    await exported(dsn, tmp_path / "log", on_progress=out.append)
    await imported(target[0], tmp_path / "log", on_progress=back.append)

    for told in (out, back):
        assert (told[-1].position, told[-1].until) == (7, 7)
        assert told[-1].events > 0


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("data = '\\x07'", "1min segment of worker 'worker-a' of {gone} is no run of cells: its format is 7"),
        (
            "resolution = 61",
            r"'worker-a' of the baseline has a segment of resolution 61 s and fold -\d+, which no day",
        ),
        (
            "fold = 7",
            r"'worker-a' of the baseline has a segment of resolution 60 s and fold 7, which no day",
        ),
        ("worker = 99", "worker 99 of the baseline has no name in the table of workers"),
    ],
)
async def test_a_damaged_segment_of_the_baseline_is_named_by_the_export(
    change: str, fault: str, dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=3)
    gone = datetime.now(UTC).date() - timedelta(days=3)
    await fetch(
        connection,
        f"UPDATE {{worker_segments}} SET {change} WHERE version = 0 AND resolution = 60 AND worker ="
        " (SELECT id FROM {workers} WHERE name = 'worker-a')",
        tables,
    )

    with pytest.raises(Damaged, match=f"{fault.format(gone=gone)}.*: restore that row from a backup"):
        await exported(dsn, tmp_path / "log")

    assert os.listdir(tmp_path) == []


async def test_cells_of_a_series_without_a_name_are_left_out_as_by_readers(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=3)
    await fetch(connection, "DELETE FROM {series} WHERE key = 'app:n'", tables)

    await exported(dsn, tmp_path / "log")
    await imported(target[0], tmp_path / "log")
    await folded(target[0])

    async with an_app(target[0]) as (chancy, _):
        assert (await verify(chancy)).drift == 0
    assert await fetch(target[1], "SELECT count(*) > 1 FROM {worker_segments} WHERE version = 0", tables) == [(True,)]


async def test_compaction_does_not_change_what_is_exported(
    dsn: str, connection: Connection, tables: Tables, tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=4)
    await fetch(connection, f"UPDATE {{versions}} SET horizon_1min = {now_us() // 3_600_000_000 * 3_600}", tables)
    rows = "SELECT worker, resolution, cells FROM {worker_segments} WHERE version = 0 ORDER BY 1, 2"

    before, first = await fetch(connection, rows, tables), await exported(dsn, tmp_path / "first")
    await compact(connection, tables, await horizons(connection, tables))
    after, second = await fetch(connection, rows, tables), await exported(dsn, tmp_path / "second")

    assert before != after
    assert second.content == first.content


async def test_after_an_import_the_totals_are_another_generation_of_what_it_brought(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await make_history(connection, tables, batches=6)
    await exported(dsn, tmp_path / "log")
    async with an_app(dsn) as (chancy, _), an_app(target[0]) as (other, _):
        source, before = await read_totals(chancy), await read_totals(other)

        await imported(target[0], tmp_path / "log")
        after = await read_totals(other)

    assert before.series == []
    assert after.generation > before.generation
    assert (after.position, after.series) == (source.position, source.series)


async def test_during_an_import_no_totals_are_begun(
    dsn: str, connection: Connection, tables: Tables, target: tuple[str, Connection], tmp_path: Path
) -> None:
    await some_log(connection, tables)
    await exported(dsn, tmp_path / "log")
    async with an_app(target[0]) as (chancy, _):
        async with short_transaction(target[1]) as cursor:
            await begin_importing(cursor, tables)

        with pytest.raises(TotalsNotReady, match="an import has not ended"):
            await read_totals(chancy)
