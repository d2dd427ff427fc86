"""Synchronous code records as coroutines do: in threads, scripts and prefork servers, to the interpreter's end."""

from __future__ import annotations

import logging
import threading
from typing import Any

import anyio
import pytest
from chancy import Chancy
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.recording.append_thread import AppendThread
from tests.factories import an_app, eventually, fetch
from tests.plugin.recording.test_fork import run
from tests.plugin.recording.test_recorder import logged_values, read_log


async def values(connection: Connection, tables: Tables, key: str = "app:x") -> list[float]:
    return sorted(logged_values(await read_log(connection, tables), key))


async def ends(connection: Connection, tables: Tables) -> list[TupleRow]:
    """Of every session, whether it has ended and what it lost."""
    return await fetch(connection, "SELECT ended_at IS NOT NULL, held FROM {sessions}", tables)


async def test_blocks_in_threads_and_in_each_other_append_all_also_where_they_raise(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    metrics = Metrics(append_interval=0.05)
    app = Chancy(dsn, plugins=[metrics])  # never opened
    metrics.sync_increment_counter("app:x", 1)

    def work(number: int) -> None:
        with metrics.sync_recording(app, worker_id=f"thread-{number}"):
            metrics.sync_increment_counter("app:x", number)
            with metrics.sync_recording(app):
                metrics.sync_increment_counter("app:x", number + 1)
            metrics.sync_increment_counter("app:x", number + 2)

    def threads() -> None:
        started = [threading.Thread(target=work, args=(number,)) for number in (10, 20, 30)]
        for one in started:
            one.start()
        for one in started:
            one.join()
        with pytest.raises(ZeroDivisionError), metrics.sync_recording(app):
            metrics.sync_increment_counter("app:x", 40)
            raise ZeroDivisionError

    await anyio.to_thread.run_sync(threads)

    assert await values(connection, tables) == [1, 10, 11, 12, 20, 21, 22, 30, 31, 32, 40]
    assert await ends(connection, tables) == [(True, None)] * 7
    assert not metrics._router._blocks


async def test_a_block_appends_while_it_lasts_and_flush_appends_it_from_an_event_loop(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    async with an_app(dsn, Metrics(append_interval=0.05, sync_interval=1)) as (app, metrics):
        with metrics.sync_recording(app):
            metrics.sync_increment_counter("app:x", 1)
            await eventually(lambda: _is(connection, tables, [1]))
            metrics.sync_increment_counter("app:x", 2)
            await metrics.flush(app)
            shown = await metrics.get_metrics(app)

    assert shown["app:x"].values_1day[0][1] == 3


async def _is(connection: Connection, tables: Tables, expected: list[float]) -> bool:
    return await values(connection, tables) == expected


async def test_a_database_that_is_away_at_the_start_costs_nothing_when_it_comes(
    dsn: str, connection: Connection, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    metrics = Metrics(append_interval=0.05)
    app = Chancy(dsn.replace("test_", "nowhere_"), plugins=[metrics])

    with metrics.sync_recording(app):
        metrics.sync_increment_counter("app:x", 1)
        await eventually(lambda: _says(caplog, "could not be appended"))
        app.dsn = dsn
        await eventually(lambda: _is(connection, tables, [1]))


async def _says(caplog: pytest.LogCaptureFixture, what: str) -> bool:
    return what in caplog.text


async def test_a_block_whose_database_stays_away_says_what_is_lost(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chancy_metrics.plugin.recording.append_thread.STOP_S", 2.5)
    metrics = Metrics()
    app = Chancy(dsn.replace("test_", "nowhere_"), plugins=[metrics])

    with metrics.sync_recording(app, worker_id="web-1"):
        metrics.sync_increment_counter("app:x", 1)
        metrics.sync_increment_counter("app:x", 1)

    (lost,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert "the last metrics of worker 'web-1' are lost: 2 observations" in lost.getMessage()


@pytest.mark.parametrize("how", ["falls off", "exits", "raises", "is a child of multiprocessing"])
async def test_what_a_block_that_is_never_left_holds_is_appended_at_the_interpreters_exit(
    how: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    program = """
def main():
    metrics.sync_recording(app).__enter__()
    for value in range(100):
        metrics.sync_increment_counter("app:x", value)

metrics = Metrics(append_interval=60)
app = Chancy(dsn, plugins=[metrics])
how = HOW
if how == "is a child of multiprocessing":
    child = multiprocessing.get_context("fork").Process(target=main)
    child.start()
    child.join()
else:
    main()
if how == "exits":
    sys.exit()
if how == "raises":
    sys.excepthook = lambda *error: None
    raise SystemExit(0)
""".replace("HOW", repr(how))
    await run(program, dsn)

    assert await values(connection, tables) == list(range(100))
    assert await ends(connection, tables) == [(True, None)]


async def test_at_the_exit_a_host_is_still_looked_up_and_what_is_lost_is_said() -> None:
    program = """
from chancy_metrics.plugin.recording import append_thread
append_thread.STOP_S = 2.5
metrics = Metrics(append_interval=60)
metrics.sync_recording(Chancy(dsn, plugins=[metrics]), worker_id="web-1").__enter__()
metrics.sync_increment_counter("app:x", 1)
"""
    said = await run(program, "postgresql://localhost:1/nowhere")

    assert "ERROR    the last metrics of worker 'web-1' are lost: 1 observation. " in said
    assert "Connection refused" in said
    assert "new futures" not in said  # "cannot schedule new futures after shutdown"


async def test_a_process_in_which_nobody_appends_says_at_its_exit_what_is_lost(dsn: str) -> None:
    said = await run("for value in range(7): metrics.sync_increment_counter('app:x', value)", dsn)

    assert "ERROR    metrics: lost at the end of this process, in which nobody appended them: 7 observations" in said


async def test_a_prefork_server_records_in_the_blocks_that_its_children_open(
    dsn: str, connection: Connection, tables: Tables
) -> None:
    program = """
def opened_before():
    refused(metrics.sync_increment_counter, "app:x", 1)
    block.__exit__(None, None, None)  # the parent's
    with metrics.sync_recording(app):
        metrics.sync_increment_counter("app:x", 20)

async def in_a_coroutine():
    async with metrics.recording(app):
        await metrics.increment_counter("app:x", 30)

async def main():
    async with metrics.recording(app):
        await metrics.increment_counter("app:x", 3)
        child = os.fork()
        if not child:
            sys.exit()  # leaves its parent's block
        return child

block = metrics.sync_recording(app)
block.__enter__()
metrics.sync_increment_counter("app:x", 1)
in_child(opened_before)
in_child(lambda: asyncio.run(in_a_coroutine()))
metrics.sync_increment_counter("app:x", 2)
block.__exit__(None, None, None)
parent = os.getpid()
try:
    child = asyncio.run(main())
finally:
    if os.getpid() != parent:
        os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""
    await run(program, dsn)

    log = await read_log(connection, tables)
    assert sorted(logged_values(log, "app:x")) == [1, 2, 3, 20, 30]
    assert await ends(connection, tables) == [(True, None)] * 4


async def test_the_thread_imports_nothing_that_a_forked_child_would_have_by_half(dsn: str) -> None:
    program = """
app.log
with metrics.sync_recording(app):
    before = {*sys.modules}
    metrics.sync_increment_counter("app:x", 1)
imported = {name for name in {*sys.modules} - before if "rich" not in name}
assert not imported, imported
"""
    await run(program, dsn)


def test_a_thread_that_can_not_be_interrupted_is_given_up_and_its_loss_is_said(
    dsn: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr("chancy_metrics.plugin.recording.append_thread.STOP_S", 0.1)
    monkeypatch.setattr("chancy_metrics.plugin.recording.append_thread._GIVEN_UP_S", 0.1)

    async def hang(self: AppendThread) -> Any:
        release.wait()

    monkeypatch.setattr(AppendThread, "_append_for_ever", hang)
    metrics = Metrics()
    with metrics.sync_recording(Chancy(dsn, plugins=[metrics])):
        metrics.sync_increment_counter("app:x", 1)
    release.set()

    assert "did not end within 0 s; lost, unless it still gets through: 1 observation" in caplog.text
