"""A worker of one deployment: ``python -m tests.faults.deployed_worker DSN RULES_VERSION [STANDSTILL_S]``."""

from __future__ import annotations

import asyncio
import sys

from chancy import Chancy, Worker
from chancy.plugins.leadership import Leadership

from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.rebuilds import rollout
from tests import rules

RULES = {1: rules.first, 2: rules.second}


async def work(dsn: str, rules_version: int, standstill_s: float = rollout.STANDSTILL_S) -> None:
    """Work until a signal comes."""
    rollout.Rollout.__init__.__kwdefaults__["standstill_s"] = standstill_s
    metrics = Metrics(sync_interval=1, rules=[RULES[rules_version]], rules_version=rules_version)
    leadership = Leadership(poll_interval=1, timeout=4)
    async with Chancy(dsn, plugins=[metrics, leadership]) as chancy:
        worker = Worker(chancy, backoff_initial=0.01)
        worker.send_outgoing_interval = 0.02
        async with worker:
            await worker.wait_for_shutdown()


if __name__ == "__main__":
    asyncio.run(work(sys.argv[1], int(sys.argv[2]), *map(float, sys.argv[3:])))
