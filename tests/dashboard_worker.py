"""A worker of `dashboard_app`: ``python -m tests.dashboard_worker ID``."""

from __future__ import annotations

import asyncio
import sys

from chancy import Worker

from tests.dashboard_app import chancy, metrics


async def work(worker_id: str) -> None:
    """Run a worker that soon tells which queues it works on, until it is stopped."""
    async with chancy() as app, Worker(app, worker_id=worker_id, heartbeat_poll_interval=1) as worker:
        pulse = asyncio.create_task(record())
        await worker.wait_for_shutdown()
        pulse.cancel()


async def record() -> None:
    """Record something of each kind all the time, so that every bucket there is has some."""
    while True:
        await metrics.increment_counter("app:mails", 1)
        await metrics.record_gauge("app:outbox", 4, unit="mails")
        await metrics.record_histogram_value("app:size", 20.5, unit="bytes")
        await asyncio.sleep(0.2)


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
