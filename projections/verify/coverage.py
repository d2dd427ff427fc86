"""Merge runs of verify, without the database: what they covered, and which faults are open where.

A fault stays open until a run that covers its spot finds nothing there. A range excludes its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Annotated, NamedTuple

import msgspec

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.findings import Spot

#: Checks that every run makes in full.
EACH_TIME = frozenset({"cache", "head", "producers"})
#: Checks of the log and its ledger, which are the same for every version; all others concern one version.
OF_THE_LOG = frozenset({"payload", "log", "ledger", "chain", "head", "producers", "summaries", "totals"})
#: Checks that a run makes only if it is asked to, whatever else it covers.
IF_ASKED = frozenset({"totals"})
#: Limits of a record: spots, spots with a sentence, characters of a sentence.
_SPOTS, _SENTENCES, _CHARS = 1_000, 20, 300
#: Ranges of time kept per resolution.
_RANGES = 200
_ENDLESS = 2**62

Range = tuple[int, int]


class Coverage(NamedTuple):
    """What a run covered.

    Attributes:
        everywhere: Whether the run covered everything.
        ranges: Scale of a `Spot` -> covered ranges.
        checks: Checks that were made in full.
    """

    everywhere: bool = False
    ranges: Mapping[str, Sequence[Range]] = {}
    checks: Set[str] = frozenset()

    def saw(self, spot: Spot) -> bool:
        """Whether the run would have found a fault there."""
        if spot.check in IF_ASKED:
            return spot.check in self.checks
        if self.everywhere or (not spot.scale and spot.check in self.checks):
            return True
        return spot.at is not None and any(first <= spot.at < end for first, end in self.ranges.get(spot.scale, ()))


def ranges_of(first: Mapping[str, int], end: Mapping[str, int] | None) -> dict[str, list[Range]]:
    """Return the ranges of a run from the *first* bucket of each resolution to before its *end*, seconds."""
    ranges = {name: (first[name], _ENDLESS if end is None else end[name]) for name in first}
    return {name: [one] for name, one in ranges.items() if one[0] < one[1]}


def unite(runs: Sequence[Coverage]) -> Coverage:
    """Unite the ranges of one run, with the checks that each run makes in full."""
    ranges: dict[str, list[Range]] = {}
    for run in runs:
        for scale, some in run.ranges.items():
            ranges.setdefault(scale, []).extend(some)
    united = {scale: _united(some) for scale, some in ranges.items()}
    return Coverage(any(run.everywhere for run in runs), united, EACH_TIME)


def _united(ranges: Iterable[Range]) -> list[Range]:
    """Return the ranges ascending, with those joined that touch or overlap."""
    united: list[Range] = []
    for first, end in sorted(ranges):
        if united and first <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], end)
        else:
            united.append((first, end))
    return united


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Fault(msgspec.Struct, frozen=True):
    """What a run found at one spot, and no later run has cleared.

    Attributes:
        spot: See `Spot`.
        count: Findings there.
        found_at: When they were last found.
        sentence: The first of them, cut; "" if not kept.
    """

    check: str
    scale: str
    at: int | None
    count: int
    found_at: _Aware
    sentence: str

    @property
    def spot(self) -> Spot:
        return Spot(self.check, self.scale, self.at)  # type: ignore[arg-type] # out of the database

    def __str__(self) -> str:
        if self.sentence:
            return self.sentence + (f" (and {self.count - 1:,} more there)" if self.count > 1 else "")
        where = f" at {_where(self.spot)}" if self.scale else ""
        return f"{self.check}{where}: {self.count:,} {'finding' if self.count == 1 else 'findings'}"


class Seen(msgspec.Struct, frozen=True, array_like=True):
    """A range of a resolution whose every bucket was compared at *at*; all in seconds."""

    first: int
    end: int
    at: int


class Record(msgspec.Struct, frozen=True):
    """The kept results of verify for one version, or for the log.

    Attributes:
        at: Start of the last run that compared something, else of the last run; *since*, *until*, *spans*,
            *position* and *points* are of the same run.
        seen: Scale -> compared ranges, ascending, without overlap.
        faults: The open faults.
    """

    at: _Aware | None = None
    since: _Aware | None = None
    until: _Aware | None = None
    spans: int = 0
    position: int = 0
    points: int = 0
    seen: dict[str, list[Seen]] = {}
    faults: list[Fault] = []

    @property
    def open(self) -> int:
        return sum(fault.count for fault in self.faults)


def settle(
    faults: Iterable[Fault], covered: Coverage, found: Counter[Spot], sentences: Mapping[Spot, str], at: datetime
) -> list[Fault]:
    """Return the faults open after a run: those it did not cover, and those it found."""
    open_ = {fault.spot: fault for fault in faults if not covered.saw(fault.spot)}
    for spot, count in (+found).items():
        known = open_.get(spot)
        told = sentences.get(spot, "")[:_CHARS]
        open_[spot] = Fault(*spot, count if known is None else max(count, known.count), at, told)
    return _bounded(open_.values())


def _bounded(faults: Iterable[Fault]) -> list[Fault]:
    """Limit spots and sentences; further faults of a check and scale become one without a spot."""
    ordered = sorted(faults, key=lambda fault: (not fault.sentence, fault.check, fault.scale, fault.at or 0))
    kept: dict[Spot, Fault] = {}
    for fault in ordered:
        if len(kept) >= _SENTENCES:
            fault = msgspec.structs.replace(fault, sentence="")
        if len(kept) >= _SPOTS:
            fault = msgspec.structs.replace(fault, at=None, sentence="")
        if (known := kept.get(fault.spot)) is not None:
            fault = msgspec.structs.replace(known, count=known.count + fault.count)
        kept[fault.spot] = fault
    return list(kept.values())


def still_kept(faults: Sequence[Fault], horizons: Mapping[str, int]) -> list[Fault]:
    """Leave out the faults of buckets that have passed below their horizon."""
    return [fault for fault in faults if fault.at is None or fault.at >= horizons.get(fault.scale, fault.at)]


def cover(seen: Sequence[Seen], ranges: Iterable[Range], at_s: int, *, since_s: int = 0) -> list[Seen]:
    """Add the ranges of a run at *at_s* to those of earlier runs; drop what lies before *since_s*."""
    result = list(seen)
    for first, end in ranges:
        first, end = max(first, since_s), min(end, at_s)
        if first < end:
            result = [chunk for one in result for chunk in _without(one, first, end)] + [Seen(first, end, at_s)]
    result = [Seen(max(one.first, since_s), one.end, one.at) for one in sorted(result, key=lambda one: one.first)]
    return _joined([one for one in result if one.first < one.end])


def _without(one: Seen, first: int, end: int) -> list[Seen]:
    chunks = [Seen(one.first, min(one.end, first), one.at), Seen(max(one.first, end), one.end, one.at)]
    return [chunk for chunk in chunks if chunk.first < chunk.end]


def _joined(seen: list[Seen]) -> list[Seen]:
    """Join neighbours of one time; if there are too many, also those of different times, under the earlier one."""
    for any_time in (False, True):
        if any_time and len(seen) <= _RANGES:
            break
        joined: list[Seen] = []
        for one in seen:
            before = joined[-1] if joined else None
            if before is not None and before.end == one.first and (any_time or before.at == one.at):
                joined[-1] = Seen(before.first, one.end, min(before.at, one.at))
            else:
                joined.append(one)
        seen = joined
    return seen[-_RANGES:]


class Share(msgspec.Struct, frozen=True):
    """How much of the kept buckets was compared.

    Attributes:
        whole: Share of all kept buckets, 0 to 1.
        by_resolution: The same for each resolution.
        oldest_at: When the longest-unrepeated part was compared; None where nothing was.
    """

    whole: float
    by_resolution: dict[str, float]
    oldest_at: datetime | None


def share(seen: Mapping[str, Sequence[Seen]], kept_since_s: Mapping[str, int], now_s: int) -> Share:
    """Measure what was *seen* against the time from each resolution's first bucket kept until now.

    Args:
        kept_since_s: Resolution -> start of its first kept bucket; without resolutions that keep nothing.
    """
    kept_buckets = seen_buckets = 0.0
    by_resolution, times = {}, []
    for name, since_s in kept_since_s.items():
        kept = max(now_s - since_s, 1)
        inside = [one for one in seen.get(name, ()) if one.end > since_s and one.first < now_s]
        covered = sum(min(one.end, now_s) - max(one.first, since_s) for one in inside)
        by_resolution[name] = covered / kept
        times += [one.at for one in inside]
        kept_buckets += kept / RESOLUTIONS[name]
        seen_buckets += covered / RESOLUTIONS[name]
    whole = seen_buckets / kept_buckets if kept_buckets else 0.0
    return Share(whole, by_resolution, datetime.fromtimestamp(min(times), UTC) if times else None)


def _where(spot: Spot) -> str:
    if spot.at is None:
        return f"several spots ({spot.scale})"
    if spot.scale == "position":
        return f"position {spot.at:,}"
    if spot.scale == "day":
        return str(date.fromordinal(spot.at))
    return f"{spot.scale} {datetime.fromtimestamp(spot.at, UTC):%Y-%m-%d %H:%M:%S %Z}"
