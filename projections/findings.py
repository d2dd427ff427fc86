"""Findings of checks: what is wrong, at which spot, in a sentence."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Literal, NamedTuple

import msgspec

Check = Literal[
    "cache",
    "workers",
    "resolutions",
    "quantiles",
    "rollups",
    "payload",
    "log",
    "ledger",
    "chain",
    "head",
    "producers",
    "pending",
    "summaries",
    "horizons",
    "counts",
    "totals",
]
#: Spots that are told apart; findings at further ones are counted under their check and scale alone.
_MAX_SPOTS = 2_000


def bucket_in_words(start_s: int) -> str:
    """Return "2026-03-10 12:00:00 UTC" for the start of a bucket; the number itself if no datetime can express it."""
    try:
        return f"{datetime.fromtimestamp(start_s, UTC):%Y-%m-%d %H:%M:%S UTC}"
    except (OverflowError, ValueError, OSError):  # a damaged row
        return str(start_s)


class Spot(NamedTuple):
    """Where a check found something.

    Attributes:
        check: "difference" where a stored point is not that of the replay.
        scale: A resolution, whose bucket *at* is, or "position" of the ledger or "day" of the log; "" where it concerns
            its check as a whole.
        at: Start of the bucket (seconds since 1970), position, or ordinal of the day; None where it is no single one.
    """

    check: Check | Literal["difference"]
    scale: str = ""
    at: int | None = None


class Finding(NamedTuple):
    """Something that a check found wrong.

    Attributes:
        check: What was checked: the "cache" against the rollups, merged rows against their "workers'", the
            "resolutions" against each other, "quantiles" against their sketches, "rollups" for rows that no fold
            writes, each "payload" against its sha256,
            the "log" against the ledger, the "ledger" for gaps, its "chain" against the log, the "head" against the
            ledger, the "producers" against their batches, what was "pending" and is no batch, the "summaries" of
            ranges against those, a version's "horizons" against the settings, what it "counts" beside its points
            against the log, the "totals" that are served against baseline and log.
        where: The position, point, producer or day, in words.
        text: A sentence.
    """

    check: Check
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}, {self.where}: {self.text}"


class FindingsParts(msgspec.Struct, frozen=True, array_like=True):
    """Findings as plain data: the *kept* ones with the spot of each, and how many there are at each spot."""

    kept: list[Finding]
    kept_spots: list[Spot]
    spots: list[tuple[Spot, int]]


class Findings:
    """Collects findings: all are counted, by where they are too, the first *limit* are kept.

    Attributes:
        spots: Findings of each spot.
        sentences: The first finding of a spot, if kept.
    """

    def __init__(self, limit: int) -> None:
        self.count = 0
        self.kept: list[Finding] = []
        self.spots = Counter[Spot]()
        self._kept_spots: list[Spot] = []
        self.sentences: dict[Spot, str] = {}
        self._limit = limit

    def add(self, check: Check, where: str, text: str, *, scale: str = "", at: int | None = None) -> None:
        spot = self._count(Spot(check, scale, at), 1)
        if self.room:
            finding = Finding(check, where, text)
            self.kept.append(finding)
            self._kept_spots.append(spot)
            self.sentences.setdefault(spot, str(finding))

    def add_uncounted(self, spots: Counter[Spot]) -> None:
        """Count findings that have no sentence."""
        for spot, count in (+spots).items():
            self._count(spot, count)

    def add_all(self, other: Findings) -> None:
        """Add those of a later part of the check, as if each had been added here."""
        self.add_parts(other.to_parts())

    def to_parts(self) -> FindingsParts:
        """Return what `add_parts` takes: plain data, which another process may have made."""
        return FindingsParts(self.kept, self._kept_spots, list(self.spots.items()))

    def add_parts(self, parts: FindingsParts) -> None:
        uncounted = Counter(dict(parts.spots))
        for (check, where, text), spot in zip(parts.kept, parts.kept_spots, strict=True):
            self.add(check, where, text, scale=spot.scale, at=spot.at)
            uncounted[spot] -= 1
        self.add_uncounted(uncounted)

    @property
    def room(self) -> int:
        """How many more are kept."""
        return self._limit - len(self.kept)

    def _count(self, spot: Spot, count: int) -> Spot:
        if spot not in self.spots and len(self.spots) >= _MAX_SPOTS:
            spot = spot._replace(at=None)
        self.count += count
        self.spots[spot] += count
        return spot
