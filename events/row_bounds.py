"""Bounds of every column of a log row, for the database's checks and for the readers that trust no row."""

from __future__ import annotations

from datetime import date
from typing import LiteralString

from chancy_metrics.events.facts import FIRST_US

#: Days of a log, both inclusive.
FIRST_DAY, LAST_DAY = date(1970, 1, 1), date(2199, 12, 31)
#: End of the last day, exclusive, microseconds since 1970: the bound of times that the database's clock gives.
END_US = 7_258_118_400_000_000
#: No two datetimes are further apart, microseconds; sums of a few of these stay within 64 bits.
FAR_US = 2**59
#: Largest sequence of a producer: exact in JSON, and out of reach for a thousand batches a second.
MAX_SEQUENCE = 2**53 - 1
MAX_EVENTS = 2**31 - 1
#: Recorders stay far below; readers hold a whole batch in memory.
MAX_PAYLOAD_BYTES = 64 << 20
#: Largest number of a codec.
MAX_CODEC = 99
HASH_BYTES = 32
#: Producers of a session, characters of the names and texts in its row, and seconds an interval may have.
MAX_SESSION_PRODUCERS = 10_000
MAX_WORKER_CHARS = 1_024
MAX_TEXT_CHARS = 10_000
MAX_INTERVAL_S = 3_155_760_000

#: SQL: whether a row's batch id is in bounds. Every table of batches checks it, and every reader filters by it.
ID_IN_BOUNDS: LiteralString = f"day BETWEEN '{FIRST_DAY}' AND '{LAST_DAY}' AND sequence BETWEEN 1 AND {MAX_SEQUENCE}"
#: SQL: the same of the other columns of a batch.
BATCH_IN_BOUNDS: LiteralString = (
    f"char_length(worker) <= {MAX_WORKER_CHARS} AND first_us BETWEEN {FIRST_US} AND {FAR_US}"
    f" AND last_us BETWEEN first_us AND {FAR_US} AND events >= 0 AND codec BETWEEN 1 AND {MAX_CODEC}"
    f" AND octet_length(payload) <= {MAX_PAYLOAD_BYTES} AND octet_length(sha256) <= {HASH_BYTES}"
)
#: SQL: the same of a session's row. Bounds on both sides exclude NaN and infinity; zones exclude settings.
SESSION_IN_BOUNDS: LiteralString = (
    f"char_length(worker) <= {MAX_WORKER_CHARS} AND cardinality(producers) <= {MAX_SESSION_PRODUCERS}"
    f" AND append_interval BETWEEN 0 AND {MAX_INTERVAL_S}"
    f" AND seen_at >= '{FIRST_DAY} 00:00:00+00' AND seen_at <= '{LAST_DAY} 23:59:59+00'"
    f" AND ended_at >= '{FIRST_DAY} 00:00:00+00' AND ended_at <= '{LAST_DAY} 23:59:59+00'"
    f" AND octet_length(held::text) <= {MAX_TEXT_CHARS} AND char_length(fold_error) <= {MAX_TEXT_CHARS}"
)
