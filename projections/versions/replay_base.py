"""Read the base of a replay (the live version, and the days that only the baseline has); retry while it changes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import date
from typing import NamedTuple, TypeVar

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import MetricsLogError, VersionRefused
from chancy_metrics.events.partitions import gone_days
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.rules.rule_set import RuleSet
from chancy_metrics.projections.versions.version import Version, live_version

T = TypeVar("T")

#: Attempts before giving up.
_TRIES = 5


class ReplayBase(NamedTuple):
    """The live version, and the days whose batches are in the baseline instead of the log."""

    version: Version
    gone: set[date]

    def check(self, now: ReplayBase) -> None:
        """Raise `ReplayBaseChanged` if *now* is another version or has other days; its position may have advanced."""
        if (now.version.version, now.gone) != (self.version.version, self.gone):
            raise ReplayBaseChanged


class ReplayBaseChanged(Exception):
    """A day went into the baseline, or another version became the live one."""


async def read_replay_base(cursor: Cursor, tables: Tables, rules: RuleSet, purpose: str) -> ReplayBase:
    """Read the base under which *rules* can replay the log.

    Args:
        purpose: What it is read for, such as "verify".

    Raises:
        VersionRefused: The live version has other rules.
    """
    version = await live_version(cursor, tables)
    if reason := version.refuses(rules):
        raise VersionRefused(f"can't {purpose}: {reason}")
    return ReplayBase(version, await gone_days(cursor, tables))


async def retry_while_changed(attempt: Callable[[], Awaitable[T]], during: str) -> T:
    """Return what *attempt* returns, called again each time it raises `ReplayBaseChanged`.

    Raises:
        MetricsLogError: The base changed during every attempt.
    """
    for _ in range(_TRIES):
        try:
            return await attempt()
        except ReplayBaseChanged:
            continue
    raise MetricsLogError(f"the live version or its baseline changed {_TRIES} times while {during}: try again")
