"""Explain a point by the events behind it: `audit explain` as a function."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from chancy import Chancy

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import Kind, bounded_worker, microseconds
from chancy_metrics.events.humanize import counted, is_or_are
from chancy_metrics.events.schema import RESOLUTIONS, Tables, tables_for
from chancy_metrics.plugin.audit.find_series import find_series
from chancy_metrics.plugin.audit.marks import Mark, read_marks
from chancy_metrics.plugin.health.completeness import Source
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.moments import from_s, from_us, utc
from chancy_metrics.projections.explain.recompute import PointKey, Recomputed, recompute
from chancy_metrics.projections.fold.exact_sum import to_float
from chancy_metrics.projections.fold.points import Point
from chancy_metrics.projections.fold.sketch import quantile_many
from chancy_metrics.projections.fold.sketch_codec import decode
from chancy_metrics.projections.search.event import Event
from chancy_metrics.projections.versions.left_out import LeftOut


class Value(msgspec.Struct, frozen=True):
    """A point's value.

    Attributes:
        count: How many observations.
        last: Latest value of a gauge.
        last_at: When the latest event happened, UTC.
        p50: Of a histogram, within 0.55 %; None where it is not known.
    """

    count: int
    sum: float
    minimum: float
    maximum: float
    average: float
    last: float | None
    last_at: datetime
    p50: float | None
    p95: float | None
    p99: float | None


class Share(NamedTuple):
    """The number of events with this name."""

    name: str
    events: int


class Explained(msgspec.Struct, frozen=True):
    """A point, recomputed, with the events behind it.

    Attributes:
        since: Start of its bucket, UTC; *until* is its end, exclusive.
        worker_id: None for all workers together.
        position: Last position of the ledger that is in it.
        stored: The value that readers see; None if there is none (any more).
        recomputed: The value folded from the events behind it; None if there are none.
        compared: Whether there was anything to compare: not if the bucket is not kept any more, nor if both are None.
        equal: Whether both are the same to the last bit; None where nothing was compared.
        difference: What differs, in words; "" for nothing.
        waiting: Batches with events of that time that are not folded yet; they are in neither.
        source: Where the events are: in the log ("raw"), pruned from it and in the "baseline", or both.
        left_out: What the live version leaves out of the bucket's time, as `LeftOut`; it is in neither, and *equal*
            does not consider it.
        sentence: The result in words.
        events: Number of events in the log.
        pruned: Number of observations that only the baseline has: their events have left the log.
        imported: Number of observations that Chancy's own plugin had summed up before the switch; no events of theirs
            were ever in the log.
        by_func: Of the events in the log, the most frequent first; so the other `by_…`.
        largest: The events with the largest values, or for a counter of job updates the longest runs.
        failed: The last job updates that failed or will be retried, the latest first.
        first: The first events in ledger order.
        marks: Marks within half a bucket of it.
    """

    key: str
    kind: Kind
    unit: str
    resolution: str
    since: datetime
    until: datetime
    worker_id: str | None
    version: int
    position: int
    stored: Value | None
    recomputed: Value | None
    compared: bool
    equal: bool | None
    difference: str
    waiting: int
    source: Source | Literal["nothing"]
    left_out: LeftOut
    sentence: str
    events: int
    pruned: int
    imported: int
    by_func: list[Share]
    by_queue: list[Share]
    by_state: list[Share]
    by_error: list[Share]
    by_worker: list[Share]
    largest: list[Event]
    failed: list[Event]
    first: list[Event]
    marks: list[Mark]
    took_s: float


async def explain(
    chancy: Chancy,
    key: str,
    at: datetime,
    *,
    resolution: str = "1min",
    worker_id: str | None = None,
    kind: Kind | None = None,
    unit: str | None = None,
    limit: int = 20,
) -> Explained:
    """Explain a point: recompute it from the events behind it, and compare the result with the stored point.

    Args:
        key: As shown: a key's later types and units are appended to it (`a:gauge:s`).
        at: A moment in the point's bucket, aware.
        resolution: "1min", "5min", "1hour" or "1day".
        worker_id: Of one worker; all together by default.
        kind: "counter", "gauge" or "histogram", where the key has several.
        unit: Which unit, where the key has several.
        limit: How many events each list has at most, 1 or more.

    Raises:
        UnknownSeries: There is no such series; the message suggests similar keys.
        VersionRefused: The live version has other rules than this app.
        WrongMoment: *at* is not aware, or not from 1970 to 2199.
        MetricsLogError: The resolution is unknown, or there is no metrics log.
    """
    began = time.monotonic()
    at = utc(at)
    if resolution not in RESOLUTIONS:
        raise MetricsLogError(f"there is no resolution {resolution!r}: take one of {', '.join(RESOLUTIONS)}")
    width = RESOLUTIONS[resolution]
    bucket = microseconds(at) // 1_000_000 // width * width
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy) as connection:
        async with short_transaction(connection) as cursor:
            series = await find_series(cursor, tables, key, kind, unit)
        point = PointKey(series, resolution, bucket, None if worker_id is None else bounded_worker(worker_id))
        made = await recompute(connection, tables, options_of(chancy).rules, point, limit=max(limit, 1))
        marks = await _marks_near(connection, tables, bucket, width)
    return _explained(key, point, made, marks, time.monotonic() - began)


def _explained(key: str, point: PointKey, made: Recomputed, marks: list[Mark], took_s: float) -> Explained:
    breakdown = made.breakdown
    difference = made.difference
    source: Source | Literal["nothing"] = "nothing"
    if made.baseline is not None:
        source = "baseline and raw" if breakdown.events else "baseline"
    elif breakdown.events:
        source = "raw"
    return Explained(
        key=key,
        kind=point.series.kind,
        unit=point.series.unit,
        resolution=point.resolution,
        since=from_s(point.bucket),
        until=from_s(point.bucket + RESOLUTIONS[point.resolution]),
        worker_id=point.worker,
        version=made.version,
        position=made.position,
        stored=_value(made.stored),
        recomputed=_value(made.recomputed),
        compared=made.is_compared,
        equal=not difference if made.is_compared else None,
        difference=difference,
        waiting=made.waiting,
        source=source,
        left_out=made.left_out,
        sentence=_sentence(point, made),
        events=breakdown.events,
        pruned=_pruned(made),
        imported=made.imported,
        **{f"by_{name}": _shares(counts) for name, counts in breakdown.by.items()},
        largest=breakdown.largest,
        failed=breakdown.failed[::-1],
        first=breakdown.first,
        marks=marks,
        took_s=took_s,
    )


def _sentence(point: PointKey, made: Recomputed) -> str:
    parts = []
    if made.breakdown.events or made.baseline is None:
        parts.append(f"{counted(made.breakdown.events, 'event')} in the log")
    if pruned := _pruned(made):
        parts.append(f"{counted(pruned, 'observation')} of days that have left it, in the baseline")
    if made.imported:
        imported = counted(made.imported, "observation")
        parts.append(f"{imported} that Chancy's own plugin had summed up, imported into the baseline")
    behind = " and ".join(parts)
    if not made.is_kept:
        verdict = f"at {point.resolution} its bucket is not kept any more, so nothing was compared"
    elif made.difference:
        verdict = f"recomputed: DIFFERENT: {made.difference}"
    elif not made.is_compared:
        verdict = "nothing is stored, and no event in the log belongs here"
    else:
        verdict = "recomputed: equal"
    return "; ".join([behind, verdict, *_beside(made)])


def _pruned(made: Recomputed) -> int:
    return made.baseline.observations - made.imported if made.baseline else 0


def _beside(made: Recomputed) -> Iterator[str]:
    """Yield what neither side has, and what may explain a difference."""
    if made.left_out:
        yield f"not in either: {made.left_out.sentence}"
    if made.lost:
        position = min(made.lost)
        which = f"position {position}: {made.lost[position]}"
        yield f"{is_or_are(len(made.lost), 'batch')} lost and may belong here ({which})"
    if made.is_index_wrong:
        yield "damaged summaries excluded some of these events from searches: `chancy-metrics verify` says which"
    if made.waiting:
        yield f"{is_or_are(made.waiting, 'batch')} not folded yet and may add more"


def _value(point: Point | None) -> Value | None:
    if point is None:
        return None
    p50, p95, p99 = (_quantile(point, percent) for percent in (50, 95, 99))
    return Value(
        count=point.observations,
        sum=to_float(point.sum),
        minimum=point.minimum,
        maximum=point.maximum,
        average=to_float(point.sum / point.observations),  # of the exact sum, which may lie past the largest float64
        last=point.last,
        last_at=from_us(point.last_us),
        p50=p50,
        p95=p95,
        p99=p99,
    )


def _quantile(point: Point, percent: int) -> float | None:
    if not point.sketch:
        return None
    codes, counts = (np.array(column, np.int64) for column in decode(point.sketch))
    limits = np.array([point.minimum]), np.array([point.maximum])
    observations = np.array([point.observations])
    value = quantile_many(np.array([0, len(codes)]), codes, counts, (percent, 100), *limits, observations)[0]
    return None if np.isnan(value) else float(value)


def _shares(counts: Counter[str]) -> list[Share]:
    return [Share(*one) for one in sorted(counts.items(), key=lambda one: (-one[1], one[0]))]


async def _marks_near(connection: Connection, tables: Tables, bucket: int, width: int) -> list[Mark]:
    async with short_transaction(connection) as cursor:
        return await read_marks(cursor, tables, from_s(bucket - width / 2), from_s(bucket + 1.5 * width))
