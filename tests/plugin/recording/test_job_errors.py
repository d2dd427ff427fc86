"""Jobs that fail in every way, on real executors: each with its error type wherever events are shown."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import anyio
import pytest
from chancy import Chancy, Job, Queue, Worker
from click.testing import CliRunner

from chancy_metrics.events.database import Connection
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.cli.main import main
from chancy_metrics.plugin.recording.job_error import job_error
from tests import failing_jobs
from tests.factories import eventually, now_us
from tests.plugin.audit.test_explain import moment
from tests.plugin.http.test_routes import asking, get

#: Queue, and the error of each job on it.
EXECUTORS = {
    Chancy.Executor.Async: failing_jobs.ASYNC,
    Chancy.Executor.Threaded: failing_jobs.THREADED,
    Chancy.Executor.Process: failing_jobs.PROCESS,
}


@pytest.mark.slow
async def test_each_failing_job_shows_its_error_type_on_every_surface(
    dsn: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DSN", dsn)
    expected = {(kind.name, func): error for kind, errors in EXECUTORS.items() for func, error in errors.items()}

    metrics = Metrics()
    async with Chancy(dsn, plugins=[metrics]) as chancy:
        for kind in EXECUTORS:
            # One at a time: a killed child takes the other jobs of its pool with it.
            await chancy.declare(Queue(kind.name, concurrency=1, executor=kind, eager_polling=True))
        async with Worker(chancy, register_signal_handlers=False) as worker:
            for queue, func in expected:
                limits = [failing_jobs.LIMIT] if func in failing_jobs.LIMITED else []
                await chancy.push(Job(func=func, queue=queue, limits=limits))
            await eventually(lambda: _all_failed(connection, len(expected)), within_s=60)
            await worker.flush()
        await metrics.flush(chancy)
        found = await explain(chancy, "global:status:failed", moment(now_us()), resolution="1day")

    lines = await anyio.to_thread.run_sync(_audit_events)
    assert {(line["queue"], line["func"]): line["error"] for line in lines} == expected
    assert dict(found.by_error) == Counter(expected.values())
    async with asking(dsn) as client:
        shown = (await get(client, "events", limit=500, kind="job"))["events"]
    assert {(event["queue"], event["func"]): event["error"] for event in shown} == expected


async def _all_failed(connection: Connection, how_many: int) -> bool:
    cursor = await connection.execute("SELECT count(*) FROM chancy_jobs WHERE state = 'failed'")
    return await cursor.fetchone() == (how_many,)


def _audit_events() -> list[dict[str, Any]]:
    done = CliRunner().invoke(main, ["--app", "tests.app.chancy", "audit", "events", "--json", "--limit", "1000"])
    return [event for event in map(json.loads, done.stdout.splitlines()) if event["kind"] == "job"]


def in_sub_interpreter(
    line: str, *, wrapper: str = "concurrent.interpreters.ExecutionFailed", sent: bool = True
) -> str:
    """The text of a sub-interpreter's job, as Python 3.13 with the backport and 3.14 make it."""
    futures = "/usr/lib/python3.14/concurrent/futures"
    stack = "Traceback (most recent call last):\n"
    run = f'  File "{futures}/interpreter.py", line 86, in run\n    raise exc from wrapper\n'
    thread = f'  File "{futures}/thread.py", line 86, in run\n    result = ctx.run(self.task)\n'
    quoted = f'{stack}  File "/app/jobs.py", line 1, in job\n    work()\n{line}'
    wrapped = f"{run}{wrapper}: {line}\n\nUncaught in the interpreter:\n\n{quoted}\n"
    if not sent:
        return stack + thread + wrapped
    cause = "\nThe above exception was the direct cause of the following exception:\n\n"
    return f"{stack}{wrapped}{cause}{stack}{thread}{run}{line}\n"


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize(
    "wrapper",
    [
        "concurrent.interpreters.ExecutionFailed",
        "interpreters_backport.concurrent.futures.interpreter.ExecutionFailed",
    ],
)
@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("ValueError: x", "ValueError"),
        ("jobs.Custom: KeyError: no\nTraceback (most recent call last):\nOSError: no", "jobs.Custom"),
        (f"ValueError: {failing_jobs.LOOKS_LIKE_A_CHAIN}", "ValueError"),
        ("asyncio.exceptions.CancelledError", "asyncio.exceptions.CancelledError"),
    ],
)
def test_a_job_of_a_sub_interpreter_shows_what_it_raised_and_not_its_wrapper(
    line: str, error: str, wrapper: str, sent: bool
) -> None:
    assert job_error(in_sub_interpreter(line, wrapper=wrapper, sent=sent), with_message=False) == error
