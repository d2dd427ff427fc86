"""Run tasks on an executor: a bounded number at once, their results in order, those that died once more."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future
from types import TracebackType
from typing import Generic, NamedTuple, TypeVar

import psycopg
from anyio import to_thread

from chancy_metrics.events.error_kinds import in_words, is_transient
from chancy_metrics.events.errors import MetricsLogError, WorkersLost
from chancy_metrics.plugin.parallel.executors import count_workers

Task = TypeVar("Task")

#: Times that a task is run until its error is raised: where its process died, or for an error that may pass.
_TRIES = 3
#: Seconds without a result after which the executor is asked whether it has workers, and after which they are lost.
_LOOK_S, _PATIENCE_S = 5.0, 60.0
_RESUMES = "the same command resumes"


class _Running(NamedTuple, Generic[Task]):
    task: Task
    future: Future[bytes]


class Tasks(Generic[Task]):
    """Calls of one function on an executor, of which as many run ahead as keep its workers busy.

    The function is one of a module, and takes and returns plain data: both cross to another process or machine.

    Use it as a context manager: leaving it cancels what was not begun.
    """

    def __init__(self, executor: Executor, function: Callable[[Task], bytes]) -> None:
        self._executor = executor
        self._function = function
        self._running: deque[_Running[Task]] = deque()
        self._most = 0
        self._asked_s = 0.0
        self._failures = 0

    async def __aenter__(self) -> Tasks[Task]:
        await self._ask()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.cancel()

    def __len__(self) -> int:
        """How many have been submitted and not taken."""
        return len(self._running)

    @property
    def has_room(self) -> bool:
        """Whether another one should be submitted now."""
        return len(self._running) < self._most

    def submit(self, task: Task) -> None:
        self._running.append(_Running(task, self._begin(task)))

    def cancel(self) -> None:
        """Forget all that were submitted; those that run go on, and their results are dropped."""
        for one in self._running:
            one.future.cancel()
        self._running.clear()

    async def take(self) -> tuple[Task, bytes]:
        """Wait for the oldest task; return it and its result.

        Raises:
            WorkersLost: The executor or its workers are gone, or the task kills each process that runs it.
        """
        if time.monotonic() - self._asked_s > _LOOK_S:
            await self._ask()
        while True:
            task, future = self._running[0]
            await self._wait(future)
            error = None if future.cancelled() else future.exception()
            if not future.cancelled() and error is None:
                self._running.popleft()
                self._failures = 0
                return task, future.result()
            if error is not None and not _may_pass(error):
                raise _explained(error) from error
            self._failures += 1
            if self._failures >= _TRIES:
                raise _given_up(error) from error
            self._begin_again()

    def _begin(self, task: Task) -> Future[bytes]:
        try:
            return self._executor.submit(self._function, task)
        except Exception as error:  # one that is broken or shut down, or whatever the client of a lost cluster raises
            raise WorkersLost(
                f"the executor takes no more tasks ({in_words(error)}): the same call with a new one resumes"
            ) from error

    def _begin_again(self) -> None:
        """Submit again whatever has failed: all tasks of a pool fail with the process that died."""
        self._running = deque(
            _Running(one.task, self._begin(one.task)) if one.future.done() and _has_failed(one.future) else one
            for one in self._running
        )

    async def _wait(self, future: Future[bytes]) -> None:
        """Wait until *future* is done; look from time to time whether anybody is left to do it."""
        waiting = asyncio.ensure_future(asyncio.wrap_future(future))
        idle_s = 0.0
        try:
            while not (await asyncio.wait({waiting}, timeout=_LOOK_S))[0]:
                idle_s = 0.0 if await self._ask() else idle_s + _LOOK_S
                if idle_s >= _PATIENCE_S:
                    raise WorkersLost(f"the cluster has had no worker for {_PATIENCE_S:.0f} s: {_RESUMES}")
        finally:
            if not waiting.done():
                waiting.cancel()
            elif not waiting.cancelled():
                waiting.exception()  # it is read from *future*

    async def _ask(self) -> int:
        """Return how many workers there are, and let so many tasks run ahead."""
        try:
            workers = await to_thread.run_sync(count_workers, self._executor)
        except Exception as error:  # whatever a cluster's client raises when its scheduler is gone
            raise WorkersLost(f"the cluster does not answer any more ({in_words(error)}): {_RESUMES}") from error
        self._most = 2 * max(workers, 1)  # one that runs and one that waits
        self._asked_s = time.monotonic()
        return workers


async def in_order(
    executor: Executor, function: Callable[[Task], bytes], tasks: Iterable[Task]
) -> AsyncGenerator[tuple[Task, bytes]]:
    """Call *function* with each of *tasks* on *executor*; yield each with its result, in their order."""
    left = iter(tasks)
    async with Tasks(executor, function) as running:
        while True:
            while running.has_room and (task := next(left, None)) is not None:
                running.submit(task)
            if not running:
                return
            yield await running.take()


def _has_failed(future: Future[bytes]) -> bool:
    return future.cancelled() or future.exception() is not None


def _may_pass(error: BaseException) -> bool:
    """Whether another try may succeed: a process died, or the database had a moment."""
    if isinstance(error, psycopg.Error):
        return is_transient(error)
    return isinstance(error, BrokenExecutor) or _is_of_dask(error)


def _is_of_dask(error: BaseException) -> bool:
    """Whether Dask itself raised *error*, which needs no import of Dask: the worker died, or the scheduler is gone."""
    return type(error).__module__.partition(".")[0] == "distributed"


def _explained(error: BaseException) -> BaseException:
    """Return what to raise for an error of a task: itself, unless it says only that the task could not be loaded."""
    if isinstance(error, RuntimeError) and "deserialization" in str(error):
        return MetricsLogError(
            f"the cluster can't load the tasks ({in_words(error.__cause__ or error)}): its scheduler and workers need "
            "the Python, chancy-metrics and packages that this process has"
        )
    return error


def _given_up(error: BaseException | None) -> BaseException:
    if error is None:
        return WorkersLost(f"the cluster has cancelled the tasks: {_RESUMES}")
    if isinstance(error, psycopg.Error):
        return error
    return WorkersLost(
        f"processes that ran a task died {_TRIES} times in a row ({in_words(error)}), as where the system kills them "
        f"for their memory: {_RESUMES}, better with fewer processes"
    )
