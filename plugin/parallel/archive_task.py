"""Fold the archive of a day, here or in a task: the first sound one, each entry checked against the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
from anyio import to_thread

from chancy_metrics.events.database import Connection
from chancy_metrics.events.errors import DamagedExport, MetricsLogError
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.transfer.archived import archived_batches
from chancy_metrics.plugin.parallel.shared_rules import SharedRules
from chancy_metrics.plugin.parallel.source import Source, connected
from chancy_metrics.plugin.transfer.archive_store import opened
from chancy_metrics.projections.fold.accumulator import Accumulator
from chancy_metrics.projections.fold.fold import Fold
from chancy_metrics.projections.fold.fold_codec import decode_fold, encode_fold
from chancy_metrics.projections.rules.rule_set import RuleSet

_MISSING = "there is no archive of it"


class ArchivedDay(NamedTuple):
    """A pruned day, and where its archives are.

    Attributes:
        place: The folder, or the URL, of the files with these *names*.
        lost: Positions of batches that were missing when the day was archived, as is known.
        horizons: Resolution -> start of the oldest bucket that is kept, seconds.
    """

    day: date
    place: str
    names: tuple[str, ...]
    lost: frozenset[int]
    horizons: Mapping[str, int]


class ArchiveTask(NamedTuple):
    """A pruned day to fold; *source* has the ledger that its archives are checked against."""

    source: Source
    rules: SharedRules
    archived: ArchivedDay


class _Result(msgspec.Struct, frozen=True, array_like=True):
    fold: bytes
    why: str


_encoder, _decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(_Result)


async def fold_archives(connection: Connection, tables: Tables, rules: RuleSet, archived: ArchivedDay) -> Fold | str:
    """Fold the first sound archive of a day; return why there is none otherwise.

    Raises:
        MetricsLogError: One can't be read.
    """
    why = []
    for name in archived.names:
        file = opened(archived.place, name)
        path = await to_thread.run_sync(file.__enter__)
        try:
            return await _fold_file(connection, tables, rules, archived, path)
        except DamagedExport as error:
            why.append(f"its archive {name} {error.fault}")
        except OSError as error:
            raise MetricsLogError(f"the archive {name} can't be read: {error}; the same command resumes") from error
        finally:
            await to_thread.run_sync(file.__exit__, None, None, None)
    return "; ".join(why) or _MISSING


def fold_archives_in_task(task: ArchiveTask) -> bytes:
    """Fold the archives of a day, in whatever process this is called; `read_folded_day` reads what it returns."""
    folded = asyncio.run(_fold(task))
    return _encoder.encode(_Result(b"", folded) if isinstance(folded, str) else _Result(encode_fold(folded), ""))


def read_folded_day(result: bytes) -> Fold | str:
    """Return what a task has made of a day: its fold, or why there is none."""
    read = _decoder.decode(result)
    return read.why or decode_fold(read.fold)


async def _fold(task: ArchiveTask) -> Fold | str:
    rules = task.rules.load()
    async with connected(task.source) as connection:
        return await fold_archives(connection, tables_for(task.source.prefix), rules, task.archived)


async def _fold_file(connection: Connection, tables: Tables, rules: RuleSet, archived: ArchivedDay, path: Path) -> Fold:
    lost, total = set(archived.lost), Accumulator(archived.horizons)
    async for batches in archived_batches(connection, tables, path, archived.day, lost):
        lost -= {batch.position for batch in batches}
        await to_thread.run_sync(total.add_batches, batches, rules)
    folded = await to_thread.run_sync(total.fold)
    folded.dead.update(dict.fromkeys(lost, "it was lost before its day was archived"))
    return folded
