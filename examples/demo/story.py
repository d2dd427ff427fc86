"""The demo's course: prepare, work, ship a bad release, lose a worker, rebuild, drain, stop, fold, prove."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

from chancy import Chancy
from chancy.plugins.workflow import WorkflowPlugin
from psycopg import AsyncConnection
from rich.console import Console

from chancy_metrics.events.database import Connection
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.plugin import mark

from . import jobs, proof
from .app import chancy
from .browser import HOST, Browser
from .processes import Processes, ProcessFailed
from .pulse import Monitor
from .rebuilding import EVERY_S, Rebuild, rebuild, rebuild_verdict
from .view import View

FINE, DIFFERENT = 0, 3

_TICK_S = 0.25
_WORKFLOW_EVERY_S = 2
_START_S = 30
_DRAIN_S = 20
#: When what happens, as a share of the time that jobs are pushed.
_DEPLOY, _ROLL_BACK, _KILL, _REBUILD = 0.25, 0.4, 0.5, 0.65


class Options(NamedTuple):
    """What the command line chose."""

    seconds: int
    port: int
    stay: bool
    minimum: int
    tamper: bool


async def tell(options: Options, processes: Processes, console: Console) -> int:
    """Run the demo on an empty database and return its exit code."""
    async with chancy() as app, await AsyncConnection.connect(app.dsn, autocommit=True) as connection:
        with View(console) as view:
            story = _Story(options, processes, app, connection, tables_for(app.prefix), view)
            await story.prepare()
            await story.work()
            await story.finish()
        held = await story.prove(console)
        if not options.stay:
            console.print("\nTo look around afterwards: make demo ARGS=--stay", highlight=False)
        else:
            console.print(f"\n{story.addresses()}\nAll of them stay until Ctrl-C.", highlight=False, soft_wrap=True)
            with contextlib.suppress(asyncio.CancelledError):  # that is the way out, and no failure
                await asyncio.Event().wait()
        return FINE if held else DIFFERENT


@dataclass
class _Story:
    options: Options
    processes: Processes
    app: Chancy
    connection: Connection
    tables: Tables
    view: View

    def __post_init__(self) -> None:
        self._monitor = Monitor(self.app, self.connection, self.tables)
        self._began = time.monotonic()
        self._workers: list[str] = []
        self._broken = False
        self._rebuilding: asyncio.Task[Rebuild] | None = None
        self._rebuild: Rebuild | None = None

    async def prepare(self) -> None:
        """Migrate, declare the queues, let the database keep the truth; then start everybody and wait for them."""
        await self.app.migrate()
        for kind in jobs.KINDS:
            await self.app.declare(kind.queue)
        await proof.install_truth(self.connection)
        self._start_worker("worker-1")
        self._start_worker("worker-2")
        port = str(self.options.port)
        application = "examples.demo.app.dashboard"
        self.processes.start(
            "dashboard", "chancy.cli.cli", "--app", application, "worker", "web", "--host", HOST, "--port", port
        )
        deadline = time.monotonic() + _START_S
        while len(await self.app.get_all_workers()) < 2 or not await _answers(self.options.port):
            self.processes.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"the workers and the dashboard were not ready within {_START_S} s")
            await asyncio.sleep(0.1)
        self.view.say(self.addresses() + "\n")

    async def work(self) -> None:
        """Push jobs all the time; let a bad release fail for a while, lose a worker, rebuild.

        It lasts until the rebuild is done, so that this is under load from its first moment to its last.
        """
        self._began = time.monotonic()
        pushed_s = 0.0
        workflows = 0
        plan = ((_DEPLOY, self._deploy), (_ROLL_BACK, self._roll_back), (_KILL, self._lose_leader))
        happens = deque([*plan, (_REBUILD, self._begin_rebuild)])
        while not self._rebuilt() or self._elapsed_s() < self.options.seconds:
            elapsed_s = self._elapsed_s()
            async for _ in self.app.push_many(jobs.due(pushed_s, elapsed_s, broken=self._broken)):
                pushed_s = elapsed_s
            if elapsed_s > workflows * _WORKFLOW_EVERY_S:
                await WorkflowPlugin.push(self.app, jobs.checkout())
                workflows += 1
            while happens and elapsed_s > happens[0][0] * self.options.seconds:
                await happens.popleft()[1]()
            await self._tick()

    async def finish(self) -> None:
        """Let the workers empty the queues (they take over what the lost one had begun), stop them, fold the rest."""
        self._say("no more jobs are pushed; the workers finish what there is")
        deadline = time.monotonic() + _DRAIN_S
        while await self._unfinished() and time.monotonic() < deadline:
            await self._tick()
        await self.processes.stop(*self._workers)
        await self.processes.run("fold", "chancy_metrics.plugin.cli", "--app", "examples.demo.app.chancy", "fold")
        self.view.show(await self._monitor.take(self._elapsed_s()))

    async def prove(self, console: Console) -> bool:
        """Compare, print the table and the verdict; whether it holds."""
        if self.options.tamper:
            await proof.tamper(self.connection, self.tables)
        cache = await self.processes.run("cache", "examples.demo.cache")
        result = await proof.gather(self.connection, self.tables, cache)
        console.print(proof.render(result))
        for difference in result.differences[:5]:
            console.print(f"replay differs: {difference}", style="red", markup=False, no_wrap=True, overflow="ellipsis")
        assert self._rebuild is not None
        for fault in (*self._rebuild.empty[:5], *self._rebuild.falling[:5]):
            console.print(str(fault), style="red", markup=False, highlight=False)
        verdicts = [
            proof.verdict(result, self.options.minimum),
            rebuild_verdict(self._rebuild, (await proof.read_live(self.connection, self.tables)).version),
        ]
        console.print()
        for held, sentence in verdicts:
            console.print(sentence, style="green" if held else "red", highlight=False, soft_wrap=True)
        return all(held for held, _ in verdicts)

    def addresses(self) -> str:
        """Say where the pages are, and how to get in."""
        user, password = os.environ["DEMO_USER"], os.environ["DEMO_PASSWORD"]
        site = f"http://{HOST}:{self.options.port}"
        return (
            f"Dashboard:   {site}   user {user}   password {password}\n"
            f"Metrics log: {site}/metrics-log\n"
            f"Prometheus:  {site}/metrics-log/prometheus   bearer token {os.environ['DEMO_TOKEN']}"
        )

    def _start_worker(self, name: str) -> None:
        self.processes.start(name, "examples.demo.worker", name)
        self._workers.append(name)

    async def _deploy(self) -> None:
        self._broken = True
        await mark(self.app, "deploy 1.42")
        self._say("deploy 1.42: from here on every charge_card fails")

    async def _roll_back(self) -> None:
        self._broken = False
        await mark(self.app, "back to 1.41")
        self._say("back to 1.41")

    async def _lose_leader(self) -> None:
        """SIGKILL the worker that leads, with its children, and start another."""
        cursor = await self.connection.execute("SELECT worker_id FROM chancy_leader")
        row = await cursor.fetchone()
        lost = row[0] if row else self._workers[0]
        self.processes.kill(lost)
        self._workers.remove(lost)
        self._start_worker("worker-3")
        self._say(f"killed {lost}, the leader, with SIGKILL; started worker-3")

    async def _begin_rebuild(self) -> None:
        """Run it beside everything else."""
        browser = Browser(self.options.port, os.environ["DEMO_USER"], os.environ["DEMO_PASSWORD"])
        self._rebuilding = asyncio.create_task(rebuild(self.processes, browser))
        self._say(f"chancy-metrics rebuild begins; a browser polls the dashboard every {EVERY_S * 1000:.0f} ms")

    def _rebuilt(self) -> bool:
        """Whether that is done, and say so once; raises what it raised."""
        if self._rebuild is None and self._rebuilding is not None and self._rebuilding.done():
            self._rebuild = self._rebuilding.result()
            self._say(f"rebuilt: {self._rebuild}")
        return self._rebuild is not None

    async def _unfinished(self) -> bool:
        cursor = await self.connection.execute(
            """
            SELECT EXISTS (SELECT FROM chancy_jobs WHERE state IN ('pending', 'running', 'retrying'))
                OR EXISTS (SELECT FROM chancy_workflows WHERE state IN ('pending', 'running'))
            """
        )
        row = await cursor.fetchone()
        return bool(row and row[0])

    async def _tick(self) -> None:
        self.processes.check()
        self.view.show(await self._monitor.take(self._elapsed_s()))
        await asyncio.sleep(_TICK_S)

    def _say(self, text: str) -> None:
        self.view.say(f"{self._elapsed_s():4.0f} s   {text}")

    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began


async def _answers(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(HOST, port)
    except OSError:
        return False
    writer.close()
    return True
