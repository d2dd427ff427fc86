"""Check ranges of the skip index in tasks: each summary against its batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import aclosing
from itertools import pairwise
from typing import NamedTuple

import msgspec

from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.parallel.source import Source, connected
from chancy_metrics.plugin.parallel.tasks import in_order
from chancy_metrics.projections.findings import Findings, FindingsParts
from chancy_metrics.projections.verify.skip_index import check_summaries

_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(FindingsParts)


class SummariesTask(NamedTuple):
    """Summaries that begin past position *after* and up to *until*.

    Attributes:
        limit: Findings that are kept.
    """

    source: Source
    after: int
    until: int
    limit: int


async def check_summaries_in_tasks(
    executor: Executor, source: Source, ends: Sequence[int], found: Findings, *, limit: int
) -> None:
    """Check the whole skip index; what is found is what one process finds.

    Args:
        ends: Where the ledger is cut: the last position of each range, ascending.
        limit: Findings of a range that are kept.
    """
    bounds = [-(2**63), *ends[:-1], 2**63 - 1]
    ranges = [SummariesTask(source, after, until, limit) for after, until in pairwise(bounds)]
    async with aclosing(in_order(executor, check_range_of_summaries, ranges)) as results:
        async for _, result in results:
            found.add_parts(_decoder.decode(result))


def check_range_of_summaries(task: SummariesTask) -> bytes:
    """Check summaries, in whatever process this is called; return what was found."""
    return _encoder.encode(asyncio.run(_check(task)).to_parts())


async def _check(task: SummariesTask) -> Findings:
    found = Findings(task.limit)
    async with connected(task.source) as connection:
        await check_summaries(connection, tables_for(task.source.prefix), found, after=task.after, until=task.until)
    return found
