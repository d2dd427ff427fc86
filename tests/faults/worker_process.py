"""A worker in a process of its own, to be killed: python -m tests.faults.worker_process DSN SYNC_INTERVAL."""

from __future__ import annotations

import asyncio
import logging
import sys

from chancy import Chancy, Worker
from chancy.plugins.leadership import ImmediateLeadership

from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.recording import job_hook


async def work(dsn: str, sync_interval: float) -> None:
    """Work until a signal comes; every update is saved as soon as it can be."""
    plugins = [Metrics(sync_interval=sync_interval), ImmediateLeadership()]
    async with Chancy(dsn, plugins=plugins, log=logging.getLogger("worker")) as chancy:
        worker = Worker(chancy, backoff_initial=0.01)
        worker.send_outgoing_interval = 0.02
        async with worker:
            await worker.wait_for_shutdown()


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("worker").setLevel(logging.INFO)
    job_hook.MEMORY_WARNING_S = 0  # each line, so that a test can add up what they say
    asyncio.run(work(sys.argv[1], float(sys.argv[2])))
