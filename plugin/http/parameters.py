"""Check the parameters of a request; the error for a wrong one names what is allowed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar, overload
from uuid import UUID

from chancy_metrics.events.errors import MetricsLogError
from chancy_metrics.events.facts import MAX_KEY_BYTES
from chancy_metrics.plugin.host.moments import BOUNDS, utc

_Choice = TypeVar("_Choice", bound=str)

_MOMENT = f"an ISO 8601 time with its zone, such as 2026-03-10T12:00:00Z, {BOUNDS}"
_SHOWN_CHARS = 100


class WrongParameter(MetricsLogError, ValueError):
    """A parameter of a request has a value that is not allowed, or does not exist.

    Attributes:
        parameter: Its name.
        allowed: The values it takes, in words.
    """

    def __init__(self, parameter: str, value: str, allowed: str) -> None:
        shown = value if len(value) <= _SHOWN_CHARS else value[:_SHOWN_CHARS] + "…"
        super().__init__(f"{parameter}={shown!r} is not allowed; it takes {allowed}")
        self.parameter = parameter
        self.allowed = allowed


class Parameters:
    """The values of one request by name: a route asks for each of its parameters, and `finish` refuses the others.

    msgspec Structs would not do: their errors do not say in words what is allowed, and empty values, moments,
    lists with commas and NUL would need hooks.
    """

    def __init__(self, values: Sequence[tuple[str, str]], path: Mapping[str, str] | None = None) -> None:
        self._values = dict(values)
        self._asked: list[str] = []
        self._path = dict(path or {})
        given = [*self._path.items(), *values]
        for name, value in given:
            if "\x00" in name + value:
                raise WrongParameter(name, value, "text without NUL")
            if sum(name == other for other, _ in given) > 1:
                raise WrongParameter(name, value, "one value, but was given several times")

    def text(self, name: str, *, max_bytes: int = MAX_KEY_BYTES) -> str | None:
        """Return a text; None if it is missing or empty."""
        value = self._take(name)
        if value is not None and len(value.encode()) > max_bytes:
            raise WrongParameter(name, value, f"at most {max_bytes:,} bytes")
        return value

    def key(self, name: str = "key") -> str:
        """Return the key of a series.

        Raises:
            WrongParameter: It is missing.
        """
        value = self.text(name)
        if value is None:
            raise WrongParameter(name, "", f"the key of a series, 1 to {MAX_KEY_BYTES:,} bytes, and is required")
        return value

    def choice(self, name: str, choices: Sequence[_Choice], default: _Choice) -> _Choice:
        value = self._take(name)
        if value is None:
            return default
        for choice in choices:
            if choice == value:
                return choice
        raise WrongParameter(name, value, f"one of {', '.join(choices)}")

    def choices(self, name: str, choices: Sequence[_Choice]) -> tuple[_Choice, ...]:
        """Return the choices in a list separated by commas; () if it is missing."""
        value = self._take(name)
        named = [] if value is None else value.split(",")
        for one in named:
            if one not in choices:
                raise WrongParameter(name, one, f"any of {', '.join(choices)}, separated by commas")
        return tuple(choice for choice in choices if choice in named)

    @overload
    def whole(self, name: str, *, minimum: int, maximum: int, default: int) -> int: ...

    @overload
    def whole(self, name: str, *, minimum: int, maximum: int) -> int | None: ...

    def whole(self, name: str, *, minimum: int, maximum: int, default: int | None = None) -> int | None:
        value = self._take(name)
        if value is None:
            return default
        number = int(value) if value.isascii() and value.isdigit() and len(value) < 20 else minimum - 1
        if not minimum <= number <= maximum:
            raise WrongParameter(name, value, f"a whole number from {minimum:,} to {maximum:,}")
        return number

    def moment(self, name: str) -> datetime | None:
        """Return an aware moment; None if it is missing."""
        value = self._take(name)
        if value is None:
            return None
        try:
            return utc(datetime.fromisoformat(value))
        except ValueError:
            # A "+" that was not escaped arrives as a space.
            hint = ' ("+" is written %2B in an address)' if " " in value else ""
            raise WrongParameter(name, value, _MOMENT + hint) from None

    def span(self) -> tuple[datetime | None, datetime | None]:
        """Return `since` (inclusive) and `until` (exclusive)."""
        since, until = self.moment("since"), self.moment("until")
        if since is not None and until is not None and since >= until:
            raise WrongParameter("until", until.isoformat(), f"a moment after since, {since.isoformat()}")
        return since, until

    def identifier(self, name: str) -> UUID | None:
        value = self._take(name)
        if value is None:
            return None
        try:
            return UUID(value)
        except ValueError:
            raise WrongParameter(name, value, "a UUID, such as 019e2b7c-0000-7000-8000-000000000000") from None

    def finish(self) -> None:
        """Refuse parameters that the route did not ask for."""
        for name in self._values.keys() - set(self._asked):
            known = ", ".join(one for one in self._asked if one not in self._path)
            raise WrongParameter(name, self._values[name], f"nothing: there is no such parameter; known are {known}")

    def _take(self, name: str) -> str | None:
        self._asked.append(name)
        return self._path.get(name) or self._values.get(name) or None
