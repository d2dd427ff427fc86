"""What the demo's shop does: a queue for each function, on all three kinds of executor."""

from __future__ import annotations

import asyncio
import hashlib
import random
import time
from typing import NamedTuple

from chancy import Chancy, Job, Queue, job
from chancy.plugins.workflow import Workflow

from .app import metrics

_RETRY_SOON = {"retry_settings": {"backoff": 0.2, "backoff_jitter": [0, 0.3]}}


def _fail(share: float, error: Exception) -> None:
    if random.random() < share:
        raise error


@job(queue="default")
async def send_mail() -> None:
    await asyncio.sleep(random.uniform(0.005, 0.05))
    _fail(0.02, ConnectionError("the mail server hung up"))


@job(queue="orders")
async def take_order() -> None:
    """Record what the shop itself wants to know."""
    _fail(0.02, LookupError("sold out"))
    await metrics.increment_counter("shop:orders", 1)
    await metrics.record_gauge("shop:stock", random.randint(0, 500))
    await metrics.record_histogram_value("shop:basket", random.lognormvariate(3, 1), unit="euro")


@job(queue="imports")
async def import_file() -> None:
    """Fail often, for good."""
    await asyncio.sleep(0.02)
    _fail(0.2, ValueError("line 7: not a number"))


@job(queue="payments", max_attempts=3, meta=_RETRY_SOON)
def charge_card(broken: bool = False) -> None:
    """Fail often, always if it is broken, and be tried again twice."""
    time.sleep(random.uniform(0.01, 0.05))
    _fail(float(broken), KeyError("currency"))
    _fail(0.3, ConnectionError("the bank did not answer"))


@job(queue="reports")
def build_report() -> None:
    """Be slow."""
    time.sleep(random.uniform(0.8, 1.6))
    _fail(0.1, MemoryError("too many rows"))


@job(queue="images")
def resize_image() -> None:
    """Keep a processor busy for a few milliseconds."""
    hashlib.pbkdf2_hmac("sha256", b"an image", b"salt", 10_000)
    _fail(0.02, ValueError("not a picture"))


class Kind(NamedTuple):
    """One function's jobs, the queue that they alone use, and how many are pushed a second."""

    job: Job
    queue: Queue
    per_s: int

    @property
    def name(self) -> str:
        return self.job.func.rpartition(".")[2]


def _queue(name: str, executor: str, concurrency: int) -> Queue:
    # Eager: where few jobs run at once, a queue that only looks each second can't keep up.
    return Queue(name, executor=executor, concurrency=concurrency, polling_interval=1, eager_polling=concurrency < 10)


#: With retries and workflows about 170 updates a second, which two cores bear easily.
KINDS = (
    Kind(send_mail.job, _queue("default", Chancy.Executor.Async, 30), 70),
    Kind(take_order.job, _queue("orders", Chancy.Executor.Async, 20), 25),
    Kind(import_file.job, _queue("imports", Chancy.Executor.Async, 10), 15),
    Kind(charge_card.job, _queue("payments", Chancy.Executor.Threaded, 8), 25),
    Kind(build_report.job, _queue("reports", Chancy.Executor.Threaded, 4), 1),
    Kind(resize_image.job, _queue("images", Chancy.Executor.Process, 2), 12),
)


def due(since_s: float, until_s: float, *, broken: bool = False) -> list[Job]:
    """The jobs to push between two moments, in seconds since the demo began; payments may be *broken*."""
    return [
        kind.job.with_kwargs(broken=True) if broken and kind.name == "charge_card" else kind.job
        for kind in KINDS
        for _ in range(int(kind.per_s * since_s), int(kind.per_s * until_s))
    ]


def checkout() -> Workflow:
    """An order, then its payment and its picture, then a mail."""
    return (
        Workflow("checkout")
        .add("order", take_order)
        .add_group([("pay", charge_card), ("picture", resize_image)], ["order"])
        .add("confirm", send_mail, ["pay", "picture"])
    )
