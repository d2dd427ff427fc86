"""The query for events, the cursor to resume it, and the tokens with which the skip index is asked."""

from __future__ import annotations

from datetime import UTC, date, datetime
from uuid import UUID

import msgspec

from chancy_metrics.events.bloom import token
from chancy_metrics.events.facts import MAX_KEY_BYTES, bounded_worker, microseconds
from chancy_metrics.events.skip_index import Wanted
from chancy_metrics.projections.search.event import EventKind

_MIN_US, _MAX_US = -(2**63), 2**63 - 1
#: Endings of keys of job updates that the skip index does not have: they are newer than its first summaries, and what
#: feeds them is found by the rest of their key, which every update of the function or queue has.
UNINDEXED = (":total_time", ":attempts")
#: A key that was cut may be so much shorter than the limit: half a character is left out. It has no rest of its own.
_MAX_CUT_BYTES = 4


class EventCursor(msgspec.Struct, frozen=True):
    """Where a reader resumes: after event *index* of the batch at *position*; after the whole batch for None."""

    position: int
    index: int | None = None

    def __str__(self) -> str:
        return str(self.position) if self.index is None else f"{self.position}:{self.index}"


class EventQuery(msgspec.Struct, frozen=True, omit_defaults=True):
    """A search for events that meet every condition given.

    Attributes:
        since: Inclusive; *until* is exclusive. Both aware.
        after: Only events after this cursor.
        first_position: Inclusive; so is *last_position*.
        kinds: Any of these; () for all.
        key: Key of an observation, or of a built-in series that a job update feeds.
        prefix: The first segments of such a key, or all of it; "" for all.
        error: A whole error, its type (the part before the first ":"), or the last segments of the type:
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
        return _MIN_US if self.since is None else microseconds(self.since)

    @property
    def until_us(self) -> int:
        return _MAX_US if self.until is None else microseconds(self.until)

    @property
    def start(self) -> int:
        """The position before the first one to read."""
        behind = 0 if self.after is None else self.after.position - (self.after.index is not None)
        return max(0, behind, (self.first_position or 1) - 1)

    @property
    def start_cursor(self) -> EventCursor:
        """The cursor after which reading begins."""
        after = self.after
        return (
            after
            if after is not None and after.index is not None and after.position > self.start
            else EventCursor(self.start)
        )

    @property
    def of_jobs(self) -> bool:
        """Whether a condition is set that only job updates can meet."""
        return any(value is not None for value in (self.func, self.queue, self.state, self.job_id, self.error))

    def wanted(self) -> Wanted:
        """Return the conditions that the summary of a range must meet to be read."""
        texts = {
            "worker": self.worker,
            "producer": None if self.producer is None else str(self.producer),
            "key": self.key and _indexed(self.key),
            "prefix": (self.prefix and _indexed(self.prefix)) or None,
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
    """Return the token of a text. A key and a prefix have the same: a key is the longest of its own prefixes."""
    return token("key" if field == "prefix" else field, text)


def _indexed(key: str) -> str | None:
    """Return what of a key the skip index has, of each range whose events feed it; None where that is unknown."""
    if not key.endswith(UNINDEXED):
        return key
    is_whole = len(key.encode()) < MAX_KEY_BYTES - _MAX_CUT_BYTES
    return (key.rpartition(":")[0] or None) if is_whole else None


def type_of(error: str) -> str:
    """Return the type of an error, without its message."""
    return error.partition(":")[0]


def names_of(error: str) -> list[str]:
    """Return the names by which an error is found: all of it, its type, and what follows each dot in the type."""
    kind = type_of(error)
    return [error, kind, *(kind[dot + 1 :] for dot, letter in enumerate(kind) if letter == ".")]


def start_of(day: date) -> int:
    """Return the start of a day, microseconds since 1970."""
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
