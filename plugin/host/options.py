"""The plugin's settings: check the arguments of `Metrics(...)`, and fill in the defaults."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from chancy_metrics.events.schema import RESOLUTIONS
from chancy_metrics.projections.rules.rule_set import Rule, RuleSet, name_of

Resolution = Literal["1min", "5min", "1hour", "1day"]

DEFAULT_POINTS = {"1min": 60, "5min": 288, "1hour": 168, "1day": 90}
DAY_S = 86_400
#: The default of append_interval, where a quarter of the sync interval is not shorter.
_LONGEST_APPEND_S = 1.0
#: A hundred years: no moment that is computed of it is out of datetime's bounds.
_MAX_S = 36_525 * DAY_S
#: PostgreSQL's lock_timeout is a 32-bit number of milliseconds.
_MAX_LOCK_S = (2**31 - 1) // 1000
#: Of one job's kept meta: sixteen such jobs fill a batch.
_MAX_META_BYTES = 1 << 20
#: The default of max_meta_bytes.
META_BYTES = 4_096


_TOKEN = re.compile(r"[!-~]{16,}")


class Secret(str):
    """A text that no repr shows."""

    def __repr__(self) -> str:
        return "'***'"


class Options(NamedTuple):
    """Checked arguments of `Metrics`; intervals in seconds."""

    sync_interval: float
    max_points: dict[str, int]
    maximum_metric_age: int
    collection_interval: float
    append_interval: float
    max_buffered_points: int
    lock_timeout: float
    log_retention: float
    strict: bool
    keep_meta: tuple[str, ...]
    max_meta_bytes: int
    error_messages: bool
    rules: RuleSet
    auto_rebuild: bool
    scrape_token: Secret | None
    queue_health: bool

    @property
    def lock_wait_ms(self) -> int:
        """`lock_timeout` as the database takes it: 0 would wait for ever."""
        return max(1, round(self.lock_timeout * 1000))


def check_options(
    *,
    sync_interval: float,
    max_points_per_resolution: Mapping[Resolution, int] | None,
    maximum_metric_age: int,
    collection_interval: float,
    append_interval: float | None,
    max_buffered_points: int,
    lock_timeout: float,
    log_retention: float,
    strict: bool,
    keep_meta: Iterable[str],
    max_meta_bytes: int,
    error_messages: bool,
    rules: Iterable[Rule],
    rules_version: int,
    auto_rebuild: bool,
    scrape_token: str | None,
    queue_health: bool,
) -> Options:
    """Return the arguments with defaults filled in.

    Raises:
        ValueError: One is wrong; the message names it, its value and the rule.
    """
    _seconds("sync_interval", sync_interval)
    if append_interval is None:
        append_interval = min(_LONGEST_APPEND_S, sync_interval / 4)
    for name, value in {
        "maximum_metric_age": maximum_metric_age,
        "collection_interval": collection_interval,
        "append_interval": append_interval,
        "log_retention": log_retention,
    }.items():
        _seconds(name, value)
    _seconds("lock_timeout", lock_timeout, _MAX_LOCK_S, "what PostgreSQL takes")
    if lock_timeout < 0.001:
        raise ValueError(f"lock_timeout={lock_timeout!r} must be at least 0.001 seconds: 0 would wait for ever")
    if maximum_metric_age != int(maximum_metric_age):
        raise ValueError(f"maximum_metric_age={maximum_metric_age!r} must be whole seconds")
    _whole("max_buffered_points", max_buffered_points)
    points = dict(max_points_per_resolution or {})
    for resolution, count in points.items():
        if resolution not in RESOLUTIONS:
            raise ValueError(f"max_points_per_resolution has {resolution!r}; resolutions are {', '.join(RESOLUTIONS)}")
        _whole(f"max_points_per_resolution[{resolution!r}]", count)
    flags = {
        "strict": strict,
        "error_messages": error_messages,
        "auto_rebuild": auto_rebuild,
        "queue_health": queue_health,
    }
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ValueError(f"{name}={flag!r} must be True or False")
    if isinstance(keep_meta, str):
        raise ValueError(f"keep_meta={keep_meta!r} must be several keys, such as ({keep_meta!r},)")
    _whole("max_meta_bytes", max_meta_bytes)
    if max_meta_bytes > _MAX_META_BYTES:
        raise ValueError(f"max_meta_bytes={max_meta_bytes!r} must be at most {_MAX_META_BYTES:,}")
    kept = tuple(keep_meta)
    for key in kept:
        if not isinstance(key, str):
            raise ValueError(f"keep_meta has {key!r}; keys of a job's meta are strings")
    return Options(
        sync_interval,
        DEFAULT_POINTS | {str(name): count for name, count in points.items()},
        int(maximum_metric_age),
        collection_interval,
        append_interval,
        max_buffered_points,
        lock_timeout,
        log_retention,
        strict,
        kept,
        max_meta_bytes,
        error_messages,
        _rule_set(tuple(rules), rules_version),
        auto_rebuild,
        None if scrape_token is None else _scrape_token(scrape_token),
        queue_health,
    )


def check_token(token: str) -> Secret:
    """Return a bearer token.

    Raises:
        ValueError: It is none; the message does not show it.
    """
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError("a token has 16 characters or more, ASCII without spaces; `openssl rand -hex 32` makes one")
    return Secret(token)


def _scrape_token(token: str) -> Secret:
    try:
        return check_token(token)
    except ValueError as error:
        raise ValueError(f"scrape_token is wrong: {error}") from None


def _rule_set(rules: tuple[Rule, ...], version: int) -> RuleSet:
    if isinstance(version, bool) or not isinstance(version, int) or not 0 <= version < 2**31:
        raise ValueError(f"rules_version={version!r} must be a whole number, 1 or above where there are rules")
    if rules and version == 0:
        raise ValueError("rules need a rules_version of 1 or above, which is raised whenever they change")
    names = [name_of(rule) for rule in rules]
    for rule, name in zip(rules, names, strict=True):
        if not callable(rule) or name == "<lambda>":
            raise ValueError(f"rules has {rule!r}; a rule is a function with a name")
        if names.count(name) > 1:
            raise ValueError(f"rules has two rules named {name!r}; their names tell them apart")
    return RuleSet(user=version, rules=rules)


def _seconds(name: str, value: float, max_s: int = _MAX_S, why: str = "a hundred years") -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= max_s:
        raise ValueError(f"{name}={value!r} must be a number of seconds above 0, at most {max_s:,} ({why})")


def _whole(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name}={value!r} must be a whole number above 0")
