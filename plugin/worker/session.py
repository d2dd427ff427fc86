"""Run the plugin's loops in one worker: append, fold, roll out, maintain; hear of folds; close all at its stop."""

from __future__ import annotations

import asyncio
import math
import os
import random
import time
import weakref
from collections.abc import Awaitable, Callable
from logging import Logger
from typing import TYPE_CHECKING, Any

import anyio
from chancy import Chancy, Worker
from chancy.hub import Event

from chancy_metrics.events.errors import InvalidObservation, NotRecording
from chancy_metrics.events.facts import KINDS
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.folding.schedule import FoldSchedule, project
from chancy_metrics.plugin.host.connection import DatabaseClock, own_connection
from chancy_metrics.plugin.host.notify import FOLDED
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.recording.buffer import Buffer
from chancy_metrics.plugin.recording.job_hook import JobHook
from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.recording.session_row import SessionRow, listed
from chancy_metrics.plugin.recording.shutdown import STOP_S, cancel_all, end

if TYPE_CHECKING:
    from chancy_metrics.plugin.folding.projector import Projector
    from chancy_metrics.plugin.rebuilds.rollout import Rollout
    from chancy_metrics.plugin.worker.maintenance import Maintenance

#: Seconds a worker's start waits until its producers are open; after that they are opened later.
OPEN_WAIT_S = 5
#: Seconds the end of the loops may spend on appending the buffer; `close` appends the rest.
LAST_APPEND_S = 1
MAINTENANCE_S = 60
COMPACTION_S = 20
DAYS_S = 600


class Session:
    """The plugin in one worker, from `on_worker_started` to `on_worker_stopped`.

    Attributes:
        runs: Whether its loops run.
    """

    def __init__(
        self,
        worker: Worker,
        buffer: Buffer,
        clock: DatabaseClock,
        options: Options,
        on_fold: Callable[[], None],
    ) -> None:
        chancy: Chancy = worker.chancy
        self.worker = worker
        self.chancy = chancy
        self.buffer = buffer
        self.runs = False
        self._loop = asyncio.get_running_loop()
        self._options = options
        self._clock = clock
        self._on_fold = on_fold
        self._warnings = RateLimited(chancy.log)
        self._projector: Projector | None = None
        self._rollout: Rollout | None = None
        self._maintenance: Maintenance | None = None
        self._days_at = -math.inf
        self._queues_at = -math.inf  # when the queues may be measured again
        self._spent_s = 0.0  # of `STOP_S`, on the end of the loops
        self.session_row = SessionRow(
            worker.worker_id,
            lambda: [*self.recorder.producers, *self.hook.producers],
            chancy.log,
            append_interval_s=options.append_interval,
        )
        self.recorder = Recorder(worker.worker_id, buffer, clock, chancy.log, session_row=self.session_row)
        self.hook = JobHook(
            worker.worker_id,
            buffer,
            clock,
            chancy.log,
            lock_wait_ms=options.lock_wait_ms,
            keep_meta=options.keep_meta,
            max_meta_bytes=options.max_meta_bytes,
            error_messages=options.error_messages,
            others=self.recorder.held,
        )
        self._at_exit = weakref.finalize(self, _say_lost, os.getpid(), self.recorder, self.hook, chancy.log)
        self.schedule = FoldSchedule(str(self.session_row.id), options.sync_interval, worker.is_leader)
        self._handlers = {f"metrics.{kind}": self._handle_metric for kind in KINDS} | {FOLDED: self._handle_fold}
        for event, handler in self._handlers.items():
            worker.hub.on(event, handler)

    @property
    def is_over(self) -> bool:
        """Whether it can do no more: its app is closed, or its event loop has ended."""
        return self._loop.is_closed() or "pool" not in vars(self.chancy) or self.chancy.pool.closed

    async def open(self) -> None:
        """Open this worker's producers in the log. Never raises."""
        with anyio.move_on_after(OPEN_WAIT_S):
            await self.recorder.open(self.chancy)
            await self.hook.open(self.chancy)

    async def run(self) -> None:
        """Run the loops until cancelled; their errors are logged and retried."""
        projector = self._projector = self.projector()
        # Random, so that the workers started by a deploy do not check at the same moment.
        rollout_s = self._options.sync_interval * random.uniform(0.75, 1.25)
        loops = {
            "append": self._every(self._options.append_interval, self._append),
            "project": project(
                self.schedule, projector, self._options.sync_interval, self.chancy.log, on_failure=self._tell_fold_error
            ),
            "maintenance": self._every(MAINTENANCE_S, self._maintain),
            "compaction": self._every(COMPACTION_S, self._compact_segments),
            "summaries": self._every(MAINTENANCE_S, self._index_events),
            "rules": self._every(rollout_s, self._roll_out_rules),
            "table_sizes": self._every(self._options.collection_interval, self._measure_tables),
        }
        if self._options.queue_health:
            loops["queue_health"] = self._every(self._options.collection_interval, self._measure_queues)
        tasks = [asyncio.create_task(loop, name=f"metrics_{name}") for name, loop in loops.items()]
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            started = time.monotonic()
            try:
                await cancel_all(tasks)
                await projector.close()
                # The host saves its last jobs next; if it can't, it never calls `close`.
                with anyio.move_on_after(LAST_APPEND_S, shield=True):
                    await self.recorder.append(self.chancy)
            finally:
                self._spent_s = time.monotonic() - started

    def projector(self) -> Projector:
        """Return a projector whose announcements this session recognises as its own."""
        # Imported here: a process that only pushes jobs does without it.
        from chancy_metrics.plugin.folding.projector import Projector

        return Projector(
            self.chancy, self.worker.worker_id, rules=self._options.rules, projector_id=str(self.session_row.id)
        )

    async def close(self) -> None:
        """Append the rest and, if it is this worker's turn, fold it, within `STOP_S` in all. Never raises."""
        until = time.monotonic() + STOP_S - self._spent_s
        self._at_exit.detach()
        for event, handler in self._handlers.items():
            self.worker.hub.remove(event, handler)
        written = await end(self.chancy, self.recorder, self.hook, self.chancy.log, within_s=until - time.monotonic())
        if written and self.schedule.is_mine:
            with anyio.move_on_after(until - time.monotonic(), shield=True) as folding:
                try:
                    from chancy_metrics.plugin.folding.projector import fold_all

                    await fold_all(self.chancy, self.worker.worker_id, rules=self._options.rules)
                except Exception as error:  # a worker must stop whatever the database does
                    self._warnings.warn("last fold", f"the last fold failed: {type(error).__name__}: {error}")
            if folding.cancelled_caught:
                self._warnings.warn(
                    "last fold",
                    f"the last fold was given up, {STOP_S:.0f} s after the stop began; all is in the log, and whoever "
                    "folds next folds it",
                )

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except Exception as error:  # the host ends with a task that raises
                name = getattr(work, "__name__", "work").strip("_")
                self._warnings.warn(name, f"metrics: {name} failed and is tried again: {type(error).__name__}: {error}")

    async def _append(self) -> None:
        await self.recorder.append(self.chancy)

    async def _roll_out_rules(self) -> None:
        if self._rollout is None:
            from chancy_metrics.plugin.rebuilds.rollout import Rollout

            self._rollout = Rollout(self.chancy, self.worker.worker_id, self._options, self.chancy.log)
        await self._rollout.run_once()

    async def _maintain(self) -> None:
        if not self.schedule.is_mine:
            return
        # They import numpy, which a worker that only records does without.
        from chancy_metrics.plugin.worker.maintenance import SERIES_ALARM, make_days_ahead, series_count

        maintenance = self._maintaining()
        tables = tables_for(self.chancy.prefix)
        async with own_connection(self.chancy) as connection:
            if time.monotonic() - self._days_at >= DAYS_S:
                await make_days_ahead(connection, tables, self._clock)
                self._days_at = time.monotonic()
            await maintenance.clean(connection, tables)
            if await series_count(connection, tables) > SERIES_ALARM:
                self._warnings.warn(
                    "series",
                    f"there are more than {SERIES_ALARM:,} series of metrics: does an id or a name that changes "
                    "with every job stand in a key? Each one costs memory in every process that reads",
                )

    async def _compact_segments(self) -> None:
        if not self.schedule.is_mine:
            return
        maintenance = self._maintaining()
        async with own_connection(self.chancy) as connection:
            await maintenance.compact(connection, tables_for(self.chancy.prefix))

    def _maintaining(self) -> Maintenance:
        from chancy_metrics.plugin.worker.maintenance import Maintenance

        if self._maintenance is None:
            self._maintenance = Maintenance(self._options)
        return self._maintenance

    async def _index_events(self) -> None:
        if not self.schedule.is_mine:
            return
        from chancy_metrics.projections.search.indexing import summarise

        async with own_connection(self.chancy) as connection:
            await summarise(connection, tables_for(self.chancy.prefix))

    async def _measure_tables(self) -> None:
        if not self.schedule.is_mine:
            return
        from chancy_metrics.plugin.worker.maintenance import table_sizes
        from chancy_metrics.projections.rules.measured import table_sizes as gauges_of

        async with own_connection(self.chancy) as connection:
            sizes = await table_sizes(connection, self.chancy)
        for name, measured in sizes.items():
            for series, size in zip(gauges_of(name), measured, strict=True):
                self.buffer.measure(series, size)

    async def _measure_queues(self) -> None:
        if not self.schedule.is_mine or time.monotonic() < self._queues_at:
            return
        from chancy_metrics.plugin.worker.queue_health import SAMPLE_SHARE, gauges, sample

        async with own_connection(self.chancy) as connection:
            began = time.monotonic()
            found = await sample(connection, self.chancy.prefix)
            self._queues_at = began + (time.monotonic() - began) / SAMPLE_SHARE
        own_concurrency = {name: executor.concurrency for name, executor in self.worker.executors.items()}
        for series, value in gauges(found, own_concurrency):
            self.buffer.measure(series, value)

    def _tell_fold_error(self, error: str) -> None:
        self.session_row.fold_error = error

    def _handle_metric(self, event: Event) -> None:
        """Record what the hub brings; never raises into who emitted it, except in a forked child."""
        try:
            body: dict[str, Any] = event.body
            kind: Any = event.name.removeprefix("metrics.")
            self.buffer.record(kind, body.get("key"), body.get("value"), body.get("unit"))
        except InvalidObservation as error:
            self._warnings.warn("invalid", f"metrics: rejected an observation: {error}")
        except NotRecording:  # in a forked child, which may not log, and whose caller must know
            raise
        except Exception as error:  # whatever a foreign event holds
            self.buffer.count("rejected:event")
            self._warnings.warn("event", f"metrics: could not read an event {event.name!r}: {type(error).__name__}")

    def _handle_fold(self, event: Event) -> None:
        body: dict[str, Any] = event.body if isinstance(event.body, dict) else {}
        if self._projector is not None and body.get("installation") != self._projector.installation:
            return  # of another schema, whose folds say nothing about ours
        if body.get("projector"):  # a promotion is announced without a projector
            self.schedule.hear(str(body["projector"]))
        self._on_fold()


def _say_lost(pid: int, recorder: Recorder, hook: JobHook, log: Logger) -> None:
    """Log at the process's end what a session that was never closed has lost; a forked child holds nothing."""
    lost = recorder.held() + hook.held()
    if lost and os.getpid() == pid:
        log.error(
            f"the last metrics of worker {recorder.worker_id!r} are lost: {listed(lost)}. The process ends, and Chancy "
            "did not stop the worker: its own last flush failed, or nobody called `stop()`"
        )
