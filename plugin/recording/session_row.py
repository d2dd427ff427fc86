"""Write a recording session's row: when it was last seen, what it holds in memory, how it ended."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from logging import Logger
from uuid import UUID, uuid4

from psycopg import errors, sql
from psycopg.types.json import Jsonb

from chancy_metrics.events.database import Connection, short_transaction
from chancy_metrics.events.schema import Tables
from chancy_metrics.events.storable_text import storable, storable_worker

#: Seconds between two writes of the row, which show that the session lives.
BEAT_S = 60
#: The same while something can't be appended, so that the row says what a kill costs; and after a failed write.
TROUBLED_BEAT_S = 5
#: How much of an error is kept.
_ERROR_LENGTH = 300
#: Milliseconds a write waits for a lock.
_LOCK_WAIT_MS = 100

#: What is in memory and not known to be in the log: "observations", "job_updates", "dropped" (observations that are
#: gone), "dropped_job_updates" -> how many.
Held = Counter[str]
_WORDS = {
    "observations": ("observation", "observations"),
    "job_updates": ("job update", "job updates"),
    "dropped": ("dropped observation", "dropped observations"),
    "dropped_job_updates": ("dropped job update", "dropped job updates"),
}


def listed(held: dict[str, int]) -> str:
    """Return "400 observations, 20 job updates"; "nothing" of nothing."""
    parts = [f"{held[kind]:,} {words[held[kind] != 1]}" for kind, words in _WORDS.items() if held.get(kind)]
    return ", ".join(parts) or "nothing"


class SessionRow:
    """The row of one recording session.

    A session is one worker's, or one block's, from its start to its end, and lists its producers; a worker id does not
    identify a process. A session ended uncleanly if it was not seen again without an end, or ended with something held.

    Attributes:
        id: The row's key.
        fold_error: Why this session can't fold, though it is scheduled to; "" if it can, or need not.
        refused: Whether this role may not write the row; then the session is judged by its last batches.
    """

    def __init__(
        self, worker_id: str, producers: Callable[[], list[UUID]], log: Logger, *, append_interval_s: float
    ) -> None:
        self.id: UUID = uuid4()
        self.refused = False
        self.fold_error = ""
        self._worker_id = worker_id
        self._producers = producers
        self._append_interval_s = append_interval_s
        self._log = log
        self._next_at = -math.inf
        self._written: Held = Counter()
        self._written_error = ""

    def is_due(self, held: Held) -> bool:
        """Whether the row is old, or differs from what is held now."""
        if self.refused:
            return time.monotonic() >= self._next_at
        if self.fold_error != self._written_error:
            return True
        return bool(held) != bool(self._written) or time.monotonic() >= self._next_at

    async def write(self, connection: Connection, tables: Tables, held: Held, *, ends: bool = False) -> bool:
        """Write the row: alive now and holding *held*, or ended with *held* lost.

        Insert it again if it is gone, as after a restore; a session that was taken for dead is alive again.

        Returns:
            False if this role may not.
        """
        self._next_at = time.monotonic() + TROUBLED_BEAT_S
        fold_error = self.fold_error
        try:
            async with short_transaction(connection, lock_timeout_ms=_LOCK_WAIT_MS) as cursor:
                await cursor.execute(
                    sql.SQL(
                        """
                        INSERT INTO {sessions} AS s (
                            session, worker, producers, append_interval, held, fold_error, ended_at
                        )
                        VALUES (
                            %(session)s, %(worker)s, %(producers)s, %(append_interval)s, %(held)s, %(fold_error)s,
                            CASE WHEN %(ends)s THEN clock_timestamp() END
                        )
                        ON CONFLICT (session) DO UPDATE
                        SET producers = excluded.producers,
                            seen_at = clock_timestamp(),
                            ended_at = excluded.ended_at,
                            held = excluded.held,
                            fold_error = excluded.fold_error
                        """
                    ).format(sessions=tables.sessions),
                    {
                        "session": self.id,
                        "worker": storable_worker(cursor, self._worker_id),
                        "producers": self._producers(),
                        "append_interval": self._append_interval_s,
                        "held": Jsonb(dict(held)) if held else None,
                        "fold_error": storable(cursor, fold_error)[:_ERROR_LENGTH] or None,
                        "ends": ends,
                    },
                )
        except (errors.InsufficientPrivilege, errors.UndefinedTable, errors.UndefinedColumn) as error:
            if not self.refused:
                self._log.warning(
                    f"worker {self._worker_id!r} can't write its row of {tables.sessions.as_string()}, so its end "
                    f"is taken from its last batch alone: {error}"
                )
            self.refused, self._next_at = True, time.monotonic() + BEAT_S
            return False
        self.refused, self._written, self._written_error = False, held, fold_error
        if not held:
            self._next_at = time.monotonic() + BEAT_S
        return True
