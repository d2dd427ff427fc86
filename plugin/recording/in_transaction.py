"""Record observations in the application's own transaction, as the only batch of a new producer."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

from psycopg import AsyncCursor, Cursor

from chancy_metrics.events.batch import EncodedBatch, ObservationRun
from chancy_metrics.events.codec import encode
from chancy_metrics.events.errors import InvalidObservation
from chancy_metrics.events.facts import Observation, Series, check_value
from chancy_metrics.events.log import append_in_transaction, sync_append_in_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.plugin.host.clock import now_us
from chancy_metrics.projections.rules.reserved import check_own_series


async def record(
    cursor: AsyncCursor[Any],
    tables: Tables,
    observations: Sequence[Observation],
    *,
    worker: str,
    lock_wait_ms: int,
    is_behind: bool = False,
) -> None:
    """Write *observations* in the caller's transaction; on an error nothing is written.

    Args:
        is_behind: The clock that they have their time from is behind: they count as skewed.
    """
    batch = _encode_now(observations, is_behind)
    await append_in_transaction(cursor, tables, uuid4(), batch, worker=worker, lock_wait_ms=lock_wait_ms)


def sync_record(
    cursor: Cursor[Any],
    tables: Tables,
    observations: Sequence[Observation],
    *,
    worker: str,
    lock_wait_ms: int,
    is_behind: bool = False,
) -> None:
    """The same, synchronous."""
    batch = _encode_now(observations, is_behind)
    sync_append_in_transaction(cursor, tables, uuid4(), batch, worker=worker, lock_wait_ms=lock_wait_ms)


async def measure(cursor: AsyncCursor[Any], tables: Tables, series: Series, value: float, *, worker: str) -> None:
    """Write the present value of a gauge of this plugin's own, which `record` refuses."""
    await append_in_transaction(cursor, tables, uuid4(), _encode({series: array("d", [value])}), worker=worker)


def _encode_now(observations: Sequence[Observation], is_behind: bool) -> EncodedBatch:
    """Check and encode observations as made now.

    Raises:
        InvalidObservation: One breaks a rule or belongs to this plugin, or there is none.
    """
    runs: dict[Series, array[float]] = {}
    for one in observations:
        series = check_own_series(one.key, one.kind, one.unit)
        runs.setdefault(series, array("d")).append(check_value(one.value, one.key))
    if not runs:
        raise InvalidObservation("value", "record_in_transaction() was called without an observation")
    return _encode(runs, skewed=len(observations) if is_behind else 0)


def _encode(runs: dict[Series, array[float]], *, skewed: int = 0) -> EncodedBatch:
    at_us = now_us()
    counts = {"skewed": skewed} if skewed else {}
    runs_now = [ObservationRun(series, [at_us] * len(values), values) for series, values in runs.items()]
    try:
        return encode((), runs_now, counts)
    except ValueError as error:
        raise InvalidObservation("value", f"{error}; record these observations in several calls") from error
