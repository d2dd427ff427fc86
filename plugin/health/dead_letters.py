"""Give up dead letters, recording who, when and why; their days may then leave the log."""

from __future__ import annotations

from datetime import UTC, date, datetime

import msgspec
import psycopg
from chancy import Chancy
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.error_kinds import in_words, is_transient
from chancy_metrics.events.errors import NO_HEAD, MetricsLogError, SchemaMissing, StuckAt
from chancy_metrics.events.schema import Tables, tables_for
from chancy_metrics.events.storable_text import storable
from chancy_metrics.plugin.host.app import options_of
from chancy_metrics.plugin.host.bounded_connection import bounded_connection
from chancy_metrics.plugin.host.notify import announce_by
from chancy_metrics.projections.versions.version import ADVANCING, Version, read_generations, read_versions

#: Positions or rules that a message names.
_NAMED = 10


class Discarded(msgspec.Struct, frozen=True):
    """A batch, or the output of some rules on it, that is given up.

    Attributes:
        versions: Those that had to leave it out.
        rules: Names of the rules that failed on it; [] if the whole batch is given up.
        at: When it was given up, UTC; *by* whom and *why*.
        again: Whether it had been given up before; *at*, *by* and *why* are of that time.
    """

    position: int
    versions: list[int]
    rules: list[str]
    at: datetime
    by: str
    why: str
    again: bool


class _LedgerState(msgspec.Struct, frozen=True):
    """The ledger around a position.

    Attributes:
        day: Day of the batch there; None if the ledger has no such position.
        left: Whether that day has left the log.
        first: First position in the ledger; None if it is empty.
        last: Last position that was assigned.
    """

    day: date | None
    left: bool
    first: int | None
    last: int


async def discard(chancy: Chancy, position: int, *, why: str, by: str) -> Discarded:
    """Give up what every version leaves out of the batch at *position*: all of it, or the output of failed rules.

    If a version is stuck at the batch, it is folded once more first, and left out if that fails.

    Args:
        why: The reason, kept for later readers; not empty.
        by: Who says so.

    Raises:
        MetricsLogError: No version leaves anything of it out; the message says where it is instead.
        TableLocked: Somebody holds a lock on a table for longer than `LOCK_LIMIT_MS`.
        ValueError: There is no reason in *why*.
    """
    if not why.strip():
        raise ValueError(f"why={why!r} must say why the batch at position {position} is given up")
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy, "discard") as connection:
        tried = await _get_past(chancy, connection, tables, position)
        async with short_transaction(connection) as cursor:
            again = await _give_up(cursor, tables, "position = %(value)s", position, why=why, by=by) == 0
            await cursor.execute(
                sql.SQL(
                    """
                    SELECT version, discarded_at, discarded_by, why, rule
                    FROM {dead}
                    WHERE position = %(position)s
                    ORDER BY discarded_at DESC, version
                    """
                ).format(dead=tables.dead_letters),
                {"position": position},
            )
            rows = await cursor.fetchall()
            if not rows:
                where = tried or await _whereabouts(cursor, tables, position)
                raise MetricsLogError(f"{where}; {await _left_out(cursor, tables)}")
    _, at, said_by, reason, _ = rows[0]
    rules = {row[4] for row in rows}
    versions = sorted({row[0] for row in rows})
    return Discarded(
        position, versions, [] if "" in rules else sorted(rules), at.astimezone(UTC), said_by, reason, again
    )


async def discard_rule(chancy: Chancy, rule: str, *, why: str, by: str) -> int:
    """Give up the output of the user's *rule* on every batch on which it failed; return the number of batches.

    Args:
        why: The reason, kept for later readers; not empty.
        by: Who says so.

    Raises:
        MetricsLogError: It has not failed on any batch, or those are all given up.
        ValueError: There is no reason in *why*.
    """
    if not why.strip():
        raise ValueError(f"why={why!r} must say why what rule {rule!r} would have made is given up")
    tables = tables_for(chancy.prefix)
    async with bounded_connection(chancy, "discard") as connection, short_transaction(connection) as cursor:
        given_up = await _give_up(cursor, tables, "rule <> '' AND rule = %(value)s", rule, why=why, by=by)
        if not given_up:
            raise MetricsLogError(
                f"rule {rule!r} has failed on no batch that is not given up; {await _failing(cursor, tables)}"
            )
    return given_up


async def _failing(cursor: Cursor, tables: Tables) -> str:
    """Return a clause with the rules that failed on batches not given up."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT DISTINCT rule
            FROM {dead}
            WHERE discarded_at IS NULL
                AND rule <> ''
            ORDER BY rule
            LIMIT %(limit)s
            """
        ).format(dead=tables.dead_letters),
        {"limit": _NAMED},
    )
    rules = [repr(row[0]) for row in await cursor.fetchall()]
    return f"those that have: {', '.join(rules)}" if rules else "no rule has"


async def _give_up(cursor: Cursor, tables: Tables, where: str, value: int | str, *, why: str, by: str) -> int:
    """Give up what is left out *where* the condition holds; return the number of batches."""
    await cursor.execute(
        sql.SQL(
            f"""
            WITH given_up AS (
                UPDATE {{dead}}
                SET discarded_at = clock_timestamp(),
                    discarded_by = %(by)s,
                    why = %(why)s
                WHERE {where}
                    AND discarded_at IS NULL
                RETURNING position
            )
            SELECT count(DISTINCT position) FROM given_up
            """
        ).format(dead=tables.dead_letters),
        {"value": value, "by": storable(cursor, by), "why": storable(cursor, why)},
    )
    row = await cursor.fetchone()
    return int(row[0]) if row else 0


async def _get_past(chancy: Chancy, connection: Connection, tables: Tables, position: int) -> str | None:
    """Let each version whose next batch is at *position* fold it, or leave it out if that fails.

    Returns:
        The outcome in words; None if no version is there.
    """
    from chancy_metrics.projections.versions.advance import advance
    from chancy_metrics.projections.versions.isolate import leave_out

    async with short_transaction(connection) as cursor:
        waiting = [
            one
            for one in [*await read_versions(cursor, tables), *await read_generations(cursor, tables)]
            if one.position == position - 1 and one.status in ADVANCING
        ]
        if not waiting or (await _find(cursor, tables, position)).day is None:
            return None
    options, said = options_of(chancy), ""
    announce = announce_by(chancy, "discard")
    for one in waiting:
        try:
            done = await advance(
                connection,
                tables,
                folded_by="discard",
                rules=options.rules,
                version=one.version,
                until=position,
                announce=announce,
            )
        except (psycopg.Error, StuckAt) as error:
            cause = error.__cause__ if isinstance(error, StuckAt) else error
            if not isinstance(cause, psycopg.Error) or connection.closed or is_transient(cause):
                raise
            await leave_out(connection, tables, one.version, position, in_words(cause), folded_by="discard")
        else:
            said = done.reason or f"the batch at position {position} is folded now, into {one.subject}"
    return said


async def _find(cursor: Cursor, tables: Tables, position: int) -> _LedgerState:
    await cursor.execute(
        sql.SQL(
            """
            SELECT o.day, coalesce(d.state IN ('absorbed', 'gone'), false), (SELECT min(position) FROM {ledger}),
                h.position
            FROM {head} h
            LEFT JOIN {ledger} o
                ON o.position = %(position)s
            LEFT JOIN {days} d
                ON d.day = o.day
            """
        ).format(head=tables.head, ledger=tables.ledger, days=tables.days),
        {"position": position},
    )
    row = await cursor.fetchone()
    if row is None:
        raise SchemaMissing(NO_HEAD)
    return _LedgerState(*row)


async def _whereabouts(cursor: Cursor, tables: Tables, position: int) -> str:
    """Say where the batch at *position* is, given that no version leaves it out."""
    found = await _find(cursor, tables, position)
    if position < 1:
        return f"there is no position {position}: the first one is 1"
    if position > found.last:
        return f"there is no position {position} yet: the ledger ends at {found.last}"
    versions = [one for one in await read_versions(cursor, tables) if one.status != "dropped"]
    if found.day is None:
        if found.first is None or position < found.first:
            return f"the batch at position {position} has left the log and the ledger with its day, long ago"
        return f"position {position} is missing from the ledger, which is damage: `chancy-metrics verify` says more"
    has = [one for one in versions if one.position >= position]
    lacks = [one for one in versions if one.position < position]
    parts = [f"the batch at position {position} is in {_named('the numbers of', has) if has else 'no version yet'}"]
    if lacks:
        stand = ", ".join(f"version {one.version} stands at {one.position}" for one in lacks)
        parts.append(f"{stand} and folds the batches before it first")
    if found.left:
        parts.append(f"its day {found.day} has left the log, and its part of the numbers is in the baseline")
    return "; ".join(parts)


def _named(what: str, versions: list[Version]) -> str:
    return f"{what} version{'s' if len(versions) > 1 else ''} {', '.join(str(one.version) for one in versions)}"


async def _left_out(cursor: Cursor, tables: Tables) -> str:
    await cursor.execute(
        sql.SQL(
            """
            SELECT DISTINCT position
            FROM {dead}
            WHERE discarded_at IS NULL
            ORDER BY position
            LIMIT %(limit)s
            """
        ).format(dead=tables.dead_letters),
        {"limit": _NAMED + 1},
    )
    positions = [str(row[0]) for row in await cursor.fetchall()]
    if not positions:
        return "no batch is left out and not given up"
    shown = ", ".join(positions[:_NAMED])
    return f"left out and not given up: {shown}{' and more' if len(positions) > _NAMED else ''}"
