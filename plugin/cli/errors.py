"""Turn the error that ends a command into one sentence: what failed, and what to do."""

from __future__ import annotations

import asyncio
import os
import re
from contextlib import suppress

import psycopg
from chancy import Chancy
from psycopg import errors, sql

from chancy_metrics.events.database import needs_schema
from chancy_metrics.events.error_kinds import in_words
from chancy_metrics.events.errors import MetricsLogError, SchemaMissing
from chancy_metrics.events.hot_standby import error_sentence as on_standby
from chancy_metrics.events.schema import tables_for
from chancy_metrics.events.silent_server import ServerSilent
from chancy_metrics.plugin.host.connection import own_connection
from chancy_metrics.plugin.host.redaction import without_password

#: If this is set in the environment, the traceback is printed too.
TRACEBACK = "CHANCY_METRICS_TRACEBACK"
#: Seconds that the question which privilege is missing may take.
_LOOK_S = 5
_TABLE = re.compile(r'for (?:table|relation|view|materialized view) "?(\w+)"?')
#: A question in libpq's messages; the sentence ends with its answer.
_QUESTION = re.compile(r" ?Is the server running (?:on that host|locally) and accepting [^?]*\?")
_PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE")

#: SQLSTATE, or its class, and what to do about it.
_NEXT = {
    "08": "check that the server runs and can be reached, and run the command again",
    "25P03": "the session waited too long within a transaction: run the command again",
    "25P04": "raise transaction_timeout for this role, and run the command again",
    "28": "check user and password in the app's DSN",
    "3D000": "check the database in the app's DSN, or create it and run `chancy misc migrate`",
    "40": "another transaction was in conflict: run the command again",
    "53100": "the server's disk is full: free some space there, and run the command again",
    "53200": "the server has no memory left: run the command again later",
    "53300": "the server has no connection left: run the command again, or raise max_connections",
    "53400": "raise the limit for this role, and run the command again",
    "55P03": "another session holds a lock that the command needs (see pg_locks): run it again",
    "57014": "if it was statement_timeout, raise it for this role, and run the command again",
    "57P": "the server is shutting down or starting up: run the command again",
}
#: Parts of a server's messages when it refuses a connection, which come without a SQLSTATE.
_REFUSED = {
    "password authentication failed": "28",
    "no password supplied": "28",
    "no pg_hba.conf entry": "28",
    "role ": "28",
    "database ": "3D000",
    "too many ": "53300",
    "remaining connection slots": "53300",
    "the database system is": "57P",
}


def sentence_of(error: BaseException, chancy: Chancy | None = None) -> str:
    """Return what *error* says, and what to do, on one line and without passwords.

    Args:
        chancy: The app, if it is loaded; its database is asked which privilege is missing.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    # Without the DSN: what `connect` raises says nothing of it, and a password may be a word of every sentence.
    return " ".join(without_password(_said(error, chancy)).split())


def _said(error: BaseException, chancy: Chancy | None) -> str:
    if isinstance(error, MetricsLogError):
        return str(error)
    if isinstance(error, psycopg.Error):
        return _of_the_database(error, chancy)
    if isinstance(error, OSError) and error.strerror:
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return f"{where}{error.strerror}"
    if isinstance(error, UnicodeEncodeError):  # bytes of the command line that are no UTF-8
        return f"{error.object[:100]!r} can't be written as UTF-8, the encoding of names in the database"
    if isinstance(error, MemoryError):
        return "this process has no memory left: run the command on a machine with more"
    text = without_password(in_words(error), "" if chancy is None else chancy.dsn)
    return f"unexpected {text}; {TRACEBACK}=1 shows where it came from"


def _of_the_database(error: psycopg.Error, chancy: Chancy | None) -> str:
    said = " ".join((error.diag.message_primary or str(error)).split())
    if isinstance(error, (errors.UndefinedTable, errors.UndefinedColumn, errors.UndefinedFunction)) and chancy:
        with suppress(psycopg.Error):
            try:
                with needs_schema(tables_for(chancy.prefix)):
                    raise error
            except SchemaMissing as missing:
                return str(missing)
    if isinstance(error, errors.ReadOnlySqlTransaction) or "conflict with recovery" in said:
        return on_standby(error)
    if isinstance(error, errors.InsufficientPrivilege):
        return f"{said}; {_lacking(said, chancy)}"
    if isinstance(error, ServerSilent):
        return f"{said}: {_NEXT['08']}"
    if error.sqlstate is None:
        return _unreachable(error, said)
    known = next(
        (_NEXT[code] for code in (error.sqlstate, error.sqlstate[:3], error.sqlstate[:2]) if code in _NEXT), ""
    )
    if known:
        return f"the database failed: {said}: {known}"
    if error.sqlstate in ("55000", "P0001", "CM001"):  # refused by a trigger of ours, which says what to do
        return f"{said} {error.diag.message_hint or ''}".strip()
    return f"the database refused it: {type(error).__name__} ({error.sqlstate}): {said}"


def _unreachable(error: psycopg.Error, said: str) -> str:
    """Say why a connection can't be made, or was lost."""
    if isinstance(error, psycopg.ProgrammingError):
        return f"the app's DSN can't be read: {said}"
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return f"the database refused it: {in_words(error)}"
    said = _QUESTION.sub("", said)
    _, fatal, reason = said.rpartition("FATAL: ")
    hint = next((_NEXT[code] for text, code in _REFUSED.items() if fatal and text in reason), _NEXT["08"])
    return f"the database can't be reached: {said}: {hint}"


def _lacking(said: str, chancy: Chancy | None) -> str:
    """Name the role, and the privileges that it lacks on the table in the message."""
    roles = "docs/roles.md has the GRANTs; commands that write or fold need the owner of the tables"
    table = _TABLE.search(said)
    if chancy is None:
        return roles
    try:
        role, has, parts = asyncio.run(asyncio.wait_for(_privileges(chancy, table[1] if table else ""), _LOOK_S))
    except Exception:  # the first error must be reported, not this one
        return roles
    if table is None:
        return f"the role is {role!r}; {roles}"
    held = [f"{one} of some columns" if one in parts else one for one in _PRIVILEGES if one in has + parts]
    lacks = ", ".join(one for one in _PRIVILEGES if one not in has + parts)
    return f"role {role!r} has {', '.join(held) or 'no privilege'} there, and not {lacks or 'its ownership'}; {roles}"


async def _privileges(chancy: Chancy, table: str) -> tuple[str, list[str], list[str]]:
    """Return this session's role, its privileges on all of *table*, and those on some columns of it only."""
    async with own_connection(chancy) as connection:
        cursor = await connection.execute(
            sql.SQL(
                """
                SELECT current_user::text,
                    coalesce(array_agg(p) FILTER (WHERE has_table_privilege(c.oid, p)), '{{}}'),
                    coalesce(array_agg(p) FILTER (WHERE
                        CASE WHEN p = 'DELETE' OR has_table_privilege(c.oid, p) THEN false
                            ELSE has_any_column_privilege(c.oid, p)
                        END
                    ), '{{}}')
                FROM unnest(%(privileges)s::text[]) AS p
                LEFT JOIN pg_class c
                    ON c.relname = %(table)s
                    AND pg_table_is_visible(c.oid)
                """
            ).format(),
            {"privileges": list(_PRIVILEGES), "table": table},
        )
        row = await cursor.fetchone()
    assert row is not None
    return row[0], row[1], row[2]
