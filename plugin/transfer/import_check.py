"""Check an export as a whole before its import begins, so that nothing in it is refused later."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from datetime import date
from itertools import takewhile
from pathlib import Path

import numpy as np

from chancy_metrics.events.errors import Damaged, DamagedExport, ImportRefused
from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.events.transfer.check import checked_entries
from chancy_metrics.events.transfer.file import read_frames
from chancy_metrics.events.transfer.frames import (
    Baseline,
    Batch,
    Frame,
    Gone,
    GoneDay,
    Header,
    Points,
    Producer,
    Segments,
)
from chancy_metrics.projections.versions.baseline_io import check_points
from chancy_metrics.projections.versions.baseline_sums import BaselineSums
from chancy_metrics.projections.versions.segments_io import decode_segments


class ExportContents:
    """The days and the baseline of an export, filled by `check`.

    Memory: 8 bytes a position, and a share of the baseline's points.

    Attributes:
        days: Days of its batches; *gone* are the days that had left the log and have no batches.
        baseline: None if no day had left the log.
    """

    def __init__(self, path: Path) -> None:
        self.days: set[date] = set()
        self.gone: set[date] = set()
        self.baseline: Baseline | None = None
        self._path = path
        self._last_gone = date.min
        self._last_segment: tuple[str, int, date, int] | None = None
        self._sums = BaselineSums()
        self._ids = array("q")
        self._first = 0

    def check(self) -> None:
        """Decode and hash the file, whose digest was checked before, in one pass; then compare its baseline's points.

        These are compared with the workers' segments, for which the frames before the entries are read once more, or
        several times if the baseline is large.

        Raises:
            DamagedExport: It holds what no log can hold, or points that are not the sum of the workers'.
            ImportRefused: An entry does not match its hash.
        """
        position, chain = 0, b""
        frames = read_frames(self._path)
        header = next(frames)
        assert isinstance(header, Header), "read_frames begins with one"
        for chunk in checked_entries(self._checked(frames), 0, b"", self.gone, self._path):
            position, chain = chunk[-1].position, chunk[-1].chain
        if (position, chain) != (header.position, header.chain):
            raise ImportRefused(
                f"{self._path} ends at position {position}, not at {header.position} with the hash it names"
            )
        self._check_ids()
        self._check_sums()

    def _checked(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if isinstance(frame, Gone | Batch):
                self._ids.append(hash((frame.producer.int, frame.sequence)))
                self._first = self._first or frame.position
                if isinstance(frame, Batch):
                    self.days.add(frame.day)
            elif isinstance(frame, GoneDay):
                if frame.day < self._last_gone:
                    raise self._damaged(f"names {frame.day} after {self._last_gone} among the days that are gone")
                self._last_gone = frame.day
                self.gone.add(frame.day)
            elif isinstance(frame, Baseline):
                self.baseline = frame
            elif isinstance(frame, Points):
                if self.baseline is None:
                    raise self._damaged("has points and no baseline")
                try:
                    check_points(frame)
                except Damaged as error:
                    raise self._damaged(f"can't be taken: {error}") from error
                self._sums.count(frame)
            elif isinstance(frame, Segments):
                self._check_segments(frame)
            yield frame

    def _check_segments(self, frame: Segments) -> None:
        if self.baseline is None:
            raise self._damaged("has workers' segments and no baseline")
        try:
            decode_segments(frame)
        except Damaged as error:
            raise self._damaged(f"can't be taken: {error}") from error
        for one in frame.segments:
            key = (one.worker, RESOLUTIONS[one.resolution], one.day, one.part)
            if self._last_segment is not None and key <= self._last_segment:
                text = "{0!r} of {2}, {1} s, part {3}".format(*key)
                raise self._damaged(f"has the segment of {text} twice, or behind one that it comes before")
            self._last_segment = key

    def _check_sums(self) -> None:
        """Raise if the merged points of the baseline are not the sum of its workers' segments."""
        if self.baseline is None:
            return
        for share in range(self._sums.shares):
            frames = takewhile(lambda frame: not isinstance(frame, Producer | Gone | Batch), read_frames(self._path))
            if fault := self._sums.fault(frames, self.baseline.horizons, share):
                raise self._damaged(f"has a baseline that contradicts itself: {fault}")

    def _check_ids(self) -> None:
        """Raise if two positions hold one batch. Compares 64-bit hashes: 10 million ids collide with p < 1e-5."""
        ids = np.frombuffer(self._ids, np.int64)
        order = np.argsort(ids, kind="stable")
        twice = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
        if len(twice):
            first, second = (self._first + int(order[twice[0] + step]) for step in (0, 1))
            raise self._damaged(f"has the same batch at positions {first} and {second}")

    def _damaged(self, fault: str) -> DamagedExport:
        return DamagedExport(fault, where=str(self._path))
