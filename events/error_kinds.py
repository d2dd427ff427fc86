"""Classify errors: the same data fails again, the error may pass, or the step was too large."""

from __future__ import annotations

import psycopg

from chancy_metrics.events.silent_server import ServerSilent

#: SQLSTATE classes of errors that come again whenever the same rows are stored.
_OF_THE_DATA = {
    "21": "cardinality violation",
    "22": "data exception: encodings, numeric overflow, a sequence at its end",
    "23": "integrity constraint violation",
    "44": "WITH CHECK OPTION violation",
    "54": "program limit exceeded: an index row too large",
    "P0": "raised by a trigger",
}
#: SQLSTATEs of a statement or transaction that took too long or too many resources.
_TOO_MUCH = {
    "57014": "cancelled: statement_timeout, or a pooler's or an operator's limit",
    "25P03": "idle_in_transaction_session_timeout",
    "25P04": "transaction_timeout",
    "53000": "insufficient resources",
    "53200": "out of memory",
    "53400": "configuration limit exceeded, such as temp_file_limit",
}
#: Classes of errors of the server, the session or the tables: connection, transaction state, authorisation, rollback,
#: access rules, resources, prerequisites, intervention, system. A class in neither set may be either kind.
_OF_THE_MOMENT = {"08", "25", "28", "40", "42", "53", "55", "57", "58"}
#: Python's own errors of the same kind; not OSError, MemoryError and RuntimeError (no thread, a closed loop).
_PYTHONS = (ArithmeticError, LookupError, TypeError, ValueError, RecursionError)


def is_deterministic(error: BaseException) -> bool:
    """Whether *error* comes again each time the same batches are folded, so that one of them must be left out.

    Everything else may pass: connections, locks, deadlocks, time-outs, memory, disk, a read-only server, cancellation,
    missing tables or permissions. Unknown errors count as transient: a fold that stalls is reported, while a batch left
    out by mistake might go unnoticed.
    """
    if isinstance(error, psycopg.Error):
        if error.sqlstate is not None:
            return error.sqlstate[:2] in _OF_THE_DATA
        return isinstance(error, psycopg.DataError)  # psycopg's own: a value no parameter can hold
    return isinstance(error, _PYTHONS)


def may_be_batch_error(error: BaseException) -> bool:
    """Whether a single batch may cause *error*: it is deterministic, or of unknown kind, such as internal errors."""
    if isinstance(error, psycopg.Error) and error.sqlstate is not None:
        return is_deterministic(error) or not (is_transient(error) or is_too_much(error))
    return is_deterministic(error)


def is_too_much(error: BaseException) -> bool:
    """Whether a step took too long or too much memory, so that a smaller one may succeed."""
    if isinstance(error, psycopg.Error) and (error.sqlstate in _TOO_MUCH or isinstance(error, ServerSilent)):
        return True
    return is_out_of_memory(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, here or in the database."""
    if isinstance(error, psycopg.Error):
        # libpq's own have no SQLSTATE: "out of memory for query result", "cannot allocate memory for input buffer".
        return error.sqlstate == "53200" or (error.sqlstate is None and "memory" in str(error))
    return isinstance(error, MemoryError)


def is_transient(error: psycopg.Error) -> bool:
    """Whether *error* can't be blamed on a batch for certain, so that no batch may be discarded for it."""
    return (error.sqlstate is None or error.sqlstate[:2] in _OF_THE_MOMENT) and not is_too_much(error)


def in_words(error: BaseException) -> str:
    """Return name and text of *error* on one line; its name alone if it has no text."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # an error class of the user's, whose __str__ fails
        text = "its text can't be read"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
