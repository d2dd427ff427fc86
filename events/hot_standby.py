"""PostgreSQL's hot standbys: the time of their data, and what to do where they refuse or cancel a statement."""

from __future__ import annotations

import psycopg
from psycopg import errors, sql

#: SQL: the database's time; on a standby that lags, the time of the last commit it has replayed.
NOW = sql.SQL(
    """
    (CASE
        WHEN NOT pg_is_in_recovery() OR pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() THEN clock_timestamp()
        ELSE coalesce(pg_last_xact_replay_timestamp(), clock_timestamp())
    END)
    """
)
#: SQL: the time of the last commit that a standby has replayed; NULL on a primary.
REPLAYED_AT = sql.SQL("(CASE WHEN pg_is_in_recovery() THEN pg_last_xact_replay_timestamp() END)")


def error_sentence(error: Exception) -> str:
    """Return the text of *error* on one line, and what to do about a read-only session or a conflict with recovery."""
    said = " ".join(str(error).split())
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return (
            "this session takes no writes; it is one on a hot standby, or has default_transaction_read_only. "
            "Do this on the primary"
        )
    if isinstance(error, errors.SerializationFailure):
        return (
            f"{said}: on a hot standby a query has to end when it keeps changes from being replayed; try again, or "
            f"give queries more time by hot_standby_feedback or max_standby_streaming_delay"
        )
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn)):
        return (
            f"{said}: the metrics tables are missing, older than this code, or in no schema of this session's "
            f"search_path: run `chancy misc migrate`, or set the search_path that the workers have"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return f"{said}: this role lacks a GRANT; docs/roles.md has those of each role"
    return said


def database_sentence(error: psycopg.Error) -> str:
    """Say whether the database can't be reached or has refused a statement, and why, on one line."""
    said = error_sentence(error)
    return f"the database can't be reached: {said}" if error.sqlstate is None else f"the database refused it: {said}"
