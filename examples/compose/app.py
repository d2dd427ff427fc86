"""A shop's app: what the services of compose.yaml run."""

from __future__ import annotations

import asyncio
import os
import random

from chancy import Chancy, job
from chancy.plugins.api import Api, SimpleAuthBackend
from chancy.plugins.retry import RetryPlugin

from chancy_metrics.plugin import Metrics

metrics = Metrics(sync_interval=10)
retry = RetryPlugin()  # type: ignore[no-untyped-call] # Chancy does not annotate it
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics, retry])


def dashboard() -> Chancy:
    """The same app with Chancy's API server, on which the pages are: only the service `dashboard` runs it."""
    users = SimpleAuthBackend({"admin": os.environ["DASHBOARD_PASSWORD"]})
    return Chancy(chancy.dsn, plugins=[metrics, retry, Api(authentication_backend=users)])


@job(queue="mail", max_attempts=3)
async def send_receipt(*, order: int) -> None:
    """Send a receipt; one in ten attempts fails."""
    await asyncio.sleep(random.uniform(0.01, 0.2))
    if random.random() < 0.1:
        raise ConnectionError("the mail server did not answer")
    await metrics.increment_counter("shop:receipts", 1)


def push(jobs: int) -> None:
    """Push that many jobs."""
    with chancy:
        for order in range(jobs):
            chancy.sync_push(send_receipt.job.with_kwargs(order=order))
