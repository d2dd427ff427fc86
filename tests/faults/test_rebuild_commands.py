"""`rebuild`, `swap`, `undo` and `versions` as an operator runs them: two at once, given up, killed, different."""

from __future__ import annotations

import json
import signal
import subprocess

from anyio import to_thread
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt
from tests.commands import run
from tests.factories import fetch, sequence_and_fold
from tests.faults.history import assert_equals_replay, live_load, make_history
from tests.faults.rebuilding import rebuilding


async def command(dsn: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `chancy-metrics`, while this process goes on."""
    return await to_thread.run_sync(run, dsn, *arguments)


async def lines(dsn: str, *arguments: str) -> list[str]:
    """What a command that ends well prints."""
    done = await command(dsn, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def versions_of(connection: Connection, tables: Tables) -> list[TupleRow]:
    query = "SELECT version, status, created_by, folded_by FROM {versions} ORDER BY version"
    return await fetch(connection, query, tables)


async def test_a_rebuild_without_swap_then_swap_then_undo_under_load(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=5)
    async with live_load(dsn, tables):
        made = await command(dsn, "rebuild", "--no-swap", "--throttle", "5s")
        waiting = await lines(dsn, "rebuild", "--status")
        swapped = await lines(dsn, "swap")
        back = await lines(dsn, "undo", "--keep", "2d")
        nothing = await lines(dsn, "rebuild", "--status")
        listed = json.loads((await lines(dsn, "versions", "--json"))[0])

    assert made.returncode == 0, made.stderr
    compared, folded, *_, last = made.stdout.splitlines()
    assert compared.startswith("compared ") and compared.endswith(": no difference")
    assert folded.startswith("folded ") and folded.endswith(" a second")
    assert last == "version 2 is ready for `chancy-metrics swap`; version 1 is live"
    told = made.stderr.splitlines()
    assert told[0].split()[:3] == ["copying", "version", "2:"]
    assert told[-1].startswith("comparing version 2: ") and "a second" in told[-1]
    assert "\r" not in made.stderr and "\x1b" not in made.stderr
    assert waiting[0].startswith("version 2: ready, kept until ")
    assert swapped == ["version 2 is live"]
    assert back == ["version 1 is live again"]
    assert nothing == ["nothing is being rebuilt"]
    assert [(one["version"], one["status"], one["rules"]) for one in listed] == [
        (1, "live", "3.0"),
        (2, "standby", "3.0"),
    ]
    assert listed[1]["made_by"].startswith("rebuild ") and listed[1]["rows"] > 100
    await sequence_and_fold(connection, tables)
    await assert_equals_replay(connection, tables)


async def test_without_swap_a_difference_is_printed_and_exits_with_3(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=5)
    await fetch(connection, "UPDATE {r1day} SET count = count + 1 WHERE version = 1", tables)

    found = await command(dsn, "rebuild", "--no-swap")
    again = await command(dsn, "rebuild", "--no-swap", "--json")
    swapped = await command(dsn, "rebuild", "--json")

    assert (found.returncode, again.returncode, swapped.returncode) == (3, 3, 0)
    assert "1day" in found.stdout.splitlines()[0] and "observations" in found.stdout.splitlines()[0]
    differs = json.loads(again.stdout)
    assert differs["swapped"] is False and differs["version"] == 2
    assert differs["different"] == len(differs["differences"]) > 0
    taken = json.loads(swapped.stdout)
    assert (taken["swapped"], taken["version"], taken["different"]) == (True, 2, differs["different"])
    await assert_equals_replay(connection, tables)


async def test_the_second_of_two_rebuilds_says_who_runs_since_when_and_changes_nothing(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=10)
    with rebuilding(dsn, freezes_at="backfilling") as first:
        assert await first.reach("backfilling")
        before = await versions_of(connection, tables)

        second = await command(dsn, "rebuild")
        status = await lines(dsn, "rebuild", "--status")

        assert await versions_of(connection, tables) == before
        first.send(signal.SIGCONT)
        done = await first.result()

    running = before[-1][3]
    assert second.returncode == 1
    assert f"version 2 has been backfilled by '{running}' since 20" in second.stderr
    assert f"({first.process.pid})" in running
    assert status[0] == "version 2: backfilling"
    assert any(running in line for line in status)
    assert isinstance(done, Rebuilt) and done.swapped and done.differences == []


async def test_a_killed_rebuild_is_shown_and_can_be_given_up(dsn: str, connection: Connection, tables: Tables) -> None:
    await make_history(connection, tables, batches=10)
    with rebuilding(dsn) as process:
        assert await process.reach("backfilling")
        await process.kill()

    status = json.loads((await lines(dsn, "rebuild", "--status", "--json"))[0])
    gave_up = await lines(dsn, "rebuild", "--abort")
    again = await lines(dsn, "rebuild", "--abort")
    done = await lines(dsn, "rebuild")

    assert [(one["version"], one["status"]) for one in status] == [(2, "backfilling")]
    assert 0 < status[0]["position"] < status[0]["ordered_position"]
    assert gave_up == ["gave up version 2"]
    assert again == ["nothing is being rebuilt"]
    assert done[-1] == "version 3 is live; version 1 is kept for `chancy-metrics undo`"
    await assert_equals_replay(connection, tables)


async def test_a_running_rebuild_ends_soon_after_it_is_given_up(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    await make_history(connection, tables, batches=10)
    with rebuilding(dsn, step_events=100) as process:
        assert await process.reach("backfilling")
        process.send(signal.SIGSTOP)
        assert await lines(dsn, "rebuild", "--abort") == ["gave up version 2"]
        process.send(signal.SIGCONT)

        ended = await process.result()

    assert isinstance(ended, str), ended
    assert [row[1] for row in await versions_of(connection, tables)] == ["baseline", "live", "dropped"]
