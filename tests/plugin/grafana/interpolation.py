"""What Grafana makes of a query before it sends it, by its documentation: macros and variables replaced."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

#: What a variable of a dashboard is set to: names, or None for "All".
Chosen = Mapping[str, Sequence[str] | None]


def moment(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).isoformat().replace("+00:00", "Z")


def interpolate_sql(
    query: str, variables: Mapping[str, str], chosen: Chosen, since_s: int, until_s: int, interval_s: int
) -> str:
    """Return SQL as PostgreSQL gets it.

    Args:
        variables: Variable -> the dashboard's custom value for "All", which is put in as it is.
    """
    for name, all_value in variables.items():
        names = chosen.get(name)
        value = all_value if names is None else ",".join("'" + one.replace("'", "''") + "'" for one in names)
        query = replace_variable(query, name, value)
    query = query.replace("$__interval_ms", str(interval_s * 1_000)).replace("$__interval", f"{interval_s}s")
    macros = {
        "timeFilter": lambda column: f"{column} BETWEEN '{moment(since_s)}' AND '{moment(until_s)}'",
        "unixEpochFilter": lambda column: f"{column} >= {since_s} AND {column} <= {until_s}",
        "unixEpochFrom": lambda _: str(since_s),
        "unixEpochTo": lambda _: str(until_s),
    }
    return re.sub(r"\$__(\w+)\(([^)]*)\)", lambda found: macros[found[1]](found[2].strip()), query)


def interpolate_promql(query: str, variables: Mapping[str, str], chosen: Chosen, interval_s: int, range_s: int) -> str:
    """Return PromQL as Prometheus gets it: several names become a regular expression."""
    for name, all_value in variables.items():
        names = chosen.get(name)
        escaped = [re.sub(r"[\\^$.*+?()[\]{}|]", r"\\\\\g<0>", one) for one in names or ()]
        value = all_value if names is None else "(" + "|".join(escaped) + ")"
        query = replace_variable(query, name, value)
    query = query.replace("$__rate_interval", f"{4 * interval_s}s").replace("$__range", f"{range_s}s")
    return query.replace("$__interval", f"{interval_s}s")


def replace_variable(query: str, name: str, value: str) -> str:
    return re.sub(rf"\$(?:{name}\b|\{{{name}\}})", lambda _: value, query)
