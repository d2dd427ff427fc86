"""A small application whose dashboard has something on every page; its database comes from the environment."""

from __future__ import annotations

import asyncio
import os

from chancy import Chancy, Queue, job
from chancy.plugins.api import Api, SimpleAuthBackend
from chancy.plugins.leadership import ImmediateLeadership
from chancy.plugins.retry import RetryPlugin
from chancy.plugins.workflow import Workflow, WorkflowPlugin

from chancy_metrics.plugin import Metrics

USER, PASSWORD = "ann", "secret"
#: Every worker works on a queue of this name; ours runs its jobs in the event loop.
QUEUE = Queue("default", executor=Chancy.Executor.Async, concurrency=20, polling_interval=1)

metrics = Metrics(sync_interval=0.5, append_interval=0.2, collection_interval=1)


def chancy(dsn: str | None = None) -> Chancy:
    return Chancy(
        dsn or os.environ["DSN"],
        plugins=[
            metrics,
            ImmediateLeadership(),
            RetryPlugin(),  # type: ignore[no-untyped-call]  # Chancy does not annotate it
            WorkflowPlugin(polling_interval=1),
            Api(port=0, authentication_backend=SimpleAuthBackend({USER: PASSWORD})),
        ],
    )


@job(queue="default")
async def send() -> None:
    await asyncio.sleep(0.01)


@job(queue="default")
async def bounce() -> None:
    raise ValueError("no such address")


@job(queue="default", max_attempts=2, meta={"retry_settings": {"backoff": 0.1, "backoff_jitter": [0, 0.1]}})
async def defer() -> None:
    raise ConnectionError("the server did not answer")


def campaign(*, fails: bool) -> Workflow:
    return Workflow("campaign").add("first", send).add("second", bounce if fails else send, ["first"])
