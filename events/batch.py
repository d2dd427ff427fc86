"""A batch in its forms: encoded to append, a row of the log, read to fold, decoded to columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from chancy_metrics.events.errors import Damaged
from chancy_metrics.events.facts import Combo, Series
from chancy_metrics.events.kept_meta import decode_meta

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class BatchId(NamedTuple):
    """The id of a batch: producer and sequence identify it, the day says in which partition it lies."""

    day: date
    producer: UUID
    sequence: int


class ObservationRun(NamedTuple):
    """Observations of one series, in the order they were made."""

    series: Series
    at_us: Sequence[int]
    values: Sequence[float]


class EncodedBatch(NamedTuple):
    """An encoded batch without its id: what `append` writes.

    Attributes:
        first_us: Smallest event time, microseconds since 1970; None in an empty batch.
    """

    events: int
    first_us: int | None
    last_us: int | None
    codec: int
    payload: bytes
    sha256: bytes


class LogRow(NamedTuple):
    """Every column of a row of the log, except the payload, of which it has the sha256."""

    day: date
    producer: UUID
    sequence: int
    worker: str
    first_us: int | None
    last_us: int | None
    appended_us: int
    events: int
    closes: bool
    codec: int
    sha256: bytes


class LogBatch(NamedTuple):
    """A batch read from the log, with its position in the ledger.

    Attributes:
        without: Names of the user's rules that are skipped for it, since they failed on it before.
    """

    position: int
    producer: UUID
    sequence: int
    worker: str
    appended_us: int
    events: int
    codec: int
    payload: bytes
    sha256: bytes
    without: frozenset[str] = frozenset()


class JobColumns(NamedTuple):
    """Job updates of a batch, a row each; all times int64 microseconds since 1970, their differences fit too."""

    combos: list[Combo]
    combo: NDArray[np.int64]
    ids: bytes  # 16 bytes a row
    at_us: NDArray[np.int64]
    created_us: NDArray[np.int64]
    scheduled_us: NDArray[np.int64]
    started_us: NDArray[np.int64]  # meaningless where not has_started
    completed_us: NDArray[np.int64]
    has_started: NDArray[np.bool_]
    has_completed: NDArray[np.bool_]
    meta: dict[int, memoryview]  # by row; views of the payload, so that unread meta is not copied

    def kept_meta(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield (row, kept meta) for each row that has any, in order of rows.

        Rows whose bytes can't be decoded are skipped: `audit check` and `audit events` report them.
        """
        for row in sorted(self.meta):
            try:
                yield row, decode_meta(self.meta[row])
            except Damaged:
                continue

    def meta_faults(self) -> dict[int, str]:
        """Return row -> why its kept meta can't be decoded; {} if all can."""
        faults = {}
        for row in sorted(self.meta):
            try:
                decode_meta(self.meta[row])
            except Damaged as error:
                faults[row] = str(error)
        return faults


class ObservationColumns(NamedTuple):
    """Observations of a batch: `lengths[i]` rows of `series[i]`, one series after the other."""

    series: list[Series]
    lengths: NDArray[np.int64]
    at_us: NDArray[np.int64]
    values: NDArray[np.float64]


class DecodedBatch(NamedTuple):
    """A batch's columns and what its producer had to leave out (reason -> how many)."""

    counts: dict[str, int]
    jobs: JobColumns | None
    observations: ObservationColumns | None

    def times(self) -> tuple[int | None, int | None]:
        """The first and the last event's own time, microseconds since 1970; None without any."""
        at = [part.at_us for part in (self.jobs, self.observations) if part is not None]
        return (
            min((int(times.min()) for times in at), default=None),
            max((int(times.max()) for times in at), default=None),
        )
