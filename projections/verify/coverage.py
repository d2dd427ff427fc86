"""What was verified of a version, and what is open: kept by place until a run that looks there finds nothing.

Pure; a range is from its first to before its end.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from datetime import UTC, date, datetime
from typing import Annotated, NamedTuple

import msgspec

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.findings import Spot

#: Checks that every run makes whole.
EACH_TIME = frozenset({"cache", "head", "producers"})
#: Checks of the log and its order, which are the same for every version; all others are of a version's rollups.
OF_THE_LOG = frozenset({"payload", "log", "ledger", "chain", "head", "producers", "summaries"})
#: Places that are told apart, those that keep their sentence, and the longest one.
_SPOTS, _SENTENCES, _CHARS = 1_000, 20, 300
#: Ranges of time kept of a resolution.
_RANGES = 200
_ENDLESS = 2**62

Range = tuple[int, int]


class Looked(NamedTuple):
    """Where a run has looked.

    Attributes:
        everywhere: Whether it was a run over everything.
        ranges: Scale of a `Spot` -> ranges of it.
        checks: Those that were made whole.
    """

    everywhere: bool = False
    ranges: Mapping[str, Sequence[Range]] = {}
    checks: Set[str] = frozenset()

    def saw(self, spot: Spot) -> bool:
        """Whether it would have found what is wrong there."""
        if self.everywhere or (not spot.scale and spot.check in self.checks):
            return True
        return spot.at is not None and any(first <= spot.at < end for first, end in self.ranges.get(spot.scale, ()))


def looked_at(first: Mapping[str, int], end: Mapping[str, int] | None) -> dict[str, list[Range]]:
    """The ranges of a run from the *first* bucket of each resolution to before its *end*, seconds."""
    ranges = {name: (first[name], _ENDLESS if end is None else end[name]) for name in first}
    return {name: [one] for name, one in ranges.items() if one[0] < one[1]}


def together(runs: Sequence[Looked]) -> Looked:
    """What several ranges of one run have looked at, and the checks that are made with each run."""
    ranges: dict[str, list[Range]] = {}
    for run in runs:
        for scale, some in run.ranges.items():
            ranges.setdefault(scale, []).extend(some)
    united = {scale: _united(some) for scale, some in ranges.items()}
    return Looked(any(run.everywhere for run in runs), united, EACH_TIME)


def _united(ranges: Iterable[Range]) -> list[Range]:
    """The same in order, those that touch or overlap as one."""
    united: list[Range] = []
    for first, end in sorted(ranges):
        if united and first <= united[-1][1]:
            united[-1] = united[-1][0], max(united[-1][1], end)
        else:
            united.append((first, end))
    return united


_Aware = Annotated[datetime, msgspec.Meta(tz=True)]


class Fault(msgspec.Struct, frozen=True):
    """What a run has found at one place, and no later one has found right.

    Attributes:
        spot: See `Spot`; *count* are the findings there.
        found_at: When it was found last.
        sentence: The first of them, cut; "" where it was not kept.
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
    """A range of a resolution, in seconds, that was compared at *at* (seconds too), and every bucket in it."""

    first: int
    end: int
    at: int


class Record(msgspec.Struct, frozen=True):
    """What is known of one version, or of the log.

    Attributes:
        at: Begin of the last run that compared something, or of the last one; so *since*, *until*, *spans*,
            *position* and *points* are that run's.
        seen: Scale -> what was looked at, in order and without overlap.
        faults: What is open.
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
    faults: Iterable[Fault], looked: Looked, found: Counter[Spot], sentences: Mapping[Spot, str], at: datetime
) -> list[Fault]:
    """Return what is open after a run: what it did not look at, and what it has found."""
    open_ = {fault.spot: fault for fault in faults if not looked.saw(fault.spot)}
    for spot, count in (+found).items():
        known = open_.get(spot)
        told = sentences.get(spot, "")[:_CHARS]
        open_[spot] = Fault(*spot, count if known is None else max(count, known.count), at, told)
    return _bounded(open_.values())


def _bounded(faults: Iterable[Fault]) -> list[Fault]:
    """Keep so many places and sentences; the rest of a check and scale is one fault without a place."""
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
    """Add what a run at *at_s* looked at to what earlier ones did; nothing before *since_s* is kept."""
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
    """Join neighbours of one time; of too many also those of different times, under the earlier one."""
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
    """How much of what is kept was looked at.

    Attributes:
        whole: Of all buckets that are kept, 0 to 1; *by_resolution* says it of each resolution.
        oldest_at: When the part was looked at that was not looked at again for longest; None where nothing was.
    """

    whole: float
    by_resolution: dict[str, float]
    oldest_at: datetime | None


def share(seen: Mapping[str, Sequence[Seen]], kept_since_s: Mapping[str, int], now_s: int) -> Share:
    """Measure what was *seen* against the time from each resolution's first bucket kept until now.

    Args:
        kept_since_s: Without the resolutions that keep nothing.
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
        return f"several places ({spot.scale})"
    if spot.scale == "position":
        return f"position {spot.at:,}"
    if spot.scale == "day":
        return str(date.fromordinal(spot.at))
    return f"{spot.scale} {datetime.fromtimestamp(spot.at, UTC):%Y-%m-%d %H:%M:%S %Z}"
