"""Facts that can be recorded: observations and job updates, and the checks of observations."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from hashlib import sha256
from itertools import repeat, starmap
from numbers import Complex, Real
from operator import sub
from typing import Literal, NamedTuple, SupportsFloat

import msgspec

from chancy_metrics.events.errors import InvalidObservation

Kind = Literal["counter", "gauge", "histogram"]
KINDS: tuple[Kind, ...] = ("counter", "gauge", "histogram")
DEFAULT_UNITS: dict[Kind, str] = {"counter": "count", "gauge": "number", "histogram": "number"}

MAX_KEY_BYTES = 1_024
MAX_UNIT_CHARS = 64
MAX_WORKER_BYTES = 1_024
#: Clock differences up to this are ignored, microseconds.
SKEW_US = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Series(NamedTuple):
    """The identity of a series: the same key with another kind or unit is another series."""

    key: str
    kind: Kind
    unit: str


class Observation(msgspec.Struct, frozen=True):
    """One value to record, for the calls that take several.

    Attributes:
        key: 1 to 1,024 bytes of UTF-8 without NUL.
        value: A finite real number.
        unit: 1 to 64 characters.
    """

    kind: Kind
    key: str
    value: SupportsFloat
    unit: str

    @classmethod
    def counter(cls, key: str, value: SupportsFloat = 1, *, unit: str = "count") -> Observation:
        return cls("counter", key, value, unit)

    @classmethod
    def gauge(cls, key: str, value: SupportsFloat, *, unit: str = "number") -> Observation:
        return cls("gauge", key, value, unit)

    @classmethod
    def histogram(cls, key: str, value: SupportsFloat, *, unit: str = "number") -> Observation:
        return cls("histogram", key, value, unit)


class Combo(NamedTuple):
    """Fields that many job updates of a batch share."""

    func: str
    queue: str
    state: str
    attempt: int
    error: str


class JobRow(NamedTuple):
    """A job update on its way into a batch; times are microseconds since 1970 (UTC)."""

    job_id: bytes
    combo: Combo
    at_us: int
    created_us: int
    scheduled_us: int
    started_us: int | None
    completed_us: int | None
    meta: bytes  # MessagePack of the kept keys, b"" for none


class Instants(NamedTuple):
    """Times of many events, microseconds since 1970 (UTC), as offsets from an origin."""

    origin_us: int
    offsets: Sequence[int]

    def absolute(self) -> list[int]:
        return [self.origin_us + offset for offset in self.offsets]


class JobFacts(NamedTuple):
    """Job updates on their way into a batch, by column.

    Attributes:
        started: Any value for updates in *not_started*.
        completed: Any value for updates in *not_completed*.
        not_started: Indices of the updates whose start is unknown.
        not_completed: Indices of the updates whose end is unknown.
        meta: Index of the update -> MessagePack of the kept keys.
        cut_meta: Number of updates whose kept meta was cut for its size.
    """

    job_ids: Sequence[bytes]
    combos: Sequence[tuple[str, str, str, int, str]]
    at: Instants
    created: Instants
    scheduled: Instants
    started: Instants
    completed: Instants
    not_started: Sequence[int]
    not_completed: Sequence[int]
    meta: Mapping[int, bytes]
    cut_meta: int = 0

    @classmethod
    def of(cls, rows: Sequence[JobRow]) -> JobFacts:
        """Convert rows, at least one, into columns."""
        job_ids, combos, at, created, scheduled, started, completed, meta = zip(*rows, strict=True)
        return cls(
            job_ids,
            combos,
            Instants(0, at),
            Instants(0, created),
            Instants(0, scheduled),
            Instants(0, [now if start is None else start for now, start in zip(at, started, strict=True)]),
            Instants(0, [now if end is None else end for now, end in zip(at, completed, strict=True)]),
            [number for number, start in enumerate(started) if start is None],
            [number for number, end in enumerate(completed) if end is None],
            {number: kept for number, kept in enumerate(meta) if kept},
        )

    @property
    def counts(self) -> dict[str, int]:
        """Return the counts that go into the batch: reason -> number."""
        return {"cut:meta": self.cut_meta} if self.cut_meta else {}

    def rows(self) -> list[JobRow]:
        """Convert the columns into rows."""
        started: list[int | None] = [*self.started.absolute()]
        completed: list[int | None] = [*self.completed.absolute()]
        for times, unknown in ((started, self.not_started), (completed, self.not_completed)):
            for number in unknown:
                times[number] = None
        columns = zip(
            self.job_ids,
            starmap(Combo, self.combos),
            self.at.absolute(),
            self.created.absolute(),
            self.scheduled.absolute(),
            started,
            completed,
            [self.meta.get(number, b"") for number in range(len(self.job_ids))],
            strict=True,
        )
        return list(starmap(JobRow, columns))


def microseconds(instant: datetime) -> int:
    """Return an aware datetime as microseconds since 1970 (UTC), exact."""
    since = instant - EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def instants(times: Sequence[datetime]) -> Instants:
    """Convert aware datetimes, at least one, like `microseconds`; fastest if they are close and in one zone.

    Subtracting two times of a zone with a fixed offset needs no call of utcoffset(), which takes longest otherwise,
    also for zoneinfo's UTC, in which psycopg returns every time. Small integers add up in half the time.
    """
    if len(times) == 1:
        return Instants(microseconds(times[0]), (0,))
    try:
        origin = times[0] if _never_changes(times[0].tzinfo) else EPOCH
    except TypeError:  # dateutil's zones can't be hashed
        origin = EPOCH
    return Instants(
        microseconds(origin),
        [
            (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
            for since in map(sub, times, repeat(origin))
        ],
    )


#: Earliest time of an event: the year 1 (UTC).
FIRST_US = microseconds(datetime.min.replace(tzinfo=UTC))


@lru_cache(64)
def _never_changes(zone: tzinfo | None) -> bool:
    try:
        return zone is not None and zone.utcoffset(None) is not None
    except Exception:  # a user's tzinfo may not accept None
        return False


def cut(text: str, max_bytes: int, *, ending: str = "") -> str:
    """Return *text* in up to *max_bytes* bytes of UTF-8; a hash replaces what is cut.

    Args:
        ending: The end of *text*, which is kept.
    """
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    mark = f"~{sha256(encoded).hexdigest()[:16]}"
    tail = f"{mark}:{ending}" if ending and len(ending.encode()) < max_bytes // 2 else mark
    return encoded[: max_bytes - len(tail.encode())].decode(errors="ignore") + tail


def bounded_worker(worker_id: str) -> str:
    """Return a worker's id as it is stored: up to 1,024 bytes that PostgreSQL's text can hold."""
    if len(worker_id) <= MAX_WORKER_BYTES // 4 and worker_id.isascii() and "\x00" not in worker_id:
        return worker_id
    return cut(worker_id.replace("\x00", "\ufffd").encode(errors="replace").decode(), MAX_WORKER_BYTES)


def check_series(key: object, kind: Kind, unit: object) -> Series:
    """Return the series of an observation.

    Raises:
        InvalidObservation: Key or unit is invalid.
    """
    if not isinstance(key, str) or not key:
        raise InvalidObservation("key", f"key {_show(key)} must be a string of 1 to {MAX_KEY_BYTES} bytes")
    _check_text("key", key)
    if len(key.encode()) > MAX_KEY_BYTES:
        raise InvalidObservation(
            "key", f"key {_show(key)} has {len(key.encode())} bytes; at most {MAX_KEY_BYTES} are kept"
        )
    if not isinstance(unit, str) or not 1 <= len(unit) <= MAX_UNIT_CHARS:
        raise InvalidObservation(
            "unit", f"unit {_show(unit)} of key {_show(key)} must be a string of 1 to {MAX_UNIT_CHARS} characters"
        )
    _check_text("unit", unit)
    return Series(str(key), kind, str(unit))


def check_value(value: object, key: object) -> float:
    """Return *value* as the nearest float64.

    Raises:
        InvalidObservation: Not a real number, a bool, NaN, infinite, or too large for a float64.
    """
    try:
        number = float(value) if _is_real(value) else None  # type: ignore[arg-type]
    except Exception as error:  # an error of a user's __float__ must not reach the job
        raise InvalidObservation(
            "value", f"value {_show(value)} of key {_show(key)} must be a real number that fits a float64 ({error!r})"
        ) from None
    if number is None:
        raise InvalidObservation(
            "value", f"value {_show(value)} of key {_show(key)} must be a real number, not {type(value).__name__}"
        )
    if not math.isfinite(number):
        raise InvalidObservation("value", f"value {_show(value)} of key {_show(key)} must be finite")
    return number + 0.0  # -0.0 would make min and max depend on order


def _is_real(value: object) -> bool:
    """Whether *value* is a real number; float() also accepts bools, strings, and the real half of a complex number."""
    if isinstance(value, (bool, str, bytes, bytearray, memoryview)):
        return False
    if isinstance(value, Complex) and not isinstance(value, Real):
        return False
    return getattr(getattr(value, "dtype", None), "kind", "f") in "iuf"  # numpy's integers and floats


def _check_text(rule: str, text: str) -> None:
    if "\x00" in text:
        raise InvalidObservation(rule, f"{rule} {_show(text)} must not contain NUL")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidObservation(rule, f"{rule} {_show(text)} has a lone surrogate, which UTF-8 can't encode") from None


def _show(value: object) -> str:
    """Return repr of *value*, cut to 80 characters; never raises."""
    try:
        text = repr(value)
    except Exception as error:  # an error of a user's __repr__ must not reach the job
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."
