"""What can be recorded, and the rules an observation must keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from itertools import repeat
from numbers import Complex, Real
from operator import sub
from typing import Literal, NamedTuple, SupportsFloat

import msgspec

from .errors import InvalidObservation

Kind = Literal["counter", "gauge", "histogram"]
KINDS: tuple[Kind, ...] = ("counter", "gauge", "histogram")
DEFAULT_UNITS: dict[Kind, str] = {"counter": "count", "gauge": "number", "histogram": "number"}

MAX_KEY_BYTES = 1_024
MAX_UNIT_CHARS = 64
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Series(NamedTuple):
    """What makes a series one series: the same key with another kind or unit is another one."""

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
    """What many job updates of a batch share."""

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


def microseconds(instant: datetime) -> int:
    """Microseconds since 1970 (UTC) of an aware datetime, exact."""
    return all_microseconds([instant])[0]


def all_microseconds(instants: Sequence[datetime]) -> list[int]:
    """`microseconds` of several instants: quickest where they are in one zone."""
    try:
        epoch = _epoch(instants[0].tzinfo)
    except TypeError:  # dateutil's zones can't be hashed
        epoch = EPOCH
    return [
        (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
        for since in map(sub, instants, repeat(epoch))
    ]


@lru_cache(64)
def _epoch(zone: tzinfo | None) -> datetime:
    """1970 (UTC) in *zone*, if its offset never changes: between two times in one zone no offset is asked for.

    That is what takes longest otherwise, also for zoneinfo's UTC, in which psycopg returns every time.
    """
    try:
        offset = None if zone is None else zone.utcoffset(None)
    except Exception:  # a zone of somebody's own may not know that there may be no time
        offset = None
    return EPOCH if offset is None else (EPOCH + offset).replace(tzinfo=zone)


def check_series(key: object, kind: Kind, unit: object) -> Series:
    """Return the series of an observation.

    Raises:
        InvalidObservation: Key or unit break their rule.
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
    except Exception as error:  # whatever a foreign __float__ raises must not end up in a job
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
    """Whether float() tells the truth about *value*: it also takes truth values, digits, and half a complex number."""
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
    """repr of *value*, short, and never raising: it ends in a log line."""
    try:
        text = repr(value)
    except Exception as error:  # a foreign __repr__ must not raise into a job
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= 80 else text[:77] + "..."
