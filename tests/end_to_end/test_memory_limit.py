"""Steps are bounded by bytes: a process with little memory gets through a log of large batches."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any
from uuid import UUID

import msgspec

from chancy_metrics.events.database import Connection
from chancy_metrics.events.kept_meta import encode_meta
from chancy_metrics.events.schema import Tables
from tests.factories import LogWriter, a_row, fetch, now_us
from tests.processes import ROOT
from tests.within_memory import MARK

#: A log of 180 MB, as before kept meta had a limit. Each command needs three to four times what it reads at once.
BATCHES, JOBS, META_BYTES = 60, 10, 300_000
MORE_BYTES = 256 << 20
EXPLAIN = "explain:global:status:succeeded"


def within_memory(dsn: str, *commands: str, more: int) -> list[Any]:
    """Run each of *commands* in a process with so much memory, and return what they came to."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.within_memory", dsn, str(more), *commands],
        cwd=ROOT,
        # What a thread's own heap reserves is address space, too, and what pyarrow's allocator does.
        env=os.environ | {"MALLOC_ARENA_MAX": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    lines = process.stdout.decode().splitlines()
    return [msgspec.json.decode(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


async def test_a_log_of_large_batches_is_read_in_little_memory(
    dsn: str, tables: Tables, connection: Connection
) -> None:
    kept = encode_meta({"html": "x" * META_BYTES})
    at_us = now_us()
    writer = LogWriter(connection, tables)
    rows = [a_row(at_us, meta=kept) for _ in range(JOBS)]
    for _ in range(BATCHES):
        await writer.append(jobs=rows)

    commands = ("fold", "rebuild", "verify", "check", "list", f"job:{UUID(bytes=rows[0].job_id)}", EXPLAIN, "export")
    came_to = within_memory(dsn, *commands, "json", "parquet", "summarise", EXPLAIN, more=MORE_BYTES)

    assert [one.get("error", "") for one in came_to] == [""] * len(came_to)
    folded, made, verified, checked, listed, life, explained, exported, lines, written, summaries, again = (
        one["done"] for one in came_to
    )
    events = BATCHES * JOBS
    assert (folded["events"], made["events"], made["different"]) == (events, events, 0)
    assert (verified, checked) == ([], [])
    assert (listed, life, exported, written) == ([events, []], BATCHES, events, events)
    assert lines > events * META_BYTES
    assert explained.startswith(f"{events} events in the log; recomputed: equal") and again == explained
    assert summaries > 1

    large = encode_meta({"html": "x" * (1 << 20)})
    await writer.append(jobs=[a_row(at_us, meta=large) for _ in range(60)])
    await writer.append(jobs=[a_row(at_us)])
    (folded,) = within_memory(dsn, "fold", more=100 << 20)

    assert folded["done"]["events"] == 2  # that one, and what `verify` recorded
    ((position, error),) = await fetch(connection, "SELECT position, error FROM {dead_letters}", tables)
    assert position == folded["done"]["position"] - 1
    assert error.startswith("too little memory for its 60 events of 62,9")
