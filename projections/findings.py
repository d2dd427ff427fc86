"""What a check has found wrong, where, and in which words."""

from __future__ import annotations

from typing import Literal, NamedTuple

Check = Literal[
    "cache", "workers", "resolutions", "quantiles", "payload", "log", "ledger", "chain", "head", "producers"
]


class Finding(NamedTuple):
    """Something that is not as it has to be.

    Attributes:
        check: What was looked at: the "cache" against the rollups, merged rows against their "workers'", the
            "resolutions" against each other, "quantiles" against their sketches, each "payload" against its sha256,
            the "log" against the order, the "ledger" for gaps, its "chain" against the log, the "head" against the
            ledger, the "producers" against their batches.
        where: The place.
        text: A sentence.
    """

    check: Check
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.check}, {self.where}: {self.text}"


class Findings:
    """Collects findings: all are counted, the first *most* are kept."""

    def __init__(self, most: int) -> None:
        self.count = 0
        self.kept: list[Finding] = []
        self._most = most

    def add(self, check: Check, where: str, text: str) -> None:
        self.count += 1
        if self.room:
            self.kept.append(Finding(check, where, text))

    def add_all(self, other: Findings) -> None:
        self.count += other.count
        self.kept += other.kept[: self.room]

    @property
    def room(self) -> int:
        """How many more are kept."""
        return self._most - len(self.kept)
