"""Bounds of each column of a row of the log or a rollup, for the database's checks and readers that trust no row."""

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

#: SQL: whether a row's batch id is in bounds; every reader filters by it.
ID_IN_BOUNDS: LiteralString = f"day BETWEEN '{FIRST_DAY}' AND '{LAST_DAY}' AND sequence BETWEEN 1 AND {MAX_SEQUENCE}"
#: SQL: whether a rollup row's numbers are in bounds; readers leave out the others, which no fold can have written.
POINT_IN_BOUNDS: LiteralString = f"""
    count BETWEEN 1 AND {2**53}
    AND sum > '-Infinity' AND sum < 'Infinity'
    AND min > '-Infinity' AND max < 'Infinity' AND min <= max
    AND (last IS NULL OR (last > '-Infinity' AND last < 'Infinity'))
    AND last_us BETWEEN {FIRST_US} AND {FAR_US}
    AND bucket BETWEEN {FIRST_US // 1_000_000 - 86_400} AND {FAR_US // 1_000_000}
    AND coalesce(last_position, 0) BETWEEN 0 AND {2**62}
"""
#: SQL: the bounds of a batch's columns, as domains: name without the prefix -> (type, check). A session keeps the check
#: of a domain, while it parses that of a table again for each INSERT, which took a sixth of an append.
DOMAINS: dict[str, tuple[LiteralString, LiteralString]] = {
    "metrics_batch_day": ("date", f"VALUE BETWEEN '{FIRST_DAY}' AND '{LAST_DAY}'"),
    "metrics_batch_sequence": ("bigint", f"VALUE BETWEEN 1 AND {MAX_SEQUENCE}"),
    "metrics_batch_worker": ("text", f"char_length(VALUE) <= {MAX_WORKER_CHARS}"),
    "metrics_batch_us": ("bigint", f"VALUE BETWEEN {FIRST_US} AND {FAR_US}"),
    "metrics_batch_events": ("integer", "VALUE >= 0"),
    "metrics_batch_codec": ("smallint", f"VALUE BETWEEN 1 AND {MAX_CODEC}"),
    "metrics_batch_payload": ("bytea", f"octet_length(VALUE) <= {MAX_PAYLOAD_BYTES}"),
    "metrics_batch_sha256": ("bytea", f"octet_length(VALUE) <= {HASH_BYTES}"),
}
#: SQL: whether a session's row is in bounds. Bounds on both sides exclude NaN and infinity; zones exclude settings.
SESSION_IN_BOUNDS: LiteralString = (
    f"char_length(worker) <= {MAX_WORKER_CHARS} AND cardinality(producers) <= {MAX_SESSION_PRODUCERS}"
    f" AND append_interval BETWEEN 0 AND {MAX_INTERVAL_S}"
    f" AND seen_at >= '{FIRST_DAY} 00:00:00+00' AND seen_at <= '{LAST_DAY} 23:59:59+00'"
    f" AND ended_at >= '{FIRST_DAY} 00:00:00+00' AND ended_at <= '{LAST_DAY} 23:59:59+00'"
    f" AND octet_length(held::text) <= {MAX_TEXT_CHARS} AND char_length(fold_error) <= {MAX_TEXT_CHARS}"
)
