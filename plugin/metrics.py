"""The plugin's class, `Metrics`: its settings, Chancy's hooks and the public calls. Every member delegates."""

from __future__ import annotations

import os
import socket
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from datetime import datetime
from typing import TYPE_CHECKING, Any, SupportsFloat, overload
from uuid import uuid4

from chancy import Chancy, QueuedJob, Worker
from chancy.migrate import Migrator
from chancy.plugin import Plugin
from psycopg import AsyncCursor, Cursor
from psycopg.rows import DictRow

from chancy_metrics.events.facts import Observation
from chancy_metrics.events.schema import MIGRATION_KEY, TABLES, tables_for
from chancy_metrics.plugin.host.app import IDENTIFIER, plugin_of
from chancy_metrics.plugin.host.connection import DatabaseClock, own_connection
from chancy_metrics.plugin.host.options import DAY_S, META_BYTES, Options, Resolution, check_options
from chancy_metrics.plugin.reading.readers import Readers
from chancy_metrics.plugin.recording import in_transaction
from chancy_metrics.plugin.recording.router import Record, Router, keep_in_child
from chancy_metrics.plugin.worker.session import Session
from chancy_metrics.projections.rules.rule_set import Rule

if TYPE_CHECKING:
    from chancy_metrics.plugin.reading.history import Metric
    from chancy_metrics.plugin.reading.window import Window
    from chancy_metrics.plugin.worker.maintenance import Maintenance

_LOG_RETENTION_S = 30 * DAY_S


class Metrics(Plugin):
    """Metrics of jobs and of whatever else is recorded, exact and rebuildable.

    Job updates are recorded in the transaction that saves the jobs; everything else is buffered and appended
    every `append_interval`. No hook and no task of it raises into the host, and none delays a job by more than
    `lock_timeout`.
    """

    def __init__(
        self,
        *,
        sync_interval: float = 60,
        max_points_per_resolution: Mapping[Resolution, int] | None = None,
        maximum_metric_age: int = 90 * DAY_S,
        collection_interval: float = 30,
        append_interval: float | None = None,
        max_buffered_points: int = 1_000_000,
        lock_timeout: float = 0.1,
        log_retention: float = _LOG_RETENTION_S,
        strict: bool = False,
        keep_meta: Iterable[str] = (),
        max_meta_bytes: int = META_BYTES,
        error_messages: bool = False,
        rules: Iterable[Rule] = (),
        rules_version: int = 0,
        auto_rebuild: bool = True,
        scrape_token: str | None = None,
        queue_health: bool = True,
    ) -> None:
        """Check and keep the settings.

        Args:
            sync_interval: Seconds between folds: how old what readers see is at the most, roughly.
            max_points_per_resolution: Buckets kept; 60 / 288 / 168 / 90 of 1min / 5min / 1hour / 1day by default.
            maximum_metric_age: Seconds any bucket is kept at the most.
            collection_interval: Seconds between measurements of queues, workers and table sizes.
            append_interval: Seconds an observation may wait in memory: what a killed process can lose. One second by
                default, or a quarter of *sync_interval* if that is less.
            max_buffered_points: Observations kept while the database is away; past it the oldest go, counted.
            lock_timeout: Seconds recording may wait for a lock in a job's transaction; from 0.001 to 2,147,483.
            log_retention: Seconds raw events are kept.
            strict: Direct calls raise on invalid observations instead of logging and counting them.
            keep_meta: Keys of a job's `meta` that go into the log.
            max_meta_bytes: How many bytes of these keys a job may have; of a larger one those that fit are kept, in the
                order of *keep_meta*, and the job is counted.
            error_messages: The first line of an error goes into the log, not only its type; it may say too much.
            rules: Pure functions that make more metrics of job updates, also of those in the log already.
            rules_version: Number of these rules, raised whenever they change.
            auto_rebuild: Backfill and promote a version with this code's rules once they are newer than the live ones.
            scrape_token: Which Prometheus has to bear at `/metrics-log/prometheus` of Chancy's API server; None answers
                no scrape there.
            queue_health: The leader measures depths and waits of queues, and workers, every *collection_interval*.

        Raises:
            ValueError: A value is wrong; the message names it and the rule.
        """
        super().__init__()  # type: ignore[no-untyped-call] # Chancy's has no types
        self._options: Options = check_options(
            sync_interval=sync_interval,
            max_points_per_resolution=max_points_per_resolution,
            maximum_metric_age=maximum_metric_age,
            collection_interval=collection_interval,
            append_interval=append_interval,
            max_buffered_points=max_buffered_points,
            lock_timeout=lock_timeout,
            log_retention=log_retention,
            strict=strict,
            keep_meta=keep_meta,
            max_meta_bytes=max_meta_bytes,
            error_messages=error_messages,
            rules=rules,
            rules_version=rules_version,
            auto_rebuild=auto_rebuild,
            scrape_token=scrape_token,
            queue_health=queue_health,
        )
        self.session_id = uuid4()
        self._clock = DatabaseClock()
        # Read into a local before it is called: a function found on an instance is slower to call as a method.
        self._record: Record
        self._router: Router[Session] = Router(self._options, self._clock, self._use)
        self.readers = Readers(self._poll_interval)
        self._maintenance: Maintenance | None = None
        self._is_served = False
        if hasattr(os, "register_at_fork"):
            itself = weakref.ref(self)
            os.register_at_fork(after_in_child=lambda: _forget_parent(itself))

    def __reduce__(self) -> tuple[Any, ...]:
        # Copied or pickled, it is a plugin with the same settings and nothing recorded.
        options = self._options._asdict()
        options["max_points_per_resolution"] = options.pop("max_points")
        options |= {"rules": self._options.rules.rules, "rules_version": self._options.rules.user}
        return _make, (type(self), options)

    # -- settings ---------------------------------------------------------------------------------

    @property
    def sync_interval(self) -> float:
        """Seconds between folds."""
        return self._options.sync_interval

    @property
    def max_points(self) -> dict[str, int]:
        """Buckets kept, by resolution."""
        return self._options.max_points

    @property
    def maximum_metric_age(self) -> int:
        """Seconds any bucket is kept at the most."""
        return self._options.maximum_metric_age

    @property
    def collection_interval(self) -> float:
        """Seconds between measurements of queues, workers and table sizes."""
        return self._options.collection_interval

    @property
    def max_buffered_points(self) -> int:
        """Observations kept while the database is away."""
        return self._options.max_buffered_points

    @property
    def options(self) -> Options:
        """All settings, checked, with defaults filled in."""
        return self._options

    @property
    def worker_id(self) -> str:
        """Id under which direct calls are stored: of the first worker that runs here; "" where none does."""
        return next((worker.worker_id for worker in self._router.sessions), "")

    # -- what Chancy asks of a plugin -----------------------------------------------------------------

    @staticmethod
    def get_identifier() -> str:
        """Return the built-in plugin's name, by which Chancy and its dashboard find this one."""
        return IDENTIFIER

    def migrate_package(self) -> str:
        """Return the package that holds the migrations."""
        return "chancy_metrics.migrations"

    def migrate_key(self) -> str:
        """Return the key under which Chancy keeps the schema's version."""
        return MIGRATION_KEY

    def get_tables(self) -> list[str]:
        """Return the names of our tables, without Chancy's prefix."""
        return list(TABLES)

    def api_plugin(self) -> str:
        """Return the class that serves the page. Chancy asks when it is about to serve, so load the replica already."""
        self._is_served = True
        for session in self._router.sessions.values():
            if session.runs:
                self.readers.of(session.chancy).begin()
        return "chancy_metrics.plugin.http.dashboard.MetricsApiPlugin"

    def migrator(self, chancy: Chancy) -> Migrator | None:
        """Return the migrator of our schema.

        Raises:
            PrefixTooLong: PostgreSQL would cut our tables' names.
        """
        tables_for(chancy.prefix)
        return super().migrator(chancy)

    async def migrate(self, chancy: Chancy, *, to_version: int | None = None) -> None:
        """Bring the schema to *to_version* (the newest by default) and make the log's first days.

        Several processes at once wait for each other.
        """
        from chancy_metrics.plugin.worker.migrate import migrate

        migrator = self.migrator(chancy)
        if migrator is not None:
            await migrate(chancy, migrator, self._clock, to_version=to_version)

    async def on_worker_started(self, *, worker: Worker) -> None:
        """Begin to record for *worker*; a second call does nothing.

        Raises:
            PluginShared: This plugin records for another app at this moment: its worker is not started.
        """
        if worker not in self._router.sessions:
            self._router.refuse_other_apps(worker.chancy)
            await self._session(worker).open()

    async def on_worker_stopped(self, *, worker: Worker) -> None:
        """Append what *worker* has buffered, end its producers, and fold if it is scheduled to."""
        session = self._router.remove(worker)
        if session is not None:
            await session.close()

    async def run(self, worker: Worker, chancy: Chancy) -> None:
        """Append, fold and maintain for *worker* until cancelled. Outlives every error."""
        session = self._session(worker)
        session.runs = True
        self._router.route()
        if self._is_served:
            self.readers.of(chancy).begin()
        try:
            await session.run()
        finally:
            session.runs = False
            self._router.route()

    async def on_jobs_updated_in_transaction(
        self, *, worker: Worker, jobs: Sequence[QueuedJob], cursor: AsyncCursor[DictRow]
    ) -> None:
        """Record *jobs* in the transaction that saves them, inside a savepoint: they commit or roll back together.

        Raises:
            psycopg.OperationalError: The transaction was lost already, so that the host must try it again.
        """
        await self._session(worker).hook.record(cursor, worker.chancy.prefix, jobs)

    async def on_job_updated(self, *, worker: Worker, job: QueuedJob) -> None:
        """Record *job* unless its transaction did. Never raises."""
        self._session(worker).hook.take_saved(job)

    async def cleanup(self, chancy: Chancy) -> int | None:
        """Delete what expired, in bounded chunks; return how many rows went, None if none. Never raises."""
        from chancy_metrics.plugin.worker.maintenance import Maintenance

        if self._maintenance is None:
            self._maintenance = Maintenance(self._options)
        try:
            async with own_connection(chancy) as connection:
                return await self._maintenance.clean(connection, tables_for(chancy.prefix))
        except Exception as error:  # Chancy's Pruner ends with a plugin that raises
            self._router.warn(
                chancy, "cleanup", f"expired metrics could not be deleted: {type(error).__name__}: {error}"
            )
            return None

    # -- recording ------------------------------------------------------------------------------------

    async def increment_counter(self, metric_key: str, value: SupportsFloat, *, unit: str = "count") -> None:
        """Add *value* to a counter.

        Args:
            metric_key: 1 to 1,024 bytes of UTF-8 without NUL; ":" separates segments.
            value: A finite real number.
            unit: 1 to 64 characters; another unit makes another series.

        Raises:
            InvalidObservation: Only with `strict=True`; otherwise it is logged and counted.
            NotRecording: In a child process, Chancy's process executor's or a forked one, where nobody appends.
        """
        record = self._record
        record("counter", metric_key, value, unit)

    async def record_gauge(self, metric_key: str, value: SupportsFloat, *, unit: str = "number") -> None:
        """Record the present *value* of a gauge; the latest one stands for its bucket. Like `increment_counter`."""
        record = self._record
        record("gauge", metric_key, value, unit)

    async def record_histogram_value(self, metric_key: str, value: SupportsFloat, *, unit: str = "number") -> None:
        """Record one *value* of a distribution. Like `increment_counter`."""
        record = self._record
        record("histogram", metric_key, value, unit)

    def sync_increment_counter(self, metric_key: str, value: SupportsFloat, *, unit: str = "count") -> None:
        """`increment_counter` for threads; never blocks."""
        self._record("counter", metric_key, value, unit)

    def sync_record_gauge(self, metric_key: str, value: SupportsFloat, *, unit: str = "number") -> None:
        """`record_gauge` for threads; never blocks."""
        self._record("gauge", metric_key, value, unit)

    def sync_record_histogram_value(self, metric_key: str, value: SupportsFloat, *, unit: str = "number") -> None:
        """`record_histogram_value` for threads; never blocks."""
        self._record("histogram", metric_key, value, unit)

    def recording(self, chancy: Chancy, *, worker_id: str | None = None) -> AbstractAsyncContextManager[None]:
        """Append what is recorded inside the block, in a process that runs no worker.

        A child that is forked inside the block is refused by `NotRecording`, and leaves the block to its parent; it can
        open one of its own.

        Args:
            worker_id: Under which it is stored; the host's name by default.

        Raises:
            PluginShared: This plugin records for another app at this moment.
        """
        return self._router.recording(chancy, worker_id)

    def sync_recording(self, chancy: Chancy, *, worker_id: str | None = None) -> AbstractContextManager[None]:
        """`recording` for synchronous code: a thread appends, over a connection of its own.

        The app needs no event loop, nor to be opened. Leaving the block takes as long as appending what is left, and
        10 s at the most; a block that is never left ends with the interpreter. What can't be appended then is logged as
        an ERROR, with its counts. A server that forks opens it in each child.

        Args:
            worker_id: Under which it is stored; the host's name by default.

        Raises:
            PluginShared: When the block is entered: this plugin records for another app at this moment.
        """
        return self._router.sync_recording(chancy, worker_id)

    async def record_in_transaction(self, chancy: Chancy, cursor: AsyncCursor[Any], *observations: Observation) -> None:
        """Record in the caller's transaction: what is recorded is there if and only if it commits.

        Raises:
            InvalidObservation: One breaks a rule; nothing was written.
            psycopg.Error: Neither the log nor the spill table took it; nothing was written, so roll back.
        """
        await in_transaction.record(
            cursor,
            tables_for(chancy.prefix),
            observations,
            worker=self._name(),
            lock_wait_ms=self._options.lock_wait_ms,
            is_behind=self._clock.is_ahead_of_host(),
        )

    def sync_record_in_transaction(self, chancy: Chancy, cursor: Cursor[Any], *observations: Observation) -> None:
        """`record_in_transaction` for synchronous code, child processes of the process executor included."""
        in_transaction.sync_record(
            cursor,
            tables_for(chancy.prefix),
            observations,
            worker=self._name(),
            lock_wait_ms=self._options.lock_wait_ms,
            is_behind=self._clock.is_ahead_of_host(),
        )

    async def flush(self, chancy: Chancy) -> None:
        """Append what is buffered, of workers and blocks, and fold all there is, so that reads in this process see it.

        Raises:
            psycopg.Error: What kept something from being appended or folded; all of it is kept.
        """
        from chancy_metrics.plugin.folding.projector import fold_all

        await chancy.pool.open()
        await self._router.flush(chancy)
        done = await fold_all(chancy, self._name(), rules=self._options.rules)
        if done.reason:
            self._router.warn(
                chancy, "flush", f"metrics: flush() has appended everything, and not folded it: {done.reason}"
            )
        await self.readers.refresh(chancy)

    # -- reading --------------------------------------------------------------------------------------

    @overload
    async def get_metrics(
        self, chancy: Chancy, metric_prefix: str | None = None, worker_id: str | None = None
    ) -> dict[str, Metric]: ...

    @overload
    async def get_metrics(
        self,
        chancy: Chancy,
        metric_prefix: str | None = None,
        worker_id: str | None = None,
        *,
        resolution: Resolution,
        start: datetime | None = None,
        end: datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> Window: ...

    @overload
    async def get_metrics(
        self,
        chancy: Chancy,
        metric_prefix: str | None = None,
        worker_id: str | None = None,
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> Window: ...

    async def get_metrics(
        self,
        chancy: Chancy,
        metric_prefix: str | None = None,
        worker_id: str | None = None,
        *,
        resolution: Resolution | None = None,
        start: datetime | None = None,
        end: datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> dict[str, Metric] | Window:
        """Return the metrics under a prefix, of all workers together or of one.

        Without `worker_id` the answer comes from this process's replica of the shared cache, without a query; with
        it, from the database. Any of the window's keywords asks for 0.26's shape, by 0.26's rules.

        Args:
            metric_prefix: A key or its first segments; None or "" for all.
            worker_id: A worker's id; None or "" for all together.
            resolution: "1min", "5min", "1hour" or "1day"; "5min" where only other keywords are given.
            start: Inclusive, aware, on a bucket boundary, which is one of UTC.
            end: Exclusive, the same; the end of the current bucket by default.
            range_seconds: Length instead of *start*.
            limit: Length in buckets instead of *start*.

        Raises:
            ValueError: The window breaks a rule, or more than 100 series match one.
        """
        from chancy_metrics.plugin.reading.query import read_history, read_window

        if all(value is None for value in (resolution, start, end, range_seconds, limit)):
            return await read_history(self._options, self.readers, chancy, metric_prefix, worker_id)
        return await read_window(
            self._options,
            self.readers,
            chancy,
            metric_prefix,
            worker_id,
            resolution=resolution,
            start=start,
            end=end,
            range_seconds=range_seconds,
            limit=limit,
        )

    async def list_metrics(self, chancy: Chancy) -> list[str]:
        """Return the keys of all metrics, sorted."""
        from chancy_metrics.plugin.reading.query import read_history

        return list(await read_history(self._options, self.readers, chancy, None))

    def window(
        self,
        resolution: Resolution = "5min",
        *,
        start: datetime | None = None,
        end: datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> tuple[datetime, datetime]:
        """Return start and end of a query, in UTC; takes and raises what `get_metrics` does."""
        from chancy_metrics.plugin.reading.window import check_window

        return check_window(self._options, resolution, start=start, end=end, range_seconds=range_seconds, limit=limit)

    def retention(self, resolution: Resolution) -> int:
        """Return how many seconds *resolution* is kept."""
        from chancy_metrics.projections.buckets import retention_s

        return retention_s(resolution, self._options.max_points, self._options.maximum_metric_age)

    @staticmethod
    def matches_prefix(prefix: str, key: str) -> bool:
        """Whether *key* is *prefix* or lies below it, in whole segments."""
        return key == prefix or key.startswith(prefix + ":")

    # -- inside -----------------------------------------------------------------------------------------

    def _session(self, worker: Worker) -> Session:
        session = self._router.sessions.get(worker)
        if session is None:
            session = self._router.add(
                worker, lambda buffer: Session(worker, buffer, self._clock, self._options, self.readers.wake)
            )
        return session

    def _use(self, record: Record) -> None:
        self._record = record

    def _poll_interval(self) -> float:
        """Return the seconds between checks of the delta ring: at most one where no worker's hub announces folds."""
        return self._options.sync_interval if self._router.sessions else min(1.0, self._options.sync_interval)

    def _name(self) -> str:
        return self.worker_id or socket.gethostname()


def metrics_of(chancy: Chancy) -> Metrics:
    """Return the app's plugin.

    Raises:
        MetricsLogError: It has none.
    """
    plugin = plugin_of(chancy)
    assert isinstance(plugin, Metrics)
    return plugin


def _make(kind: type[Metrics], options: dict[str, Any]) -> Metrics:
    return kind(**options)


def _forget_parent(reference: weakref.ref[Metrics]) -> None:
    """Start anew in a forked child. Nothing here may import, log or lock: see `Router.forget_parent`."""
    plugin = reference()
    if plugin is not None:
        keep_in_child(dict(vars(plugin)))
        plugin._router.forget_parent()
        plugin.readers = Readers(plugin._poll_interval)
        plugin._maintenance = None
