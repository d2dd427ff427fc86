"""Measure import time and peak memory of a worker process that only records, against one with the built-in plugin.

It records 40 observations, and flushes 20 jobs.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

from chancy_metrics.plugin import Metrics

from .database import Databases, an_app
from .harness import Row, Size, Target, Turn, at_most, best, by_turns, check

_MS = 1_000
# A program of its own, since this module has imported what is to be measured.
_PROGRAM = """
import time
began = time.perf_counter()
from chancy import Chancy, Worker
from {module} import Metrics
metrics = Metrics()
imported = time.perf_counter() - began

import asyncio, json, logging, resource, sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from chancy import Job, Queue, QueuedJob

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss begins with what the process was before it became this program
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac

async def work(dsn):
    queue = Queue("bench")
    async with Chancy(dsn, plugins=[metrics], no_default_plugins=True, log=logging.getLogger("bench")) as chancy:
        async with Worker(chancy, register_signal_handlers=False) as worker:
            for number in range(40):
                await metrics.increment_counter(f"app:{{number % 5}}", 1)
            async for _ in chancy.push_many([Job(func="app.work", queue=queue.name)] * 20):
                pass
            async with chancy.pool.connection() as connection:
                claimed = await worker.fetch_jobs(queue, connection, up_to=20)
            for job in claimed:
                done = replace(job, state=QueuedJob.State.SUCCEEDED, completed_at=datetime.now(UTC))
                await worker.queue_update(done)
            await worker.flush()
            await asyncio.sleep(1.5)  # the next append has begun and ended
            return len(claimed), peak()

jobs, memory = asyncio.run(work(sys.argv[1]))
print(json.dumps({{"imported": imported, "memory": memory, "jobs": jobs, "numpy": "numpy" in sys.modules}}))
"""
_MODULES = {"ours": "chancy_metrics.plugin", "built-in": "chancy.plugins.metrics"}


async def run(pool: Databases, size: Size) -> list[Row]:
    memory: dict[str, list[float]] = {name: [] for name in _MODULES}
    with pool.database() as dsn:
        await _make_first_numbers(dsn)
        turns = {name: _started(module, dsn, memory[name]) for name, module in _MODULES.items()}
        imported = best(await by_turns(size.of(10, 1), turns))
    used = best(memory)
    return [
        Row(
            "start",
            "import of Chancy and the plugin",
            imported["ours"] * _MS,
            "ms",
            "min",
            imported["built-in"] * _MS,
            "built-in",
            at_most(1.3),
        ),
        Row(
            "start",
            "peak memory of a worker that records",
            used["ours"] / 2**20,
            "MB",
            "min",
            used["built-in"] / 2**20,
            "built-in",
            Target("difference", "<=", 6, "<= +6 MB"),
        ),
    ]


async def _make_first_numbers(dsn: str) -> None:
    """Where there are none yet, any worker folds as soon as it can; this is about one that only records."""
    metrics = Metrics()
    async with an_app(dsn, metrics) as chancy:
        await metrics.increment_counter("app:0", 1)
        await metrics.flush(chancy)


def _started(module: str, dsn: str, memory: list[float]) -> Turn:
    async def turn() -> float:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM.format(module=module), dsn, stdout=PIPE
        )
        output, _ = await process.communicate()
        check("exit of the worker's process", process.returncode, 0)
        told = json.loads(output)
        check("jobs done", told["jobs"], 20)
        check("whether numpy was loaded", told["numpy"], False)
        memory.append(told["memory"])
        return float(told["imported"])

    return turn
