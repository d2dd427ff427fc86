"""One worker process: `python -m examples.demo.worker NAME`."""

from __future__ import annotations

import asyncio
import sys

from chancy import Worker

from .app import chancy


async def work(name: str) -> None:
    """Work until SIGTERM; a worker that is silent for four seconds is given up, and its jobs run again."""
    async with (
        chancy() as app,
        Worker(app, worker_id=name, heartbeat_poll_interval=1, heartbeat_timeout=4) as worker,
    ):
        await worker.wait_for_shutdown()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1]))
