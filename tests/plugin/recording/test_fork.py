"""A forked child records what it opens itself, and is told so where it has opened nothing."""

from __future__ import annotations

import os
import sys

import anyio
import pytest

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables
from tests.plugin.recording.test_recorder import logged_values, read_log
from tests.processes import ROOT

#: What every program begins with. A child that hangs is killed by its alarm.
BEGIN = """
import asyncio, builtins, logging, multiprocessing, os, signal, sys, threading
import psycopg
from chancy import Chancy, Worker
from chancy_metrics.plugin import Metrics, NotRecording, Observation

dsn = sys.argv[1]
metrics = Metrics(append_interval=0.1)
app = Chancy(dsn, plugins=[metrics])

def in_child(work):
    child = os.fork()
    if not child:
        signal.alarm(15)
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

def refused(record, *arguments):
    try:
        record(*arguments)
    except NotRecording as error:
        assert "open `with metrics.sync_recording(chancy)`" in str(error), error
    else:
        raise AssertionError("it was taken")
"""


async def run(program: str, dsn: str) -> str:
    """Run a program; return what it logged."""
    done = await anyio.run_process(
        [sys.executable, "-c", BEGIN + program, dsn], cwd=ROOT, env=os.environ | {"COLUMNS": "500"}, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.parametrize("where", ["a job", "a block", "a script"])
async def test_a_child_is_refused_without_importing_logging_or_waiting_for_a_lock(
    where: str, dsn: str, connection: Connection, tables: Tables
) -> None:
    program = """
def never(*_, **__):
    raise AssertionError("a child may not do this")

def child():
    builtins.__import__ = logging.Logger.handle = logging.Logger._log = never
    record = metrics.sync_increment_counter
    for value in (1, float("nan"), "x"):
        refused(record, "app:known", value)
        refused(record, "app:new", value)
        refused(record, "", value)
    with sync.cursor() as cursor:
        metrics.sync_record_in_transaction(app, cursor, Observation.counter("app:own", os.getpid()))
        sync.commit()
    if worker:
        emit = worker.increment_counter("app:known", 1)
        refused(emit.send, None)

def locked():
    # What another thread may hold at the fork.
    buffers = [session.buffer for session in metrics._router.sessions.values()]
    buffers += [block.recorder.buffer for block in metrics._router._blocks]
    for buffer in buffers:
        buffer._lock.acquire()
    in_child(child)
    for buffer in buffers:
        buffer._lock.release()

async def main():
    global sync, worker
    worker = None
    # Not through libpq's connection of the parent: it is made before the fork for this child alone.
    sync = psycopg.connect(dsn)
    async with app:
        if WHERE == "a job":
            worker = Worker(app, register_signal_handlers=False)
            await metrics.on_worker_started(worker=worker)
        if WHERE == "a block":
            async with metrics.recording(app):
                metrics.sync_increment_counter("app:known", 1)
                locked()
                metrics.sync_increment_counter("app:known", 2)
        else:
            metrics.sync_increment_counter("app:known", 1)
            locked()
            metrics.sync_increment_counter("app:known", 2)
        if worker:
            await metrics.on_worker_stopped(worker=worker)
        await metrics.flush(app)

asyncio.run(main())
""".replace("WHERE", repr(where))
    await run(program, dsn)

    log = await read_log(connection, tables)
    assert sorted(logged_values(log, "app:known")) == [1, 2]
    assert len(logged_values(log, "app:own")) == 1
