"""Jobs that fail in every way, for real executors: `ASYNC`, `THREADED` and `PROCESS` name the error of each.

Annotations are evaluated here: Chancy looks for the job's context in them.
"""

import asyncio
import os
import time
from typing import Any

from chancy.job import Limit, QueuedJob

LOOKS_LIKE_A_CHAIN = '''first
KeyError: in the message
"""

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "x.py", line 1, in x
OSError: in the message
  | OSError: in the message'''


class Custom(Exception):
    def __str__(self) -> str:
        return "KeyError: no\nTraceback (most recent call last):\n  File x\nOSError: no"


class NoText(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Unpicklable(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = lambda: None


def plain() -> None:
    raise ValueError("x")


def without_text() -> None:
    raise ValueError


def looks_like_a_chain() -> None:
    raise ValueError(LOOKS_LIKE_A_CHAIN)


def own_text() -> None:
    raise Custom


def text_that_raises() -> None:
    raise NoText


def caused() -> None:
    try:
        looks_like_a_chain()
    except ValueError as error:
        raise RuntimeError("outer") from error


def while_handling() -> None:
    try:
        plain()
    except ValueError:
        raise RuntimeError("outer")  # noqa: B904 # the other way of being chained


def group() -> None:
    raise ExceptionGroup("several", [ValueError("a"), ExceptionGroup("more", [OSError("b")])])


def caused_by_a_group() -> None:
    try:
        group()
    except ExceptionGroup as error:
        raise RuntimeError("outer") from error


def group_with_a_cause() -> None:
    try:
        plain()
    except ValueError as error:
        raise ExceptionGroup("several", [error]) from error


def with_a_note() -> None:
    error = ValueError("x")
    error.add_note("KeyError: in a note\nOSError: in a note")
    raise error


def bad_syntax() -> None:
    compile("a b c", "file.py", "exec")


def cancels_itself() -> None:
    raise asyncio.CancelledError


def too_deep() -> None:
    too_deep()


def exits() -> None:
    raise SystemExit(3)


def cannot_be_sent() -> None:
    raise Unpicklable("x")


def is_killed() -> None:
    time.sleep(0.2)
    os._exit(9)


def too_slow(*, context: QueuedJob) -> None:
    while True:
        time.sleep(0.02)
        context.checkpoint()


async def too_slow_in_a_coroutine() -> None:
    await asyncio.sleep(60)


_BOTH = {
    plain: "ValueError",
    without_text: "ValueError",
    looks_like_a_chain: "ValueError",
    own_text: f"{__name__}.Custom",
    text_that_raises: f"{__name__}.NoText",
    caused: "RuntimeError",
    while_handling: "RuntimeError",
    group: "ExceptionGroup",
    caused_by_a_group: "RuntimeError",
    group_with_a_cause: "ExceptionGroup",
    with_a_note: "ValueError",
    bad_syntax: "SyntaxError",
    cancels_itself: "asyncio.exceptions.CancelledError",
    too_deep: "RecursionError",
}
_MISSING = {"tests.nowhere.at_all": "ModuleNotFoundError", f"{__name__}.missing": "AttributeError"}
_NAMED = {f"{__name__}.{job.__name__}": error for job, error in _BOTH.items()} | _MISSING
_COROUTINES = {f"{__name__}.a_{job.__name__}": error for job, error in _BOTH.items()} | _MISSING

THREADED = _NAMED | {
    f"{__name__}.exits": "SystemExit",
    f"{__name__}.cannot_be_sent": f"{__name__}.Unpicklable",
    f"{__name__}.too_slow": "TimeoutError",
}
PROCESS = THREADED | {
    f"{__name__}.cannot_be_sent": "AttributeError",
    f"{__name__}.is_killed": "concurrent.futures.process.BrokenProcessPool",
}
ASYNC = _COROUTINES | {f"{__name__}.too_slow_in_a_coroutine": "TimeoutError"}
LIMITED = {f"{__name__}.too_slow", f"{__name__}.too_slow_in_a_coroutine"}
LIMIT = Limit(Limit.Type.TIME, 1)


def _as_coroutine(job: Any) -> Any:
    async def coroutine() -> None:
        job()

    return coroutine


for _job in _BOTH:
    globals()[f"a_{_job.__name__}"] = _as_coroutine(_job)
