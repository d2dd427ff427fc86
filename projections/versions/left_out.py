"""Write and read the dead letters: batches that a version leaves out, and user rules that failed on a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import msgspec
from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.humanize import counted
from chancy_metrics.events.log import APPENDED_US
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.storable_text import storable
from chancy_metrics.projections.span import Span

#: Batches that are named, each with its error.
_NAMED = 5
_ERROR_CHARS = 1_000
_SHOWN_CHARS = 200


class LeftOutBatch(msgspec.Struct, frozen=True):
    """A batch that a version leaves out as a whole."""

    position: int
    error: str


class FailingRule(msgspec.Struct, frozen=True):
    """A user's rule that failed on some batches, whose built-in metrics are in the version.

    Attributes:
        batches: Number of batches; *discarded* of them are given up.
        position: Position of the first of them, and *error* what was raised there.
    """

    rule: str
    batches: int
    discarded: int
    position: int
    error: str


class LeftOut(msgspec.Struct, frozen=True):
    """What a version leaves out of a span of time; false if nothing.

    Attributes:
        batches: Number of batches left out as a whole, given up or not.
        discarded: How many of those are given up.
        events: Events in those, as far as the ledger tells.
        undated: How many of those have unknown times, and so count in every span.
        first: The first few of those.
        rules: User rules that failed, by number of batches, descending.
    """

    version: int
    batches: int
    discarded: int
    events: int
    undated: int
    first: list[LeftOutBatch]
    rules: list[FailingRule]

    def __bool__(self) -> bool:
        return bool(self.batches or self.rules)

    @property
    def sentence(self) -> str:
        """The same in words, as in "version 3 leaves out 2 batches of 40 events (position 7: …)"; "" for nothing."""
        return f"version {self.version} leaves out {self._list()}" if self else ""

    def _list(self) -> str:
        parts = []
        if self.batches:
            of_events = f" of {counted(self.events, 'event')}" if self.events else ""
            given_up = f", {self.discarded:,} of them given up" if self.discarded else ""
            why = "; ".join(f"position {one.position}: {one.error[:_SHOWN_CHARS]}" for one in self.first[:1])
            parts.append(f"{counted(self.batches, 'batch')}{of_events}{given_up} ({why})")
        parts += [
            f"what rule {rule.rule!r} makes of {counted(rule.batches, 'batch')} "
            f"(position {rule.position}: {rule.error[:_SHOWN_CHARS]})"
            for rule in self.rules
        ]
        return " and ".join(parts)

    def beyond(self, other: LeftOut) -> LeftOut:
        """Return what this leaves out more of than *other*, by number of batches: as a whole, and for each rule."""
        batches = {rule.rule: rule.batches for rule in other.rules}
        rules = [rule for rule in self.rules if rule.batches > batches.get(rule.rule, 0)]
        if self.batches > other.batches:
            return msgspec.structs.replace(self, rules=rules)
        return LeftOut(self.version, 0, 0, 0, 0, [], rules)


async def left_out_at(cursor: Cursor, tables: Tables, version: int, positions: Sequence[int]) -> list[LeftOutBatch]:
    """Return the batches at *positions* that *version* leaves out as a whole, ascending."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT position, error
            FROM {dead}
            WHERE version = %(version)s
                AND rule = ''
                AND position = ANY(%(positions)s)
            ORDER BY position
            """
        ).format(dead=tables.dead_letters),
        {"version": version, "positions": list(positions)},
    )
    return [LeftOutBatch(*row) for row in await cursor.fetchall()]


async def left_out_positions(cursor: Cursor, tables: Tables, version: int, day: date) -> set[int]:
    """Return the positions of the batches of *day* that *version* leaves out as a whole."""
    await cursor.execute(
        sql.SQL(
            """
            SELECT d.position
            FROM {dead} d
            JOIN {ledger} o
                ON o.position = d.position
            WHERE d.version = %(version)s
                AND d.rule = ''
                AND o.day = %(day)s
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger),
        {"version": version, "day": day},
    )
    return {row[0] for row in await cursor.fetchall()}


def summed_up(version: int, dead: Mapping[int, str], failed: Mapping[tuple[int, str], str]) -> LeftOut:
    """Return what one step leaves out.

    Args:
        dead: Position of a batch -> error.
        failed: Position of a batch and name of a rule -> error.
    """
    first = [LeftOutBatch(position, dead[position]) for position in sorted(dead)[:_NAMED]]
    by_rule: dict[str, list[int]] = {}
    for position, rule in sorted(failed):
        by_rule.setdefault(rule, []).append(position)
    rules = [FailingRule(rule, len(at), 0, at[0], failed[at[0], rule]) for rule, at in by_rule.items()]
    return LeftOut(version, len(dead), 0, 0, 0, first, rules)


def withheld(more: LeftOut, rules: str, live: int) -> str:
    """Return a sentence that says why a version of *rules* is not promoted by itself, and what to do."""
    rule = "mend the rule and raise rules_version" if more.rules else "find out why"
    return (
        f"{more.sentence}, which version {live} does not leave out: it does not take over by itself (rules {rules}); "
        f"{rule}, or take it as it is with `chancy-metrics swap {more.version}`"
    )


async def left_out(
    cursor: Cursor,
    tables: Tables,
    version: int,
    span: Span = Span(),  # noqa: B008 # immutable
    *,
    day: date | None = None,
    undiscarded: bool = False,
) -> LeftOut:
    """Return what *version* leaves out of the events in *span*, by default of all time. One statement.

    A batch counts if its first and last event, by the log, leave room for one in the span; a batch whose row is lost
    counts up to a day after the day it was appended. A rule that failed counts with each such batch, since the series
    that it would have fed are unknown.

    Args:
        day: Only batches of this day of the log.
        undiscarded: Only batches that are not given up.
    """
    await cursor.execute(
        sql.SQL(
            """
            SELECT d.rule, count(*), count(d.discarded_at), coalesce(sum(d.events), 0)::bigint,
                count(*) FILTER (WHERE d.first_us IS NULL),
                (array_agg(d.position ORDER BY d.position))[:%(named)s],
                (array_agg(d.error ORDER BY d.position))[:%(named)s]
            FROM {dead} d
            WHERE d.version = %(version)s
                AND (d.first_us < %(until)s) IS NOT FALSE
                AND (d.last_us >= %(since)s) IS NOT FALSE
                AND (d.discarded_at IS NULL OR NOT %(undiscarded)s)
                AND (
                    %(day)s::date IS NULL
                    OR EXISTS (SELECT 1 FROM {ledger} o WHERE o.position = d.position AND o.day = %(day)s::date)
                )
            GROUP BY d.rule
            ORDER BY count(*) DESC, d.rule
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger),
        {
            "version": version,
            "since": -(2**63) if span.since_us is None else span.since_us,
            "until": 2**63 - 1 if span.until_us is None else span.until_us,
            "named": _NAMED,
            "day": day,
            "undiscarded": undiscarded,
        },
    )
    found = LeftOut(version, 0, 0, 0, 0, [], [])
    for rule, batches, discarded, events, undated, positions, errors in await cursor.fetchall():
        if rule:
            found.rules.append(FailingRule(rule, batches, discarded, positions[0], errors[0]))
        else:
            first = [LeftOutBatch(*one) for one in zip(positions, errors, strict=True)]
            found = LeftOut(version, batches, discarded, events, undated, first, found.rules)
    return found


async def write_left_out(
    cursor: Cursor,
    tables: Tables,
    version: int,
    dead: Mapping[int, str],
    failed: Mapping[tuple[int, str], str],
) -> None:
    """Write dead letters of *version*, with the times of their events from the log.

    Args:
        dead: Position of a batch that is left out as a whole -> error.
        failed: Position of a batch and name of a rule that failed on it -> error.
    """
    errors = {(position, ""): error for position, error in dead.items()} | dict(failed)
    if not errors:
        return
    wanted = sorted(errors)
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {dead} (version, position, rule, error, events, first_us, last_us)
            SELECT %(version)s, n.position, n.rule, n.error, o.events, least(l.first_us, a.appended_us),
                coalesce(least(l.last_us, a.appended_us), (extract(epoch FROM o.day + 2) * 1000000)::bigint)
            FROM unnest(%(positions)s::bigint[], %(rules)s::text[], %(errors)s::text[]) AS n (position, rule, error)
            LEFT JOIN {ledger} o
                ON o.position = n.position
            LEFT JOIN {log} l
                ON l.day = o.day
                AND l.producer = o.producer
                AND l.sequence = o.sequence
            CROSS JOIN LATERAL (
                SELECT CASE WHEN l.first_us IS NOT NULL THEN {appended_us} END
            ) AS a (appended_us)
            ON CONFLICT DO NOTHING
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger, log=tables.log, appended_us=sql.SQL(APPENDED_US)),
        {
            "version": version,
            "positions": [position for position, _ in wanted],
            "rules": [storable(cursor, rule) for _, rule in wanted],
            "errors": [storable(cursor, errors[one])[:_ERROR_CHARS] for one in wanted],
        },
    )


async def copy_left_out(cursor: Cursor, tables: Tables, source: int, target: int, *, day: date | None = None) -> None:
    """Copy the dead letters of version *source*, of one day or all, to *target*, which is made from its rows."""
    await cursor.execute(
        sql.SQL(
            """
            INSERT INTO {dead} (
                version, position, rule, error, events, first_us, last_us, found_at, discarded_at, discarded_by, why
            )
            SELECT %(target)s, d.position, d.rule, d.error, d.events, d.first_us, d.last_us, d.found_at,
                d.discarded_at, d.discarded_by, d.why
            FROM {dead} d
            WHERE d.version = %(source)s
                AND (
                    %(day)s::date IS NULL
                    OR EXISTS (SELECT 1 FROM {ledger} o WHERE o.position = d.position AND o.day = %(day)s::date)
                )
            ON CONFLICT DO NOTHING
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger),
        {"source": source, "target": target, "day": day},
    )


async def forget_left_out(cursor: Cursor, tables: Tables, *, chunk: int) -> int:
    """Delete up to *chunk* dead letters before the ledger's first position, whose points have expired too."""
    await cursor.execute(
        sql.SQL(
            """
            DELETE FROM {dead}
            WHERE ctid = ANY(ARRAY(
                SELECT ctid
                FROM {dead}
                WHERE position < (SELECT min(position) FROM {ledger})
                LIMIT %(chunk)s
                FOR UPDATE SKIP LOCKED
            ))
            """
        ).format(dead=tables.dead_letters, ledger=tables.ledger),
        {"chunk": chunk},
    )
    return cursor.rowcount
