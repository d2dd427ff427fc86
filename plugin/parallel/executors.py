"""Make executors: a pool of processes that outlives a killed one, and the cluster of a Dask scheduler."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec, TypeVar

from chancy_metrics.events.errors import MetricsLogError, WorkersLost
from chancy_metrics.plugin.host.one_arena import use_one_arena

#: Seconds in which a scheduler must answer.
_CONNECT_S = 10

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class ProcessPool(Executor):
    """A `ProcessPoolExecutor` of new interpreters (spawn), replaced by a new one after a process of it has died.

    What was submitted before fails with `BrokenProcessPool`, and can be submitted again. The processes end with this
    one, however that ends.
    """

    def __init__(self, processes: int) -> None:
        self.processes = processes
        self._pool = self._make()

    def submit(
        self, fn: Callable[_Arguments, _Result], /, *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> Future[_Result]:
        try:
            return self._pool.submit(fn, *args, **kwargs)
        except BrokenExecutor:
            self._pool.shutdown(wait=False)
            self._pool = self._make()
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)

    def _make(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")  # a fork would share the parent's connections and loops
        return ProcessPoolExecutor(self.processes, mp_context=context, initializer=_begin_process)


def _begin_process() -> None:
    """Leave Ctrl-C to the parent, end when it does (a pool's process would wait for ever), hold little freed memory."""
    use_one_arena()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextmanager
def process_pool(processes: int) -> Iterator[Executor]:
    """Make a pool of so many processes for a block; what waits at its end is not begun."""
    pool = ProcessPool(processes)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def dask_cluster(address: str) -> Iterator[Executor]:
    """Connect to a Dask scheduler, such as "tcp://scheduler:8786", for a block.

    Raises:
        MetricsLogError: Dask is not installed, or the address can't be one.
        WorkersLost: Nobody answers there, or there are no workers.
    """
    try:
        from distributed import Client
        from distributed.comm import get_address_host_port
    except ImportError as error:
        raise MetricsLogError(f"--dask needs Dask ({error}): pip install 'chancy-metrics[dask]'") from error
    for name in logging.root.manager.loggerDict:
        if name.partition(".")[0] == "distributed":  # what it logs of a lost cluster, we raise
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        if not address.startswith("inproc://"):  # of a cluster in this process, which has no port
            get_address_host_port(address)  # the client of no address takes 20 s to end, and prints a traceback then
    except ValueError as error:
        raise MetricsLogError(
            f"{address!r} is no address of a Dask scheduler: {error}; one is tcp://host:8786"
        ) from error
    try:
        client = Client(address, timeout=_CONNECT_S, set_as_default=False)
    except OSError as error:  # TimeoutError is one
        raise WorkersLost(
            f"no Dask scheduler answers at {address} within {_CONNECT_S} s: check that `dask scheduler` runs there"
        ) from error
    try:
        executor = client.get_executor(pure=False)  # the same task again is another one
        if not count_workers(executor):
            raise WorkersLost(f"the Dask scheduler at {address} has no workers: start some by `dask worker {address}`")
        yield executor
    finally:
        with suppress(Exception):  # the scheduler may be gone
            client.close(timeout=_CONNECT_S)


def count_workers(executor: Executor) -> int:
    """Return how many tasks *executor* can run at once now: of an unknown one, as many as there are cores here.

    Asks the scheduler of a Dask cluster, and raises what that raises where it does not answer.
    """
    client: Any = getattr(executor, "_client", None)  # Dask's executor has no public way to its cluster
    if client is not None:
        return sum(client.nthreads().values())
    known: int | None = getattr(executor, "processes", None) or getattr(executor, "_max_workers", None)
    return known or os.cpu_count() or 1
