"""Tasks run ahead in bounded number, their results come in order, and one that dies is done by another process."""

from __future__ import annotations

import asyncio
import pickle
import socket
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE

import pytest
from distributed import LocalCluster

from chancy_metrics.events.errors import DamagedBatch, InvalidObservation, MetricsLogError, OutOfMemory, WorkersLost
from chancy_metrics.plugin.parallel import executors
from chancy_metrics.plugin.parallel import tasks as tasks_module
from chancy_metrics.plugin.parallel.executors import count_workers, dask_cluster, process_pool
from chancy_metrics.plugin.parallel.source import Source
from chancy_metrics.plugin.parallel.tasks import Tasks, in_order
from tests.plugin.parallel import calls
from tests.plugin.parallel.clusters import a_cluster
from tests.processes import ROOT


async def test_results_come_in_order_and_no_more_tasks_run_ahead_than_keep_the_workers_busy() -> None:
    begun = [threading.Event() for _ in range(10)]
    taken: list[int] = []
    given: list[int] = []

    def wait_for_the_next(number: int) -> bytes:
        begun[number].set()
        assert number % 2 or begun[number + 1].wait(20)  # so that they end out of order
        return b"%d" % number

    def all_tasks() -> Iterator[int]:
        for number in range(10):
            taken.append(number)
            assert len(taken) - len(given) <= 4
            yield number

    with ThreadPoolExecutor(2) as executor:
        async for number, result in in_order(executor, wait_for_the_next, all_tasks()):
            given.append(number)
            assert result == b"%d" % number

    assert given == taken == list(range(10))


async def test_what_was_not_begun_is_cancelled_where_the_caller_leaves() -> None:
    go_on = threading.Event()

    def wait(_: int) -> bytes:
        assert go_on.wait(20)
        return b""

    with ThreadPoolExecutor(1) as executor:
        async with Tasks(executor, wait) as tasks:
            while tasks.has_room:
                tasks.submit(0)
            futures = [one.future for one in tasks._running]
        go_on.set()

    assert [future.cancelled() for future in futures] == [False, True]


@pytest.mark.parametrize(
    "error",
    [
        DamagedBatch("is wrong"),
        InvalidObservation("key", "no key"),
        OutOfMemory("too little memory"),
        WorkersLost("they are gone"),
    ],
)
def test_an_error_from_another_process_says_the_same(error: MetricsLogError) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_a_cluster_logs_of_a_task_shows_no_dsn() -> None:
    assert repr((Source("postgresql://me:secret@host/app", "chancy_"),)) == "(Source(prefix='chancy_', position=0),)"


async def test_an_executor_that_takes_no_tasks_is_named() -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()

    with pytest.raises(WorkersLost, match=r"takes no more tasks .* a new one resumes"):
        async for _ in in_order(executor, calls.echo, [1]):
            pass


@pytest.mark.slow
async def test_tasks_of_a_killed_process_are_done_by_a_new_one(tmp_path: Path) -> None:
    tasks = [(str(tmp_path / "died"), number) for number in range(6)]

    with process_pool(2) as pool:
        results = [result async for _, result in in_order(pool, calls.die_once, tasks)]

        with pytest.raises(DamagedBatch, match=r"^the payload is wrong at 7$"):
            async for _ in in_order(pool, calls.fail, [7]):
                pass
    assert results == [b"%d" % number for number in range(6)]


@pytest.mark.slow
async def test_a_task_that_kills_every_process_is_given_up() -> None:
    with process_pool(1) as pool, pytest.raises(WorkersLost, match=r"died 3 times in a row .* command resumes"):
        async for _ in in_order(pool, calls.die, [0]):
            pass


@pytest.mark.slow
async def test_a_pool_of_the_caller_that_broke_is_not_replaced() -> None:
    with ProcessPoolExecutor(1) as pool, pytest.raises(WorkersLost, match="with a new one resumes"):
        async for _ in in_order(pool, calls.die, [0]):
            pass


@pytest.mark.slow
async def test_the_processes_of_a_pool_end_with_a_killed_parent() -> None:
    program = [sys.executable, "-m", "tests.plugin.parallel.calls"]
    parent = await asyncio.create_subprocess_exec(*program, cwd=ROOT, stdin=PIPE, stdout=PIPE)
    assert parent.stdout is not None
    child = int(await parent.stdout.readline())

    parent.kill()

    await asyncio.wait_for(parent.stdout.read(), 20)  # which ends when nobody has it open any more
    assert child != parent.pid


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes of a Dask cluster."""
    with a_cluster(workers=2, processes=True) as made:
        yield made


@pytest.mark.slow
async def test_tasks_of_a_killed_dask_worker_are_done_by_another(cluster: LocalCluster, tmp_path: Path) -> None:
    tasks = [(str(tmp_path / "died"), number) for number in range(6)]

    with dask_cluster(cluster.scheduler_address) as executor:
        workers = count_workers(executor)
        results = [result async for _, result in in_order(executor, calls.die_once, tasks)]
        with pytest.raises(DamagedBatch, match=r"^the payload is wrong at 7$"):
            async for _ in in_order(executor, calls.fail, [7]):
                pass

    assert workers == 2
    assert results == [b"%d" % number for number in range(6)]


@pytest.mark.slow
async def test_a_dask_cluster_that_goes_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "_LOOK_S", 0.1)
    monkeypatch.setattr(tasks_module, "_PATIENCE_S", 0.2)
    monkeypatch.setattr(executors, "_CONNECT_S", 0.5)
    with a_cluster(workers=1, processes=False) as cluster, dask_cluster(cluster.scheduler_address) as executor:
        cluster.scale(0)
        with pytest.raises(WorkersLost, match="the cluster has had no worker for"):
            async for _ in in_order(executor, calls.echo, [1]):
                pass
        cluster.close()
        with pytest.raises(WorkersLost, match="the cluster does not answer any more"):
            async for _ in in_order(executor, calls.echo, [1]):
                pass


def test_a_scheduler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_CONNECT_S", 0.5)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(WorkersLost, match=f"no Dask scheduler answers at {address}"), dask_cluster(address):
            pass


@pytest.mark.parametrize("address", ["nonsense://x", "no-scheduler", "tcp://x", "tcp://x:y", ""])
def test_what_is_no_address_is_refused_before_a_client_is_made(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distributed.Client", None)

    with pytest.raises(MetricsLogError, match=f"^'{address}' is no address"), dask_cluster(address):
        pass


def test_without_dask_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(MetricsLogError, match=r"pip install 'chancy-metrics\[dask\]'"), dask_cluster("tcp://a:1"):
        pass
