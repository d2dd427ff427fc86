"""A FastAPI app that runs a worker beside its handlers, records in them, and shows the numbers."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from chancy import Chancy, Queue, Worker, job
from fastapi import FastAPI

from chancy_metrics.plugin import Metrics

metrics = Metrics(sync_interval=1)
chancy = Chancy(os.environ["DATABASE_URL"], plugins=[metrics])


@job(queue="mail")
async def send_receipt(*, order: int) -> None:
    """Send a receipt: what a real app would do here."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with chancy:
        await chancy.migrate()
        await chancy.declare(Queue("mail", concurrency=5))
        # uvicorn handles the signals, and stops this worker at the end of the block.
        async with Worker(chancy, register_signal_handlers=False):
            yield


app = FastAPI(lifespan=lifespan)


@app.post("/orders/{order}")
async def place(order: int) -> dict[str, int]:
    await metrics.increment_counter("shop:orders", 1)
    await chancy.push(send_receipt.job.with_kwargs(order=order))
    return {"order": order}


@app.get("/numbers/{prefix}")
async def numbers(prefix: str) -> dict[str, list[tuple[datetime, Any]]]:
    """Each metric below *prefix*, by minute, newest first."""
    return {key: metric.values_1min for key, metric in (await metrics.get_metrics(chancy, prefix)).items()}
