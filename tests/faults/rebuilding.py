"""Run a rebuild or a swap in its own process, in steps so small that a kill lands between any two of them."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection as Pipe
from multiprocessing.process import BaseProcess

import psycopg
from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.host.progress import RebuildProgress
from chancy_metrics.plugin.rebuilds import backfill
from chancy_metrics.plugin.rebuilds.rebuild import Rebuilt, rebuild
from chancy_metrics.plugin.rebuilds.swap import swap
from chancy_metrics.projections.versions import copy_baseline, promote
from tests.faults.stopping import spawner

STEP_EVENTS = 400
COPY_ROWS = 100
spawner.set_forkserver_preload(["tests.faults.rebuilding"])


class Rebuilding:
    """The process, its last message, and the phase it reported last."""

    def __init__(self, process: BaseProcess, pipe: Pipe) -> None:
        self.process = process
        self._pipe = pipe
        self.phase = ""
        self.told: RebuildProgress | Rebuilt | int | str | None = None

    async def next(self) -> RebuildProgress | Rebuilt | int | str | None:
        """Wait for its next message: progress, the result or the error; None if it ended without one."""
        try:
            self.told = await to_thread.run_sync(self._pipe.recv)
        except (EOFError, ConnectionResetError):
            return None
        if isinstance(self.told, RebuildProgress):
            self.phase = self.told.phase
        return self.told

    async def reach(self, phase: str) -> bool:
        """Wait until it reports *phase*; False if it ended without doing so."""
        while self.phase != phase:
            if not isinstance(await self.next(), RebuildProgress):
                return False
        return True

    async def result(self) -> Rebuilt | int | str | None:
        """Wait for its end; return its last message."""
        while isinstance(told := await self.next(), RebuildProgress):
            pass
        await to_thread.run_sync(self.process.join, 20)
        return told

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    async def kill(self) -> None:
        """SIGKILL it, unless it has just ended; `phase` is the last one it reported."""
        with suppress(ProcessLookupError):
            self.send(signal.SIGKILL)
        while await self.next() is not None:
            pass
        await to_thread.run_sync(self.process.join, 20)


@contextmanager
def rebuilding(
    dsn: str,
    *,
    swaps_to: int | None = None,
    step_events: int = STEP_EVENTS,
    freezes_at: str = "",
    threads: int = 0,
) -> Iterator[Rebuilding]:
    """Start a rebuild, or a swap to version *swaps_to*; the process ends with the block.

    Args:
        freezes_at: A phase in which it stops itself, between two transactions, until it gets SIGCONT.
        threads: How many threads fold ranges ahead as tasks; 0: the rebuild folds by itself.
    """
    ours, theirs = spawner.Pipe(duplex=False)
    process = spawner.Process(target=_run, args=(dsn, swaps_to, step_events, freezes_at, threads, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Rebuilding(process, ours)
    finally:
        process.kill()
        process.join()


def _run(dsn: str, swaps_to: int | None, step_events: int, freezes_at: str, threads: int, pipe: Pipe) -> None:
    copy_baseline.COPY_ROWS = COPY_ROWS
    backfill.BACKFILL_EVENTS = promote.REBUILD_STEP_EVENTS = step_events
    try:
        pipe.send(asyncio.run(_work(dsn, swaps_to, freezes_at, threads, pipe)))
    except (MetricsLogError, psycopg.Error) as error:  # what ends the command, too
        pipe.send(f"{type(error).__name__}: {error}")


async def _work(dsn: str, swaps_to: int | None, freezes_at: str, threads: int, pipe: Pipe) -> Rebuilt | int:
    def tell(progress: RebuildProgress) -> None:
        nonlocal freezes_at
        pipe.send(progress)
        if progress.phase == freezes_at:
            freezes_at = ""
            os.kill(os.getpid(), signal.SIGSTOP)

    async with Chancy(dsn, plugins=[Metrics(sync_interval=1)]) as chancy:
        if swaps_to is None:
            with ThreadPoolExecutor(threads) if threads else nullcontext() as executor:
                return await rebuild(chancy, executor=executor, on_progress=tell)
        pipe.send(RebuildProgress("swapping", swaps_to, 0, 0, 0, 0, 0.0, None))
        return await swap(chancy, swaps_to)
