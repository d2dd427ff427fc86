"""Settings of each of our own transactions, whatever a role or DSN has set: time-outs, formats, planner.

They are local to the transaction: a pooler gives each transaction another session, and settings of the session would
reach its next user. Not set are `synchronous_commit` and `work_mem`, which the user pays
for; `search_path`, by which Chancy finds its tables and we ours beside them; `row_security`, which is a guard; and
`default_transaction_read_only`, by which whole databases are frozen for a switch-over or before a disk is full.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from psycopg import sql

Isolation = Literal["READ COMMITTED", "REPEATABLE READ"]

_OURS = {
    # A limit made for requests would end every fold of many series, and a worker would retry for ever.
    "statement_timeout": "0",
    "client_encoding": "'UTF8'",
    # Formats of values as text: psycopg reads times of no other style.
    "datestyle": "'ISO'",
    "intervalstyle": "'postgres'",
    "timezone": "'UTC'",
    "bytea_output": "'hex'",
    "extra_float_digits": "1",
    "standard_conforming_strings": "on",
    # Compiling takes longer than any statement here, and would be chosen for the costs that `_INDEX_ONLY` adds.
    "jit": "off",
    "enable_partition_pruning": "on",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_bitmapscan": "on",
    "enable_seqscan": "on",
    "enable_nestloop": "on",
    "enable_hashjoin": "on",
    "enable_hashagg": "on",
    "enable_sort": "on",
}
_INDEX_ONLY = {"enable_seqscan": "off", "enable_bitmapscan": "off"}
#: First server version with transaction_timeout.
_TRANSACTION_TIMEOUT = 170_000


@lru_cache(maxsize=64)
def settings_for(
    server_version: int, isolation: Isolation, *, idle_timeout_ms: int, lock_timeout_ms: int, index_only: bool
) -> sql.SQL:
    """Return the statements that begin a transaction, for one message."""
    ours = _OURS | (_INDEX_ONLY if index_only else {})
    ours |= {"idle_in_transaction_session_timeout": str(idle_timeout_ms), "lock_timeout": str(lock_timeout_ms)}
    if server_version >= _TRANSACTION_TIMEOUT:
        ours["transaction_timeout"] = "0"
    statements = [f"SET TRANSACTION ISOLATION LEVEL {isolation}"]
    statements += [f"SET LOCAL {name} = {value}" for name, value in ours.items()]
    return sql.SQL("; ".join(statements))  # the constants above and two numbers
