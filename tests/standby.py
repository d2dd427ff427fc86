"""A hot standby of the run's server: it streams, answers, and takes no writes."""

from __future__ import annotations

from pathlib import Path

import anyio
import psycopg

from examples.embedded import Server

#: Seconds until what is committed must have arrived.
_ARRIVED_S = 20


class Standby(Server):
    """Follows *primary*, of which it begins as a base backup."""

    def __init__(self, primary: Server, binaries: Path | None = None, **settings: str) -> None:
        self.primary = primary
        super().__init__(binaries, prefix="standby-", **settings)

    def _make_data(self) -> list[str]:
        backup = ["pg_basebackup", "-D", str(self.data), "-h", str(self.primary.folder), "-U", "postgres"]
        return [*backup, "--write-recovery-conf", "--checkpoint=fast", "--no-sync"]

    async def arrived(self) -> None:
        """Wait until all that is committed on the primary is here; `TimeoutError` if it does not come."""
        with anyio.fail_after(_ARRIVED_S):
            async with await psycopg.AsyncConnection.connect(self.primary.dsn(), autocommit=True) as connection:
                # The server of the tests commits without waiting for its disk, and sends what is on it.
                await connection.execute("SET synchronous_commit = on")
                await connection.execute("SELECT pg_logical_emit_message(true, 'test', 'arrive')")
                cursor = await connection.execute("SELECT pg_current_wal_flush_lsn()::text")
                row = await cursor.fetchone()
            assert row is not None
            async with await psycopg.AsyncConnection.connect(self.dsn(), autocommit=True) as connection:
                query = "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn"
                while not await _answer(connection, query, row[0]):  # noqa: ASYNC110 # another process can't set an event
                    await anyio.sleep(0.01)


async def _answer(connection: psycopg.AsyncConnection[psycopg.rows.TupleRow], query: str, value: str) -> bool:
    cursor = await connection.execute(query, [value])
    row = await cursor.fetchone()
    return bool(row and row[0])
