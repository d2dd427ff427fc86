"""Read and lock versions. Each has a position in the ledger, a rule set, horizons, and rollup rows of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import LiteralString, NamedTuple

import anyio
from psycopg import sql
from psycopg.rows import TupleRow

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.errors import NO_HEAD, NO_LIVE_VERSION, SchemaMissing
from chancy_metrics.events.schema import HORIZON_COLUMNS, RESOLUTIONS, Tables
from chancy_metrics.projections.rules.rule_set import RuleSet, label

#: Number of the first baseline. A baseline holds the points of pruned days, and each version begins with a copy of its
#: own, which is another one where days were folded again from their archives.
BASELINE = 0

#: The error where the row of version 0 is missing.
NO_BASELINE = (
    "version 0, which holds the points of pruned days, is missing: restore its row in metrics_versions "
    "from a backup (`chancy-metrics audit check` says what else is wrong)"
)


def no_baseline(number: int) -> str:
    """Return the error where the row of a baseline is missing."""
    return NO_BASELINE.replace("version 0", f"version {number}")


#: Statuses of versions that are still being made.
UNFINISHED = ("copying", "backfilling", "ready")
#: Statuses of the generations of the totals, which have rows among the versions: their position, rules and dead letters
#: are kept and moved like those of a version. One in the last status is served.
UNFINISHED_TOTALS = ("totals_copying", "totals_backfilling")
TOTALS = (*UNFINISHED_TOTALS, "totals")
TOTALS_DROPPED = "totals_dropped"
#: Statuses in which a version takes steps.
ADVANCING = ("backfilling", "ready", "live", "standby", "totals_backfilling", "totals")
#: The statuses of what is no version, for SQL.
NO_VERSION: LiteralString = (
    "('baseline', 'collecting', 'totals_copying', 'totals_backfilling', 'totals', 'totals_dropped')"
)
#: Attempts of `lock_version_soon`, and seconds between them.
_TRIES, _TRY_S = 10, 0.02


class Head(NamedTuple):
    """The row of the ledger's head.

    Attributes:
        position: Last position of the ledger.
        live: Number of the version that readers see.
        blocked_rules: Labels of rules that only an explicit swap may promote again.
    """

    position: int
    live: int
    blocked_rules: list[str]


class Version(NamedTuple):
    """A version's row.

    Attributes:
        pair: Numbers of its built-in rules and of the user's.
        rule_names: Names of the user's rules.
        status: "baseline", "collecting" (a baseline that is being made from archives), "copying" (the baseline),
            "backfilling", "ready", "live", "standby" or "dropped".
        position: Last position of the ledger that is folded into it.
        folds: How many steps it has taken.
        auto_promote: Whether it is promoted as soon as it has caught up; otherwise only on demand.
        replaced: The version that was live before this one.
        horizons: Resolution -> start of the oldest bucket it keeps, seconds.
        baseline: Number of the baseline it was made from: this and the days in the log add up to it.
    """

    version: int
    pair: tuple[int, int]
    rule_names: list[str]
    status: str
    position: int
    folds: int
    auto_promote: bool
    replaced: int | None
    horizons: dict[str, int]
    baseline: int = BASELINE

    @property
    def subject(self) -> str:
        """What it is called in sentences."""
        return f"{'generation' if self.status in (*TOTALS, TOTALS_DROPPED) else 'version'} {self.version}"

    def refuses(self, rules: RuleSet) -> str | None:
        """Return why code with *rules* must not fold this version, as a sentence; None if it may."""
        if self.pair != rules.pair:
            return f"{self.subject} has rules {label(self.pair)}, this code has {label(rules.pair)}"
        if self.rule_names != rules.names:
            return (
                f"{self.subject} was made by rules {label(self.pair)} named {_list(self.rule_names)}, this "
                f"code's {label(rules.pair)} are named {_list(rules.names)}: raise rules_version where rules change"
            )
        return None


_COLUMNS = f"""
    version, rules, user_rules, rule_names, status, position, folds, auto_promote, replaced, baseline,
    {HORIZON_COLUMNS}
"""


async def lock_head(cursor: Cursor, tables: Tables) -> Head:
    """Lock the head until the transaction ends: meanwhile no batch gets a position and no version is promoted."""
    await cursor.execute(
        sql.SQL("SELECT position, live, blocked_rules FROM {head} FOR UPDATE").format(head=tables.head)
    )
    return _head(await cursor.fetchone())


async def read_head(cursor: Cursor, tables: Tables) -> Head:
    """Return the head, without a lock."""
    await cursor.execute(sql.SQL("SELECT position, live, blocked_rules FROM {head}").format(head=tables.head))
    return _head(await cursor.fetchone())


async def live_version(cursor: Cursor, tables: Tables) -> Version:
    """Return the version that readers see.

    Raises:
        SchemaMissing: There is none.
    """
    found = await _select(cursor, tables, "WHERE v.version = (SELECT live FROM {head})")
    if not found:
        raise SchemaMissing(NO_LIVE_VERSION)
    return found[0]


async def read_version(cursor: Cursor, tables: Tables, version: int) -> Version | None:
    """Return one version; None if it does not exist."""
    found = await _select(cursor, tables, "WHERE v.version = %(version)s", version=version)
    return found[0] if found else None


async def read_versions(cursor: Cursor, tables: Tables) -> list[Version]:
    """Return all versions but the baselines, by number."""
    return await _select(cursor, tables, f"WHERE v.status NOT IN {NO_VERSION} AND v.version > 0 ORDER BY v.version")


async def read_generations(cursor: Cursor, tables: Tables) -> list[Version]:
    """Return the generations of the totals, by number: at most one that is served, and one that is being built."""
    return await _select(cursor, tables, "WHERE v.status = ANY(%(totals)s) ORDER BY v.version", totals=list(TOTALS))


async def read_dropped(cursor: Cursor, tables: Tables) -> list[Version]:
    """Return the versions and the generations whose rows may be deleted, by number."""
    dropped = ["dropped", TOTALS_DROPPED]
    return await _select(cursor, tables, "WHERE v.status = ANY(%(dropped)s) ORDER BY v.version", dropped=dropped)


async def read_baselines(cursor: Cursor, tables: Tables) -> list[Version]:
    """Return the baselines that versions are made from, by number."""
    return await _select(
        cursor,
        tables,
        f"""
        WHERE (v.status = 'baseline' OR v.version = 0)
            AND EXISTS (
                SELECT
                FROM {{versions}} u
                WHERE u.baseline = v.version
                    AND u.status NOT IN {NO_VERSION}
                    AND u.status <> 'dropped'
            )
        ORDER BY v.version
        """,
    )


async def read_collecting(cursor: Cursor, tables: Tables) -> list[Version]:
    """Return the baselines that are being made from archives, by number."""
    return await _select(cursor, tables, "WHERE v.status = 'collecting' ORDER BY v.version")


async def lock_version(cursor: Cursor, tables: Tables, version: int, *, wait: bool = False) -> Version | None:
    """Lock a version until the transaction ends; None if it does not exist or, without *wait*, is locked."""
    found = await _select(
        cursor,
        tables,
        "WHERE v.version = %(version)s FOR UPDATE OF v" + ("" if wait else " SKIP LOCKED"),
        version=version,
    )
    return found[0] if found else None


async def lock_version_soon(cursor: Cursor, tables: Tables, version: int) -> Version | None:
    """Lock a version until the transaction ends, waiting out who holds it for milliseconds; None after 0.2 s."""
    for _ in range(_TRIES):
        if found := await lock_version(cursor, tables, version):
            return found
        await anyio.sleep(_TRY_S)
    return None


async def raise_horizons(
    cursor: Cursor, tables: Tables, version: int, horizons: Mapping[str, int]
) -> dict[str, int] | None:
    """Raise the horizons of *version*, whose lock the caller holds, to *horizons* where those are later.

    Returns:
        Resolution -> start of the oldest bucket it keeps now, seconds; None if there is no such version.
    """
    await cursor.execute(
        sql.SQL(
            """
            UPDATE {versions}
            SET horizon_1min = greatest(horizon_1min, %(1min)s),
                horizon_5min = greatest(horizon_5min, %(5min)s),
                horizon_1hour = greatest(horizon_1hour, %(1hour)s),
                horizon_1day = greatest(horizon_1day, %(1day)s)
            WHERE version = %(version)s
            RETURNING {columns}
            """
        ).format(versions=tables.versions, columns=sql.SQL(HORIZON_COLUMNS)),
        {"version": version, **horizons},
    )
    row = await cursor.fetchone()
    return None if row is None else dict(zip(RESOLUTIONS, row, strict=True))


async def _select(cursor: Cursor, tables: Tables, where: str, **values: int | list[str]) -> list[Version]:
    await cursor.execute(
        sql.SQL(f"SELECT {_COLUMNS} FROM {{versions}} v {where}").format(versions=tables.versions, head=tables.head),
        values,
    )
    return [_version(row) for row in await cursor.fetchall()]


def _version(row: TupleRow) -> Version:
    version, built_in, user, names, status, position, folds, auto_promote, replaced, baseline, *horizons = row
    kept = dict(zip(RESOLUTIONS, horizons, strict=True))
    return Version(version, (built_in, user), names, status, position, folds, auto_promote, replaced, kept, baseline)


def _head(row: TupleRow | None) -> Head:
    if row is None:
        raise SchemaMissing(NO_HEAD)
    return Head(*row)


def _list(names: list[str]) -> str:
    return ", ".join(names) or "(none)"
