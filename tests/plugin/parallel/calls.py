"""What tasks of tests call, in other processes."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from chancy_metrics.events.errors import DamagedBatch
from chancy_metrics.plugin.parallel.executors import process_pool


def echo(number: int) -> bytes:
    return b"%d" % number


def own_id(_: int) -> bytes:
    return b"%d" % os.getpid()


def die(_: int) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


def die_once(task: tuple[str, int]) -> bytes:
    """Die where nobody has died before, of those who know the file."""
    path, number = task
    try:
        Path(path).touch(exist_ok=False)
    except FileExistsError:
        return b"%d" % number
    return die(number)


def fail(number: int) -> bytes:
    raise DamagedBatch(f"is wrong at {number}")


if __name__ == "__main__":  # a parent to be killed: prints the process of its pool, and waits
    with process_pool(1) as pool:
        print(pool.submit(own_id, 0).result().decode(), flush=True)
        sys.stdin.read()
