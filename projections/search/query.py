"""What is looked for in the log, and the tokens by which a range that surely has nothing of it can be left out."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import msgspec

from chancy_metrics.events.bloom import token
from chancy_metrics.events.facts import bounded_worker, microseconds
from chancy_metrics.events.skip_index import Wanted
from chancy_metrics.projections.search.event import EventKind

_LEAST_US, _MOST_US = -(2**63), 2**63 - 1


class EventCursor(msgspec.Struct, frozen=True):
    """Where a reader stands: behind event *index* of the batch at *position*, or behind all of it for None."""

    position: int
    index: int | None = None

    def __str__(self) -> str:
        return str(self.position) if self.index is None else f"{self.position}:{self.index}"


class EventQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which events are looked for: those that have all that is given.

    Attributes:
        since: Inclusive, as *until* is exclusive; both aware.
        after: Only events behind this place in the order.
        first_position: Inclusive, as *last_position*.
        kinds: Any of these; all for ().
        key: Of an observation, or of one of the built-in series a job update feeds.
        prefix: The same for a key or its first segments; "" for all.
        error: The whole of an error, its type (what stands before the first ":"), or the last parts of that:
            "ValueError" finds "app.errors.ValueError".
    """

    since: datetime | None = None
    until: datetime | None = None
    after: EventCursor | None = None
    first_position: int | None = None
    last_position: int | None = None
    worker: str | None = None
    producer: UUID | None = None
    kinds: tuple[EventKind, ...] = ()
    key: str | None = None
    prefix: str | None = None
    func: str | None = None
    queue: str | None = None
    state: str | None = None
    job_id: UUID | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.worker is not None:
            msgspec.structs.force_setattr(self, "worker", bounded_worker(self.worker))

    @property
    def since_us(self) -> int:
        return _LEAST_US if self.since is None else microseconds(self.since)

    @property
    def until_us(self) -> int:
        return _MOST_US if self.until is None else microseconds(self.until)

    @property
    def start(self) -> int:
        """The position before the first one that is looked at."""
        behind = 0 if self.after is None else self.after.position - (self.after.index is not None)
        return max(0, behind, (self.first_position or 1) - 1)

    @property
    def start_cursor(self) -> EventCursor:
        """Behind which everything begins that is looked at."""
        after = self.after
        return (
            after
            if after is not None and after.index is not None and after.position > self.start
            else EventCursor(self.start)
        )

    @property
    def of_jobs(self) -> bool:
        """Whether something is looked for that only job updates have."""
        return any(value is not None for value in (self.func, self.queue, self.state, self.job_id, self.error))

    def wanted(self) -> Wanted:
        """What a range must have that may hold such events."""
        texts = {
            "worker": self.worker,
            "producer": None if self.producer is None else str(self.producer),
            "key": self.key,
            "prefix": self.prefix or None,
            "func": self.func,
            "queue": self.queue,
            "state": self.state,
            "error": self.error,
        }
        clauses = [[text_token(field, text)] for field, text in texts.items() if text is not None]
        if self.job_id is not None:
            clauses.insert(0, [self.job_id.bytes])
        if self.kinds:
            clauses.append([text_token("kind", kind) for kind in self.kinds])
        return Wanted(self.since_us, self.until_us, clauses)


def text_token(field: str, text: str) -> bytes:
    """The token of a text; keys and prefixes share theirs, since a key is the longest of its own prefixes."""
    return token("key" if field == "prefix" else field, text)


def type_of(error: str) -> str:
    """What an error is, without what it says."""
    return error.partition(":")[0]


def names_of(error: str) -> list[str]:
    """Return the names an error is found by: the whole of it, its type, and what stands behind each dot of that."""
    kind = type_of(error)
    return [error, kind, *(kind[dot + 1 :] for dot, letter in enumerate(kind) if letter == ".")]


def start_of(day: date) -> int:
    """When a day begins, microseconds since 1970."""
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
