"""Write the skip index: a summary of each full range of new ledger positions, with a Bloom filter of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from anyio import to_thread

from chancy_metrics.events.batch import DecodedBatch, LogBatch
from chancy_metrics.events.bloom import make_filter
from chancy_metrics.events.codec import decode_batch
from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import DamagedBatch, UnknownCodec
from chancy_metrics.events.ledger import LedgerRow, read_ledger
from chancy_metrics.events.log import read_batches
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.skip_index import Summary, forget_summaries, last_summarised, write_summary
from chancy_metrics.projections.rules.built_in import job_series
from chancy_metrics.projections.search.query import UNINDEXED, names_of, text_token

#: A range ends with the batch that reaches one of these.
RANGE_EVENTS = 10_000
RANGE_BYTES = 32 << 20
RANGE_BATCHES = 512
#: Ranges that one call writes at most, and summaries that one call deletes.
RANGES = 200


async def summarise(connection: Connection, tables: Tables, *, limit: int = RANGES) -> int:
    """Summarise up to *limit* full ranges past the last summary, and delete summaries of pruned days.

    Each range is read in one short transaction and written in another. Concurrent calls are safe: the second write
    of a range does nothing.

    Args:
        connection: An autocommit one outside a transaction.

    Returns:
        How many ranges were written; fewer than *limit* when caught up.
    """
    written = 0
    while written < limit:
        async with short_transaction(connection, index_only=True) as cursor:
            rows = _full_range(
                await read_ledger(cursor, tables, after=await last_summarised(cursor, tables), limit=RANGE_BATCHES)
            )
            # Before the batches: if a day leaves meanwhile, some are missing, and the summary stays empty.
            gone = await gone_days(cursor, tables)
            kept = [row for row in rows if row.batch_id.day not in gone]
            batches = await read_batches(cursor, tables, [(row.position, row.batch_id) for row in kept])
        if not rows:
            break
        summary = await to_thread.run_sync(describe, rows, batches, len(batches) == len(kept))
        async with short_transaction(connection) as cursor:
            if not await write_summary(cursor, tables, summary):
                break
        written += 1
    async with short_transaction(connection) as cursor:
        await forget_summaries(cursor, tables, chunk=RANGES)
    return written


def describe(rows: Sequence[LedgerRow], batches: Sequence[LogBatch], complete: bool = True) -> Summary:
    """Summarise a range of the ledger.

    Args:
        batches: The batches of *rows* that are still in the log.
        complete: Whether none is lost. If one is, or can't be decoded, the summary has no times and no filter, so
            searches read the range.
    """
    tokens: set[bytes] = set()
    first_us: list[int] = []
    last_us: list[int] = []
    for batch in batches:
        try:
            decoded = decode_batch(batch)
        except (DamagedBatch, UnknownCodec):
            complete = False
            break
        for columns in (decoded.jobs, decoded.observations):
            if columns is not None:
                at_us = np.minimum(columns.at_us, batch.appended_us)
                first_us.append(int(at_us.min()))
                last_us.append(int(at_us.max()))
        tokens |= tokens_of(batch, decoded)
    return Summary(
        rows[0].position,
        rows[-1].position,
        max(row.batch_id.day for row in rows),
        min(first_us, default=None) if complete else None,
        max(last_us, default=None) if complete else None,
        sum(batch.events for batch in batches),
        make_filter(tokens) if complete else None,
    )


def tokens_of(batch: LogBatch, decoded: DecodedBatch) -> set[bytes]:
    """Return the search tokens of a batch's events; its job ids are one value, 16 bytes each."""
    found = {text_token("worker", batch.worker), text_token("producer", str(batch.producer))}
    if decoded.jobs is not None:
        found |= {decoded.jobs.ids, text_token("kind", "job")}
        found = found.union(*{_job_tokens(*combo[:3]) for combo in decoded.jobs.combos})
        for error in {combo.error for combo in decoded.jobs.combos}:
            found |= {text_token("error", name) for name in names_of(error)}
    if decoded.observations is not None:
        for key, kind, _ in decoded.observations.series:
            found.add(text_token("kind", kind))
            found |= _key_tokens(key)
    return found


@lru_cache(maxsize=10_000)
def _job_tokens(func: str, queue: str, state: str) -> frozenset[bytes]:
    """Tokens of updates of jobs of *func* on *queue*, and of the keys they feed."""
    own = {text_token("func", func), text_token("queue", queue), text_token("state", state)}
    keys = [series.key for series in job_series(func, queue, state) if not series.key.endswith(UNINDEXED)]
    return frozenset(own.union(*map(_key_tokens, keys)))


@lru_cache(maxsize=10_000)
def _key_tokens(key: str) -> frozenset[bytes]:
    return frozenset(text_token("key", prefix) for prefix in prefixes_of(key))


def prefixes_of(key: str) -> list[str]:
    """Return *key* and each part of it that ends before a colon."""
    ends = [colon for colon, letter in enumerate(key) if letter == ":"]
    return [key, *(key[:end] for end in ends if end)]


def _full_range(rows: list[LedgerRow]) -> list[LedgerRow]:
    """Cut a full range from the front of *rows*; [] if they do not fill one yet."""
    events = size = 0
    for number, row in enumerate(rows, 1):
        events += row.events
        size += row.size_bytes
        if events >= RANGE_EVENTS or size >= RANGE_BYTES or number == RANGE_BATCHES:
            return rows[:number]
    return []
