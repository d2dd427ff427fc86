"""The guard of an import: a trigger that keeps everything else from writing to the ledger until the import ends.

A trigger outlives the process that created it. Appends go on; their batches wait in pending.
"""

from __future__ import annotations

from psycopg import sql

from chancy_metrics.events.database import Cursor
from chancy_metrics.events.schema import Tables

_TRIGGER = "importing"
_SETTING = "chancy_metrics.importing"
_REFUSAL = (
    "an import into the metrics log has not ended, and what was appended meanwhile waits for that: "
    "let `chancy-metrics audit import` come to its end, run it again with the same file, or take it back with "
    "`chancy-metrics audit import --abandon`"
)


async def is_importing(cursor: Cursor, tables: Tables) -> bool:
    await cursor.execute(
        "SELECT 1 FROM pg_trigger WHERE tgrelid = %(ledger)s::regclass AND tgname = %(trigger)s",
        {"ledger": tables.ledger.as_string(cursor), "trigger": _TRIGGER},
    )
    return await cursor.fetchone() is not None


async def begin_importing(cursor: Cursor, tables: Tables) -> None:
    """Refuse inserts into the ledger without `allow_positions`, from the commit of this transaction on."""
    await cursor.execute(
        sql.SQL(
            """
            CREATE TRIGGER {trigger} BEFORE INSERT ON {ledger}
                FOR EACH STATEMENT WHEN (current_setting({setting}, true) IS DISTINCT FROM 'on')
                EXECUTE FUNCTION {refuse_change}({refusal})
            """
        ).format(
            trigger=sql.Identifier(_TRIGGER),
            ledger=tables.ledger,
            setting=sql.Literal(_SETTING),
            refuse_change=tables.refuse_change,
            refusal=sql.Literal(_REFUSAL),
        )
    )


async def allow_positions(cursor: Cursor) -> None:
    """Allow this transaction to insert into the ledger during an import."""
    await cursor.execute("SELECT set_config(%(setting)s, 'on', true)", {"setting": _SETTING})


async def end_importing(cursor: Cursor, tables: Tables) -> None:
    await cursor.execute(
        sql.SQL("DROP TRIGGER IF EXISTS {trigger} ON {ledger}").format(
            trigger=sql.Identifier(_TRIGGER), ledger=tables.ledger
        )
    )


async def delete_ledger(cursor: Cursor, tables: Tables) -> tuple[int, int, int]:
    """Delete every batch that has a position, and the ledger; batches in pending stay.

    Returns:
        Numbers of positions, batches and events deleted.
    """
    await cursor.execute("SELECT set_config('chancy_metrics.abandoning', 'on', true)")
    await cursor.execute(
        sql.SQL(
            """
            WITH taken AS (
                DELETE FROM {log} l
                USING {ledger} o
                WHERE l.day = o.day
                    AND l.producer = o.producer
                    AND l.sequence = o.sequence
                RETURNING l.events
            )
            SELECT (SELECT count(*) FROM {ledger}), count(*), coalesce(sum(events), 0)::bigint
            FROM taken
            """
        ).format(log=tables.log, ledger=tables.ledger)
    )
    row = await cursor.fetchone()
    assert row is not None
    for table in (tables.ledger, tables.producers, tables.summaries):
        await cursor.execute(sql.SQL("DELETE FROM {table}").format(table=table))
    await cursor.execute(sql.SQL("DELETE FROM {days} WHERE state = 'gone'").format(days=tables.days))
    await cursor.execute(sql.SQL("UPDATE {head} SET position = 0, chain = ''").format(head=tables.head))
    return row[0], row[1], row[2]
