"""Decide which buffer direct calls go to: a worker's, a block's, the unclaimed one; refuse them in a forked child.

Open and close the blocks of `recording()`. In a child process nothing would append what is recorded.
"""

from __future__ import annotations

import atexit
import logging
import socket
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from typing import Generic, Protocol, TypeVar

from chancy import Chancy, Worker

from chancy_metrics.events.errors import InvalidObservation, NotRecording, PluginShared, SequenceConflict
from chancy_metrics.events.facts import Kind
from chancy_metrics.plugin.host.connection import DatabaseClock
from chancy_metrics.plugin.host.options import Options
from chancy_metrics.plugin.host.throttled_log import RateLimited
from chancy_metrics.plugin.recording.append_thread import SyncBlock
from chancy_metrics.plugin.recording.block import Block, appending, make_block
from chancy_metrics.plugin.recording.buffer import IN_FORKED_CHILD, Buffer
from chancy_metrics.plugin.recording.recorder import Recorder
from chancy_metrics.plugin.recording.session_row import listed

#: Records one observation: kind, key, value, unit.
Record = Callable[[Kind, object, object, object], None]


class WorkerSession(Protocol):
    """The part of a worker's session that is asked for here.

    Attributes:
        runs: Whether its loops run, so that its buffer is appended.
        is_over: Whether its app was closed or its event loop has ended, whether or not it was stopped.
    """

    chancy: Chancy
    buffer: Buffer
    recorder: Recorder
    runs: bool

    @property
    def is_over(self) -> bool: ...


Session = TypeVar("Session", bound=WorkerSession)


class Router(Generic[Session]):
    """Routes the direct calls of one plugin.

    Args:
        use: Called with the function that records a direct call, at once and whenever it changes: so the call itself
            does not pay for the routing.

    Attributes:
        sessions: Of the workers that were started and not stopped, in the order of their start.
    """

    def __init__(self, options: Options, clock: DatabaseClock, use: Callable[[Record], None]) -> None:
        self.sessions: dict[Worker, Session] = {}
        self._options = options
        self._clock = clock
        self._use = use
        self._unclaimed = self.new_buffer()
        self._unclaimed_recorder: Recorder | None = None  # keeps its producer between attempts of flush()
        self._blocks: list[Block] = []
        self._claiming = threading.Lock()
        self._warned_unclaimed = False
        self._forked = False
        self._warnings: RateLimited | None = None
        self.route()

    def route(self) -> None:
        """Route direct calls to the first worker that runs, to the first one, or to the first block.

        A worker whose start has failed is still among them, and its buffer is not appended.
        """
        buffers = [session.buffer for session in sorted(self.sessions.values(), key=lambda session: not session.runs)]
        buffers += [block.recorder.buffer for block in self._blocks]
        self._use(buffers[0].record if buffers else self._record_unclaimed)

    def add(self, worker: Worker, make: Callable[[Buffer], Session]) -> Session:
        """Make the session of *worker* with a buffer of its own."""
        session = self.sessions[worker] = make(self._claim())
        self.route()
        return session

    def remove(self, worker: Worker) -> Session | None:
        """Take the session of *worker* out, if there is one, and return it."""
        session = self.sessions.pop(worker, None)
        if session is not None:
            self.route()
        return session

    def refuse_other_apps(self, chancy: Chancy) -> None:
        """Let one app record at a time: direct calls name none, so all of them go to one.

        An app that was closed, or whose event loop has ended, does not count, and its sessions are removed: after a
        start that failed, the next attempt may come with a new app.

        Raises:
            PluginShared: Another app records.
        """
        for worker, session in list(self.sessions.items()):
            if session.is_over and session.chancy is not chancy:
                self.remove(worker)
        recording = [session.chancy for session in self.sessions.values()] + [block.chancy for block in self._blocks]
        for other in recording:
            if other is not chancy:
                raise PluginShared(
                    f"this Metrics records for another Chancy app already (prefix {other.prefix!r}), and what is "
                    "recorded directly can go to one of them only: give each app a Metrics of its own, or stop the "
                    "other one before"
                )

    @asynccontextmanager
    async def recording(self, chancy: Chancy, worker_id: str | None) -> AsyncIterator[None]:
        """Append what is recorded inside the block, by a task of the running event loop."""
        self.refuse_other_apps(chancy)
        async with appending(self._open_block(chancy, worker_id), self._close_block):
            yield

    def sync_recording(self, chancy: Chancy, worker_id: str | None) -> AbstractContextManager[None]:
        """Append what is recorded inside the block, by a thread."""
        return SyncBlock(lambda: self._open_sync(chancy, worker_id), self._close_sync)

    async def flush(self, chancy: Chancy) -> None:
        """Append all that is buffered: of sessions, of blocks, and what was recorded before there was any.

        Raises:
            psycopg.Error: What prevented it; the rest is kept.
        """
        flushes: list[Callable[[], Awaitable[None]]] = [
            partial(session.recorder.flush, session.chancy) for session in self.sessions.values()
        ]
        flushes += [block.flush for block in self._blocks]
        for flush in flushes:
            try:
                await flush()
            except SequenceConflict:  # the recorder is a new producer now
                await flush()
        if not flushes or self._unclaimed_recorder is not None:
            await self._flush_unclaimed(chancy)

    def new_buffer(self) -> Buffer:
        return Buffer(self._options.max_buffered_points, self._reject)

    def warn(self, chancy: Chancy | None, kind: str, message: str) -> None:
        if self._warnings is None:
            self._warnings = RateLimited(chancy.log if chancy is not None else logging.getLogger("chancy"))
        self._warnings.warn(kind, message)

    def forget_parent(self) -> None:
        """Start anew in a forked child: what is buffered and which sequences are used up are the parent's.

        Nothing here, nor what is called here until something is opened in the child, may import, log or lock: a thread
        of the parent may have held that lock at the fork, and it is never released in the child.
        """
        keep_in_child(dict(vars(self)))
        self._unclaimed.disown()
        for session in self.sessions.values():
            session.buffer.disown()
        for block in self._blocks:
            block.recorder.buffer.disown()
        self._forked = True
        self.sessions, self._blocks, self._claiming = {}, [], threading.Lock()
        self._unclaimed, self._unclaimed_recorder = self.new_buffer(), None
        self._warned_unclaimed, self._warnings = False, None
        self.route()

    def _claim(self) -> Buffer:
        """Hand out a buffer: the first one is the buffer of what was recorded before it could be appended."""
        if self.sessions or self._blocks:
            return self.new_buffer()
        claimed, self._unclaimed = self._unclaimed, self.new_buffer()
        return claimed

    def _record_unclaimed(self, kind: Kind, key: object, value: object, unit: object) -> None:
        """Keep an observation for the session or block to come, and warn once.

        Raises:
            NotRecording: In a child process, where none will come.
        """
        if self._forked:  # nothing may be imported, logged or locked here: see forget_parent
            raise NotRecording(IN_FORKED_CHILD)
        if _is_child():
            raise NotRecording(
                "this is a child process, where nobody appends metrics: record with sync_record_in_transaction(), "
                "or inside `with metrics.sync_recording(chancy)` or `async with metrics.recording(chancy)`"
            )
        if not self._warned_unclaimed:
            self._warned_unclaimed = True
            atexit.register(_log_unclaimed, weakref.ref(self))
            self.warn(
                None,
                "unclaimed",
                "metrics: nobody appends what is recorded in this process: run a worker, or record inside `with "
                "metrics.sync_recording(chancy)` or `async with metrics.recording(chancy)`; until then it is only kept "
                "in memory",
            )
        self._unclaimed.record(kind, key, value, unit)

    def _reject(self, error: InvalidObservation) -> None:
        if self._options.strict:
            raise error
        self.warn(None, "invalid", f"metrics: rejected an observation: {error}")

    def _open_block(self, chancy: Chancy, worker_id: str | None, *, threaded: bool = False) -> Block:
        with self._claiming:  # threads open blocks too
            block = make_block(
                chancy,
                worker_id,
                self._claim(),
                self._clock,
                interval_s=self._options.append_interval,
                threaded=threaded,
                forked=self._forked,
            )
            self._blocks.append(block)
            self.route()
        return block

    def _close_block(self, block: Block) -> None:
        with self._claiming:
            self._blocks.remove(block)
            self.route()

    def _open_sync(self, chancy: Chancy, worker_id: str | None) -> Block:
        self.refuse_other_apps(chancy)
        block = self._open_block(chancy, worker_id, threaded=True)
        assert block.thread is not None
        block.thread.start()
        return block

    def _close_sync(self, block: Block) -> None:
        if not block.is_inherited:  # a child that was forked inside leaves the block to its parent
            assert block.thread is not None
            self._close_block(block)
            block.thread.stop()

    async def _flush_unclaimed(self, chancy: Chancy) -> None:
        """Append what was recorded before there was a session or block; after a failure the next call goes on."""
        if self._unclaimed_recorder is None and len(self._unclaimed):
            self._unclaimed_recorder = Recorder(socket.gethostname(), self._unclaimed, self._clock, chancy.log)
        if self._unclaimed_recorder is not None:
            await self._unclaimed_recorder.close(chancy)
            self._unclaimed_recorder = None


#: What forked children have of their parents. To drop it would run what must not run in a child: an unfinished task
#: logs when it goes, an open connection warns.
_of_parents: list[object] = []


def keep_in_child(state: object) -> None:
    """Keep *state* of a parent for as long as this forked child lives, so that nothing in it is finalised."""
    _of_parents.append(state)


def _log_unclaimed(reference: weakref.ref[Router[Session]]) -> None:
    """At the interpreter's exit: log what was recorded and never appended."""
    router = reference()
    if router is not None and (held := router._unclaimed.held()):
        log = logging.getLogger("chancy")
        log.error("metrics: lost at the end of this process, in which nobody appended them: %s", listed(held))


def _is_child() -> bool:
    """Whether `multiprocessing` has started this process: then that module is loaded."""
    process = sys.modules.get("multiprocessing.process")
    return process is not None and process.parent_process() is not None
