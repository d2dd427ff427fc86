"""Format counts, durations, sizes and times for messages."""

from __future__ import annotations

from datetime import datetime

_IRREGULAR = {
    "entry": "entries",
    "batch": "batches",
    "series": "series",
    "difference": "differences",
}
_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_SPANS = (("s", 60), ("min", 60), ("h", 24), ("d", 0))


def counted(number: int, noun: str) -> str:
    """Return "1 batch", "2 batches", "1,000 job updates": the noun's last word takes the plural."""
    if number == 1:
        return f"1 {noun}"
    *before, last = noun.split(" ")
    return " ".join([f"{number:,}", *before, _IRREGULAR.get(last, f"{last}s")])


def is_or_are(number: int, noun: str) -> str:
    """Return "1 batch is", "2 batches are"."""
    return f"{counted(number, noun)} {'is' if number == 1 else 'are'}"


def size(count: int) -> str:
    """Return a number of bytes as "999 B", "1.0 kB", "999 MB"; a thousand of one unit is one of the next."""
    value = float(count)
    for unit in _SIZES:
        text = f"{value:.0f}" if unit == "B" or round(value, 1) >= 100 else f"{value:.1f}"
        if float(text) < 1_000 or unit == _SIZES[-1]:
            return f"{text} {unit}"
        value /= 1_000
    raise AssertionError("the last unit takes everything")


def span(seconds: float) -> str:
    """Return a length of time in its two largest units: "0.25 s", "59 s", "2 min", "1 h 30 min", "3 d 4 h"."""
    if round(seconds, 1) < 10:
        return f"{round(seconds, 3):g} s"
    rest = round(seconds)
    if rest < 60:
        return f"{rest} s"
    # Rounded to the lesser of the two units that are shown, so that 60 of it never stand there.
    for shown in (1, 60, 3_600):
        rest = (round(seconds) + shown // 2) // shown * shown
        if rest < shown * 3_600 or (shown == 60 and rest < 86_400) or shown == 3_600:
            break
    parts = []
    for unit, per in _SPANS:
        value, rest = (rest % per, rest // per) if per else (rest, 0)
        if value:
            parts.append(f"{value:,} {unit}")
    return " ".join(parts[::-1][:2])


def moment(at: datetime | None, none: str = "never") -> str:
    """Return "2026-03-10 12:00:00 UTC" of a moment in UTC; *none* of none."""
    return none if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
