"""Fold a range of the ledger in a task: reads it, folds it, and returns the cells as bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from typing import NamedTuple

import msgspec

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import tables_for
from chancy_metrics.plugin.parallel.shared_rules import SharedRules
from chancy_metrics.plugin.parallel.source import Source, connected
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.fold_codec import decode_fold, encode_fold
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.step import REBUILD_STEP_EVENTS, read_range


class FoldTask(NamedTuple):
    """A range to fold, past position *after* and up to *until*, as a version with these rules and horizons would.

    Attributes:
        gone: Days that are in the baseline instead of the log.
    """

    source: Source
    rules: SharedRules
    horizons: Mapping[str, int]
    after: int
    until: int
    gone: frozenset[date]


class Folded(NamedTuple):
    """What a task has folded, up to *position*: before the end of its range where a batch of newer code waits."""

    position: int
    fold: Fold


class _Result(msgspec.Struct, frozen=True, array_like=True):
    position: int
    fold: bytes


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Result)


def fold_range(task: FoldTask) -> bytes:
    """Fold a range, in whatever process this is called; `read_folded` reads what it returns."""
    folded = asyncio.run(_fold(task))
    return _encoder.encode(_Result(folded.position, encode_fold(folded.fold)))


def read_folded(result: bytes) -> Folded:
    """Return what a task has folded."""
    read = _decoder.decode(result)
    return Folded(read.position, decode_fold(read.fold))


async def _fold(task: FoldTask) -> Folded:
    rules = task.rules.load()
    async with connected(task.source) as connection:
        position, fold = await _next(connection, task, rules, task.after)
        if position in (task.after, task.until):
            return Folded(position, fold)
        total = Accumulator(task.horizons)
        while True:
            total.add(fold)
            position, fold = await _next(connection, task, rules, reached := position)
            if position == reached:
                return Folded(position, total.fold())


async def _next(connection: Connection, task: FoldTask, rules: RuleSet, after: int) -> Folded:
    """Read and fold the next part of the range, bounded in events and bytes; without any, return *after*."""
    async with short_transaction(connection, index_only=True) as cursor:
        tables = tables_for(task.source.prefix)
        read = await read_range(cursor, tables, after, task.until, REBUILD_STEP_EVENTS, task.gone)
    return Folded(read.position if read.rows else after, read.fold(rules, task.horizons))
