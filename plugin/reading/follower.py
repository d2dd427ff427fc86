"""Keep this process's replica: loaded in one snapshot, then brought up to date after each fold, while it is read."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable
from functools import cache
from logging import Logger

import psycopg
from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.database import Cursor, needs_schema, short_transaction
from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.silent_server import Patience
from chancy_metrics.plugin.host.connection import any_connection
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.reading.load import load_replica, read_ring_changes
from chancy_metrics.plugin.reading.replica import Replica, RingChanges

#: Seconds without a read after which following ends.
IDLE_S = 300
#: Seconds to wait for the server in one check of the ring, or one load; then its connection is given up.
ANSWER_S = 60


class Reader:
    """Keeps one `Replica` for as long as somebody reads."""

    def __init__(
        self, chancy: Chancy, poll_interval: Callable[[], float], log: Logger, *, idle_s: float = IDLE_S
    ) -> None:
        self._chancy = chancy
        self._poll_interval = poll_interval
        self._idle_s = idle_s
        self._replica: Replica | None = None
        self._task: asyncio.Task[None] | None = None
        self._loading: asyncio.Task[Replica] | None = None
        self._began_at = 0.0
        self._wakeup = asyncio.Event()
        self._lock = asyncio.Lock()
        self._read_at = 0.0
        self._patience = Patience(ANSWER_S)
        self._warnings = RateLimited(log)

    def begin(self) -> None:
        """Load the replica in the background, unless it is there; after a failure the next read tries again."""
        if not self.following and self._loading is None:
            self._began_at = time.monotonic()
            self._loading = asyncio.create_task(self.replica(), name="metrics_load")
            self._loading.add_done_callback(self._loaded)

    async def replica_soon(self, within_s: float) -> Replica | None:
        """Return the replica if it is there within *within_s* seconds of the start of its load; None if not."""
        self.begin()
        if self._loading is None:
            return await self.replica()
        await asyncio.wait({loading := self._loading}, timeout=max(0.0, self._began_at + within_s - time.monotonic()))
        return loading.result() if loading.done() else None

    def _loaded(self, loading: asyncio.Task[Replica]) -> None:
        self._loading = None
        if loading.cancelled():
            return
        if (error := loading.exception()) is None:
            _freeze()
        else:
            self._warnings.warn("load", f"the metrics cache could not be loaded: {type(error).__name__}: {error}")

    async def replica(self) -> Replica:
        """Return the replica; the first call loads it, later ones run no query."""
        self._read_at = time.monotonic()
        if not self.following:
            await self._chancy.pool.open()  # as Chancy's own calls do; a closed app's pool stays closed
            async with self._lock:
                if not self.following:
                    await self._refresh()
                    self._task = asyncio.create_task(self._follow_for_a_while(), name="metrics_reader")
        assert self._replica is not None
        return self._replica

    @property
    def following(self) -> bool:
        """Whether the replica is kept up to date."""
        return self._task is not None and not self._task.done()

    def wake(self) -> None:
        """Check the ring now: a fold was announced."""
        self._wakeup.set()

    @property
    def loop_ended(self) -> bool:
        """Whether this reader's event loop has ended."""
        return self._task is not None and self._task.get_loop().is_closed()

    async def refresh(self) -> None:
        """Bring the replica up to date from the ring, or load it anew."""
        async with self._lock:  # an older snapshot must not be applied after a newer one
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            await self._load_or_follow()
        except psycopg.OperationalError:  # a standby cancels what is in its way; a pool may hold a dead connection
            await self._load_or_follow()

    async def _load_or_follow(self) -> None:
        tables = tables_for(self._chancy.prefix)
        changes = None
        async with any_connection(self._chancy) as connection:
            with needs_schema(tables), self._patience.waiting(connection):
                async with short_transaction(connection, isolation="REPEATABLE READ") as cursor:
                    if self._replica is not None:
                        changes = await self._read_changes(cursor, tables, self._replica)
                    if changes is None:
                        self._replica = await load_replica(cursor, tables)
        if changes is not None and self._replica is not None:
            # In a thread, as the load: where 20,000 series change or expire at once, it takes half a second.
            self._replica.become(await to_thread.run_sync(self._replica.after, changes))

    async def _read_changes(self, cursor: Cursor, tables: Tables, replica: Replica) -> RingChanges | None:
        """Return what brings *replica* up to date; None if it must be loaded anew. Warns of a damaged ring."""
        try:
            return await read_ring_changes(cursor, tables, replica)
        except Damaged as error:
            self._warnings.warn("ring", f"the metrics cache is loaded again from the rollups: {error}")
            return None

    async def _follow_for_a_while(self) -> None:
        pool = self._chancy.pool
        while time.monotonic() - self._read_at < self._idle_s:
            try:
                async with asyncio.timeout(self._poll_interval()):
                    await self._wakeup.wait()
            except TimeoutError:
                pass
            self._wakeup.clear()
            if pool.closed:
                break  # the app was closed; a later read of it opens a new pool
            try:
                await self.refresh()
            except Exception as error:  # reads are answered from the old replica until the database is back
                self._warnings.warn(
                    "follow", f"the metrics cache could not be followed: {type(error).__name__}: {error}"
                )
        self._replica = None


@cache
def _freeze() -> None:
    """Take what is in memory now out of the garbage collector's full collections, once in a process.

    Only for a process that serves the page, whose requests cause such a collection many times a minute: with 20,000
    series each one stopped every thread for 60 ms, and found nothing, since a replica has no cycles. What is dropped
    later is freed by its reference count, as before. Only a cycle that is alive now can leak: dead ones are collected
    first.
    """
    gc.collect()
    gc.freeze()
