"""Jobs of the tests' workers, which processes started by them import, too."""

from __future__ import annotations

import asyncio
import random

import psycopg
from chancy import Chancy, job

from chancy_metrics.events.facts import Observation
from chancy_metrics.plugin import Metrics

metrics = Metrics()
done: list[int] = []


class Refused(Exception):
    """What a job of ours fails with."""


@job(queue="load")
async def succeed() -> None:
    await asyncio.sleep(random.random() / 2)  # so that updates come at any time


@job(queue="load")
async def fail() -> None:
    await asyncio.sleep(random.random() / 2)
    raise Refused("on purpose")


@job(queue="load", max_attempts=3)
async def fail_three_times() -> None:
    raise Refused("on purpose")


@job(queue="order")
async def note(*, number: int) -> None:
    done.append(number)


@job(queue="threads")
def record_in_thread() -> None:
    metrics.sync_increment_counter("app:thread", 1)


@job(queue="processes")
def record_in_process() -> None:
    metrics.sync_increment_counter("app:process", 1)


@job(queue="processes")
def record_in_transaction_of_process(*, dsn: str) -> None:
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        metrics.sync_record_in_transaction(Chancy(dsn), cursor, Observation.counter("app:process"))
