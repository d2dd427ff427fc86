"""Commands in so much memory, and what they came to: `python -m tests.within_memory DSN BYTES COMMAND ...`.

The address space is limited to what there is when everything is imported, and so many bytes more.
"""

from __future__ import annotations

import asyncio
import resource
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from anyio import to_thread
from chancy import Chancy

from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin import Metrics
from chancy_metrics.plugin.audit.events import events, job_life, pages
from chancy_metrics.plugin.audit.explain import explain
from chancy_metrics.plugin.audit.seal import check
from chancy_metrics.plugin.folding.projector import fold_all
from chancy_metrics.plugin.health.verify import verify
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.rebuilds.rebuild import rebuild
from chancy_metrics.plugin.transfer.export_log import export_log
from chancy_metrics.plugin.transfer.json_lines import JSON_PAGE_EVENTS, json_lines
from chancy_metrics.plugin.transfer.parquet import PAGE_EVENTS, ParquetFolder
from chancy_metrics.projections.fold.fold import fold  # noqa: F401 # imports numpy
from chancy_metrics.projections.search.indexing import summarise
from chancy_metrics.projections.search.query import EventQuery

#: Before each line that is no log line.
MARK = "came to: "


def limit(more: int) -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + more, used + more))


async def run(chancy: Chancy, metrics: Metrics, command: str) -> Any:
    match command.split(":", 1):
        case ["fold"]:
            return (await fold_all(chancy))._asdict()
        case ["rebuild"]:
            return msgspec.to_builtins(await rebuild(chancy))
        case ["verify"]:
            return msgspec.to_builtins((await verify(chancy)).findings)
        case ["check"]:
            return msgspec.to_builtins((await check(chancy)).findings)
        case ["list"]:
            gaps: list[str] = []
            listed = [event.index async for event in events(chancy, on_gap=lambda gap: gaps.append(str(gap)))]
            return [len(listed), gaps]
        case ["job", job_id]:
            return len((await job_life(chancy, UUID(job_id))).updates)
        case ["explain", key]:
            return (await explain(chancy, key, at=datetime.now(UTC), resolution="1day")).sentence
        case ["export"]:
            with tempfile.TemporaryDirectory() as folder:
                return (await export_log(chancy, Path(folder) / "log")).events
        case ["json"]:
            return sum([len(json_lines(page.found)) async for page in pages(chancy, page_events=JSON_PAGE_EVENTS)])
        case ["parquet"]:
            with tempfile.TemporaryDirectory() as folder, ParquetFolder(Path(folder), EventQuery()) as export:
                async for page in pages(chancy, page_events=PAGE_EVENTS):
                    export.write(page)
                export.finish()
                return export.events
        case ["summarise"]:
            async with own_connection(chancy) as connection:
                return await summarise(connection, tables_for(chancy.prefix))
    raise ValueError(command)


async def main(dsn: str, more: int, commands: list[str]) -> None:
    metrics = Metrics(sync_interval=1)
    async with Chancy(dsn, plugins=[metrics]) as chancy:
        await to_thread.run_sync(int)  # a thread's stack and heap are address space, too
        limit(more)
        for command in commands:
            try:
                done: Any = {"done": await run(chancy, metrics, command)}
            except BaseException as error:
                done = {"error": f"{type(error).__name__}: {error}"}
            print("\n" + MARK + msgspec.json.encode(done, enc_hook=str).decode(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
