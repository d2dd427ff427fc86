"""Keep the outcome of the last `audit check` for `status`, in the record of the log."""

from __future__ import annotations

from datetime import datetime

import msgspec
import psycopg
from psycopg import sql

from chancy_metrics.events.database import Connection, Cursor, short_transaction
from chancy_metrics.events.hot_standby import error_sentence
from chancy_metrics.events.schema import Tables
from chancy_metrics.projections.findings import Findings
from chancy_metrics.projections.verify.records import LastChecked, Stored, read_records, write_record
from chancy_metrics.projections.versions.version import BASELINE

#: Sentences that are kept, and characters of each.
_SENTENCES, _CHARS = 5, 300


async def keep_checked(
    connection: Connection,
    tables: Tables,
    found: Findings,
    *,
    at: datetime,
    first: int,
    position: int,
    batches: int,
) -> str | None:
    """Replace the kept outcome of the last check; return why that was not possible, or None.

    Args:
        at: When it began.
        first: First position it checked; *position* is the last, *batches* the number hashed.
    """
    try:
        async with short_transaction(connection) as cursor:
            discarded = await _discarded(cursor, tables)
            given_up = {spot for spot in found.spots if spot.scale == "position" and spot.at in discarded}
            told = [text[:_CHARS] for spot, text in found.sentences.items() if spot not in given_up]
            last = LastChecked(
                at,
                first,
                position,
                batches,
                found.count,
                sum(found.spots[spot] for spot in given_up),
                told[:_SENTENCES],
            )
            await cursor.execute(
                sql.SQL("SELECT FROM {versions} WHERE version = %(log)s FOR NO KEY UPDATE").format(
                    versions=tables.versions
                ),
                {"log": BASELINE},
            )
            record = (await read_records(cursor, tables)).get(BASELINE, Stored())
            await write_record(cursor, tables, BASELINE, msgspec.structs.replace(record, checked=last))
    except psycopg.Error as error:  # report the findings even if they can't be kept
        return f"the outcome of this check could not be kept for `status`: {error_sentence(error)}"
    return None


async def read_last_checked(cursor: Cursor, tables: Tables) -> LastChecked | None:
    """Return the outcome of the last `audit check`; None where none was kept."""
    return (await read_records(cursor, tables)).get(BASELINE, Stored()).checked


async def _discarded(cursor: Cursor, tables: Tables) -> set[int]:
    """Return the positions whose batches were given up."""
    await cursor.execute(
        sql.SQL("SELECT position FROM {dead} WHERE rule = '' AND discarded_at IS NOT NULL").format(
            dead=tables.dead_letters
        )
    )
    return {row[0] for row in await cursor.fetchall()}
